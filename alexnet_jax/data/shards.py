"""Sources that lie in record files: ArrayRecord shards of our own, and prepared TFDS data sets."""

import bisect
import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from alexnet_jax.data.decode import UnreadableImage, decode
from alexnet_jax.data.sources import Record, digest

CLASSES = "classes.json"  # list of class names beside the shards
SHARD = 8192  # records


class ArrayRecords:
    """The shards `<split>[-_.]*array_record*` of a folder, with `classes.json` beside them.

    A record is its label (4 bytes, little-endian, signed) followed by the bytes of an image file.
    """

    def __init__(self, root: Path, split: str):
        self._paths = find_shards(root, split)
        try:
            self.class_names = tuple(json.loads((Path(root) / CLASSES).read_text("utf-8")))
            self._shards = [grain.sources.ArrayRecordDataSource(str(path)) for path in self._paths]
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{root}: {error}; {split} needs whole ArrayRecord shards with {CLASSES}, a list "
                "of class names, beside them: write them anew."
            ) from error
        self._ends = list(itertools.accumulate(len(shard) for shard in self._shards))

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
    (root / CLASSES).write_text(json.dumps(list(class_names), indent=0) + "\n", "utf-8")
    writer = None
    for index, (encoded, label) in enumerate(records):
        if index % SHARD == 0:
            if writer:
                writer.close()
            # One record a group: a random read then unpacks nothing but its own record. Files of
            # images are compressed already, and raw ones would take four times as long to read.
            path = root / f"{split}-{index // SHARD:05d}.array_record"
            writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        assert writer is not None
        writer.write(int(label).to_bytes(4, "little", signed=True) + encoded)
    if writer:
        writer.close()


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
                "ClassLabel: take a data set of labelled images."
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
    def labelled(self) -> bool:
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
