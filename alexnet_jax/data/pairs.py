"""Images that a program has itself: any sequence of (image, label) as a source."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from alexnet_jax.config import invalid
from alexnet_jax.data.class_names import check_class_names
from alexnet_jax.data.images import UnreadableImage, read_image
from alexnet_jax.data.sources import Record
from alexnet_jax.storage.digest import digest


class Items(Protocol):
    """What has a length and items: a list, or a random access source of Grain."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


class Pairs:
    """A sequence of (image, label), images uint8 [H, W, 3] of any size, RGB, or their files.

    Args:
        items: read in threads, in any order, more than once; each item must stay the same.
        class_names: in the order of the labels, which are their numbers.
        labels: of all items, if reading them one by one takes long; None: read at the start.

    Raises:
        ValueError: class names are not text or not different, or a label is no number of a class.
    """

    def __init__(
        self, items: Items, class_names: Sequence[str], labels: Sequence[int] | None = None
    ):
        self.class_names = check_class_names(class_names)
        self._items = items
        read = [items[index][1] for index in range(len(items))] if labels is None else labels
        self._labels = np.asarray(read) if len(items) else np.zeros(0, int)
        if self._labels.shape != (len(items),) or self._labels.dtype.kind not in "iu":
            rule = f"must be one whole number for each of {len(items):,} items"
            raise invalid("labels", f"{self._labels.dtype} {self._labels.shape}", rule, "use int")
        self._labels = self._labels.astype(np.int64)
        last = len(self.class_names) - 1
        if wrong := self._labels[(self._labels < 0) | (self._labels > last)].tolist():
            rule = f"must be from 0 to {last}, the numbers of the {last + 1} class names"
            raise invalid("labels", wrong[0], rule, "correct the labels or class_names")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Record:
        """Return an item; UnreadableImage if it holds no image."""
        image, _ = self._items[int(index)]
        try:
            return {"image": read_image(image), "label": int(self._labels[index])}
        except ValueError as error:
            raise UnreadableImage(str(error)) from error

    def labels(self) -> np.ndarray:
        """Return the label of every item, int64 [n]."""
        return self._labels

    def describe(self, index: int) -> str:
        """Return the number of the item."""
        return f"item {index}"

    def fingerprint(self) -> str:
        """Digest class names and labels, in order; images are not compared."""
        return digest(self.class_names, self._labels.tolist())
