"""A .npy file of float32 rows that grows, and is valid at every header that is written."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

FLOAT = np.dtype("<f4")


@contextlib.contextmanager
def appending(path: Path, rows: int, shape: Sequence[int]) -> Iterator[IO[bytes]]:
    """Open a .npy file after its first `rows` rows of this shape, and drop the rest.

    It is written, not mapped: a full disk is an error then, where a mapped file ends the process.
    """
    with path.open("r+b" if rows else "w+b") as file:
        write_header(file, rows, shape)
        file.truncate(file.tell() + num_bytes(rows, shape))
        file.seek(0, 2)
        yield file


def write_header(file: IO[bytes], rows: int, shape: Sequence[int]) -> None:
    """Write the header, whose size does not depend on the number of rows: numpy leaves room."""
    header: dict[str, Any] = {"descr": FLOAT.str, "fortran_order": False, "shape": (rows, *shape)}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, header)


def num_bytes(rows: int, shape: Sequence[int]) -> int:
    """Return the size of the rows."""
    return rows * int(np.prod(shape)) * FLOAT.itemsize
