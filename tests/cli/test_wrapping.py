"""What a command prints fits the terminal: broken between words, and in a pipe not at all."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

from alexnet_jax.cli.wrapping import wrap

WORDS = "data.crop 300: must be at most data.image_size=256, which is the side of all; try 224."


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_words_stay_whole(width):
    lines = wrap(WORDS, width).split("\n")
    assert " ".join(lines) == WORDS
    assert max(map(len, lines)) <= width
    assert len(lines) == 1 or len(lines) >= len(WORDS) // width


@pytest.mark.parametrize(
    "whole",
    [
        "python -m alexnet_jax.describe --preset caffenet --save network.png",
        "--schedule.epochs 48",
        "pip install '.[cuda]'",
        "/a/very/long/path/without/any/space/that/no/terminal/could/hold/in/one/of/its/lines/x.png",
        "runs/well-known-name.png",
    ],
)
def test_commands_options_and_paths_are_not_broken(whole):
    for before in range(40):
        lines = wrap(f"{'word ' * before}and {whole} as well, and so on and on and on", 70)
        assert whole in lines


def test_a_path_with_spaces_is_not_broken(tmp_path, monkeypatch):
    path = tmp_path / "my best photos" / "a cat.png"
    path.parent.mkdir()
    path.touch()
    for before in range(10):
        assert str(path) in wrap(f"{'word ' * before}{path}: it is empty; replace the file.", 90)
    missing = "/no/such thing as/this one"
    monkeypatch.setattr(sys, "argv", ["main", "--data.path", missing])
    for before in range(10):
        assert missing in wrap(f"{'word ' * before}{missing}: does not exist; correct it.", 60)


@pytest.mark.parametrize(
    "line",
    [
        '{"file": "a.png", "classes": ["one", "two"], "probabilities": [0.5, 0.5]}',
        "conv1    96 x 55 x 55     34,944    105,415,200    96 maps in two towers of 48",
    ],
)
def test_tables_and_json_stay_as_they_are(line):
    assert wrap(line, 40) == line


def test_words_with_hyphens_are_no_options():
    assert wrap("the shorter-side of an image", 20) == "the shorter-side of\nan image"
    assert wrap("the shorter-side of", 17) == "the shorter-side\nof"


def test_lines_that_continue_are_indented_as_they_begin():
    assert wrap("  one two three four", 12) == "  one two\n  three four"


COMMAND = """
import dataclasses, sys
from alexnet_jax.cli import streams
from alexnet_jax.cli.errors import run_command

@dataclasses.dataclass
class Nothing:
    pass

def run():
    print("one two three four five six seven eight nine ten eleven")
    print("\\r 10% of a bar that goes on and on and on and on and on", end="", file=sys.stderr)
    print("\\r", end="", file=sys.stderr)
    raise ValueError("a sentence that is longer than the terminal is wide, and no shorter.")

streams.open_closed_streams()
sys.exit(run_command(run, Nothing, ""))
"""


def on_terminal(columns, **redirected):
    """Return what the command prints on a terminal of some columns, and through the pipes."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    streams: dict[str, Any] = {"stdin": end, "stdout": end, "stderr": end} | redirected
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], env=environment, text=True, **streams
    ) as process:
        os.close(end)
        piped = "".join(part or "" for part in process.communicate(timeout=60))
    printed = b""
    try:
        while part := os.read(terminal, 4096):
            printed += part
    except OSError:  # Linux, where nobody has the other end any more
        pass
    os.close(terminal)
    return printed.decode().replace("\r\n", "\n"), piped


def test_a_terminal_gets_lines_of_its_width():
    printed, _ = on_terminal(40)
    assert "one two three four five six seven eight\nnine ten eleven\n" in printed
    assert "\r 10% of a bar that goes on and on and on and on and on\r" in printed
    assert "alexnet_jax: a sentence that is longer\nthan the terminal is wide, and no\n" in printed


def test_a_pipe_gets_one_line():
    printed, piped = on_terminal(40, stderr=subprocess.PIPE)
    assert piped.endswith("a sentence that is longer than the terminal is wide, and no shorter.\n")
    assert "five six seven eight\nnine ten eleven\n" in printed
    printed, piped = on_terminal(40, stdout=subprocess.PIPE)
    assert piped == "one two three four five six seven eight nine ten eleven\n"
    assert "a sentence that is longer\nthan the" in printed
