"""Names of files and classes as text: any bytes can be in one, and a terminal obeys some.

Python holds a byte of a file name that is not UTF-8 as a lone surrogate ("caf\\udce9"), which no
file or terminal can take. Here it becomes the four characters \\xe9. Names are changed only where
they become text; files are opened by their own names.
"""

import codecs
import unicodedata

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


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" or ord(character) in _BIDI | _LINES
