"""A NaN or infinite number in training: a report of its step, and where it first appears."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax import Array

from alexnet_jax.model import towers
from alexnet_jax.model.preprocess import preprocess
from alexnet_jax.storage.atomic import write_json
from alexnet_jax.training import processes
from alexnet_jax.training.setup import TrainSetup, make_preprocess
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import Batch, draw_dropout_masks, make_gradient, step_key

REPORT = "nonfinite.json"
SHOWN = 3  # images named

Before = tuple[TrainState, Batch]  # a step's inputs: the state before it, and its batch


def stop_training(
    setup: TrainSetup,
    workdir: Path,
    step: int,
    reason: str,
    index: Array,
    checkpoint: int | None,
    before: Before | None,
) -> NoReturn:
    """Write `workdir`/nonfinite.json and raise a FloatingPointError that says what to do.

    Args:
        setup: of the run.
        workdir: its folder.
        step: the first with a number that is not finite, counted from 1.
        reason: what was found.
        index: int [B], the batch's records in the training split.
        checkpoint: step of the last checkpoint, from which the step can be repeated.
        before: the step's inputs, to say where the number first appears; kept with debug.
    """
    if before:
        reason += f", and the first non-finite values are in {locate(setup, *before)}"
    numbers = towers.fetch(index).tolist()
    source, path = setup.data.splits.train, workdir / REPORT
    report = {
        "step": step,
        "reason": reason,
        "checkpoint": checkpoint,
        "indices": numbers,
        "records": [source.describe(number) for number in numbers],
    }
    if processes.is_main_process():
        write_json(path, report)
    again = "" if before else "; repeat it with debug=True to see where they first appear"
    raise FloatingPointError(
        f"step {step}: {reason}; the last checkpoint (step {checkpoint}) is good, and {path} names "
        f"the images of step {step}{again}; or train in another folder with a lower "
        f"optimizer.learning_rate={setup.config.optimizer.learning_rate / 10:g}."
    )


def locate(setup: TrainSetup, state: TrainState, batch: Batch) -> str:
    """Return in words where the step from `state` on `batch` first has a non-finite value.

    JAX's own jax_debug_nans does not look inside shard_map, where the whole network is.

    The order is that of the step: parameters, images, outputs layer by layer, gradients from the
    last layer down; what remains is the update.
    """
    for name, array, by_image in _values(setup, state, batch):
        value = towers.fetch(array)
        nonfinite = ~np.isfinite(value)
        if nonfinite.any():
            kind = "nan" if np.isnan(value).any() else "inf"
            text = f"{name} ({kind}; {nonfinite.sum():,} of {nonfinite.size:,} values"
            return text + (f"; {_images(setup, batch, nonfinite)})" if by_image else ")")
    return (
        "the update of the parameters: all values before it are finite, so the step was too large"
    )


def _values(
    setup: TrainSetup, state: TrainState, batch: Batch
) -> Iterator[tuple[str, Array, bool]]:
    """Yield names, values, and whether the first axis counts images."""
    config, architecture, mesh = setup.config, setup.architecture, setup.mesh
    constants = make_preprocess(config.data, setup.data.statistics)
    yield from _leaves("the parameter", state.variables["params"])
    finished = functools.partial(preprocess, precision=architecture.precision)
    images = jax.jit(finished)(batch, constants)
    yield "the preprocessed images", images, True
    names = tuple(towers.output_specs(architecture, mesh))
    masks = draw_dropout_masks(architecture, step_key(config.seed, state.step), len(images))
    apply = towers.jit(towers.forward(architecture, mesh, names), mesh)
    _, outputs = apply(state.variables, images, masks)
    for name in names:
        yield f"the outputs of {name}", outputs[name], True
    gradient = make_gradient(architecture, mesh, constants, config.seed, config.optimizer.frozen)
    (loss, _), gradients = towers.jit(gradient, mesh)(state.variables, state.step, batch)
    yield "the loss", loss, False
    yield from reversed([*_leaves("the gradient of", gradients["params"])])


def _leaves(what: str, params: Any) -> Iterator[tuple[str, Array, bool]]:
    for layer, kinds in params.items():
        for kind, value in kinds.items():
            yield f"{what} {layer}'s {kind}", value, False


def _images(setup: TrainSetup, batch: Batch, nonfinite: np.ndarray) -> str:
    rows = np.flatnonzero(nonfinite.reshape(len(nonfinite), -1).any(axis=1))
    source, numbers = setup.data.splits.train, towers.fetch(batch["index"])[rows[:SHOWN]]
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"of {', '.join(source.describe(number) for number in numbers.tolist())}{more}"
