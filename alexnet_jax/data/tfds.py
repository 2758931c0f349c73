"""Prepared TFDS data sets in ArrayRecord format, read without TensorFlow."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.sources import Record, decode_record, file_sizes, read_labels
from alexnet_jax.storage.digest import digest


class Tfds:
    """A split of a prepared TFDS data set in a random-access format."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        name = builder.info.full_name
        features = builder.info.features
        by_name = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        image, label = by_name.get("image"), by_name.get("label")
        if not isinstance(image, tfds.features.Image) or not isinstance(
            label, tfds.features.ClassLabel
        ):
            raise ValueError(
                f"TFDS {name}: its features are {' '.join(str(features).split())}; image must be "
                "an Image and label a ClassLabel: use a data set of labeled images."
            )
        # No other feature is decoded, as that might need TensorFlow.
        self._features = tfds.features.FeaturesDict({"image": image, "label": label})
        self.class_names = tuple(label.names)
        self._split = f"{name}:{split}"
        self._info = builder.info.splits[split]
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            # TFDS refuses to open a split without records.
            self._records = (
                builder.as_data_source(split, deserialize_method=raw, file_format="array_record")
                if self._info.num_examples
                else []
            )
        except (NotImplementedError, ValueError) as error:
            raise ValueError(
                f"TFDS {name}: its files are {builder.info.file_format}, and random access without "
                "TensorFlow needs ArrayRecord; prepare it with file_format='array_record'."
            ) from error

    @property
    def labeled(self) -> bool:
        """Whether the split has labels; test splits of competitions have -1 instead."""
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
        return decode_record(*self._read(index), len(self.class_names))

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n], or -1; reads all records, decodes none."""
        return read_labels(lambda index: self._read(index)[0], len(self))

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
        return file_sizes({Path(path).name: Path(path) for path in paths})


def open_tfds(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Return the builder of a prepared TFDS data set; ValueError if it is not prepared."""
    remedy = (
        "prepare it with file_format='array_record', as nothing is downloaded here, or correct "
        "data.name and data.path"
    )
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except Exception as error:  # TFDS raises anything, AssertionError for an unknown version
        reason = str(error).strip().split("\n")[0].rstrip(" .:")
        raise ValueError(f"TFDS {name}: {reason}; {remedy}.") from error
    if not builder.info.splits:
        raise ValueError(f"TFDS {name}: is not prepared in {builder.data_dir}; {remedy}.")
    return builder
