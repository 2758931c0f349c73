"""Sources made of another source: some of its records, resized, cached, monitored."""

from collections.abc import Collection
from typing import cast

import numpy as np

from alexnet_jax.config import DataConfig
from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.sources import Labeled, Record, Source
from alexnet_jax.storage.digest import digest


class Wrapper:
    """A source that passes everything on to another source; subclasses change some of it."""

    def __init__(self, source: Source):
        self.source = source
        self.class_names = source.class_names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        return self.source[index]

    def describe(self, index: int) -> str:
        """Identify a record, as the source does."""
        return self.source.describe(index)

    def fingerprint(self) -> str:
        """Return the fingerprint of the source."""
        return self.source.fingerprint()

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n], if the source is Labeled."""
        return cast(Labeled, self.source).labels()


class Subset(Wrapper):
    """The records `indices` of a source, in that order; `indices[i]` is record i's number there."""

    def __init__(self, source: Source, indices: np.ndarray):
        super().__init__(source)
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.indices[index])]

    def describe(self, index: int) -> str:
        """Identify a record, as the source does."""
        return self.source.describe(int(self.indices[index]))

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n], if the source is Labeled."""
        return super().labels()[self.indices]

    def fingerprint(self) -> str:
        """Digest the fingerprint of the source and the indices."""
        return digest(self.source.fingerprint(), self.indices.tolist())


class Monitored(Wrapper):
    """A source with the set of its records that have become unreadable since it was opened.

    `pipeline` fills the set, so that a source that is read many times warns of each record once.
    """

    def __init__(self, source: Source):
        super().__init__(source)
        self.unreadable: set[int] = set()


def without(source: Source, unreadable: Collection[int]) -> Source:
    """Return the source without some records, monitored if it was; itself if there are none."""
    if not unreadable:
        return source
    indices = np.setdiff1d(np.arange(len(source)), list(unreadable))
    if isinstance(source, Monitored):
        return Monitored(Subset(source.source, indices))
    return Subset(source, indices)


class Resized(Wrapper):
    """A source whose images are all squares of `config.image_size`, resized as `config` says."""

    def __init__(self, source: Source, config: DataConfig):
        super().__init__(source)
        self._config = config

    def __getitem__(self, index: int) -> Record:
        record, config = self.source[index], self._config
        size, resize, filter = config.image_size, config.resize, config.filter
        image = resize_center(record["image"], size, resize, filter)
        return {"image": image, "label": record["label"]}


class Cached(Wrapper):
    """A source of [size, size, 3] images that keeps in memory what was read once.

    Threads may read a record at once: both then write the same bytes, and set the flag after.
    """

    def __init__(self, source: Source, size: int):
        super().__init__(source)
        # The system allocates the pages of an empty array when they are first written.
        self._images = np.empty((len(source), size, size, 3), np.uint8)
        self._labels = np.zeros(len(source), np.int64)
        self._is_cached = np.zeros(len(source), bool)

    def __getitem__(self, index: int) -> Record:
        if not self._is_cached[index]:
            record = self.source[index]
            self._images[index] = record["image"]
            self._labels[index] = record["label"]
            self._is_cached[index] = True
        image = self._images[index]
        image.flags.writeable = False
        return {"image": image, "label": int(self._labels[index])}
