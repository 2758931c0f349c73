"""Two towers on a mesh of devices: where every array lies, and what crosses.

No other file names a mesh axis.

The mesh is `(data, tower)`. `tower` has two devices, each with one half of every layer (P3.2,
Figure 2), or one device with both; `data` repeats that over shards of the batch. The same
parameters, global arrays in standard shapes, serve every mesh.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.model import layers
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.architecture import TOWERS, Architecture, Conv, Layer

DATA, TOWER = "data", "tower"


def make_mesh(
    *, towers: int | Literal["auto"] = "auto", data: int | Literal["auto"] = "auto", batch: int
) -> Mesh:
    """Return a mesh `(data, tower)` over this process's devices.

    Args:
        towers: devices that share one network, 1 or 2; auto: 2 where there are enough.
        data: shards of the batch; auto: as many as there are devices for and as divide the batch.
        batch: images a step.

    Raises:
        ValueError: there are fewer devices, or the batch does not divide into the shards.
    """
    devices = jax.devices()
    if towers == "auto":
        towers = min(TOWERS, max(1, len(devices) // (1 if data == "auto" else data)))
    if data == "auto":
        data = max(n for n in range(1, max(1, len(devices) // towers) + 1) if batch % n == 0)
    if data * towers > len(devices):
        raise ValueError(
            f"--mesh.data {data} x --mesh.towers {towers}: they need {data * towers} devices and "
            f"there are {len(devices)} ({devices[0].platform}); use auto."
        )
    if batch % data:
        raise ValueError(
            f"--optimizer.batch {batch}: it must be divisible by the {data} data shards of the "
            f"mesh; try {max(1, round(batch / data)) * data}."
        )
    # Auto axes: with Explicit ones each convolution outside shard_map would ask for its sharding.
    return jax.make_mesh(
        (data, towers),
        (DATA, TOWER),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices[: data * towers],
    )


def describe_mesh(mesh: Mesh) -> str:
    """Return one sentence about who computes what."""
    data, towers = mesh.shape[DATA], mesh.shape[TOWER]
    platform = mesh.devices.flat[0].platform
    each = "one tower each" if towers == TOWERS else "both towers each"
    shards = f", the batch in {data} shards" if data > 1 else ""
    return f"{mesh.size} {platform} device{'s'[: mesh.size > 1]}, {each}{shards}"


def parameter_specs(table: Architecture, mesh: Mesh) -> dict[str, dict[str, P]]:
    """Return the PartitionSpec of each kernel and bias: outputs by tower, fc8's inputs by tower."""

    def specs(layer: Layer) -> dict[str, P]:
        if mesh.shape[TOWER] == 1:
            return {"kernel": P(), "bias": P()}
        if layer.sees == "rows":
            return {"kernel": P(TOWER), "bias": P()}
        leading = (None,) * (3 if isinstance(layer, Conv) else 1)
        return {"kernel": P(*leading, TOWER), "bias": P(TOWER)}

    return {layer.name: specs(layer) for layer in table.layers}


def state_shardings(tree: Any, table: Architecture, mesh: Mesh) -> Any:
    """Return a NamedSharding for each leaf of a train state.

    A leaf whose path ends in a layer's kernel or bias (a parameter, its velocity) lies as that
    parameter does; everything else is on every device.
    """
    specs = parameter_specs(table, mesh)

    def sharding(path, _) -> NamedSharding:
        keys = ["", *(str(getattr(key, "key", "")) for key in path)]
        spec = specs[keys[-2]][keys[-1]] if keys[-2] in specs else P()
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
    """Move a batch to the devices: rows by data shard, the same rows on both towers."""
    return jax.device_put(dict(batch), NamedSharding(mesh, P(DATA)))


def initializer(table: Architecture) -> Callable[[Array], Any]:
    """Return `key -> variables` with the initial parameters, the same on every mesh."""
    net = AlexNet(table, layers.ACCELERATOR)

    def initialize(key: Array) -> Any:
        return net.init(key, jnp.zeros((1, table.crop, table.crop, 3)))

    return initialize


def _meet(x: Array) -> Array:
    # `to="invarying"`: its transpose is a slice, not a reduce-scatter, which gloo gets wrong across
    # processes; pcast's transpose then sums both towers' gradients, and lets custom VJPs follow.
    gathered = lax.all_gather(x, TOWER, axis=x.ndim - 1, tiled=True, to="invarying")
    return lax.pcast(gathered, TOWER, to="varying")


def _total(x: Array) -> Array:
    return lax.psum(x, TOWER)


def forward(table: Architecture, mesh: Mesh) -> Callable[..., Array]:
    """Return `apply(variables, images, keep=None) -> logits` on the mesh; differentiate outside it.

    `variables` are global arrays, `images` float [B, crop, crop, 3], `keep` the dropout masks, bool
    [B, units] over both towers, drawn by the caller so that they are the same on every mesh.
    Between two devices cross the outputs of pool2, pool5 and fc6 (all-gathers) and the partial
    logits (all-reduce).
    """
    split = mesh.shape[TOWER] == TOWERS
    kernels = layers.for_platform(mesh.devices.flat[0].platform)
    if split:
        net = AlexNet(table, kernels, held=1, meet=_meet, total=_total)
    else:
        net = AlexNet(table, kernels)

    def body(variables: Any, images: Array, keep: Mapping[str, Array] | None) -> Any:
        # The custom VJPs in layers.py want every operand to vary over the same axes.
        variables = jax.tree.map(lambda x: lax.pcast(x, DATA, to="varying"), variables)
        if split:
            images = lax.pcast(images, TOWER, to="varying")
        return net.apply(variables, images, keep)

    specs = {"params": parameter_specs(table, mesh)}
    mask = P(DATA, TOWER) if split else P(DATA)

    def apply(variables: Any, images: Array, keep: Mapping[str, Array] | None = None) -> Array:
        sharded = jax.shard_map(body, mesh=mesh, in_specs=(specs, P(DATA), mask), out_specs=P(DATA))
        return sharded(variables, images, keep)

    return apply
