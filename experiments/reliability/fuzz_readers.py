"""Read damaged files of every foreign format: each must be read or be refused with a sentence.

A small intact file of each format is damaged: bits are flipped, sections cut, swapped, repeated and
taken from other files, and numbers that look like lengths are replaced by extreme ones. Half of the
time this is done below the layer that would detect it: the checksums of tar headers, zip members,
gzip streams and checkpoints are computed again afterwards. A damaged file is a function of (seed,
format, number), but for checkpoints, whose files have random names. The weights fit a small
network, so that they are also converted if they are read.

A process reads the files of one format with limited address space, and is killed if one takes
longer than `--seconds`. Crashes, hangs, growth and errors other than the documented ones are
counted and cost one file; the next process continues after it.

Expected: every file is read or refused. A flipped bit of a weight or a pixel cannot be noticed.
Cost:     2 minutes on two cores
Run:      python experiments/reliability/fuzz_readers.py --number 3000 --seed 0
Needs:    pip install '.[parity]', for PyTorch's writers
"""

import argparse
import contextlib
import dataclasses
import functools
import gzip
import io
import json
import logging
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest.mock
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet_jax.model.architecture import Architecture, Conv, Dense, trace

MEBIBYTE = 2**20
ARCHITECTURE = Architecture(
    layers=(
        Conv("conv1", 4, 3, 2, "both", ("relu", "pool"), std=0.1, bias=0.0, pad=0),
        Dense("fc6", 6, "both", ("relu",), std=0.1, bias=0.0),
        Dense("fc8", 3, "row-split", (), std=0.1, bias=0.0),
    ),
    crop=12,
)
CHECKPOINT = "checkpoints/0"  # in the folder of a run of imported weights
CLASSES = ("n01 ant", "n02 bee", "n03 cat")

# Damaging.

Damage = Callable[[bytes, np.random.Generator, bytes], bytes]
EXTREMES = (0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
WIDE = (2**40, 2**53, 2**62, 2**63 - 1, -(2**63), -512, -1024)
TEXTS = (
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"9" * 400,
    b"true",
    b"[" * 5000,
)


def _place(file: bytes, rng: np.random.Generator) -> int:
    """Return a place in the file, half of the time near its start or end, where headers are."""
    size = len(file)
    if size and rng.random() < 0.5:
        near = int(rng.integers(0, min(size, 512)))
        return near if rng.random() < 0.7 else size - 1 - near
    return int(rng.integers(0, max(size, 1)))


def _encoded(rng: np.random.Generator) -> bytes:
    """Return an extreme number of 1 to 8 bytes, of either byte order, or as text in octal."""
    value = int(rng.choice([*EXTREMES, *WIDE]))
    if rng.random() < 0.1:
        return b"%011o\0" % abs(value)
    width = int(rng.choice([1, 2, 4, 8]))
    order = "big" if rng.random() < 0.3 else "little"
    return (value % 256**width).to_bytes(width, order)


def flip(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Flip 1 to 32 bits."""
    damaged = bytearray(file)
    for _unused in range(int(2 ** rng.uniform(0, 5))):
        damaged[_place(file, rng)] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def truncate(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Cut the file off."""
    return file[: _place(file, rng)]


def swap(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Swap two blocks."""
    size = int(2 ** rng.uniform(0, 10))
    first, second = sorted(_place(file, rng) for _ in range(2))
    second = max(second, first + size)
    a, b = file[first : first + size], file[second : second + size]
    return file[:first] + b + file[first + size : second] + a + file[second + size :]


def remove(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Remove a section."""
    start = _place(file, rng)
    return file[:start] + file[start + int(2 ** rng.uniform(0, 10)) :]


def repeat(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Repeat a section up to 1,000 times."""
    start = _place(file, rng)
    section = file[start : start + int(2 ** rng.uniform(0, 9))]
    return file[:start] + section * int(2 ** rng.uniform(1, 10)) + file[start:]


def splice(file: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Insert a section of another file of the format."""
    start, source = _place(file, rng), _place(other, rng)
    section = other[source : source + int(2 ** rng.uniform(0, 12))]
    return file[:start] + section + file[start + int(rng.integers(0, len(section) + 1)) :]


def insert(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Insert 1 to 4 extreme numbers."""
    for _unused in range(int(rng.integers(1, 5))):
        start = _place(file, rng)
        file = file[:start] + _encoded(rng) + file[start:]
    return file


def overwrite(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Overwrite 1 to 4 places with extreme numbers."""
    damaged = bytearray(file)
    for _unused in range(int(rng.integers(1, 5))):
        number, start = _encoded(rng), _place(file, rng)
        damaged[start : start + len(number)] = number
    return bytes(damaged)


def lengthen(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Replace numbers that look like lengths or offsets: others near them, or extreme ones."""
    damaged = bytearray(file)
    for _unused in range(int(rng.integers(1, 4))):
        width = int(rng.choice([1, 2, 4, 8]))
        start = _place(file, rng)
        for place in range(start, min(start + 200, len(file) - width)):
            value = int.from_bytes(file[place : place + width], "little")
            if 0 < value <= 2 * len(file):
                new = int(
                    rng.choice([value + 1, value - 1, 2 * value, len(file), *EXTREMES, *WIDE])
                )
                damaged[place : place + width] = (new % 256**width).to_bytes(width, "little")
                break
    return bytes(damaged)


def renumber(file: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Replace a number in text, or another word of JSON, by an extreme one."""
    start = _place(file, rng)
    digits = [p for p in range(start, min(start + 300, len(file))) if 48 <= file[p] < 58]
    if not digits:
        return overwrite(file, rng, other)
    end = digits[0]
    while end < len(file) and 48 <= file[end] < 58:
        end += 1
    texts = [*TEXTS, *(str(value).encode() for value in (*EXTREMES, *WIDE))]
    return file[: digits[0]] + texts[rng.integers(len(texts))] + file[end:]


DAMAGES: tuple[Damage, ...] = (
    *(flip, truncate, swap, remove, repeat, splice, insert, overwrite, lengthen, renumber),
)


# Intact files.


@dataclasses.dataclass(frozen=True)
class Seed:
    """An intact file: what is damaged, and how a file is made of it."""

    content: bytes
    finish: str = "as it is"  # in FINISHES
    context: Any = None  # of the function that finishes it
    name: str = ""  # of the file


def _zipped(content: bytes, context: tuple[str, Mapping[str, bytes]]) -> bytes:
    """Return a zip archive of members, one of which is damaged, with its right checksum."""
    file, (damaged, members) = io.BytesIO(), context
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, content if name == damaged else data)
    return file.getvalue()


def _tar_checksums(content: bytes, headers: Sequence[int]) -> bytes:
    """Return a tar archive with the right checksums of its headers."""
    archive = bytearray(content)
    for start in headers:
        if start + 512 <= len(archive):
            block = archive[start : start + 512]
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            archive[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(archive)


def _gzipped_tar(content: bytes, headers: Sequence[int]) -> bytes:
    return gzip.compress(_tar_checksums(content, headers), 1, mtime=0)


def _safetensors(content: bytes, data: bytes) -> bytes:
    """Return a file of a damaged header with the right length."""
    return struct.pack("<Q", len(content)) + content + data


def _devkit(meta: bytes, truth: bytes) -> bytes:
    root = "ILSVRC2012_devkit_t12/data"
    names = {f"{root}/meta.mat": meta, f"{root}/ILSVRC2012_validation_ground_truth.txt": truth}
    return gzip.compress(_tar(names), 1, mtime=0)


def _devkit_of_matrix(matrix: bytes, context: tuple[bytes, bytes]) -> bytes:
    """Return a development kit whose table is damaged before it is compressed."""
    header, truth = context
    packed = zlib.compress(matrix, 1)
    return _devkit(header + struct.pack("<II", 15, len(packed)) + packed, truth)


FINISHES: dict[str, Callable[[bytes, Any], bytes]] = {
    "as it is": lambda content, _: content,
    "zip": _zipped,
    "tar": _tar_checksums,
    "tar.gz": _gzipped_tar,
    "safetensors": _safetensors,
    "meta.mat": _devkit,
    "matrix": _devkit_of_matrix,
}


def _zip_seeds(file: bytes) -> list[Seed]:
    """Return seeds of a zip archive: as a whole, and for each of its members."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    # The one with the structure of a .pth file is damaged most often.
    often = [name for name in members if name.endswith("data.pkl")] * 5
    return [
        *[Seed(file)] * (len(members) // 2 + 1),
        *(Seed(members[name], "zip", (name, members)) for name in [*members, *often]),
    ]


def _tar(files: Mapping[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:", format=format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def _tar_seeds(archive: bytes, finish: str = "tar") -> list[Seed]:
    """Return seeds of a tar archive: as it is, and with right checksums of all headers."""
    headers = [p for p in range(0, len(archive), 512) if archive[p + 257 : p + 262] == b"ustar"]
    packed = finish != "tar"
    whole = FINISHES[finish](archive, headers) if packed else archive
    return [Seed(whole), Seed(archive, finish, headers), Seed(archive, finish, headers)]


def _params() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        row.name: {
            "kernel": rng.normal(size=row.kernel_shape).astype(np.float32),
            "bias": np.arange(row.channels, dtype=np.float32),
        }
        for row in trace(ARCHITECTURE)
        if row.kernel_shape
    }


def _weights(format: Any) -> dict[str, np.ndarray]:
    from alexnet_jax.weights import convert

    return convert.from_params(_params(), ARCHITECTURE, format).arrays


def _safetensors_seeds() -> list[Seed]:
    import safetensors.numpy

    seeds = []
    for format in ("torchvision", "plain"):
        file = safetensors.numpy.save(_weights(format), {"config": "{}", "class_names": "[]"})
        end = 8 + int.from_bytes(file[:8], "little")
        seeds += [Seed(file), Seed(file[8:end], "safetensors", file[end:])]
    return seeds


def _npz_seeds() -> list[Seed]:
    seeds = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        arrays: dict[str, Any] = _weights("plain")
        save(file, **arrays, metadata=np.array('{"config": "1"}'))
        seeds += _zip_seeds(file.getvalue())
    return seeds


def _npy_seeds() -> list[Seed]:
    layers: dict[str, list[np.ndarray]] = {}
    for name, array in sorted(_weights("tensorflow").items(), reverse=True):  # w before b
        layers.setdefault(name[:-2], []).append(array)
    seeds = []
    for protocol in (2, 3, 4):
        file = io.BytesIO()
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(np.array(layers, object), file, protocol)
        seeds.append(Seed(file.getvalue(), name="a.npy"))
    plain = io.BytesIO()
    np.save(plain, np.zeros((6, 6, 3), np.float32))
    return [*seeds, Seed(plain.getvalue(), name="mean.npy")]


def _torch_seeds(as_zip: bool) -> list[Seed]:
    import torch

    seeds = []
    state = {name: torch.from_numpy(array) for name, array in _weights("torchvision").items()}
    matrix, bias = state["classifier.6.weight"], state["features.0.bias"]
    transposed = matrix.T.contiguous().T  # a view of other strides
    others = {"classifier.6.weight": transposed, "features.0.bias": bias.bfloat16()}
    for content in (state, {"epoch": 3, "state_dict": {**state, **others}}):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=as_zip)
        seeds += _zip_seeds(file.getvalue()) if as_zip else [Seed(file.getvalue())]
    return seeds


def _protobuf(number: int, value: int | bytes) -> bytes:
    def varint(value: int) -> bytes:
        groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
        return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def _caffemodel_seeds() -> list[Seed]:
    layers: dict[str, list[np.ndarray]] = {}
    for name, array in sorted(_weights("caffe").items(), reverse=True):  # w before b
        layers.setdefault(name[:-2], []).append(array)
    new = old = _protobuf(1, b"AlexNet") + _protobuf(3, b"data")
    for name, blobs in layers.items():
        message, old_message = _protobuf(1, name.encode()), _protobuf(4, name.encode())
        for blob in blobs:
            data = _protobuf(5, blob.tobytes())
            sides = (1,) * (4 - blob.ndim) + blob.shape
            shape = b"".join(_protobuf(1, side) for side in blob.shape)
            message += _protobuf(7, data + _protobuf(7, shape))
            old_message += _protobuf(6, b"".join(map(_protobuf, (1, 2, 3, 4), sides)) + data)
        new, old = new + _protobuf(100, message), old + _protobuf(2, old_message)
    return [Seed(new), Seed(old)]


def _image(seed: int) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    return file.getvalue()


def _array_record_seeds() -> list[Seed]:
    from alexnet_jax.data import array_record

    with tempfile.TemporaryDirectory() as folder:
        images = [(_image(n), n % 3) for n in range(5)]
        array_record.write_array_records(Path(folder), "train", images, CLASSES)
        file = Path(folder, "train-00000.array_record").read_bytes()
        names = Path(folder, array_record.CLASSES).read_bytes()
    # The chunks alone have 64 kB of padding between them.
    shard = Seed(file, name="train-00000.array_record")
    return [*[shard] * 4, Seed(names, name=array_record.CLASSES)]


def _train_tar() -> bytes:
    return _tar(
        {
            f"{name[:3]}.tar": _tar({f"{name[:3]}_{i}.JPEG": _image(9 * n + i) for i in range(2)})
            for n, name in enumerate(CLASSES)
        }
    )


def _validation_tar(format: int = tarfile.GNU_FORMAT) -> bytes:
    long = "" if format == tarfile.GNU_FORMAT else "x" * 120 + "/"
    images = {f"{long}ILSVRC2012_val_{n:08d}.JPEG": _image(n) for n in range(1, 5)}
    return _tar(images, format)


def _meta_mat(compressed: bool = True) -> bytes:
    import scipy.io

    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    kinds += [("children", "O"), ("num_train_images", "f8")]
    rows = [(n, name[:3], name[4:], 0, [], 2) for n, name in enumerate(CLASSES, 1)]
    rows.append((4, "n00", "above them all", 3, [1, 2, 3], 0))
    file = io.BytesIO()
    table = np.array(rows, dtype=kinds).reshape(-1, 1)
    scipy.io.savemat(file, {"synsets": table}, do_compression=compressed)
    return file.getvalue()


TRUTH = b"1\n2\n3\n1\n"


def _meta_mat_seeds() -> list[Seed]:
    plain = _meta_mat(compressed=False)
    return [
        Seed(_meta_mat(), "meta.mat", TRUTH),
        Seed(plain, "meta.mat", TRUTH),
        Seed(plain[128:], "matrix", (plain[:128], TRUTH)),
    ]


def _devkit_seeds() -> list[Seed]:
    return _tar_seeds(gzip.decompress(_devkit(_meta_mat(), TRUTH)), "tar.gz")


def _run_folder(folder: Path) -> None:
    """Make the run folder of a network with the smallest width."""
    from alexnet_jax.data.statistics import published
    from alexnet_jax.model.variants import build_architecture
    from alexnet_jax.presets import PRESETS
    from alexnet_jax.weights import run_folder
    from alexnet_jax.weights.import_plan import ImportPlan

    config = PRESETS["photos"]
    data = dataclasses.replace(config.data, image_size=40, crop=36)
    model = dataclasses.replace(config.model, width=0.01)
    config = dataclasses.replace(config, data=data, model=model)
    architecture = build_architecture(model, len(CLASSES), data.crop)
    params = {
        row.name: {
            "kernel": np.zeros(row.kernel_shape, np.float32),
            "bias": np.ones(row.channels, np.float32),
        }
        for row in trace(architecture)
        if row.kernel_shape
    }
    statistics = published("imagenet", data.image_size)
    plan = ImportPlan(config, architecture, params, statistics, list(CLASSES), [])
    run_folder.make(plan, folder / "random.npz", folder)


@functools.cache
def _run_files() -> dict[str, bytes]:
    """Return the files of a run folder by their paths; those of another run have other names."""
    with tempfile.TemporaryDirectory() as folder:
        _run_folder(Path(folder))
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _checkpoint_seeds() -> list[Seed]:
    """Return the files of metadata of a checkpoint, which are JSON; arrays are not among them."""
    start = f"{CHECKPOINT}/"
    return [
        Seed(data, name=name.removeprefix(start))
        for name, data in _run_files().items()
        if name.startswith(start) and data[:1] in (b"{", b"[")
    ]


def _index_seeds() -> list[Seed]:
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder))
        _build_index(Path(folder))
        (index,) = (Path(folder) / "index").glob("features-*.npy")
        table = Seed(Path(folder, "index", "index.json").read_bytes(), name="index.json")
        return [table, table, Seed(index.read_bytes(), name=index.name)]


def _write_images(folder: Path) -> None:
    (folder / "images").mkdir()
    for number in range(4):
        path = folder / "images" / f"{number}.jpg"
        path.write_bytes(_image(number))
        os.utime(path, ns=(10**18, 10**18))
    (folder / "images" / "broken.jpg").write_bytes(b"no image")
    os.utime(folder / "images" / "broken.jpg", ns=(10**18, 10**18))


def _build_index(folder: Path) -> None:
    from alexnet_jax.retrieval import index
    from alexnet_jax.retrieval.features import Features, Recipe

    def extract(paths: Sequence[Path]) -> Iterator[Features]:
        numbers = [n for n, path in enumerate(paths) if path.name != "broken.jpg"]
        reasons = {n: "no image" for n, path in enumerate(paths) if path.name == "broken.jpg"}
        yield Features(numbers, {"fc7": np.ones((len(numbers), 4), np.float32)}, reasons)

    network: Any = None
    with (
        unittest.mock.patch.object(index, "fingerprint", return_value="a"),
        unittest.mock.patch.object(index, "width", return_value=4),
    ):
        built = index.build(
            *(network, extract, folder / "images", folder / "index", lambda _: None),
            Recipe(("fc7",)),
        )
    rows = np.asarray(built.features)
    assert rows.shape == (4, 4), rows.shape
    assert sorted(built.names) == [f"{n}.jpg" for n in range(4)], built.names


# Readers: each is given a damaged file, and reads it as the commands do.


def read_weights(folder: Path, seed: Seed, file: bytes) -> None:
    """Read weights and convert them, or read a mean image."""
    from alexnet_jax.weights import convert, files

    path = folder / (seed.name or "weights")
    path.write_bytes(file)
    if seed.name == "mean.npy":
        files.read_mean(path)
    else:
        convert.to_params(files.read(path), ARCHITECTURE)


def _read_images(source: Any) -> None:
    from alexnet_jax.data.images import UnreadableImage

    assert len(source.labels()) == len(source)
    for index in range(min(len(source), 8)):
        source.describe(index)
        with contextlib.suppress(UnreadableImage):
            record = source[index]
            assert record["image"].ndim == 3
            assert 0 <= record["label"] < len(source.class_names)
    source.fingerprint()


def read_array_records(folder: Path, seed: Seed, file: bytes) -> None:
    """Read the records of a shard."""
    from alexnet_jax.data.array_record import ArrayRecords

    for other in _SEEDS["ArrayRecord"]:
        (folder / other.name).write_bytes(other.content)
    (folder / seed.name).write_bytes(file)
    _read_images(ArrayRecords(folder, "train"))


def read_archives(folder: Path, kind: str, file: bytes) -> None:
    """Read ILSVRC's archives, one of which is damaged."""
    from alexnet_jax.data import imagenet

    names = {"train": imagenet.TRAIN, "validation": imagenet.VALIDATION, "kit": imagenet.DEVKIT}
    for other, intact in _SEEDS["archives"].items():
        (folder / names[other]).write_bytes(intact)
    (folder / names[kind]).write_bytes(file)
    sources, _ = imagenet.open_ilsvrc(folder)
    for source in sources.values():
        _read_images(source)


def read_checkpoint(folder: Path, seed: Seed, file: bytes) -> None:
    """Read what a checkpoint says about its network; half of the time its digests are right."""
    from alexnet_jax.training import checkpoint_digests
    from alexnet_jax.training.checkpoint import Checkpoints
    from alexnet_jax.training.finetune import read_network
    from alexnet_jax.training.run_meta import read_meta

    run = folder.parent / "run"
    if not run.exists():
        for name, content in _SEEDS["run"].items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_bytes(content)
    checkpoint = run / CHECKPOINT
    path, digests = checkpoint / seed.name, checkpoint / checkpoint_digests.NAME
    before = {path: path.read_bytes(), digests: digests.read_bytes()}
    try:
        path.write_bytes(file)
        if zlib.crc32(file) % 4 and path != digests:
            checkpoint_digests.write(checkpoint)
        with Checkpoints(run, read_only=True) as checkpoints:
            step = checkpoints.latest()
            assert step == 0
            checkpoints.best()
            read_network(run, read_meta(checkpoints, step))
    finally:
        for damaged_file, content in before.items():
            damaged_file.write_bytes(content)


def read_index(folder: Path, seed: Seed, file: bytes) -> None:
    """Bring an index up to date: what is damaged is computed again."""
    shared = folder.parent / "retrieval"
    if not shared.exists():
        shared.mkdir()
        _write_images(shared)
    shutil.rmtree(shared / "index", ignore_errors=True)
    (shared / "index").mkdir()
    for other in _SEEDS["retrieval index"]:
        (shared / "index" / other.name).write_bytes(other.content)
    (shared / "index" / seed.name).write_bytes(file)
    _build_index(shared)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format: its intact files, and what reads a damaged one."""

    seeds: Callable[[], list[Seed]]
    read: Callable[[Path, Seed, bytes], None]


FORMATS = {
    "safetensors": Format(_safetensors_seeds, read_weights),
    "npz": Format(_npz_seeds, read_weights),
    "npy": Format(_npy_seeds, read_weights),
    "pth, zip": Format(lambda: _torch_seeds(as_zip=True), read_weights),
    "pth, legacy": Format(lambda: _torch_seeds(as_zip=False), read_weights),
    "caffemodel": Format(_caffemodel_seeds, read_weights),
    "ArrayRecord": Format(_array_record_seeds, read_array_records),
    "train tar": Format(
        lambda: _tar_seeds(_train_tar()), lambda d, _, file: read_archives(d, "train", file)
    ),
    "validation tar": Format(
        lambda: [
            *_tar_seeds(_validation_tar()),
            *_tar_seeds(_validation_tar(tarfile.PAX_FORMAT)),
        ],
        lambda d, _, file: read_archives(d, "validation", file),
    ),
    "devkit tar.gz": Format(_devkit_seeds, lambda d, _, file: read_archives(d, "kit", file)),
    "meta.mat": Format(_meta_mat_seeds, lambda d, _, file: read_archives(d, "kit", file)),
    "checkpoint metadata": Format(_checkpoint_seeds, read_checkpoint),
    "retrieval index": Format(_index_seeds, read_index),
}
_SEEDS: dict[str, Any] = {}  # of every format, in the process that reads


def damaged(seeds: Sequence[Seed], entropy: Sequence[int], number: int) -> tuple[str, Seed, bytes]:
    """Return the name of the damage, the intact file, and the damaged one."""
    rng = np.random.default_rng([*entropy, number])
    seed, other = seeds[number % len(seeds)], seeds[int(rng.integers(len(seeds)))]
    damage = DAMAGES[rng.integers(len(DAMAGES))]
    content = damage(seed.content, rng, other.content)
    return damage.__name__, seed, FINISHES[seed.finish](content, seed.context)


# Reading in a process of its own.


def outcome_of(
    read: Callable[[Path, Seed, bytes], None], seed: Seed, file: bytes, top: Path
) -> str:
    """Return "read", "refused: " and the sentence, or "raised: " and an error that must not be."""
    folder = top / "files"
    folder.mkdir()
    try:
        read(folder, seed, file)
    except ValueError as error:
        message = str(error)
        sentence = message.endswith(".") and len(message) < 3000
        documented = type(error) in (ValueError,)
        return f"{'refused' if sentence and documented else 'raised'}: {error!r}"
    except Exception as error:  # noqa: BLE001  (must not happen; counted)
        return f"raised: {error!r}"
    finally:
        shutil.rmtree(folder)
    return "read"


def _reset_peak() -> None:
    """Let the peak of memory begin at what this process has now."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> int:
    """Return VmRSS, what this process has in memory, or VmHWM, its peak, in bytes.

    Not `getrusage`, whose peak is that of the parent where this is larger.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def work(args: argparse.Namespace) -> None:
    """Read the files of one format from `--start` on; print JSON before and after each."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # like the commands
    warnings.simplefilter("ignore")
    (name,) = args.formats
    _SEEDS.update(pickle.loads(Path(args.worker).read_bytes()))
    seeds, reader = _SEEDS[name], FORMATS[name].read
    entropy = [args.seed, zlib.crc32(name.encode())]
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for seed in seeds:
            intact = FINISHES[seed.finish](seed.content, seed.context)
            outcome = outcome_of(reader, seed, intact, top)
            assert outcome == "read", f"an intact file of {name}: {outcome}"
        resource.setrlimit(resource.RLIMIT_AS, (args.gib * 2**30, args.gib * 2**30))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also within C code
        for number in range(args.start, args.number):
            damage, seed, file = damaged(seeds, entropy, number)
            print(json.dumps({"number": number, "damage": damage, "of": seed.name}), flush=True)
            _reset_peak()
            before, began = _memory("VmRSS"), time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, args.seconds)
            outcome = outcome_of(reader, seed, file, top)
            signal.setitimer(signal.ITIMER_REAL, 0)
            seconds, grown = time.perf_counter() - began, _memory("VmHWM") - before
            print(
                json.dumps({"outcome": outcome[:400], "seconds": seconds, "grown": grown}),
                flush=True,
            )


def results(args: argparse.Namespace, name: str, seeds: Path) -> list[dict[str, Any]]:
    """Return for each file of a format its damage, outcome, seconds and memory."""
    outcomes: list[dict[str, Any]] = []
    # disable=None: no bar if stderr is not a terminal.
    with tqdm(total=args.number, desc=name, unit="file", disable=None) as bar:
        while len(outcomes) < args.number:
            arguments = ["--formats", name, "--number", args.number, "--seed", args.seed]
            arguments += ["--seconds", args.seconds, "--gib", args.gib, "--start", len(outcomes)]
            arguments += ["--mebibytes", args.mebibytes, "--worker", seeds]
            command = [sys.executable, __file__, *map(str, arguments)]
            before = len(outcomes)
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
                assert worker.stdout is not None
                begun: dict[str, Any] = {}
                for line in worker.stdout:
                    content = json.loads(line)
                    if "outcome" in content:
                        outcomes.append({**begun, **content})
                        begun = {}
                        bar.update()
                    else:
                        begun = content
            if begun:
                hung = worker.returncode == -signal.SIGALRM
                outcome = "hung" if hung else f"crashed: {worker.returncode}"
                outcomes.append({**begun, "outcome": outcome, "seconds": args.seconds, "grown": 0})
            elif len(outcomes) == before:
                raise RuntimeError(f"{name}: the process ended with {worker.returncode} at once.")
    return outcomes


def print_row(name: str, outcomes: list[dict[str, Any]], mebibytes: int) -> None:
    """Print the outcomes of a format, and what must not have happened."""
    kinds = Counter(line["outcome"].partition(":")[0] for line in outcomes)
    grown = sum(line["grown"] > mebibytes * MEBIBYTE for line in outcomes)
    columns = [kinds[kind] for kind in ("refused", "read", "raised", "crashed", "hung")]
    slowest = max(line["seconds"] for line in outcomes)
    most = max(line["grown"] for line in outcomes) / MEBIBYTE
    cells = " | ".join(f"{number:,}" for number in [len(outcomes), *columns, grown])
    print(f"| {name} | {cells} | {slowest:.2f} | {most:.0f} |", flush=True)
    for line in outcomes:
        if not _is_good(line, mebibytes):
            print(f"FAILED: {name}: {line}", file=sys.stderr, flush=True)


def _is_good(line: dict[str, Any], mebibytes: int) -> bool:
    good = line["outcome"].startswith(("read", "refused"))
    return good and line["grown"] <= mebibytes * MEBIBYTE


def intact_files(formats: Sequence[str]) -> dict[str, Any]:
    """Return the seeds of each format, and ILSVRC's archives."""
    seeds: dict[str, Any] = {name: FORMATS[name].seeds() for name in formats}
    kit = _devkit(_meta_mat(), TRUTH)
    seeds["archives"] = {"train": _train_tar(), "validation": _validation_tar(), "kit": kit}
    if "checkpoint metadata" in formats:
        seeds["run"] = _run_files()
    return seeds


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if every file was read or refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--formats", nargs="+", choices=[*FORMATS], default=[*FORMATS])
    parser.add_argument("--number", type=int, default=3000, help="damaged files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=8, help="limit for one file")
    parser.add_argument("--mebibytes", type=int, default=500, help="limit of growth, MiB")
    parser.add_argument("--gib", type=int, default=16, help="address space of a process, GiB")
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        work(args)
        return 0
    began, good, total = time.perf_counter(), True, 0
    print(
        "| format | mutations | refused | read | other errors | crashes | hangs | growth |", end=""
    )
    print(f" slowest, s | most growth, MiB |\n|{'---|' * 10}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        seeds.write_bytes(pickle.dumps(intact_files(args.formats)))
        for name in args.formats:
            outcomes = results(args, name, seeds)
            print_row(name, outcomes, args.mebibytes)
            good &= all(_is_good(line, args.mebibytes) for line in outcomes)
            total += len(outcomes)
    print(f"\n{total:,} files in {time.perf_counter() - began:.0f} s, seed {args.seed}.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
