"""The first training step on a mesh, to measure how far the results of two meshes differ."""

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
    """Results of a mesh for the initial parameters and the first batch, and its program."""

    loss: float  # nats, mean over the batch
    logits: np.ndarray  # float32 [B, classes]
    gradients: Mapping[str, Mapping[str, np.ndarray]]  # by layer, kernel and bias
    program: str  # the compiled program's text


def first_step(setup: TrainSetup) -> FirstStep:
    """Compute loss, logits and gradients of the first training step, without updating anything."""
    config, data = setup.config, setup.data
    constants = make_preprocess(config.data, data.statistics)
    gradient = make_gradient(
        setup.architecture, setup.mesh, constants, config.seed, config.optimizer.frozen
    )
    state = setup.init()
    batches = training_batches(
        data.splits.train, config.data, config.seed, config.optimizer.batch_size
    )
    with contextlib.closing(batches):
        batch = towers.put_batch(next(batches), setup.mesh)
    arguments = state.variables, state.step, batch
    jitted: Any = towers.jit(gradient, setup.mesh)
    compiled = jitted.lower(*arguments).compile()
    (loss, logits), gradients = jax.device_get(compiled(*arguments))
    return FirstStep(float(loss), logits, gradients["params"], compiled.as_text())


def differences(first: FirstStep, second: FirstStep) -> dict[str, float]:
    """Return the largest differences of the logits and of each layer's gradients.

    They are relative to the largest value of the array in `second`. Rounding alone gives about 1e-7
    to 1e-5: float32 has 7 digits, and meshes sum in different orders.
    """
    pairs = {"logits": (first.logits, second.logits)}
    for layer, gradients in second.gradients.items():
        for name in gradients:
            pair = first.gradients[layer][name], gradients[name]
            pairs[f"gradient of {layer}'s {name}"] = pair
    return {name: _largest_difference(*pair) for name, pair in pairs.items()}


def _largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    largest = max(np.max(np.abs(second)), np.finfo(np.float32).tiny)  # 0 in a frozen layer
    return float(np.max(np.abs(first - second)) / largest)
