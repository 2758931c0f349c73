"""The table of classes in the development kit's meta.mat, a MATLAB file of version 5.

SciPy's reader recurses into cells without limit, which a file of a megabyte turns into a stack
overflow, and unpacks whatever it finds. This one reads the one table that is needed. The format:
"MAT-File Format", MathWorks, chapter 1, which gives the names and numbers of types.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

HEADER = 128  # bytes of text before the first element
TABLE = "synsets"
MAX_UNPACKED = 2**26  # bytes; the published table has a few million
MAX_SIDES = 32

COMPRESSED, MATRIX = 15, 14  # types of elements; the others are of numbers and text
STRUCT, CHAR, NUMBERS = 2, 4, range(6, 16)  # classes of matrices
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


class Synset(NamedTuple):
    """A row of the table."""

    number: int  # the kit's, from 1
    wnid: str  # such as n01440764
    words: str
    images: int  # for training


class _Element(NamedTuple):
    type: int
    data: memoryview


def read_synsets(content: bytes) -> list[Synset]:
    """Return the classes, without their hypernyms.

    Raises:
        ValueError: the file is damaged, or has no such table.
    """
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:HEADER]))
    if order is None:
        raise ValueError("its meta.mat is not a MATLAB file of version 5")
    remaining = MAX_UNPACKED
    for element in _elements(memoryview(content)[HEADER:], order):
        if element.type == COMPRESSED:
            unpacked = zlib.decompressobj().decompress(element.data, remaining)
            remaining -= len(unpacked)
            if remaining <= 0:
                raise ValueError(f"its meta.mat has more than {MAX_UNPACKED:,} bytes when unpacked")
            element = next(_elements(memoryview(unpacked), order), _Element(0, memoryview(b"")))
        if element.type == MATRIX and (table := _table(element.data, order)) is not None:
            return table
    raise ValueError(f"its meta.mat has no table of {TABLE}")


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Yield the elements in a row; ValueError if one is incomplete."""
    position = 0
    while position + 8 <= len(data):
        type, size = struct.unpack_from(f"{order}II", data, position)
        if type >> 16:  # up to four bytes of data, in the tag itself
            start, type, size, end = position + 4, type & 0xFFFF, type >> 16, position + 8
            whole = size <= 4
        else:
            start = position + 8
            end = start + (size if type == COMPRESSED else -(-size // 8) * 8)
            whole = start + size <= len(data)
        if not whole:
            raise ValueError("its meta.mat is truncated or damaged")
        yield _Element(type, data[start : start + size])
        position = end


def _table(matrix: memoryview, order: str) -> list[Synset] | None:
    """Return the rows of a matrix of structures; None if it is another variable."""
    elements = _elements(matrix, order)
    kind, sides, name = _start(elements, order)
    if name != TABLE:
        return None
    if kind != STRUCT:
        raise ValueError(f"{TABLE} in its meta.mat is not a table")
    (width,) = _integers(next(elements, None), order)
    names = bytes(_data(next(elements, None)))
    if not 0 < width <= 64 or len(names) % width:
        raise ValueError(f"{TABLE} in its meta.mat has no names of columns")
    columns = [
        names[start : start + width].partition(b"\0")[0].decode("latin1")
        for start in range(0, len(names), width)
    ]
    rows = []
    for _ in range(math.prod(sides)):
        row = {}
        for column in columns:
            row[column] = _data(next(elements, None))  # incomplete tables end here
        if _number(row, "num_children", order) == 0:
            rows.append(
                Synset(
                    _number(row, "ILSVRC2012_ID", order),
                    _text(row, "WNID", order),
                    _text(row, "words", order),
                    _number(row, "num_train_images", order),
                )
            )
    return rows


def _start(elements: Iterator[_Element], order: str) -> tuple[int, list[int], str]:
    """Return class, sides and name of a matrix, which are its first elements."""
    flags, *_ = _integers(next(elements, None), order)
    sides = _integers(next(elements, None), order)
    if len(sides) > MAX_SIDES or any(side < 0 for side in sides):
        raise ValueError("its meta.mat has a matrix of impossible size")
    return flags & 0xFF, sides, bytes(_data(next(elements, None)))[:64].decode("latin1")


def _data(element: _Element | None) -> memoryview:
    if element is None:
        raise ValueError("its meta.mat is truncated or damaged")
    return element.data


def _integers(element: _Element | None, order: str) -> list[int]:
    data = _data(element)
    if not data or len(data) % 4 or len(data) > 4 * MAX_SIDES:
        raise ValueError("its meta.mat is damaged")
    return list(struct.unpack(f"{order}{len(data) // 4}i", data))


def _content(row: dict[str, memoryview], column: str, order: str) -> tuple[int, _Element]:
    """Return the class of the matrix in a field, and its numbers or text."""
    if column not in row:
        raise ValueError(f"{TABLE} in its meta.mat has no column {column}")
    elements = _elements(row[column], order)
    kind, _, _ = _start(elements, order)
    return kind, next(elements, _Element(0, memoryview(b"")))


def _number(row: dict[str, memoryview], column: str, order: str) -> int:
    kind, element = _content(row, column, order)
    code = _NUMBERS.get(element.type, "")
    if kind not in NUMBERS or not code or len(element.data) != struct.calcsize(code):
        raise ValueError(f"{column} in its meta.mat is not a number")
    (number,) = struct.unpack(order + code, element.data)
    if not (abs(number) < 2**31 and number == int(number)):
        raise ValueError(f"{column} in its meta.mat is {number}")
    return int(number)


def _text(row: dict[str, memoryview], column: str, order: str) -> str:
    kind, element = _content(row, column, order)
    encoding = _TEXTS.get(element.type, "")
    if kind != CHAR or not encoding or len(element.data) > 10_000:
        raise ValueError(f"{column} in its meta.mat is not text")
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return bytes(element.data).decode(encoding)
