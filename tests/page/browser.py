"""A page in headless Chromium, driven over the DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-port=0", "--hide-scrollbars"),
)
SECONDS = 30  # that Chromium may take to answer


def find_chromium() -> str:
    """Return the program; the test fails, and says what to install, where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("chromium is missing; `apt-get install chromium` installs it.", pytrace=False)
    return program


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
    """Start Chromium with an empty profile; end it, and remove the profile, afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [find_chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        environment = {**os.environ, "HOME": profile}
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        try:
            port = _port(Path(profile) / "DevToolsActivePort", process)
            # The tools of a browser on this machine, whatever proxy the environment names.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port}/json", timeout=SECONDS) as answer:
                pages = json.load(answer)
            address = next(p["webSocketDebuggerUrl"] for p in pages if p["type"] == "page")
            with connect(address, max_size=None, proxy=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait(SECONDS)


def _port(path: Path, process: subprocess.Popen) -> int:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(path.read_text().splitlines()[0])
        time.sleep(0.05)
    raise RuntimeError("Chromium did not start.")


class Browser:
    """One page of Chromium.

    Attributes:
        problems: what the console and the network reported since the page was opened.
    """

    def __init__(self, connection: ClientConnection):
        self._connection, self._numbers = connection, itertools.count(1)
        self._loaded = False
        self.problems: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to one command of the protocol."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(SECONDS))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] != "verbose":
            self.problems.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(f"console.{params['type']}: {params['args']}")

    def open(self, path: Path, width: int, dark: bool = False, height: int = 900) -> None:
        """Open a file in a window of this width, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded, self.problems, self.requests = False, [], []
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not self._loaded:
            self._note(json.loads(self._connection.recv(SECONDS)))

    def evaluate(self, expression: str) -> Any:
        """Return the value of JavaScript, which JSON can hold."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, clicks: int = 0) -> None:
        """Move, press or release the mouse: kind "mouseMoved", "mousePressed", ..."""
        button = {"button": "left", "buttons": int(kind != "mouseReleased"), "clickCount": clicks}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **(button if clicks else {}))

    def drag(self, x0: float, x1: float, y: float) -> None:
        """Press at x0, move to x1 and release."""
        self.mouse("mousePressed", x0, y, 1)
        held = {"button": "left", "buttons": 1}
        for x in ((x0 + x1) / 2, x1):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **held)
        self.mouse("mouseReleased", x1, y, 1)

    def double_click(self, x: float, y: float) -> None:
        """Click twice."""
        for clicks in (1, 2):
            self.mouse("mousePressed", x, y, clicks)
            self.mouse("mouseReleased", x, y, clicks)

    def key(self, key: str) -> None:
        """Press and release a key: "ArrowLeft", "+"."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))
