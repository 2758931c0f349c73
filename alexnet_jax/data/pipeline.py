"""Batches as a function of the step: batch n is the same with any start, threads and processes."""

import logging
import sys
from collections.abc import Callable, Generator

import grain
import numpy as np

from alexnet_jax.config import DataConfig, invalid
from alexnet_jax.data.crops import random_views, take_square
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.order import Order
from alexnet_jax.data.sources import Record, Source
from alexnet_jax.data.wrappers import Monitored

Rows = slice | tuple[slice, ...]  # of a batch; several blocks are concatenated

LOGGER = logging.getLogger(__name__)
MAX_WARNINGS = 10  # records of a source that are named: of a lost disk there would be millions
MAX_UNREADABLE = 0.1  # fraction that may become unreadable; without more it is another data set
ALIGNMENT = 64  # bytes that XLA requires: on a CPU it copies an array that starts elsewhere

# B images on their way to the device, where `model.preprocess` converts them to float, subtracts
# the mean, flips, adds lighting and divides. Only evaluation has `mask`:
#   image     uint8 [B, crop, crop, 3], RGB, not flipped yet
#   label     int32 [B]
#   lighting  float32 [B, 3], along the principal axes of color, in units of `data.pca_scale`
#   divisor   float32 [B], of the image after mean and lighting
#   offset    int32 [B, 2], row and column of the crop in its square
#   mirror    bool [B], whether to flip it left to right
#   index     int64 [B], number of the record in the source; -1 for padding
#   mask      bool [B], False for padding and unreadable records
Batch = dict[str, np.ndarray]
Batches = Generator[Batch, None, None]  # `close()` stops the threads that read ahead


def training_batches(
    source: Source,
    config: DataConfig,
    seed: int,
    batch_size: int,
    start: int = 0,
    rows: Rows = slice(None),
) -> Batches:
    """Yield batches `start`, `start` + 1, ... without end; of their rows only `rows`.

    Every record comes once an epoch, in an order that depends on (seed, epoch), or on the seed if
    `config.shuffle` is "once"; batches run across the ends of epochs. A view depends on (seed,
    position in the run) alone. A record that has become unreadable is replaced by the next readable
    one, with one warning.

    Raises:
        ValueError: a record is unreadable and the run is to stop then, or too many are.
    """
    order = Order(len(source), seed, each_epoch=config.shuffle == "each-epoch")
    row_numbers = _row_numbers(rows, batch_size)
    reader = _Reader(source, config)
    lighting_end = config.pca_epochs * len(source) or sys.maxsize

    def make(step: int) -> Batch:
        positions = step * batch_size + row_numbers
        views = random_views(config, seed, positions, lighting_end)
        result = empty_batch(len(positions), config.crop) | views
        for row, index in enumerate(order(positions).tolist()):
            _fill(result, row, *reader.get_or_next(index))
        return result

    return _iterate(make, sys.maxsize // batch_size, config, start)


def evaluation_batches(
    source: Source, config: DataConfig, batch_size: int, rows: Rows = slice(None)
) -> Batches:
    """Yield the center crops of all records in order, once each, in ceil(n / batch_size) batches.

    Of their rows only `rows`. `mask` is False for the zeros that pad the last batch, and for
    a record that has become unreadable. Raises ValueError as `training_batches` does.
    """
    row_numbers = _row_numbers(rows, batch_size)
    reader = _Reader(source, config)

    def make(step: int) -> Batch:
        number = len(row_numbers)
        result = empty_batch(number, config.crop) | {"mask": np.zeros(number, bool)}
        result["offset"][:] = (config.image_size - config.crop) // 2
        for row, index in enumerate((step * batch_size + row_numbers).tolist()):
            record = reader.get(index) if index < len(source) else None
            if record is not None:
                _fill(result, row, index, record)
                result["mask"][row] = True
            else:
                result["image"][row] = 0
                result["index"][row] = index if index < len(source) else -1
        return result

    return _iterate(make, -(-len(source) // batch_size), config, 0)


def num_unreadable(source: Source) -> int:
    """Return how many records of a monitored source have become unreadable to this process."""
    return len(source.unreadable) if isinstance(source, Monitored) else 0


def _row_numbers(rows: Rows, batch_size: int) -> np.ndarray:
    blocks = rows if isinstance(rows, tuple) else (rows,)
    return np.concatenate([np.arange(batch_size)[block] for block in blocks])


class _Reader:
    """Reads records, and warns once of each that is unreadable.

    Of a `Monitored` source it warns once in all, of any other once for each reader.
    """

    def __init__(self, source: Source, config: DataConfig):
        self._source = source if isinstance(source, Monitored) else Monitored(source)
        self._stop = config.unreadable == "stop"

    def get(self, index: int) -> Record | None:
        """Return a record, or None if it is unreadable."""
        try:
            return self._source[index]
        except UnreadableImage as error:
            if self._stop:
                rule = f"{self._source.describe(index)} has become unreadable ({error})"
                remedy = "restore it and rerun the same command to resume"
                raise invalid("data.unreadable", "stop", rule, remedy) from error
            if index not in self._source.unreadable:
                self._source.unreadable.add(index)
                self._warn(index, error)
            return None

    def _warn(self, index: int, error: UnreadableImage) -> None:
        count, number = len(self._source.unreadable), len(self._source)
        if count > max(MAX_WARNINGS, MAX_UNREADABLE * number):
            raise ValueError(
                f"{count:,} of {number:,} images have become unreadable, the last is "
                f"{self._source.describe(index)} ({error}); at most {MAX_UNREADABLE:.0%} may be: "
                "restore them and rerun the same command to resume."
            ) from error
        if count <= MAX_WARNINGS:
            LOGGER.warning("%s is unreadable and skipped: %s.", self._source.describe(index), error)
        if count == MAX_WARNINGS:
            LOGGER.warning("Further unreadable images are counted, but not named.")

    def get_or_next(self, index: int) -> tuple[int, Record]:
        """Return the number and the record of the first readable one from `index` on."""
        number = len(self._source)
        for candidate in range(index, index + number):
            record = self.get(candidate % number)
            if record is not None:
                return candidate % number, record
        raise ValueError(
            f"None of the {number} records is readable; training needs some: check the files."
        )


def empty_batch(number: int, crop: int) -> Batch:
    """Return a batch without flips and lighting; its images are uninitialized."""
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
    """Write a record to its row, cropped at the offset of the row."""
    crop = batch["image"][row]
    crop[:] = take_square(record["image"], batch["offset"][row], len(crop))
    batch["label"][row] = record["label"]
    batch["index"][row] = index


def _iterate(make: Callable[[int], Batch], steps: int, config: DataConfig, start: int) -> Batches:
    """Yield make(start), make(start + 1), ... up to `steps`, read ahead in threads."""
    # Grain uses no more threads than batches to read ahead.
    prefetch = max(config.prefetch, config.threads)
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=prefetch)
    batches = iter(grain.MapDataset.range(steps).map(make).to_iter_dataset(options))
    batches.set_state({"next_index": start})
    try:
        yield from batches
    finally:
        batches.close()
