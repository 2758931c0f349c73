"""ArrayRecord shards of labeled images: the source that reads them, and the writer."""

import bisect
import contextlib
import errno
import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from alexnet_jax.data.images import UnreadableImage, size_of
from alexnet_jax.data.sources import Record, decode_record, file_sizes, read_labels
from alexnet_jax.storage import atomic
from alexnet_jax.storage.digest import digest
from alexnet_jax.storage.names import check_utf8

CLASSES = "classes.json"  # list of class names, next to the shards
RECORDS_PER_SHARD = 8192
NUMBER_OF_TOTAL = re.compile(r"-(\d+)-of-(\d+)$")  # the end of the name of one shard of a set


class ArrayRecords:
    """The shards `<split>[-_.]*array_record*` of a folder with `classes.json`.

    A record is its label (4 bytes, little-endian, signed) followed by the bytes of an image file.
    `side` is that of the squares in the shards; None if the images are not squares of one size.

    Raises:
        ValueError: a shard of a set (-00003-of-00008) is missing, damaged, or holds squares of
            another size than the others.
    """

    def __init__(self, root: Path, split: str):
        check_utf8("data.path", root)
        self._paths = find_shards(root, split)
        _check_complete(self._paths)
        try:
            self.class_names = _read_class_names(Path(root) / CLASSES)
            self._shards = [grain.sources.ArrayRecordDataSource(str(path)) for path in self._paths]
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{root}: {error}; {split} needs intact ArrayRecord shards and {CLASSES}, a list "
                "of class names, in the same folder: write them again."
            ) from error
        self._ends = list(itertools.accumulate(len(shard) for shard in self._shards))
        self.side = self._common_side()

    def _common_side(self) -> int | None:
        """Return the side of the squares in all shards, judged by three records of each."""
        sides: dict[int, Path] = {}
        for path, shard, end in zip(self._paths, self._shards, self._ends, strict=True):
            samples = {end - len(shard), end - len(shard) // 2 - 1, end - 1}
            if len(samples) == 3:  # fewer records prove nothing
                sizes = {self._size(index) for index in samples}
                size = sizes.pop()
                if sizes or size is None or size[0] != size[1]:
                    return None  # images of any size
                sides.setdefault(size[0], path)
        if len(sides) > 1:
            (side, path), (other_side, other_path) = list(sides.items())[:2]
            raise ValueError(
                f"{path}: holds squares of {side} pixels, {other_path.name} of {other_side}; the "
                "shards of a data set must have one size: write them again."
            )
        return next(iter(sides), None)

    def _size(self, index: int) -> tuple[int, int] | None:
        with contextlib.suppress(UnreadableImage):
            return size_of(self._read(index)[4:])
        return None

    def _locate(self, index: int) -> tuple[int, int]:
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _read(self, index: int) -> bytes:
        shard, within = self._locate(index)
        try:
            return self._shards[shard][within]
        except (OSError, RuntimeError, ValueError) as error:
            raise UnreadableImage(f"damaged shard: {error}") from error

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        record = self._read(index)
        return decode_record(_label(record), memoryview(record)[4:], len(self.class_names))

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n], or -1; reads all records, decodes none."""
        return read_labels(lambda index: _label(self._read(index)), len(self))

    def describe(self, index: int) -> str:
        """Return shard:index within the shard."""
        shard, within = self._locate(index)
        return f"{self._paths[shard]}:{within}"

    def fingerprint(self) -> str:
        """Digest the class names, and the names of the shards and where each ends."""
        return digest(self.class_names, [path.name for path in self._paths], self._ends)

    def inventory(self) -> dict[str, int]:
        """Return the bytes of every shard by its name."""
        return file_sizes({path.name: path for path in self._paths})


def _read_class_names(path: Path) -> tuple[str, ...]:
    # A text or a dictionary would be a sequence of names too.
    names = json.loads(path.read_text("utf-8"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{CLASSES} is not a list of names")
    return tuple(names)


def find_shards(root: Path, split: str) -> list[Path]:
    """Return the sorted ArrayRecord shards of a split."""
    return sorted(Path(root).glob(f"{split}[-_.]*array_record*"))


def write_array_records(
    root: Path, split: str, records: Iterable[tuple[bytes, int]], class_names: Sequence[str]
) -> None:
    """Write (bytes of an image file, label) pairs as shards that ArrayRecords reads.

    `images.encode` makes such bytes from pixels.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    write_class_names(root, class_names)
    remaining = iter(records)
    for number, first in enumerate(remaining):
        shard = itertools.chain([first], itertools.islice(remaining, RECORDS_PER_SHARD - 1))
        write_shard(root / f"{split}-{number:05d}.array_record", shard)


def write_class_names(root: Path, class_names: Sequence[str]) -> None:
    """Write the names of the classes; ValueError if the folder has a list of other ones."""
    path, text = root / CLASSES, json.dumps(list(class_names), indent=0) + "\n"
    if path.exists() and path.read_text("utf-8") != text:
        raise ValueError(
            f"{path}: lists other classes, and the splits of a data set must share theirs; write "
            "these shards to another folder."
        )
    atomic.write_text(path, text)


def write_shard(path: Path, records: Iterable[tuple[bytes, int]]) -> None:
    """Write (bytes of an image file, label) pairs as one shard, whole or not at all.

    Raises:
        OSError: the disk is full or cannot be written to.
    """
    try:
        # One record a group, so that a random read unpacks no other record. Image files are
        # compressed already, and decompressing raw ones would make reading them much slower.
        with (
            atomic.replacing(path) as partial,
            contextlib.closing(
                ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
            ) as writer,
        ):
            for encoded, label in records:
                writer.write(int(label).to_bytes(4, "little", signed=True) + encoded)
    except RuntimeError as error:  # the writer raises this for every error of the system
        numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOENT)
        number = next((n for n in numbers if os.strerror(n) in str(error)), errno.EIO)
        raise OSError(number, os.strerror(number), str(path)) from error


def _check_complete(paths: Sequence[Path]) -> None:
    """Raise a ValueError if a shard is missing from a set, or sets of several sizes are mixed."""
    shards = [match.groups() for path in paths if (match := NUMBER_OF_TOTAL.search(path.name))]
    for total in sorted({total for _, total in shards}):
        present = {int(number) for number, of in shards if of == total}
        if missing := sorted(set(range(int(total))) - present):
            raise ValueError(
                f"{paths[0].parent}: of {int(total)} shards like {paths[0].name}, {len(missing)} "
                f"are missing, first number {missing[0]}; copy them here, or write them again."
            )


def _label(record: bytes) -> int:
    return int.from_bytes(record[:4], "little", signed=True)
