"""The paper's update rule as an optax transformation (P5; weights.cu:146-198)."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from alexnet_jax.config import OptimizerConfig


class PaperSgdState(NamedTuple):
    """Two trees like the parameters, saved with every checkpoint."""

    rates: Any  # float32 []: the learning rate of each parameter
    velocity: Any


def paper_sgd(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return v <- momentum v - decay rate w - rate g; w <- w + v, with decay on kernels only.

    The rate is inside the velocity: after it drops, the velocity accumulated at the old rate decays
    over the next steps. `optax.sgd(momentum=)`, like PyTorch's, has it outside, which differs at
    every drop. Every parameter has its own rate, initially the configuration's or a layer's
    multiple of it; `set_rates` changes them. A parameter at rate 0 is frozen: neither it
    nor its velocity moves (weights.cu:148).
    """

    def init(params: Any) -> PaperSgdState:
        initial = {
            "kernel": config.learning_rate,
            "bias": config.learning_rate * config.bias_lr_multiplier,
        }

        def rate(path: tuple[Any, ...], _: Array) -> Array:
            layer, kind = (key.key for key in path[-2:])
            return jnp.full(
                (), initial[kind] * config.layer_multipliers.get(layer, 1.0), jnp.float32
            )

        rates = jax.tree.map_with_path(rate, params)
        return PaperSgdState(rates, jax.tree.map(jnp.zeros_like, params))

    def new_velocity(path: tuple[Any, ...], w: Array, g: Array, v: Array, rate: Array) -> Array:
        decay = config.weight_decay if path[-1].key == "kernel" else 0.0
        return jnp.where(rate > 0, config.momentum * v - decay * rate * w - rate * g, v)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, PaperSgdState]:
        rates, old = state
        velocity = jax.tree.map_with_path(new_velocity, params, updates, old, rates)
        # Adding 0 would turn a weight of -0 into 0.
        updates = jax.tree.map(lambda v, rate: jnp.where(rate > 0, v, -0.0), velocity, rates)
        return updates, PaperSgdState(rates, velocity)

    return optax.GradientTransformation(init, update)


def set_learning_rates(opt_state: Any, rates: Mapping[str, Mapping[str, float]]) -> Any:
    """Return `opt_state` with the learning rates `{layer: {"kernel", "bias"}}`, all of them."""
    # Arrays of the same type and sharding: with plain numbers the step would be compiled again.
    return opt_state._replace(rates=jax.tree.map(jnp.full_like, opt_state.rates, rates))


def describe_learning_rates(config: OptimizerConfig, reinit_layers: Collection[str] = ()) -> str:
    """Return which layers are frozen or have learning rates of their own; "" if none.

    `reinit_layers` do not start from another run's weights though the others do.
    """
    phrases = []
    if config.frozen:
        names = [name for name in config.layer_multipliers if name in config.frozen]
        phrases.append(f"frozen: {', '.join(names)}")
    by_multiple: dict[float, list[str]] = {}
    for name, multiple in config.layer_multipliers.items():
        by_multiple.setdefault(multiple, []).append(name)
    for multiple, names in by_multiple.items():
        if multiple:
            phrases.append(f"{multiple:g} times the learning rate: {', '.join(names)}")
    if not phrases:
        return ""
    text = "; ".join(phrases)
    if random := [name for name in reinit_layers if name in config.frozen]:
        text += f"; {', '.join(random)} will stay at random initial values"
    return f"{text[0].upper()}{text[1:]}."
