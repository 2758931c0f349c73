"""--help: what people use most comes first, and each option is there once, as tyro describes it."""

import os
import re
import subprocess
import sys

import pytest

from alexnet_jax.cli.arguments import options
from alexnet_jax.cli.help import put_first
from alexnet_jax.main import MOST_USED, Command, main

ENTRY = re.compile(r"^(?:│ | {2})(?:-h, )?(--[a-z][\w.-]*)", re.MULTILINE)


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert not stop.value.code
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


@pytest.mark.parametrize("columns", ["50", "80", "120", "300"])
def test_each_option_is_shown_once_and_the_most_used_first(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    text = help_of(capsys)
    shown = ENTRY.findall(text)
    assert tuple(shown[: len(MOST_USED)]) == MOST_USED
    assert sorted(shown) == sorted(["--help", *options(Command)])
    assert os.environ["COLUMNS"] == columns
    assert max(len(line) for line in text.splitlines() if line.startswith("  ")) <= int(columns)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_stream_of_any_encoding(encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    ended = subprocess.run(
        [sys.executable, "-m", "alexnet_jax.main", "--help"],
        env=environment,
        capture_output=True,
        check=True,
    )
    text = ended.stdout.decode(encoding)
    shown = ENTRY.findall(text)
    assert tuple(shown[: len(MOST_USED)]) == MOST_USED
    assert sorted(shown) == sorted(["--help", *options(Command)])
    titles = re.findall(r"^(?:╭─)? ((?:\w+ )*options) ", text, re.MULTILINE)
    assert titles[:2] == ["most used options", "options"]
    assert {"data options", "model options", "optimizer options"} < {*titles}
    frame = [line for line in text.splitlines() if line.startswith(("╭", "│", "╰"))]
    assert {*map(len, frame)} == ({80} if encoding == "utf-8" else set())


def framed(title, *lines, width=40):
    """Return a section as tyro draws it on a terminal."""
    dim, plain = "\x1b[2m", "\x1b[0m"
    top = f"{dim}╭─{plain} {title} {dim}{'─' * (width - 5 - len(title))}╮{plain}"
    body = [f"{dim}│{plain} {line:{width - 4}} {dim}│{plain}" for line in lines]
    return "\n".join([top, *body, f"{dim}╰{'─' * (width - 2)}╯{plain}", ""])


COLORED = framed("options", "-h, --help", "      text") + framed(
    "data options",
    *("what --data.b is for", "─" * 36),
    *("--data.a", "      text of a", "--data.b", "      text of b"),
)


def test_entries_are_moved_whole_also_in_color():
    lines = put_first(COLORED, ["--data.b"]).splitlines()
    assert sorted(lines[4:] + lines[1:3]) == sorted(COLORED.splitlines())
    plain = [re.sub(r"\x1b\[\d+m", "", line) for line in lines]
    assert plain[0].startswith("╭─ most used options ──")
    assert len({*map(len, plain)}) == 1
    assert [line.strip("│ ") for line in plain[1:3]] == ["--data.b", "text of b"]


def test_a_help_without_the_options_stays_as_it_is():
    assert put_first(COLORED, ["--data.c"]) == COLORED
    assert put_first("usage\n", ["--data.c"]) == "usage\n"
