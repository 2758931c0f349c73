"""Training batches on their way to the devices."""

import time
import zlib
from typing import Self

from jax import Array

from alexnet_jax.data.pipeline import training_batches
from alexnet_jax.model import towers
from alexnet_jax.training.setup import TrainSetup
from alexnet_jax.training.timing import TimeBudget


class BatchFeed:
    """The batches of a run from step `start` on.

    Attributes:
        rows: which rows of each batch this process loads.
        checksum: 32 bits, of the numbers of all images in them so far.
    """

    def __init__(self, setup: TrainSetup, start: int, budget: TimeBudget):
        config = setup.config
        self._mesh, batch_size = setup.mesh, config.optimizer.batch_size
        self.rows = towers.local_rows(self._mesh, batch_size)
        self.checksum, self._budget = 0, budget
        self._batches = training_batches(
            setup.data.splits.train, config.data, config.seed, batch_size, start, self.rows
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.close()

    def next(self, running: Array | None) -> dict[str, Array]:
        """Return the next batch, being copied to the devices.

        `running` is a result of the step before: unless the devices have finished it, they are not
        waiting for this batch.
        """
        started = time.monotonic()
        batch = next(self._batches)
        self.checksum = zlib.crc32(batch["index"].tobytes(), self.checksum)
        on_devices = towers.put_batch(batch, self._mesh)
        if running is None or running.is_ready():  # pyrefly: ignore [missing-attribute]
            self._budget.move(time.monotonic() - started, "data")
        return on_devices
