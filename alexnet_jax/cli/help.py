"""The text of --help: tyro's, with the options that people use most in a section of their own."""

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence

WIDEST = 120  # columns; from 130 on tyro puts sections side by side
TITLE = "most used options"

_ANSI = re.compile(r"\x1b\[[\d;]*m")
# Of a section's frame, or where the encoding has no such characters, of its indentation.
_SECTION = re.compile(r"(?:╭─)? (?:\S+ )?(?:options|arguments) ")
_ENTRY = re.compile(r"(?:│ |  )(?:-\w, )?(--?\w[\w.-]*)")
_END = re.compile(r"╰|\s*$")


class _Buffer(io.TextIOWrapper):
    """Takes what is printed as standard output would: in its encoding, and in color or not."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding=getattr(sys.stdout, "encoding", None) or "utf-8")
        self._color = sys.stdout.isatty()

    def isatty(self) -> bool:
        return self._color

    def text(self) -> str:
        self.seek(0)
        return self.read()


@contextlib.contextmanager
def most_used_first(names: Sequence[str]) -> Iterator[None]:
    """Print the help that is printed within with these options in its first section."""
    if not names:
        yield
        return
    buffer, columns = _Buffer(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(min(shutil.get_terminal_size().columns, WIDEST))
    try:
        with contextlib.redirect_stdout(buffer):
            yield
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
        print(put_first(buffer.text(), names), end="")


def put_first(text: str, names: Sequence[str]) -> str:
    """Return tyro's help with the entries of some options before all others, in a section.

    Args:
        text: the help, with all sections below each other.
        names: options in the order in which they are to be shown, `--data.path`.
    """
    lines = text.splitlines(keepends=True)
    starts = [n for n, line in enumerate(lines) if _SECTION.match(_plain(line))]
    entries: dict[str, list[str]] = {}
    rest: list[str] = []
    entry = ""
    for number, line in enumerate(lines):
        plain = _plain(line)
        if number in starts or _END.match(plain):
            entry = ""
        elif starts and number > starts[0] and (found := _ENTRY.match(plain)):
            entry = found[1] if found[1] in names else ""
        (entries.setdefault(entry, []) if entry else rest).append(line)
    if not entries:
        return text
    first = starts[0]  # nothing was taken out before it
    end = next(n for n in range(first + 1, len(rest)) if _END.match(_plain(rest[n])))
    body = next(n for n in range(first + 1, end) if _ENTRY.match(_plain(rest[n])))
    added = [line for name in names for line in entries.get(name, ())]
    title = _retitled(rest[first])
    section = [title, *rest[first + 1 : body], *added, rest[end]]
    return "".join([*rest[:first], *section, *rest[first:]])


def _retitled(line: str) -> str:
    """Return the first line of the section `options` with another title, as wide as before."""
    longer, code = len(TITLE) - len("options"), f"(?:{_ANSI.pattern})*"
    return re.sub(rf"options({code} {code})[─ ]{{{longer}}}", rf"{TITLE}\1", line, count=1)


def _plain(line: str) -> str:
    return _ANSI.sub("", line)
