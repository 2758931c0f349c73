"""Sources over sources: some of the records, all at one size, all in memory."""

from collections.abc import Collection

import numpy as np

from alexnet_jax.data.augment import resize_centre
from alexnet_jax.data.sources import Record, Source, digest


class Subset:
    """The records `indices` of a source, in that order; `indices[i]` is record i's number there."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source = source
        self.indices = indices
        self.class_names = source.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self.indices[index])]

    def describe(self, index: int) -> str:
        """Say which record this is, as the source does."""
        return self._source.describe(int(self.indices[index]))

    def fingerprint(self) -> str:
        """Digest the source's fingerprint and the indices."""
        return digest(self._source.fingerprint(), self.indices.tolist())


def without(source: Source, unreadable: Collection[int]) -> Source:
    """Return the source less some records; the source itself where there are none."""
    if not unreadable:
        return source
    return Subset(source, np.setdiff1d(np.arange(len(source)), list(unreadable)))


class Resized:
    """A source whose images are all cut and resized to [size, size, 3]."""

    def __init__(self, source: Source, size: int):
        self._source = source
        self._size = size
        self.class_names = source.class_names

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        return {"image": resize_centre(record["image"], self._size), "label": record["label"]}

    def describe(self, index: int) -> str:
        """Say which record this is, as the source does."""
        return self._source.describe(index)

    def fingerprint(self) -> str:
        """Return the source's."""
        return self._source.fingerprint()


class Cached:
    """A source of [size, size, 3] images that keeps what was read once.

    Threads may read a record at once: both then write the same bytes, and set the flag after.
    """

    def __init__(self, source: Source, size: int):
        self._source = source
        self.class_names = source.class_names
        # The system hands out the pages of an empty array as they are first written.
        self._images = np.empty((len(source), size, size, 3), np.uint8)
        self._labels = np.zeros(len(source), np.int64)
        self._kept = np.zeros(len(source), bool)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        if not self._kept[index]:
            record = self._source[index]
            self._images[index] = record["image"]
            self._labels[index] = record["label"]
            self._kept[index] = True
        image = self._images[index]
        image.flags.writeable = False
        return {"image": image, "label": int(self._labels[index])}

    def describe(self, index: int) -> str:
        """Say which record this is, as the source does."""
        return self._source.describe(index)

    def fingerprint(self) -> str:
        """Return the source's."""
        return self._source.fingerprint()
