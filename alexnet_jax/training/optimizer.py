"""The paper's update rule as an optax transformation (P5; weights.cu:146-198)."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from alexnet_jax.config import OptimizerConfig


def _kinds(params: Any) -> Any:
    """Label each parameter with the last part of its path: kernel or bias."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key, params)


def _kernels(params: Any) -> Any:
    return jax.tree.map(lambda kind: kind == "kernel", _kinds(params))


def paper_sgd(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return v <- momentum v - decay rate w - rate g; w <- w + v, with decay on kernels only.

    The rate stands inside the velocity: after it drops, the velocity gathered at the old rate dies
    away over the next steps. `optax.sgd(momentum=)`, like PyTorch's, has it outside, which differs
    at every drop. The rates live in the state, so that they are saved with it; `set_rate` changes
    them.
    """

    @optax.inject_hyperparams
    def rule(rate, bias_rate):
        by_kind: dict[Hashable, optax.GradientTransformation] = {
            "kernel": optax.scale_by_learning_rate(rate),
            "bias": optax.scale_by_learning_rate(bias_rate),
        }
        return optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=_kernels),
            optax.partition(by_kind, _kinds),
            optax.trace(decay=config.momentum),
        )

    return rule(rate=config.rate, bias_rate=config.rate * config.bias_rate)


def set_rate(opt_state: Any, rate: float, config: OptimizerConfig) -> Any:
    """Return `opt_state` with the learning rates of kernels (`rate`) and of biases replaced."""
    rates = {"rate": rate, "bias_rate": rate * config.bias_rate}
    # Arrays like the old ones, placed like them: a plain number would compile the step again.
    placed = {name: jnp.full_like(optax.tree.get(opt_state, name), r) for name, r in rates.items()}
    return optax.tree.set(opt_state, **placed)
