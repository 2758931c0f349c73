"""Time and memory of readers are bounded by the size of a file, whatever the file claims.

Each file here made a reader take a time or memory that grew with the square of its size, or with a
number in it. They are read in a process that may use `MIB` more than it has, and few seconds.
"""

import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from alexnet_jax.weights import caffemodel, files, torch_files, unpickle
from tests import foreign
from tests.weights.test_files import array_in_pickle, integer, name, npy, tensor, text

MIB = 64  # that reading one of the files below may allocate; each file is smaller than 1 MiB
ORDERED = name("collections", "OrderedDict")


def memoized(index):
    return b"r" + struct.pack("<I", index)


def recalled(index):
    return b"j" + struct.pack("<I", index)


def entries(number):
    return b"(" + b"".join(text(f"k{n}") + b"N" for n in range(number)) + b"u"


# 1,500 items that are used 3,000 times, and the like: each took a second or a gigabyte at least.
DICTIONARY = b"}" + entries(1500) + memoized(0)
LIST = b"](" + b"N" * 100_000 + b"e" + memoized(0)
LONG_NAME = text("x" * 100_000)
PROGRAMS = {
    "a dictionary copied 3,000 times": DICTIONARY + (ORDERED + recalled(0) + b"\x85R") * 3000,
    "a text given to OrderedDict": ORDERED + text("ab" * 50_000) + b"\x85R",
    "20,000 keys of one hash": b"}(" + b"".join(
        integer(n * (2**61 - 1)) + b"N" for n in range(1, 20_000)) + b"u",
    "the same in single assignments": b"}" + b"".join(
        integer(n * (2**61 - 1)) + b"Ns" for n in range(1, 20_000)),
    "the same in a dictionary of one operation": b"(" + b"".join(
        integer(n * (2**61 - 1)) + b"N" for n in range(1, 20_000)) + b"d",
    "the same in a list of pairs": ORDERED + b"](" + b"".join(
        b"](" + integer(n * (2**61 - 1)) + b"Ne" for n in range(1, 20_000)) + b"e\x85R",
    "the same in the table of what is used again": b"N" + b"".join(
        f"p{n * (2**61 - 1)}\n".encode() for n in range(1, 20_000)),
    "a number of 100,000 bytes as a key again and again": b"}\x8b" + struct.pack("<I", 100_000)
        + b"\x01" * 100_000 + memoized(0) + b"Ns" + (recalled(0) + b"Ns") * 50_000,
    "floats as keys": b"}" + b"G" + struct.pack(">d", 2.0**900) + b"Ns",
    "a long name compared again and again": b"}" + LONG_NAME + b"Ns" + LONG_NAME + memoized(0)
        + b"Ns" + (recalled(0) + b"Ns") * 50_000,
    "100,000 arguments in 2,000 calls": LIST + (ORDERED + recalled(0) + b"R") * 2000,
    "100,000 parts of a reference 2,000 times": LIST + (recalled(0) + b"Q") * 2000,
    "a text as a reference": b"P" + b"x" * 100_000 + b"\n",
    "a storage of a long name": tensor(b"(" + text("storage") + name("torch", "FloatStorage")
        + LONG_NAME + text("cpu") + b"K\x06tQ"),
    "a shape of 100,000 sides for 3,000 tensors": LIST + b"}" + b"".join(
        text(f"t{n}") + name("torch._utils", "_rebuild_tensor_v2") + b"(N" + b"K\x00" + recalled(0) * 2
        + b"tRs" for n in range(3000)),
    "sides of 1,000 bytes": b"}" + text("a") + name("torch._utils", "_rebuild_tensor_v2")
        + b"(" + tensor()[1 + len(text("a")) + len(name("torch._utils", "_rebuild_tensor_v2")) + 1:-3]
        + b"tRs" + text("b") + b"Ns",
}  # fmt: skip


def write_legacy(path, program):
    start = b"".join(
        pickle.dumps(value, protocol=2) for value in (torch_files.MAGIC, torch_files.PROTOCOL, {})
    )
    keys = pickle.dumps(["0"], protocol=2)
    data = struct.pack("<q", 6) + np.zeros(6, np.float32).tobytes()
    path.write_bytes(start + b"\x80\x02" + program + b"." + keys + data)


def allocated(path):
    """Read a file; return the message of the refusal, and the peak of what was allocated, bytes."""
    tracemalloc.start()
    try:
        files.read(path)
    except ValueError as error:
        return str(error), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return "", 0


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_pickle_costs_no_more_than_its_size(program, tmp_path):
    write_legacy(tmp_path / "a.pth", program)
    began = time.process_time()
    message, memory = allocated(tmp_path / "a.pth")
    assert message.startswith(f"{tmp_path / 'a.pth'}: ")
    assert len(message) < 2000 + len(str(tmp_path))
    assert memory < MIB * 2**20
    assert time.process_time() - began < 30  # it took minutes; tracing makes it slower
