"""Sources that lie in record files: ArrayRecord shards of our own, and prepared TFDS data sets."""

import bisect
import contextlib
import errno
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from alexnet_jax.data.images import UnreadableImage, decode, size_of
from alexnet_jax.data.sources import Record, sizes
from alexnet_jax.storage.digest import digest

CLASSES = "classes.json"  # list of class names beside the shards
SHARD = 8192  # records
OF = re.compile(r"-(\d+)-of-(\d+)$")  # the end of the name of one shard of a set


class ArrayRecords:
    """The shards `<split>[-_.]*array_record*` of a folder, with `classes.json` beside them.

    A record is its label (4 bytes, little-endian, signed) followed by the bytes of an image file.
    Shards that are missing from a set (-00003-of-00008), or that hold squares of another size than
    the others, are refused. `side` is that of the squares; None where the pictures are no squares.
    """

    def __init__(self, root: Path, split: str):
        self._paths = find_shards(root, split)
        _check_complete(self._paths)
        try:
            self.class_names = tuple(json.loads((Path(root) / CLASSES).read_text("utf-8")))
            self._shards = [grain.sources.ArrayRecordDataSource(str(path)) for path in self._paths]
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{root}: {error}; {split} needs whole ArrayRecord shards with {CLASSES}, a list "
                "of class names, beside them: write them anew."
            ) from error
        self._ends = list(itertools.accumulate(len(shard) for shard in self._shards))
        self.side = self._prepared()

    def _prepared(self) -> int | None:
        """Return the side of the squares in all shards, by three records of each."""
        sides: dict[int, Path] = {}
        for path, shard, end in zip(self._paths, self._shards, self._ends, strict=True):
            places = {end - len(shard), end - len(shard) // 2 - 1, end - 1}
            if len(places) == 3:  # of fewer nothing can be said
                sizes = {self._size(place) for place in places}
                size = sizes.pop()
                if sizes or size is None or size[0] != size[1]:
                    return None  # pictures as they came
                sides.setdefault(size[0], path)
        if len(sides) > 1:
            (side, path), (other, another) = list(sides.items())[:2]
            raise ValueError(
                f"{path} holds squares of {side} pixels, {another.name} of {other}; the shards of "
                "a data set are prepared alike: write them anew."
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
        return _checked(_label(record), memoryview(record)[4:], len(self.class_names))

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n], or -1; reads all records, decodes none."""
        return _labels(lambda index: _label(self._read(index)), len(self))

    def describe(self, index: int) -> str:
        """Return shard:index within the shard."""
        shard, within = self._locate(index)
        return f"{self._paths[shard]}:{within}"

    def fingerprint(self) -> str:
        """Digest the class names, and the names of the shards and where each ends."""
        return digest(self.class_names, [path.name for path in self._paths], self._ends)

    def inventory(self) -> dict[str, int]:
        """Return the bytes of every shard by its name."""
        return sizes({path.name: path for path in self._paths})


def _check_complete(paths: Sequence[Path]) -> None:
    """Raise a ValueError where a shard is missing from a set of so many, or is of another set."""
    numbers = [match.groups() for path in paths if (match := OF.search(path.name))]
    for many in sorted({of for _, of in numbers}):
        there = {int(number) for number, of in numbers if of == many}
        if missing := sorted(set(range(int(many))) - there):
            raise ValueError(
                f"{paths[0].parent}: of {int(many)} shards like {paths[0].name}, {len(missing)} "
                f"are missing, number {missing[0]} the first; a split needs them all: fetch them, "
                "or write them anew."
            )


def find_shards(root: Path, split: str) -> list[Path]:
    """Return the sorted ArrayRecord shards of a split."""
    return sorted(Path(root).glob(f"{split}[-_.]*array_record*"))


def write_array_records(
    root: Path, split: str, records: Iterable[tuple[bytes, int]], class_names: Sequence[str]
) -> None:
    """Write (bytes of an image file, label) pairs as shards that ArrayRecords reads.

    `decode.encode` makes such bytes of pixels.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    write_class_names(root, class_names)
    remaining = iter(records)
    for number, first in enumerate(remaining):
        some = itertools.chain([first], itertools.islice(remaining, SHARD - 1))
        write_shard(root / f"{split}-{number:05d}.array_record", some)


def write_class_names(root: Path, class_names: Sequence[str]) -> None:
    """Write the names of the classes; ValueError where other ones lie there."""
    names = json.dumps(list(class_names), indent=0) + "\n"
    if (root / CLASSES).exists() and (root / CLASSES).read_text("utf-8") != names:
        raise ValueError(
            f"{root / CLASSES}: it lists other classes, which the shards beside it are labeled "
            "by; the splits of a data set have the same: write these to another folder."
        )
    (root / CLASSES).write_text(names, "utf-8")


def write_shard(path: Path, records: Iterable[tuple[bytes, int]]) -> None:
    """Write (bytes of an image file, label) pairs as one shard, which is there whole or not at all.

    Raises OSError where the disk does not take it.
    """
    partial = path.with_name(f".{path.name}.partial")  # no name that a reader looks for
    try:
        # One record a group: a random read then unpacks nothing but its own record. Files of
        # images are compressed already, and raw ones would take four times as long to read.
        with contextlib.closing(
            ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
        ) as writer:
            for encoded, label in records:
                writer.write(int(label).to_bytes(4, "little", signed=True) + encoded)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except RuntimeError as error:  # of the writer, whatever the system said
        numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOENT)
        number = next((n for n in numbers if os.strerror(n) in str(error)), errno.EIO)
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


class Tfds:
    """A split of a prepared TFDS data set in a random-access format, read without TensorFlow."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        name = builder.info.full_name
        features = builder.info.features
        known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        image, label = known.get("image"), known.get("label")
        if not isinstance(image, tfds.features.Image) or not isinstance(
            label, tfds.features.ClassLabel
        ):
            found = " ".join(str(features).split())
            raise ValueError(
                f"TFDS {name}: its features are {found}; image must be an Image and label a "
                "ClassLabel: take a data set of labeled images."
            )
        # What else a record holds is not decoded, which might need TensorFlow.
        self._features = tfds.features.FeaturesDict({"image": image, "label": label})
        self.class_names = tuple(label.names)
        self._split = f"{name}:{split}"
        self._info = builder.info.splits[split]
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            # TFDS refuses to open no records at all.
            self._records = (
                builder.as_data_source(split, deserialize_method=raw, file_format="array_record")
                if self._info.num_examples
                else []
            )
        except (NotImplementedError, ValueError) as error:
            raise ValueError(
                f"TFDS {name}: its files are {builder.info.file_format}; random access without "
                "TensorFlow needs ArrayRecord: prepare it with file_format='array_record'."
            ) from error

    @property
    def labeled(self) -> bool:
        """Whether the split has labels; those of contests mark a test image with -1."""
        with contextlib.suppress(UnreadableImage):
            return self._read(0)[0] >= 0
        return True

    def _read(self, index: int) -> tuple[int, bytes]:
        skip = {"image": tfds.decode.SkipDecoding()}
        try:
            record: Any = self._features.deserialize_example_np(self._records[index], decoders=skip)
            return int(record["label"]), record["image"]
        except Exception as error:  # readers of shards and of messages raise anything
            raise UnreadableImage(f"damaged shard: {error}") from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        return _checked(*self._read(index), len(self.class_names))

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n], or -1; reads all records, decodes none."""
        return _labels(lambda index: self._read(index)[0], len(self))

    def describe(self, index: int) -> str:
        """Return data set:split:index."""
        return f"{self._split}:{index}"

    def fingerprint(self) -> str:
        """Digest names of data set, version, split and classes, and the shards with their sizes."""
        return digest(
            self._split, self.class_names, self._info.filenames, list(self._info.shard_lengths)
        )

    def inventory(self) -> dict[str, int]:
        """Return the bytes of every shard by its name."""
        paths = self._info.filepaths if len(self) else []
        return sizes({Path(path).name: Path(path) for path in paths})


def open_tfds(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Return the builder of a prepared TFDS data set; ValueError where there is none."""
    remedy = (
        "only a data set that is prepared already can be read: prepare it with "
        "file_format='array_record', or correct --data.name and --data.path."
    )
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except Exception as error:  # TFDS raises anything, AssertionError for a version among it
        reason = str(error).strip().split("\n")[0].rstrip(" .:")
        raise ValueError(f"TFDS {name}: {reason}; {remedy}") from error
    if not builder.info.splits:
        raise ValueError(f"TFDS {name}: it is not prepared in {builder.data_dir}; {remedy}")
    return builder


def _label(record: bytes) -> int:
    return int.from_bytes(record[:4], "little", signed=True)


def _labels(read: Callable[[int], int], number: int) -> np.ndarray:
    labels = np.full(number, -1, np.int64)
    for index in range(number):
        with contextlib.suppress(UnreadableImage):
            labels[index] = read(index)
    return labels


def _checked(label: int, encoded: bytes | memoryview, classes: int) -> Record:
    # A label outside the classes would be trained on without an error.
    if not 0 <= label < classes:
        raise UnreadableImage(f"label {label} is none of the {classes} classes")
    return {"image": decode(encoded), "label": label}
