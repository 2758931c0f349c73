"""Scoring a split: every image exactly once, on any batch size and any number of devices."""

import contextlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh
from tqdm import tqdm

from alexnet_jax.config import DataConfig
from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.data.sources import Source
from alexnet_jax.model import towers
from alexnet_jax.training import processes, stopping
from alexnet_jax.training.stopping import StopCheck


def evaluate(
    eval_step: Callable[..., Any],
    variables: Any,
    source: Source,
    config: DataConfig,
    batch: int,
    mesh: Mesh,
    progress: bool = False,
    heed: StopCheck = stopping.ignore,
) -> dict[str, float]:
    """Return `loss` (nats), `top1_error`, `top5_error` (fractions) and `count` over a split.

    Center views. The last batch is padded and masked; sums are divided once, at the end. An image
    that has become unreadable is not counted. `heed` is called before each batch; what it raises
    ends the evaluation. Each process reads its devices' rows of every batch; all return the same.

    Raises:
        ValueError: no image can be read.
    """
    totals: dict[str, float] = {}
    batches = evaluation_batches(source, config, batch, towers.local_rows(mesh, batch))
    # disable=None: no bar where stderr is no terminal.
    bar = tqdm(batches, "evaluating", -(-len(source) // batch), disable=None if progress else True)
    with contextlib.closing(batches):
        for numpy_batch in bar:
            heed()
            sums, _ = eval_step(variables, towers.put_batch(numpy_batch, mesh))
            totals = {name: totals.get(name, 0) + value.item() for name, value in sums.items()}
    if not (count := totals.pop("count", 0)):
        raise ValueError(
            f"None of the {len(source)} images can be read; a score needs some: check the files."
        )
    scores = {**{name: total / count for name, total in totals.items()}, "count": count}
    return processes.broadcast_from_main(
        "scores", lambda: scores
    )  # the schedule follows the last digit
