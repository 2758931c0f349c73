"""What training changes from step to step, made where it will lie."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture


class TrainState(flax.struct.PyTreeNode):
    """Step, variables and optimizer state; the step is also the position in the data."""

    step: Array  # int32 []: steps done
    variables: Any  # {"params": {layer: {"kernel", "bias"}}}
    opt_state: Any


def abstract_state(
    architecture: Architecture, tx: optax.GradientTransformation, mesh: Mesh, seed: int
) -> tuple[Any, Any]:
    """Return `(create, target)`: the jitted initializer, and its result as sharded shapes.

    Initial parameters depend on the seed alone, not on the mesh, and no device ever holds more than
    its part.
    """
    initialize = towers.initializer(architecture)

    def create() -> TrainState:
        variables = initialize(jax.random.key(seed))
        return TrainState(jnp.zeros((), jnp.int32), variables, tx.init(variables["params"]))

    shapes = jax.eval_shape(create)
    shardings = towers.state_shardings(shapes, architecture, mesh)
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    return jax.jit(create, out_shardings=shardings), target
