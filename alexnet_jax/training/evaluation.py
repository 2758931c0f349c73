"""Scores of a split: every image exactly once, on any batch size and any number of devices."""

import contextlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from alexnet_jax.config import DataConfig
from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.data.sources import Source
from alexnet_jax.model import towers
from alexnet_jax.training import processes
from alexnet_jax.training.stopping import StopCheck, no_check


def evaluate(
    eval_step: Callable[..., Any],
    variables: Any,
    source: Source,
    config: DataConfig,
    batch_size: int,
    mesh: Mesh,
    check_stop: StopCheck = no_check,
) -> dict[str, float]:
    """Return `loss` (nats), `top1_error`, `top5_error` (fractions) and `count` over a split.

    Center views. The last batch is padded and masked; sums are divided once, at the end. An image
    that has become unreadable is not counted. Each process reads its devices' rows of every batch;
    all return the same.

    Args:
        eval_step: from `step.make_eval_step`.
        variables: {"params": ...}, on the mesh.
        source: the split.
        config: preprocessing.
        batch_size: images a batch, over all devices.
        mesh: the devices.
        check_stop: called before each batch; what it raises ends the evaluation.

    Raises:
        ValueError: no image can be read.
    """
    totals: dict[str, float] = {}
    batches = evaluation_batches(source, config, batch_size, towers.local_rows(mesh, batch_size))
    with contextlib.closing(batches):
        for batch in batches:
            check_stop()
            sums, _ = eval_step(variables, towers.put_batch(batch, mesh))
            totals = {name: totals.get(name, 0) + value.item() for name, value in sums.items()}
    if not (count := totals.pop("count", 0)):
        raise ValueError(f"None of the {len(source)} images can be read; check the files.")
    scores = {**{name: total / count for name, total in totals.items()}, "count": count}
    # The schedule depends on the last digit, which may differ between processes.
    return processes.broadcast_from_main("scores", lambda: scores)
