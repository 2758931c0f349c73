"""Two towers on a mesh of devices: where every array lies, and what crosses.

No other file names a mesh axis.

The mesh is `(data, tower)`. `tower` has two devices, each with one half of every layer (P3.2,
Figure 2), or one device with both; `data` repeats that over shards of the batch. The same
parameters, global arrays in standard shapes, serve every mesh.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.model import platform
from alexnet_jax.model.alexnet import AlexNet, TowerCollectives
from alexnet_jax.model.architecture import TOWERS, Architecture, Conv, Dense, Layer, outputs

DATA, TOWER = "data", "tower"


def make_mesh(
    *, towers: int | Literal["auto"] = "auto", data: int | Literal["auto"] = "auto", batch: int
) -> Mesh:
    """Return a mesh `(data, tower)` over the devices of all processes.

    Args:
        towers: devices that share one network, 1 or 2; auto: 2 where there are enough.
        data: shards of the batch; auto: as many as there are devices for and as divide the batch.
        batch: images a step.

    Raises:
        ValueError: there are fewer devices, the batch does not divide into the shards, or a process
            would have no device in the mesh.
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
            f"--optimizer.batch_size-size {batch}: it must be divisible by the {data} data shards of the "
            f"mesh; try {max(1, round(batch / data)) * data}."
        )
    used = devices[: data * towers]
    if idle := {device.process_index for device in devices} - {d.process_index for d in used}:
        raise ValueError(
            f"--mesh.data {data} x --mesh.towers {towers}: of {len(devices)} devices they use "
            f"{len(used)}, none of them process {', '.join(map(str, sorted(idle)))}'s; use auto, a "
            "--optimizer.batch_size-size that divides over all devices, or fewer processes."
        )
    # Auto axes: with Explicit ones each convolution outside shard_map would ask for its sharding.
    return jax.make_mesh(
        (data, towers), (DATA, TOWER), axis_types=(AxisType.Auto, AxisType.Auto), devices=used
    )


def describe_mesh(mesh: Mesh) -> str:
    """Return one sentence about who computes what."""
    data, towers = mesh.shape[DATA], mesh.shape[TOWER]
    platform = mesh.devices.flat[0].platform
    each = "one tower each" if towers == TOWERS else "both towers each"
    shards = f", the batch in {data} shards" if data > 1 else ""
    return f"{mesh.size} {platform} device{'s'[: mesh.size > 1]}, {each}{shards}"


def check_batch(images: int, mesh: Mesh) -> None:
    """Raise a ValueError unless so many images can be dealt out, as many to each shard."""
    shards = mesh.shape[DATA]
    if images < 1 or images % shards:
        raise ValueError(
            f"{images} images: the mesh takes a multiple of its {shards} data shards, at least 1; "
            "pad them, or make a mesh with data=1."
        )


def parameter_specs(architecture: Architecture, mesh: Mesh) -> dict[str, dict[str, P]]:
    """Return the PartitionSpec of each kernel and bias: outputs by tower, fc8's inputs by tower.

    A layer whose classes see one tower each, perhaps an odd number, is on both devices.
    """

    def specs(layer: Layer) -> dict[str, P]:
        if mesh.shape[TOWER] == 1 or (isinstance(layer, Dense) and layer.sees == "own"):
            return {"kernel": P(), "bias": P()}
        if layer.sees == "rows":
            return {"kernel": P(TOWER), "bias": P()}
        leading = (None,) * (3 if isinstance(layer, Conv) else 1)
        return {"kernel": P(*leading, TOWER), "bias": P(TOWER)}

    return {layer.name: specs(layer) for layer in architecture.layers}


def state_shardings(tree: Any, architecture: Architecture, mesh: Mesh) -> Any:
    """Return a NamedSharding for each leaf of a train state.

    An array whose path ends in a layer's kernel or bias (a parameter, its velocity) lies as that
    parameter does; everything else, such as its learning rate, is on every device.
    """
    specs = parameter_specs(architecture, mesh)

    def sharding(path, leaf) -> NamedSharding:
        keys = ["", *(str(getattr(key, "key", "")) for key in path)]
        spec = specs[keys[-2]][keys[-1]] if keys[-2] in specs and leaf.ndim else P()
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def local_rows(
    mesh: Mesh, batch: int, devices: Iterable[jax.Device] | None = None
) -> tuple[slice, ...]:
    """Return which rows of a batch a process is to load: those of its devices' data shards.

    Blocks without overlaps, in order; all rows where there is one process. Processes that share a
    tower pair load the same ones. `devices` are those of the mesh that are this process's.
    """
    mine = mesh.local_devices if devices is None else devices
    shards = batch_sharding(mesh).devices_indices_map((batch,))
    bounds = {shards[device][0].indices(batch)[:2] for device in mine}
    return tuple(slice(first, end) for first, end in sorted(bounds))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return how a batch lies: rows by data shard, the same rows on both towers."""
    return NamedSharding(mesh, P(DATA))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
    """Move a batch to the devices, where it lies as `batch_sharding` says.

    Each process brings the rows that `rows` says, and all of them get the whole, global arrays.
    """
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(dict(batch), sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def fetch(array: Array) -> np.ndarray:
    """Return the whole of a global array, on every process; all of them have to call."""
    if array.is_fully_addressable:
        return jax.device_get(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def make_any_reduce(mesh: Mesh) -> Callable[[bool], Array]:
    """Return `flag -> bool []`: whether the flag of any process is up, on every process.

    All of them have to call; nobody waits before reading the answer.
    """
    sharding, everywhere = NamedSharding(mesh, P((DATA, TOWER))), NamedSharding(mesh, P())
    any_of = jax.jit(jnp.any, out_shardings=everywhere)

    def ask(flag: bool) -> Array:
        flags = np.full(mesh.size, flag)  # of which each process's devices take their own
        return any_of(jax.make_array_from_callback(flags.shape, sharding, flags.__getitem__))

    return ask


def initializer(architecture: Architecture) -> Callable[[Array], Any]:
    """Return `key -> variables` with the initial parameters, the same on every mesh."""
    net = AlexNet(architecture, platform.ACCELERATOR)

    def initialize(key: Array) -> Any:
        return net.init(key, jnp.zeros((1, architecture.crop, architecture.crop, 3)))

    return initialize


def jit(function: Callable[..., Any], mesh: Mesh, **options: Any) -> Callable[..., Any]:
    """Return `function`, compiled as this mesh's platform likes programs over the network."""
    platform = mesh.devices.flat[0].platform
    return jax.jit(function, compiler_options=platform.compiler_options(platform), **options)


def all_gather_towers(x: Array) -> Array:
    # `to="invarying"`: its transpose is a slice, not a reduce-scatter, which gloo gets wrong across
    # processes; pcast's transpose then sums both towers' gradients, and lets custom VJPs follow.
    # Gathered as [2, ...] and put together afterwards: along the maps themselves, XLA's CPU backend
    # would lay them out map by map, and compute the pooling before it in that order, which misses
    # the caches. A step on two emulated devices took 1.03 times as long.
    gathered = lax.all_gather(x, TOWER, to="invarying")
    return jnp.concatenate(list(lax.pcast(gathered, TOWER, to="varying")), axis=-1)


def psum_towers(x: Array) -> Array:
    return lax.psum(x, TOWER)


def halo_exchange(x: Array, n: int) -> tuple[Array, Array]:
    here = lax.axis_index(TOWER)
    first, last = x[..., :n], x[..., max(0, x.shape[-1] - n) :]  # all, where there are fewer
    # Tower 0's last maps border on tower 1's first: one exchange carries both.
    there = lax.ppermute(jnp.where(here == 0, last, first), TOWER, [(0, 1), (1, 0)])
    return jnp.where(here == 1, there, 0), jnp.where(here == 0, there, 0)


TOWER_COLLECTIVES = TowerCollectives(
    all_gather_towers, psum_towers, halo_exchange, lambda: lax.axis_index(TOWER)
)


def _rows(mesh: Mesh) -> str | None:
    """Return the axis over which a batch varies: none where one device has all of it.

    Else XLA would sum gradients over that one, which on a CPU copies all 240 MB of them.
    """
    return DATA if mesh.shape[DATA] > 1 else None


def output_specs(architecture: Architecture, mesh: Mesh) -> dict[str, P]:
    """Return the PartitionSpec of every output that can be asked for: its maps by tower."""

    rows = _rows(mesh)

    def spec(layer: Layer) -> P:
        if mesh.shape[TOWER] == 1 or layer is architecture.layers[-1]:
            return P(rows)
        between = (None,) * (2 if isinstance(layer, Conv) else 0)
        return P(rows, *between, TOWER)

    names = {
        layer.name: [layer.name, *(name for _, name in outputs(layer))]
        for layer in architecture.layers
    }
    return {name: spec(layer) for layer in architecture.layers for name in names[layer.name]}


def forward(
    architecture: Architecture, mesh: Mesh, taps: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Return `apply(variables, images, keep=None) -> logits` on the mesh; differentiate outside it.

    `variables` are global arrays, `images` float [B, crop, crop, 3], `keep` the dropout masks, bool
    [B, ...outputs] over both towers, drawn by the caller so that they are the same on every mesh.
    Between two devices cross what enters layers that see both towers (all-gathers; in the network
    of 2012 the outputs of pool2, pool5 and fc6), the partial logits (all-reduce) and, where
    response normalization runs over all maps, those at the border (an exchange).

    With `taps` the result is `(logits, outputs)`, a dict of global arrays by name: a layer
    ("conv5", before its ReLU) or what follows it ("relu5", "pool5").
    """
    split = mesh.shape[TOWER] == TOWERS
    kernels = platform.for_platform(mesh.devices.flat[0].platform)
    net = AlexNet(architecture, kernels, TOWER_COLLECTIVES if split else None, taps)

    def body(variables: Any, images: Array, dropout_masks: Mapping[str, Array] | None) -> Any:
        # The custom VJPs in layers.py want every operand to vary over the same axes.
        if rows:
            variables = jax.tree.map(lambda x: lax.pcast(x, rows, to="varying"), variables)
        if split:
            images = lax.pcast(images, TOWER, to="varying")
        logits, taken = net.apply(variables, images, dropout_masks)
        return (logits, taken) if taps else logits

    rows = _rows(mesh)
    logits = P(rows)
    every = output_specs(architecture, mesh)
    outs = (logits, {name: every[name] for name in taps}) if taps else logits
    masks = {name: every[name] for name in architecture.dropped}
    params = {"params": parameter_specs(architecture, mesh)}

    def apply(
        variables: Any, images: Array, dropout_masks: Mapping[str, Array] | None = None
    ) -> Any:
        ins = (params, P(rows), P() if dropout_masks is None else masks)
        sharded = jax.shard_map(body, mesh=mesh, in_specs=ins, out_specs=outs)
        return sharded(variables, images, dropout_masks)

    return apply


def make_gradient_barrier(architecture: Architecture, mesh: Mesh) -> Callable[[Any], Any]:
    """Return `gradients -> gradients`, of which no device of a CPU has one before it has all.

    A step writes its parameters over the old ones. Where XLA cannot tell that an update comes after
    the backward pass has read a parameter for the last time, it copies that parameter before.
    """
    if not platform.for_platform(mesh.devices.flat[0].platform).gradient_barrier:
        return lambda gradients: gradients

    def join(gradients: Any) -> Any:
        # An `optimization_barrier` would say it, but XLA's CPU backend drops it too early. 0 x has
        # to be computed, as it may be nan: then all parameters are, and the run ends.
        one = 1 + 0 * sum(leaf.ravel()[0] for leaf in jax.tree.leaves(gradients))
        return jax.tree.map(lambda leaf: leaf * one, gradients)

    specs = {"params": parameter_specs(architecture, mesh)}
    # Each device by its own halves: `one` varies, and what is multiplied by it does not.
    return jax.shard_map(join, mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False)
