"""What training changes from step to step, created where it will lie."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.training.schedule import Progress
from alexnet_jax.training.timing import no_time


def make_key(seed: int) -> Array:
    """Return the key of all random numbers that a run draws on its devices.

    Its generator is fixed: JAX's default is a setting of the process, and may change.
    """
    return jax.random.key(seed, impl="threefry2x32")


class TrainState(flax.struct.PyTreeNode):
    """Step, variables and optimizer state; the step is also the position in the data."""

    step: Array  # int32 []: steps done
    variables: Any  # {"params": {layer: {"kernel", "bias"}}}
    opt_state: Any


@dataclasses.dataclass
class LoopState:
    """Where a run stands; every checkpoint holds all of it."""

    train: TrainState
    step: int = 0
    progress: Progress = dataclasses.field(default_factory=Progress)
    line_sums: dict[str, float] = dataclasses.field(default_factory=dict)  # since the last line
    epoch_sums: dict[str, float] = dataclasses.field(default_factory=dict)  # since the epoch began
    time: dict[str, float] = dataclasses.field(default_factory=no_time)  # of earlier processes


def abstract_state(
    architecture: Architecture, tx: optax.GradientTransformation, mesh: Mesh, seed: int
) -> tuple[Any, Any]:
    """Return `(init, target)`: the jitted initializer, and its result as sharded shapes.

    Initial parameters depend on the seed alone, not on the mesh, and no device ever holds more than
    its part.
    """
    init_variables = towers.initializer(architecture)

    def init() -> TrainState:
        variables = init_variables(make_key(seed))
        return TrainState(jnp.zeros((), jnp.int32), variables, tx.init(variables["params"]))

    shapes = jax.eval_shape(init)
    shardings = towers.state_shardings(shapes, architecture, mesh)
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    return jax.jit(init, out_shardings=shardings), target
