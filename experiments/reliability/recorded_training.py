"""Train as `python -m alexnet_jax.main` does, and record which images each step uses.

Run: python experiments/reliability/recorded_training.py ORDER ARGUMENTS, where ARGUMENTS are those
of `python -m alexnet_jax.main`.

ORDER is a file of one JSON object a line, {"step", "indices"}, written before the step, so that it
survives a kill. Checkpoints are removed slowly, file by file, so that a kill can hit a removal.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from alexnet_jax import main
from alexnet_jax.cli import distributed, signals

PAUSE = 0.01  # seconds after each file that is removed


def remove_slowly() -> None:
    """Make the removal of a checkpoint take a tenth of a second."""
    from alexnet_jax.training import checkpoint

    def rmtree(path: Path, **_: bool) -> None:
        for entry in sorted(path.rglob("*"), reverse=True):  # what a folder holds before it
            if entry.is_dir():
                entry.rmdir()
            else:
                entry.unlink()
                time.sleep(PAUSE)
        if path.exists():
            path.rmdir()

    checkpoint.shutil = cast(Any, type("shutil", (), {"rmtree": staticmethod(rmtree)}))


def record(order: str) -> None:
    """Make training write down the records of each batch as it takes the batch."""
    from alexnet_jax.training import feed

    open_batches = feed.training_batches
    file = os.open(order, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def recorded(*args: Any) -> Iterator[Any]:
        batches, start = open_batches(*args), args[4]
        try:
            for step, batch in enumerate(batches, start=start + 1):
                line = json.dumps({"step": step, "indices": batch["index"].tolist()})
                os.write(file, f"{line}\n".encode())
                yield batch
        finally:
            batches.close()

    feed.training_batches = cast(Any, recorded)


if __name__ == "__main__":
    signals.install_handlers()
    _, order, *arguments = sys.argv
    sys.argv = [main.__file__, *arguments]
    record(order)
    remove_slowly()
    distributed.shutdown(main.main())
