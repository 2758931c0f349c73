"""Time and memory of readers are bounded by the size of a file, whatever the file claims.

Without the limits, each file here takes a time or memory that grows with the square of its size, or
with a number in it: minutes, or gigabytes, for less than a megabyte.
"""

import io
import json
import pickle
import struct
import time
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest

from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.weights import caffemodel, convert, files, numpy_files, torch_files, unpickle
from tests import foreign
from tests.weights.test_files import array_in_pickle, integer, name, npy, tensor, text

MIB = 64  # that reading one of the files may allocate; each is smaller than 1 MiB
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
    "5,000 objects of a class with a long name": name("x" * 100_000, "y") + memoized(0) + b"("
        + (recalled(0) + b")R") * 5000 + b"l",
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
    "a long name compared again and again": b"}" + LONG_NAME + b"Ns" + LONG_NAME + memoized(0)
        + b"Ns" + (recalled(0) + b"Ns") * 50_000,
    "100,000 arguments in 2,000 calls": LIST + (
        name("torch._utils", "_rebuild_parameter") + recalled(0) + b"R") * 2000,
    "100,000 arguments of 2,000 objects": LIST + (ORDERED + recalled(0) + b"\x81") * 2000,
    "100,000 arguments of 2,000 subclasses": LIST + (
        name("torch._tensor", "_rebuild_from_type_v2") + b"(" + ORDERED + b"N" + recalled(0)
        + b"tR") * 2000,
    "100,000 parts of a reference 2,000 times": LIST + (recalled(0) + b"Q") * 2000,
    "dictionaries that double": b"}" + text("a") + b"Ns" + b"".join(
        memoized(n) + b"0}(" + text("a") + recalled(n) + text("b") + recalled(n) + b"u"
        for n in range(60)),
    "lists that double": b"]" + b"".join(
        memoized(n) + b"0](" + recalled(n) * 2 + b"e" for n in range(60)),
    "a text as a reference": b"P" + b"x" * 100_000 + b"\n",
    "a storage of a long name": tensor(b"(" + text("storage") + name("torch", "FloatStorage")
        + LONG_NAME + text("cpu") + b"K\x06tQ"),
    "a shape of 100,000 sides for 3,000 tensors": LIST + b"}" + b"".join(
        text(f"t{n}") + name("torch._utils", "_rebuild_tensor_v2")
        + b"(NK\x00" + recalled(0) * 2 + b"tRs" for n in range(3000)),
}  # fmt: skip


KEY, PAIRS, ARGUMENTS = "it has a key", "list of pairs", "over 16 arguments"
REASONS = {
    "a dictionary copied 3,000 times": PAIRS,
    "a text given to OrderedDict": PAIRS,
    "20,000 keys of one hash": KEY,
    "the same in single assignments": KEY,
    "the same in a dictionary of one operation": KEY,
    "the same in a list of pairs": KEY,
    "the same in the table of what is used again": "an index that is too large",
    "a number of 100,000 bytes as a key again and again": KEY,
    "a long name compared again and again": KEY,
    "100,000 arguments in 2,000 calls": ARGUMENTS,
    "100,000 arguments of 2,000 objects": ARGUMENTS,
    "a storage of a long name": "too long",
}


def write_legacy(path, program):
    start = b"".join(
        pickle.dumps(value, protocol=2) for value in (torch_files.MAGIC, torch_files.PROTOCOL, {})
    )
    keys = pickle.dumps(["0"], protocol=2)
    data = struct.pack("<q", 6) + np.zeros(6, np.float32).tobytes()
    path.write_bytes(start + b"\x80\x02" + program + b"." + keys + data)


def refusal(path):
    """Read a file; return the message of the refusal, having checked what reading it allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as refused:  # noqa: PT011  (the message is checked below)
            files.read(path)
        assert tracemalloc.get_traced_memory()[1] < MIB * 2**20
    finally:
        tracemalloc.stop()
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(".")
    assert len(message) < 1000 + len(str(path))
    return message


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_pickle_costs_no_more_than_its_size(program, tmp_path):
    write_legacy(tmp_path / "a.pth", program)
    assert (tmp_path / "a.pth").stat().st_size < 2**20
    began = time.process_time()
    message = refusal(tmp_path / "a.pth")
    assert time.process_time() - began < 10
    # At these sizes some would take two seconds only, and be refused for another reason.
    (kind,) = [name_ for name_, other in PROGRAMS.items() if other is program]
    assert REASONS.get(kind, "") in message


def dictionary_in_npy(path, arrays):
    layers = b"}" + text("conv1") + b"(" + arrays + b"ls"
    whole = array_in_pickle(b")", b"(" + layers + b"l", text("O8"))
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\x80\x02" + whole + b".")


def test_arrays_of_objects_that_share_a_list(tmp_path):
    """A copy of 100,000 items each would be 2.4 GB."""
    shared = LIST + array_in_pickle(b")", recalled(0), text("O8")) * 3000
    dictionary_in_npy(tmp_path / "a.npy", shared)
    assert "conv1" in refusal(tmp_path / "a.npy")


def test_arrays_that_share_a_long_shape(tmp_path):
    shape = b"](" + b"K\x01" * 100_000 + b"e" + memoized(0)
    dictionary_in_npy(tmp_path / "a.npy", shape + array_in_pickle(recalled(0), text("a")) * 1000)
    assert "shape" in refusal(tmp_path / "a.npy")


def test_the_operations_of_a_pickle_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle._Counted, "_remaining", 1000)
    write_legacy(tmp_path / "a.pth", tensor())
    files.read(tmp_path / "a.pth")
    write_legacy(tmp_path / "a.pth", b"]" * 1000)
    assert "operations" in refusal(tmp_path / "a.pth")


def test_what_pickles_of_weights_have_is_read(tmp_path):
    """Numbers are the keys of optimizers' states, once addresses of 47 bits; names have dots."""
    keys = b"".join(key + b"Ns" for key in (integer(2**47), text("a.b" * 100), b"N", b"\x88", HALF))
    named = text("conv1_w") + tensor()[1 + len(text("a")) : -1]  # without the assignment
    state = b"}" + text("state_dict") + b"}" + named + b"ss"
    write_legacy(tmp_path / "a.pth", state + text("optimizer") + b"}" + keys + b"s")
    assert list(files.read(tmp_path / "a.pth").arrays) == ["conv1_w"]
    # As Python 2 writes an OrderedDict.
    write_legacy(tmp_path / "a.pth", ORDERED + b"](](" + named + b"ee\x85R")
    assert list(files.read(tmp_path / "a.pth").arrays) == ["conv1_w"]


HALF = b"G" + struct.pack(">d", 0.5)


def nested(depth):
    message = b""
    for _ in range(depth):
        message = foreign.field(100, message)
    return message


BLOB = foreign.field(7, foreign.field(5, 1.0))
CAFFEMODELS = {
    "empty fields": (foreign.field(5, b"") * 10_000, "fields"),
    "empty fields of a layer": (foreign.field(100, foreign.field(9, b"") * 10_000), "fields"),
    "numbers of a blob, each a field": (
        foreign.field(100, foreign.field(7, foreign.field(5, 1.0) * 10_000)), "fields"
    ),
    "empty layers": (foreign.field(100, b"") * 10_000, "fields"),
    "900 blobs of a layer": (foreign.field(100, BLOB * 900), "blobs"),
    "a long name for every blob": (
        foreign.field(100, foreign.field(1, "x" * 9000) + BLOB * 9), "name"
    ),
    "a long name of the net": (foreign.field(1, "x" * 9000), "name"),
    "a number without end": (b"\xa0" + b"\x80" * 9000, "truncated"),
    "nested messages": (nested(1000), "layer"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), CAFFEMODELS.values(), ids=CAFFEMODELS)
def test_the_fields_of_a_caffemodel_are_counted(content, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(caffemodel, "MAX_FIELDS", 1000)
    (tmp_path / "a.caffemodel").write_bytes(content)
    assert reason in refusal(tmp_path / "a.caffemodel")


def header_of_safetensors(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


SAFETENSORS = {
    "arrays that overlap": header_of_safetensors(
        {f"a{n}": entry([4], 0, 16) for n in range(50)}, bytes(16)
    ),
    "a gap": header_of_safetensors({"a": entry([1], 4, 8)}, bytes(8)),
    "sides that overflow": header_of_safetensors({"a": entry([2**62, 4], 0, 0)}),
    "more than the file": header_of_safetensors({"a": entry([2**40], 0, 2**42)}),
    "negative offsets": header_of_safetensors({"a": entry([1], -4, 0)}, bytes(8)),
    "nested without end": header_of_safetensors(b'{"a":' + b"[" * 100_000),
    "a format with a long name": header_of_safetensors({"a": entry([1], 0, 4, "F" * 5000)}),
    "a header of 2 GiB": struct.pack("<Q", 2**31) + b"{" + bytes(100),
    "a header of nearly all": struct.pack("<Q", 2**63) + b"{" + bytes(100),
}


@pytest.mark.parametrize("content", SAFETENSORS.values(), ids=SAFETENSORS)
def test_the_header_of_safetensors(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    message = refusal(tmp_path / "a.safetensors")
    assert "download it again" in message
    assert len(message) < 600


def test_a_long_header_of_safetensors_is_refused_unread(tmp_path):
    with (tmp_path / "a.safetensors").open("wb") as file:  # a sparse file
        file.write(struct.pack("<Q", 90_000_000) + b"{")
        file.truncate(100_000_000)
    assert "90,000,000 bytes" in refusal(tmp_path / "a.safetensors")


def test_a_file_that_would_fill_the_memory(tmp_path):
    with (tmp_path / "a.tar").open("wb") as file:  # a sparse file, like ImageNet in size
        file.write(b"n01440764.tar")
        file.truncate(147_897_477_120)
    assert "147,897,477,120" in refusal(tmp_path / "a.tar")


HEADERS = {
    "more than the file": "{'descr': '<f4', 'fortran_order': False, 'shape': (2000000000,)}",
    "elements of no bytes": "{'descr': '|V0', 'fortran_order': False, 'shape': (2000000000,)}",
    "texts of no letters": "{'descr': '<U0', 'fortran_order': False, 'shape': (2000000000,)}",
    "one large element": "{'descr': '|V2000000000', 'fortran_order': False, 'shape': ()}",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_the_header_of_an_array_is_not_trusted(header, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conv1_w.npy", npy(header) + bytes(100))
    assert "conv1_w" in str(pytest.raises(ValueError, files.read, tmp_path / "a.npz").value)
    refusal_of_member = refusal(tmp_path / "a.npz")
    assert "for an array of shape" in refusal_of_member or "an array of" in refusal_of_member
    (tmp_path / "mean.npy").write_bytes(npy(header) + bytes(100))
    with pytest.raises(ValueError, match=r"mean\.npy: .*an array of"):
        files.read_mean(tmp_path / "mean.npy")


def overlapping(names, content):
    """Return a zip archive whose directory gives one member many names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name_, data in content.items():
            archive.writestr(name_, data)
        first = archive.infolist()[-1]
        for name_ in names:
            copy = zipfile.ZipInfo(name_)
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.file_size = copy.compress_size = first.file_size
            copy.orig_filename = first.filename
            archive.filelist.append(copy)
            archive.NameToInfo[name_] = copy
        vars(archive)["_didModify"] = True
    return file.getvalue()


def test_members_that_share_their_bytes(tmp_path):
    """1,000 names of a megabyte are a gigabyte."""
    data = bytes(2**20)
    content = overlapping(
        [f"a/data/{n}" for n in range(1000)], {"a/data.pkl": b"\x80\x02}.", "a/data/0": data}
    )
    (tmp_path / "a.pth").write_bytes(content)
    assert "more than the file" in refusal(tmp_path / "a.pth")
    array = io.BytesIO()
    np.save(array, np.frombuffer(data, np.float32))
    names = [f"a{n}.npy" for n in range(1000)]
    (tmp_path / "a.npz").write_bytes(overlapping(names, {"a.npy": array.getvalue()}))
    assert "unpacked" in refusal(tmp_path / "a.npz")


def test_a_directory_of_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_files, "MAX_DIRECTORY", 2**12)
    for name_, member in (("a.npz", "conv1_w.npy"), ("a.pth", "a/data.pkl")):
        with zipfile.ZipFile(tmp_path / name_, "w") as archive:
            archive.writestr(member, b"")
            for number in range(100):
                archive.writestr(f"{number}", b"")
        assert "a directory of" in refusal(tmp_path / name_)


def test_names_are_short_and_messages_list_some(tmp_path):
    array = np.zeros(2, np.float32)
    long: dict[str, Any] = {"x" * 300 + "_w": array}
    np.savez(tmp_path / "a.npz", **long)
    assert "a name of 302 characters" in refusal(tmp_path / "a.npz")
    for count in (10, 1000):
        others: dict[str, Any] = {f"x{n}": array for n in range(count)}
        others |= {f"conv{number}_w": array for number in range(1, 6)}
        np.savez(tmp_path / "b.npz", **others)
        architecture = build_architecture(PRESETS["photos"].model, 2, 64)
        with pytest.raises(ValueError, match="x9 is not of this network") as refused:
            convert.to_params(files.read(tmp_path / "b.npz"), architecture)
        assert len(str(refused.value)) < 4000
        assert ("others; name their network" in str(refused.value)) == (count == 1000)


def test_members_of_one_name_and_other_compressions(tmp_path):
    array = io.BytesIO()
    np.save(array, np.zeros(3, np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("conv1_w.npy", array.getvalue())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("conv1_w.npy", array.getvalue())
    assert "twice" in refusal(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("conv1_w.npy", array.getvalue())
    assert "deflate" in refusal(tmp_path / "b.npz")
