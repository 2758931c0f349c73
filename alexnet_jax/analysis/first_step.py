"""Whether meshes agree: what the first step of a run computes on each, and how far it differs."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from alexnet_jax.data.pipeline import training_batches
from alexnet_jax.model import towers
from alexnet_jax.training.setup import TrainSetup, make_preprocess
from alexnet_jax.training.step import make_gradient


@dataclasses.dataclass(frozen=True)
class FirstStep:
    """What a mesh computes from the initial parameters and the first batch, and by what program."""

    loss: float  # nats, the mean of the batch
    logits: np.ndarray  # float32 [B, classes]
    gradients: Mapping[str, Mapping[str, np.ndarray]]  # by layer, kernel and bias
    program: str  # as XLA compiled it


def first_step(run: TrainSetup) -> FirstStep:
    """Compute loss, logits and gradients of the first training step; nothing is trained."""
    config, data = run.config, run.data
    constants = make_preprocess(config.data, data.constants)
    gradient = make_gradient(
        run.architecture, run.mesh, constants, config.seed, config.optimizer.frozen
    )
    state = run.create()
    batches = training_batches(
        data.splits.train, config.data, config.seed, config.optimizer.batch_size
    )
    with contextlib.closing(batches):
        batch = towers.put_batch(next(batches), run.mesh)
    arguments = state.variables, state.step, batch
    jitted: Any = towers.jit(gradient, run.mesh)
    compiled = jitted.lower(*arguments).compile()
    (loss, logits), gradients = jax.device_get(compiled(*arguments))
    return FirstStep(float(loss), logits, gradients["params"], compiled.as_text())


def differences(one: FirstStep, other: FirstStep) -> dict[str, float]:
    """Return the largest differences, of the logits and of each layer's gradients.

    As shares of the largest number there is of the kind: float32 has 7 digits, and two meshes add
    up in another order.
    """
    arrays = {"logits": (one.logits, other.logits)}
    for layer, there in other.gradients.items():
        for name in there:
            arrays[f"gradient of {layer}'s {name}"] = one.gradients[layer][name], there[name]
    return {name: _largest(*pair) for name, pair in arrays.items()}


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    largest = max(np.max(np.abs(other)), np.finfo(np.float32).tiny)  # a frozen layer's are all 0
    return float(np.max(np.abs(one - other)) / largest)
