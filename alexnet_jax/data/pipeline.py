"""Batches as a function of the step: batch n is the same however, and by how many, it is read."""

import logging
import sys
import weakref
from collections.abc import Callable, Generator

import grain
import numpy as np

from alexnet_jax.config import DataConfig
from alexnet_jax.data.crops import random_views, take_square
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.sources import Record, Source

Rows = slice | tuple[slice, ...]  # of a batch; several blocks are put one after the other

LOGGER = logging.getLogger(__name__)
NAMED = 10  # records of a source that are warned of by name: a disk that is gone has millions
FEW = 0.1  # the share that may become unreadable; what more leaves is another data set
ALIGNMENT = 64  # bytes, for which XLA asks: on a CPU it copies an array that begins elsewhere
# Records that have become unreadable: evaluation reads a source again and again.
_GONE_BAD: weakref.WeakKeyDictionary[Source, set[int]] = weakref.WeakKeyDictionary()


# B images on their way to the device, which finishes them (float, mean, mirror, lighting, scale);
# to mirror one here took 40 us, there 13. `mask` comes in evaluation only:
#   image     uint8 [B, crop, crop, 3], RGB, not mirrored yet
#   label     int32 [B]
#   lighting  float32 [B, 3], in units of `lighting_unit` along the axes of color
#   divisor   float32 [B], of the image once it is less the mean and lit
#   offset    int32 [B, 2], row and column of the crop in its square
#   mirror    bool [B], whether it is to be mirrored
#   index     int64 [B], which record of the source; -1 for padding
#   mask      bool [B], False for what does not count
Batch = dict[str, np.ndarray]
Batches = Generator[Batch, None, None]  # `close()` ends the threads that read ahead


def training_batches(
    source: Source,
    config: DataConfig,
    seed: int,
    batch: int,
    start: int = 0,
    rows: Rows = slice(None),
) -> Batches:
    """Yield batches `start`, `start` + 1, ... without end, and of the `batch` rows only `rows`.

    Every record comes once an epoch, in an order drawn from (seed, epoch), or from the seed where
    the order is fixed, and batches run across the ends of epochs. A view is drawn from (seed,
    position in the run) alone; consecutive positions may share a crop. A record that has become
    unreadable is replaced by the next one that is not, and warned of once.
    """
    shuffled = grain.MapDataset.range(len(source)).seed(seed).shuffle()
    order = shuffled.repeat(reseed_each_epoch=config.shuffle == "each-epoch")
    order[0]  # Grain sets up its counters at the first read, which threads must not share
    mine = _numbers(rows, batch)
    read = _Reader(source, config)
    lit = config.pca_epochs * len(source) or sys.maxsize  # positions with lighting

    def make(step: int) -> Batch:
        positions = step * batch + mine
        made = _empty(len(mine), config.crop) | random_views(config, seed, positions, lit)
        for row, position in enumerate(positions.tolist()):
            _fill(made, row, *read.get_or_next(order[position]))
        return made

    return _iterate(make, sys.maxsize // batch, config, start)


def evaluation_batches(
    source: Source, config: DataConfig, batch: int, rows: Rows = slice(None)
) -> Batches:
    """Yield the center views of all records in order, once each, in ceil(n / batch) batches.

    Of the `batch` rows only `rows`, in as many batches. `mask` is False on the zeros that pad the
    last batch, and on a record that has become unreadable, which is warned of.
    """
    mine = _numbers(rows, batch)
    read = _Reader(source, config)

    def make(step: int) -> Batch:
        made = _empty(len(mine), config.crop) | {"mask": np.zeros(len(mine), bool)}
        made["offset"][:] = (config.image_size - config.crop) // 2
        for row, index in enumerate((step * batch + mine).tolist()):
            record = read.get(index) if index < len(source) else None
            if record is not None:
                _fill(made, row, index, record)
                made["mask"][row] = True
            else:
                made["image"][row] = 0
                made["index"][row] = index if index < len(source) else -1
        return made

    return _iterate(make, -(-len(source) // batch), config, 0)


def _numbers(rows: Rows, batch: int) -> np.ndarray:
    """Return the numbers of the rows, int64."""
    blocks = rows if isinstance(rows, tuple) else (rows,)
    return np.concatenate([np.arange(batch)[block] for block in blocks])


def num_unreadable(source: Source) -> int:
    """Return how many records of a source this process has found to have become unreadable."""
    return len(_GONE_BAD.get(source, ()))


class _Reader:
    """Reads records, and warns once of each that it cannot read, however often it is tried.

    Raises ValueError there where the configuration says to stop, and where too many are gone.
    """

    def __init__(self, source: Source, config: DataConfig):
        self._source = source
        self._stop = config.unreadable == "stop"
        self._gone_bad = _GONE_BAD.setdefault(source, set())

    def get(self, index: int) -> Record | None:
        try:
            return self._source[index]
        except UnreadableImage as error:
            if self._stop:
                raise ValueError(
                    f"--data.unreadable stop: {self._source.describe(index)} has become unreadable "
                    f"({error}); bring it back: the same command then goes on."
                ) from error
            if index not in self._gone_bad:
                self._gone_bad.add(index)
                self._warn(index, error)
            return None

    def _warn(self, index: int, error: UnreadableImage) -> None:
        gone, number = len(self._gone_bad), len(self._source)
        if gone > max(NAMED, FEW * number):
            raise ValueError(
                f"{gone:,} of {number:,} images have become unreadable, the last of them "
                f"{self._source.describe(index)} ({error}); at most {FEW:.0%} may: bring them "
                "back, and the same command goes on."
            ) from error
        if gone <= NAMED:
            LOGGER.warning(
                "%s is unreadable and left out: %s.", self._source.describe(index), error
            )
        if gone == NAMED:
            LOGGER.warning("Whatever else becomes unreadable is counted, not named.")

    def get_or_next(self, index: int) -> tuple[int, Record]:
        number = len(self._source)
        for candidate in range(index, index + number):
            record = self.get(candidate % number)
            if record is not None:
                return candidate % number, record
        raise ValueError(
            f"None of the {number} records can be read; training needs some: check the files."
        )


def _empty(number: int, crop: int) -> Batch:
    """Return a batch neither to be mirrored nor lit, whose squares are still to be filled."""
    size = number * crop * crop * 3
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return {
        "image": memory[start : start + size].reshape(number, crop, crop, 3),
        "label": np.zeros(number, np.int32),
        "lighting": np.zeros((number, 3), np.float32),
        "divisor": np.ones(number, np.float32),
        "offset": np.zeros((number, 2), np.int32),
        "mirror": np.zeros(number, bool),
        "index": np.zeros(number, np.int64),
    }


def _fill(batch: Batch, row: int, index: int, record: Record) -> None:
    """Put a record into its row, cut out at the offset there."""
    into = batch["image"][row]
    into[:] = take_square(record["image"], batch["offset"][row], len(into))
    batch["label"][row] = record["label"]
    batch["index"][row] = index


def _iterate(make: Callable[[int], Batch], steps: int, config: DataConfig, start: int) -> Batches:
    """Yield make(start), make(start + 1), ... up to `steps`, read ahead in threads."""
    # Grain runs no more threads than there are batches to read ahead.
    ahead = max(config.prefetch, config.threads)
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead)
    batches = iter(grain.MapDataset.range(steps).map(make).to_iter_dataset(options))
    batches.set_state({"next_index": start})
    try:
        yield from batches
    finally:
        batches.close()
