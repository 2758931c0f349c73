"""A number that is no longer finite: what is written down of its step, and where it was born."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from alexnet_jax.data.sources import Source
from alexnet_jax.model import towers
from alexnet_jax.model.preprocess import preprocess
from alexnet_jax.training import processes
from alexnet_jax.training.setup import TrainSetup, make_preprocess
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import Batch, draw_dropout_masks, make_gradient

BAD_NUMBERS = "bad_numbers.json"
SHOWN = 3  # images named


def write(
    workdir: Path,
    step: int,
    reason: str,
    checkpoint: int | None,
    records: np.ndarray,
    source: Source,
) -> Path:
    """Write `workdir`/bad_numbers.json; return its path.

    Args:
        workdir: folder of the run.
        step: the first with a bad number, counted from 1 as everywhere.
        reason: what was found.
        checkpoint: step of the last checkpoint, from which the step can be run again.
        records: int [B], the batch's records: numbers in `source`.
        source: the training split.
    """
    numbers = records.tolist()
    about = {
        "step": step,
        "reason": reason,
        "checkpoint": checkpoint,
        "indices": numbers,
        "records": [source.describe(number) for number in numbers],
    }
    path = workdir / BAD_NUMBERS
    if processes.is_main_process():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(about, indent=2) + "\n")
        partial.replace(path)
    return path


def find(run: TrainSetup, before: TrainState, batch: Batch) -> str:
    """Return in words where the step from `before` on `batch` first makes a bad number.

    JAX's own jax_debug_nans does not look inside shard_map, where the whole network is.

    The order is that of the step: parameters, images, outputs layer by layer, gradients from the
    last layer down; what is left is the update. Arguments as `run.train_step` has them.
    """
    for name, array, by_image in _values(run, before, batch):
        value = towers.fetch(array)
        bad = ~np.isfinite(value)
        if bad.any():
            kind = "nan" if np.isnan(value).any() else "inf"
            text = f"{name} ({kind}; {bad.sum():,} of {bad.size:,} numbers"
            return text + (f"; {_images(run, batch, bad)})" if by_image else ")")
    return "the update of the parameters: all before is finite, so the step was too large"


def _values(run: TrainSetup, before: TrainState, batch: Batch) -> Iterator[tuple[str, Array, bool]]:
    """Yield names, values, and whether the first axis counts images."""
    constants = make_preprocess(run.config.data, run.data.constants)
    yield from _leaves("the parameter", before.variables["params"])
    images = jax.jit(preprocess)(batch, constants)
    yield "the images as the network gets them", images, True
    names = tuple(towers.output_specs(run.architecture, run.mesh))
    dropout_masks = draw_dropout_masks(run.architecture, run.config.seed, before.step, len(images))
    apply = towers.jit(towers.forward(run.architecture, run.mesh, names), run.mesh)
    logits, outputs = apply(before.variables, images, dropout_masks)
    for name in names:
        yield f"the outputs of {name}", outputs[name], True
    yield "the logits", logits, True
    seed, frozen = run.config.seed, run.config.optimizer.frozen
    gradient = towers.jit(
        make_gradient(run.architecture, run.mesh, constants, seed, frozen), run.mesh
    )
    (loss, _), gradients = gradient(before.variables, before.step, batch)
    yield "the loss", loss, False
    yield from reversed([*_leaves("the gradient of", gradients["params"])])


def _leaves(what: str, params: Any) -> Iterator[tuple[str, Array, bool]]:
    for layer, kinds in params.items():
        for kind, value in kinds.items():
            yield f"{what} {layer}'s {kind}", value, False


def _images(run: TrainSetup, batch: Batch, bad: np.ndarray) -> str:
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    source, numbers = run.data.splits.train, towers.fetch(batch["index"])[rows[:SHOWN]]
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"of {', '.join(source.describe(number) for number in numbers.tolist())}{more}"
