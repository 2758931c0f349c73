"""Names of files and classes as text: any bytes can be in one, and a terminal obeys some.

Python holds a byte of a file name that is not UTF-8 as a lone surrogate ("caf\\udce9"), which no
file or terminal can take. Here it becomes the four characters \\xe9. Names are changed only where
they become text; files are opened by their own names.
"""

import codecs
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from alexnet_jax.config import invalid

ESCAPED = "alexnet_jax.escaped"  # for `errors=`: what the encoding lacks is written as \xe9, \u7fd8
# Written from right to left by these, "gpj.exe" reads "exe.jpg".
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_LINES = {0x2028, 0x2029}


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_escaped, text)), error.end


codecs.register_error(ESCAPED, _escape)


def _escaped(character: str) -> str:
    """Return a character as Python writes it, a lone surrogate as the byte that it holds."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def as_utf8(name: object) -> str:
    """Return a name that every file and JSON reader takes: bytes that are not UTF-8 as \\xe9."""
    return str(name).encode(errors=ESCAPED).decode()


def printable(name: object, keep: str = "") -> str:
    """Return a name as text for a terminal or a picture, on one line.

    Besides `as_utf8`, control characters (the escape sequences of terminals begin with one),
    newlines and marks that reverse the direction of text become \\x1b, \\n and \\u202e.

    Args:
        name: a path, a class name, or a sentence with some.
        keep: control characters to leave, such as the newlines of a table.
    """
    return "".join(
        _escaped(character) if _is_control(character) and character not in keep else character
        for character in as_utf8(name)
    )


def as_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that every reader takes: names in it are `as_utf8`.

    Python's own writes a lone surrogate as \\udce9, which is no text and which some refuse. That
    gives a file its name back, and so is for what this package reads again.
    """
    text = json.dumps(value, indent=indent)
    # Escaped backslashes and whole pairs of surrogates (an emoji) are passed over.
    parts = r"\\\\|\\ud[89ab]..\\ud[c-f]..|\\udc([89a-f][\da-f])"
    return re.sub(parts, lambda part: rf"\\x{part[1]}" if part[1] else part[0], text)


def check_utf8(name: str, path: Path) -> None:
    """Check a path that a library of other languages opens, which takes UTF-8 alone.

    Args:
        name: the field or argument that has the path.
        path: of a file or folder; relative paths are joined to the working directory.

    Raises:
        ValueError: bytes in the path are not UTF-8.
    """
    whole = str(Path(path).absolute())
    if as_utf8(whole) != whole:
        rule = f"must be UTF-8 with all folders above it, and {as_utf8(whole)} is not"
        raise invalid(
            name, as_utf8(path), rule, "rename what has the escaped bytes, or use another"
        )


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" or ord(character) in _BIDI | _LINES
