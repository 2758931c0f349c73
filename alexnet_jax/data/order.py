"""The order of the training images: one permutation an epoch, a function of (seed, epoch)."""

import functools
import threading

import numpy as np

STREAM = (
    2  # apart from the draws of `crops`, which are seeded by (seed, block) and (seed, block, 1)
)


class Order:
    """Which record comes at which position of a run, for any threads and processes.

    Args:
        number: of the records, at least 1.
        seed: of the run.
        each_epoch: whether every epoch has an order of its own; otherwise all have the first one's.
    """

    def __init__(self, number: int, seed: int, each_epoch: bool):
        self._number, self._seed, self._each_epoch = number, seed, each_epoch
        # 8 bytes a record; batches that are read ahead may belong to two epochs.
        self._permutation = functools.lru_cache(maxsize=2)(self._draw)
        self._lock = threading.Lock()  # so that threads do not draw the same one at once

    def _draw(self, epoch: int) -> np.ndarray:
        return permutation(self._number, (self._seed, epoch, STREAM))

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Return the records at `positions`, both int64 [n]."""
        epochs, places = np.divmod(positions, self._number)
        if not self._each_epoch:
            epochs[:] = 0
        records = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            rows = epochs == epoch
            with self._lock:
                permuted = self._permutation(epoch)
            records[rows] = permuted[places[rows]]
        return records


def permutation(number: int, entropy: tuple[int, ...]) -> np.ndarray:
    """Return a uniform permutation of 0, ..., `number` - 1, int64, the same in every NumPy.

    The ranks of random keys of 64 bits: NumPy guarantees the raw stream of PCG64, but not what
    `Generator.permutation` makes of it. Equal keys would favor their order, so they are redrawn,
    which happens to a million records in one of 40 million epochs.
    """
    generator = np.random.PCG64(entropy)
    while True:
        keys = generator.random_raw(number)
        order = np.argsort(keys)
        keys = keys[order]
        if (keys[1:] != keys[:-1]).all():
            return order
