"""A server on this machine that sends a file, whole or in any wrong way."""

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclasses.dataclass
class Server:
    """What the server sends, and what it was asked for."""

    content: bytes
    url: str = ""
    ranges: bool = True  # whether it knows them
    cut_after: list[int] = dataclasses.field(default_factory=list)  # bytes, of each next answer
    announced: int | None = 0  # Content-Length, 0: the true one, None: not said
    status: int = 0  # instead of the file
    wrong_range: bool = False  # sends another part than it is asked for
    seconds: float = 0  # before each answer
    redirect: str = ""
    asked: list[str] = dataclasses.field(default_factory=list)  # the ranges, "" for all


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # so that a connection ends with its answer
    plan: Server

    def do_GET(self):
        plan = self.plan
        asked = self.headers.get("Range", "")
        plan.asked.append(asked)
        time.sleep(plan.seconds)
        if plan.redirect and self.path != "/moved":
            self.send_response(302)
            self.send_header("Location", plan.redirect)
            self.end_headers()
            return
        if plan.status:
            self.send_error(plan.status)
            return
        size = len(plan.content)
        start = int(re.findall(r"\d+", asked)[0]) if asked and plan.ranges else 0
        if start and start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        body = plan.content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if plan.wrong_range else start
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        if plan.announced is not None:
            self.send_header("Content-Length", str(plan.announced or len(body)))
        self.end_headers()
        if plan.cut_after:
            body = body[: plan.cut_after.pop(0)]
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format, *args):
        del format, args  # nothing is logged


@contextlib.contextmanager
def serving(content: bytes, **how) -> Iterator[Server]:
    """Serve `content` at `url` of what this yields, which can be changed meanwhile."""
    plan = Server(content, **how)
    handler = type("Handler", (_Handler,), {"plan": plan})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        plan.url = f"http://127.0.0.1:{server.server_port}/weights.bin"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield plan
        finally:
            server.shutdown()
            thread.join()
