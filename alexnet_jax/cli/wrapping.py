"""Long lines on a terminal: broken between words, and not within a path, a command or an option.

Into a file or a pipe a message goes as one line, which `grep` finds whole.
"""

import contextlib
import io
import os
import re
import sys
import textwrap
from collections.abc import Sequence

NARROWEST = 20  # columns; a terminal that says it has fewer does not know
MOST_WORDS = 8  # in a path with spaces

_SPACE = "\ue000"  # in place of a space at which a line is not broken
_OPTION = r"(?<![\w-])--?[a-z][\w.-]*(?: [^\s-]\S*)?"  # and its first value
_UNBROKEN = re.compile(rf"(?:python3? -m|pip install|git clone) \S+(?: {_OPTION})*|{_OPTION}")
_COLUMNS = re.compile(r"\S {3,}(?=\S)")


class WrappingText(io.TextIOWrapper):
    """A standard stream that wraps what is printed if it is a terminal."""

    _at_start = True  # of a line

    def write(self, text: str, /) -> int:
        """Write text; lines that begin and end in it are wrapped."""
        width = terminal_width(self.fileno())
        if width and self._at_start and not {*text} & {*"\r\x1b"}:
            super().write("\n".join(wrap(line, width) for line in text.split("\n")))
        else:
            super().write(text)
        if text:
            self._at_start = text[-1] in "\r\n"
        return len(text)


def terminal_width(number: int) -> int | None:
    """Return the columns of the terminal that a file descriptor writes to; None if it is none."""
    try:
        if not os.isatty(number):
            return None
        given = os.environ.get("COLUMNS", "")
        columns = int(given) if given.isdecimal() else 0
        columns = columns or os.get_terminal_size(number).columns
    except OSError:
        return None
    return columns if columns >= NARROWEST else None


def wrap(line: str, width: int) -> str:
    """Return a line as several of at most `width` columns, where words allow that.

    Rows of tables and JSON stay as they are.
    """
    if len(line) <= width or line.startswith(("{", "[")) or len(_COLUMNS.findall(line)) > 1:
        return line
    for argument in sys.argv[1:]:
        if " " in argument:
            line = line.replace(argument, argument.replace(" ", _SPACE))
    line = _with_whole_paths(line)
    line = _UNBROKEN.sub(lambda found: found[0].replace(" ", _SPACE), line)
    indent = line[: len(line) - len(line.lstrip(" "))]
    lines = textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(_SPACE, " ")


def _with_whole_paths(line: str) -> str:
    """Return a line in which the spaces of paths that exist do not break it."""
    words, kept = line.split(" "), []
    while words:
        length = _words_of_path(words) if "/" in words[0] else 1
        kept.append(_SPACE.join(words[:length]))
        del words[:length]
    return " ".join(kept)


def _words_of_path(words: Sequence[str]) -> int:
    """Return how many words at the start are the longest path that exists, at least 1."""
    for length in range(min(len(words), MOST_WORDS), 1, -1):
        path = " ".join(words[:length]).strip("(),;:.")
        with contextlib.suppress(ValueError):  # a null character
            if os.path.lexists(path):
                return length
    return 1
