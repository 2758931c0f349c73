"""Archives that claim impossible sizes are refused by name, and take no more than a look."""

import gzip
import io
import struct
import tarfile
import zlib

import numpy as np
import pytest
import scipy.io

from alexnet_jax.data import imagenet, meta_mat, tar
from tests.data.test_prepare import SYNSETS, devkit, jpeg, synset_tar, toy


def header(name="n01_0.JPEG", size=0, kind=tarfile.REGTYPE, size_field=b""):
    """Return a header block with its right checksum, perhaps of another size than it says."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    if size_field:
        block[124:136] = size_field
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % 512)


def pax(**records):
    """Return a pax header; a value may be bytes that are taken as the whole record."""
    data = b""
    for key, value in records.items():
        body = f" {key}={value}\n".encode()
        length = len(body)
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    return header("pax", len(data), tarfile.XHDTYPE) + padded(data)


END = bytes(1024)
IMAGE = header(size=3) + padded(b"abc")
EIGHT_GIB = b"77777777777\0"
MINUS = b"\xff" * 10 + b"\xfe\x00"  # -512: the header itself, again and again
HOSTILE = {
    "a size of -512": header(size_field=MINUS),
    "a size of -1": header(size_field=b"\xff" * 12),
    "a size of 2**80": header(size_field=b"\x80\x00" + b"\xff" * 10),
    "a size of 8 GiB": header(size_field=EIGHT_GIB),
    "a size that is no number": header(size_field=b"99999999999\0"),
    "a folder of -512 bytes": header("a", kind=tarfile.DIRTYPE, size_field=MINUS),
    "an unknown kind of -512 bytes": header("a", kind=b"Z", size_field=MINUS),
    "a size of -512 in pax": pax(size=-512) + header(size=3) + padded(b"abc"),
    "a size of 2**70 in pax": pax(size=2**70) + IMAGE,
    "a size in pax that is no number": pax(size="1_0") + IMAGE,
    "a size of 5,000 digits in pax": pax(size="9" * 5000) + IMAGE,
    "a pax header of 8 GiB": header("pax", kind=tarfile.XHDTYPE, size_field=EIGHT_GIB),
    "a pax header of -512 bytes": header("pax", kind=tarfile.XHDTYPE, size_field=MINUS),
    "a global pax header of 8 GiB": header("pax", kind=tarfile.XGLTYPE, size_field=EIGHT_GIB),
    "a long name of 8 GiB": header("n", kind=tarfile.GNUTYPE_LONGNAME, size_field=EIGHT_GIB),
    "a long link of -512 bytes": header("n", kind=tarfile.GNUTYPE_LONGLINK, size_field=MINUS),
    "records of pax that overlap": header("pax", 6000, tarfile.XHDTYPE) + padded(b"3 " * 3000),
    "a record of pax of no bytes": header("pax", 8, tarfile.XHDTYPE) + padded(b"0 a=b\n00"),
    "a record of pax that is too long": header("pax", 9, tarfile.XHDTYPE) + padded(b"99 a=bcd\n"),
    "a record of pax that is no number": header("pax", 7, tarfile.XHDTYPE) + padded(b"x a=b\n0"),
    "extensions of extensions": (header("n", 2, tarfile.GNUTYPE_LONGNAME) + padded(b"a\0")) * 3000,
    "a sparse file": header(size=3, kind=tarfile.GNUTYPE_SPARSE) + padded(b"abc"),
    "a sparse file of pax": pax(**{"GNU.sparse.major": 1, "GNU.sparse.minor": 0}) + IMAGE,
    "a sparse file of 2**60 bytes": pax(**{"GNU.sparse.size": 2**60}) + IMAGE,
    "an extension and then nothing": pax(size=3),
}  # fmt: skip


@pytest.fixture
def archives(tmp_path):
    return toy(tmp_path / "ilsvrc")


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_impossible_headers_are_refused(content, archives):
    content = IMAGE + content + END
    train, validation = archives / imagenet.TRAIN, archives / imagenet.VALIDATION
    intact = train.read_bytes()
    train.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{imagenet.TRAIN}: .*; .* download it again"):
        imagenet.open_ilsvrc(archives)
    inner = {"n01.tar": content, "n02.tar": synset_tar("n02", 1, 0), "n03.tar": b""}
    train.write_bytes(outer(inner))
    with pytest.raises(ValueError, match=rf"{imagenet.TRAIN}: n01.tar: .*; .* download it again"):
        imagenet.open_ilsvrc(archives)
    train.write_bytes(intact)
    validation.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{imagenet.VALIDATION}: .*; .* download it again"):
        imagenet.open_ilsvrc(archives)
    kit = archives / imagenet.DEVKIT
    kit.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=rf"{imagenet.DEVKIT}: .*; .* download it again"):
        imagenet.read_devkit(kit)


def outer(files):
    return b"".join(header(n, len(data)) + padded(data) for n, data in files.items()) + END


def test_an_archive_without_its_end_is_refused(archives):
    train = archives / imagenet.TRAIN
    inner = {f"{synset}.tar": synset_tar(synset, 2, 0) for synset in ("n01", "n02", "n03")}
    train.write_bytes(outer(inner)[: -len(END)])
    with pytest.raises(ValueError, match=rf"{imagenet.TRAIN}: .*its end is missing"):
        imagenet.open_ilsvrc(archives)
    train.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{imagenet.TRAIN}: .*its end is missing"):
        imagenet.open_ilsvrc(archives)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tar_programs_write_is_read_as_by_tarfile(format, tmp_path):
    names = [f"n01_{n}.JPEG" for n in range(3)] + ["folder/" + "x" * 90 + "/n01_3.JPEG"]
    if format != tarfile.USTAR_FORMAT:
        names += ["long/" * 60 + "n01_4.JPEG", "n01_é\udcff.JPEG", "/abs/../n01_5.JPEG"]
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 600 * number, number
            if format == tarfile.PAX_FORMAT:
                member.pax_headers = {"comment": "a=b\nc" * number, "mtime": f"{number}.5"}
            archive.addfile(member, io.BytesIO(bytes([number]) * member.size))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"other{kind.decode()}")
            member.type, member.linkname = kind, "y" * 150 * (format != tarfile.USTAR_FORMAT)
            archive.addfile(member)
    with tarfile.open(tmp_path / "a.tar") as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]
    with (tmp_path / "a.tar").open("rb") as file:
        size = (tmp_path / "a.tar").stat().st_size
        assert [tuple(member) for member in tar.regular_files(file, 0, size)] == expected
    assert [name for name, _, _ in expected] == names


def test_a_bomb_in_place_of_the_development_kit(archives, monkeypatch):
    monkeypatch.setattr(imagenet, "MAX_DEVKIT", 2**20)
    kit = archives / imagenet.DEVKIT
    kit.write_bytes(gzip.compress(header(size=2**21) + bytes(2**21) + END))
    with pytest.raises(
        ValueError, match=rf"{imagenet.DEVKIT}: unpacked it has more than 1,048,576"
    ):
        imagenet.read_devkit(kit)
    whole = devkit([1, 2, 3])
    for size in range(0, len(whole) - 1, 7):
        kit.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{imagenet.DEVKIT}: .*; .* download it again"):
            imagenet.read_devkit(kit)


@pytest.mark.parametrize("truth", [b"1\nx\n", b"-1\n", b"1" * 5000, "١\n".encode(), b"\0"])
def test_ground_truth_that_is_no_numbers(truth, archives):
    files = {"a/" + imagenet.META: meta(), "a/" + imagenet.TRUTH: truth}
    (archives / imagenet.DEVKIT).write_bytes(gzip.compress(outer(files)))
    with pytest.raises(ValueError, match=rf"{imagenet.DEVKIT}: .*ground_truth"):
        imagenet.read_devkit(archives / imagenet.DEVKIT)


KINDS = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
KINDS += [("num_children", "f8"), ("children", "O"), ("num_train_images", "f8")]


def meta(rows=None, compressed=True, **more):
    if rows is None:
        rows = [(n, s, f"word {s}, é", "g", 0, [], 5) for n, s in SYNSETS.items()]
        rows.append((4, "n00", "above them all", "g", 3, [1, 2, 3], 0))
    file = io.BytesIO()
    table = np.array(rows, dtype=KINDS).reshape(-1, 1)
    scipy.io.savemat(file, {**more, "synsets": table}, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_the_table_of_classes_is_what_scipy_reads(compressed):
    content = meta(compressed=compressed, other=np.zeros((3, 4)), cells=np.array(["a", 1], object))
    rows = scipy.io.loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
    expected = [
        (int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"]), 5)
        for row in rows
        if row["num_children"] == 0
    ]
    assert [tuple(synset) for synset in meta_mat.read_synsets(content)] == expected
    assert expected[0] == (1, "n03", "word n03, é", 5)


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind, sides, name, *elements):
    flags = element(6, struct.pack("<II", kind, 0))
    sides = element(5, struct.pack(f"<{len(sides)}i", *sides))
    return element(14, flags + sides + element(1, name) + b"".join(elements))


def cells(depth):
    content = b""
    for _ in range(depth):
        content = matrix(1, (1, 1), b"", content)
    return content


WIDTH = element(5, struct.pack("<i", 8))
MATRICES = {
    "nothing": b"",
    "another variable": matrix(6, (1, 1), b"other", element(9, bytes(8))),
    "cells of cells of cells": cells(2000),
    "a table of cells": matrix(1, (1, 1), b"synsets", cells(2000)),
    "a table of 2**60 rows": matrix(2, (2**30, 2**30), b"synsets", WIDTH, element(1, b"a" * 8)),
    "a table of 2**60 rows without columns": matrix(
        2, (2**30, 2**30), b"synsets", WIDTH, element(1, b"")
    ),
    "a negative number of rows": matrix(2, (-1, 1), b"synsets", WIDTH, element(1, b"a" * 8)),
    "names of no letters": matrix(2, (1, 1), b"synsets", element(5, bytes(4)), element(1, b"")),
    "an element of 4 GiB": struct.pack("<II", 14, 2**32 - 1) + bytes(100),
    "4,000 sides": matrix(2, (1,) * 4000, b"synsets", WIDTH, element(1, b"a" * 8)),
}


@pytest.mark.parametrize("content", MATRICES.values(), ids=MATRICES)
def test_damaged_tables_of_classes(content):
    start = meta()[:128]
    with pytest.raises(ValueError, match=r"meta\.mat"):
        meta_mat.read_synsets(start + content)
    packed = zlib.compress(content)
    with pytest.raises(ValueError, match=r"meta\.mat"):
        meta_mat.read_synsets(start + struct.pack("<II", 15, len(packed)) + packed)


def test_bombs_in_the_table_of_classes(monkeypatch):
    monkeypatch.setattr(meta_mat, "MAX_UNPACKED", 2**20)
    bomb = zlib.compress(matrix(6, (2**18, 1), b"other", element(9, bytes(2**19))))
    content = meta()[:128] + (struct.pack("<II", 15, len(bomb)) + bomb) * 3
    with pytest.raises(ValueError, match="more than 1,048,576"):
        meta_mat.read_synsets(content)


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, 1.5), (0, np.nan), (0, 1e300), (0, "one"), (1, 3), (2, "x" * 20_000), (6, [1.0, 2.0])],
)
def test_fields_of_other_kinds(column, value):
    row = [1, "n01", "word", "g", 0, [], 5]
    row[column] = value
    kinds = [(name, "O") for name, _ in KINDS]
    table = np.empty((1, 1), kinds)
    table[0, 0] = tuple(row)
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": table})
    with pytest.raises(ValueError, match=f"{KINDS[column][0]} in its meta.mat"):
        meta_mat.read_synsets(file.getvalue())


def test_images_of_hostile_names_keep_to_the_archive(archives):
    names = ["/etc/n01_0.JPEG", "../../n01_1.JPEG", "n01_" + "x" * 5000 + ".JPEG"]
    image = jpeg(1)
    content = b"".join(
        header("n", len(name), tarfile.GNUTYPE_LONGNAME) + padded(name.encode())
        + header("short", len(image)) + padded(image)
        for name in names
    )  # fmt: skip
    inner = {f"{s}.tar": synset_tar(s, 2, 0) for s in ("n02", "n03")} | {"n01.tar": content + END}
    (archives / imagenet.TRAIN).write_bytes(outer(inner))
    sources, _ = imagenet.open_ilsvrc(archives)
    assert isinstance(sources["train"], imagenet.TarImages)
    assert sources["train"].labels().tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert sources["train"][0]["image"].shape == (24, 30, 3)
