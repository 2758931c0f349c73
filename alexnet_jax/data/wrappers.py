"""Sources over sources: some of the records, all at one size, all in memory."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from alexnet_jax.config import DataConfig
from alexnet_jax.data.crops import center_view, resize_center, ten_views
from alexnet_jax.data.sources import Record, Source
from alexnet_jax.storage.digest import digest


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


def center_views(images: Iterable[np.ndarray], config: DataConfig) -> dict[str, np.ndarray]:
    """Return the batch that evaluation sees of images of any size, uint8 [H, W, 3]."""
    size, resize, filter = config.image_size, config.resize, config.filter
    squares = [resize_center(image, size, resize, filter) for image in images]
    (batch,) = views_of(squares, config.crop)
    return batch


def views_of(
    squares: Iterable[np.ndarray], crop: int, number: Literal[1, 10] = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Yield a batch for each view of square images: their centers, or the ten of P4.1 in turn."""
    by_image = [
        ten_views(square, crop) if number == 10 else [center_view(square, crop)]
        for square in squares
    ]
    for views in zip(*by_image, strict=True):
        yield {
            name: np.stack([np.asarray(view[name]) for view in views])
            for name in ("image", "offset", "mirror")
        }


class Resized:
    """A source whose images are all squares of `config.image_size`, resized as `config` says."""

    def __init__(self, source: Source, config: DataConfig):
        self._source = source
        self._config = config
        self.class_names = source.class_names

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record, config = self._source[index], self._config
        size, resize, filter = config.image_size, config.resize, config.filter
        image = resize_center(record["image"], size, resize, filter)
        return {"image": image, "label": record["label"]}

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


class Relabeled:
    """A source whose classes bear other numbers: `labels[i]` for its class i."""

    def __init__(self, source: Source, labels: Sequence[int], class_names: Sequence[str]):
        self._source = source
        self._labels = labels
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        return {"image": record["image"], "label": self._labels[record["label"]]}

    def describe(self, index: int) -> str:
        """Say which record this is, as the source does."""
        return self._source.describe(index)

    def fingerprint(self) -> str:
        """Digest the source's fingerprint and the numbers."""
        return digest(self._source.fingerprint(), list(self._labels), self.class_names)
