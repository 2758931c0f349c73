"""Train as `python -m alexnet_jax.main` does, and record which images each step uses.

Run: python experiments/reliability/recorded_training.py ORDER ARGUMENTS, where ARGUMENTS are those
of `python -m alexnet_jax.main`.

ORDER is a file of one JSON object a line, {"step", "indices"}, written before the step, so that it
survives a kill.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, cast

from alexnet_jax import main
from alexnet_jax.cli import distributed, signals


def record(order: str) -> None:
    """Have the trainer's batches written down as it takes them."""
    from alexnet_jax.training import trainer

    open_batches = trainer.training_batches
    file = os.open(order, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def recorded(*setting: Any) -> Iterator[Any]:
        batches, start = open_batches(*setting), setting[4]
        try:
            for step, taken in enumerate(batches, start=start + 1):
                line = json.dumps({"step": step, "indices": taken["index"].tolist()})
                os.write(file, f"{line}\n".encode())
                yield taken
        finally:
            batches.close()

    trainer.training_batches = cast(Any, recorded)


if __name__ == "__main__":
    signals.install_handlers()
    _, order, *arguments = sys.argv
    sys.argv = [main.__file__, *arguments]
    record(order)
    distributed.shutdown(main.main())
