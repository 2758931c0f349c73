"""Two towers on a mesh of devices: the mesh, the shardings of all arrays and the collectives.

This is where devices are assigned: no other file names a mesh axis. `partition.py` says which axis
of a layer's arrays is split; here that becomes PartitionSpecs and a `shard_map`.

The mesh is `(data, tower)`. Its `tower` axis has two devices, each with one tower of every layer
(P3.2, Figure 2), or one device with both; its `data` axis has the shards of the batch. Parameters
are global arrays of the same shapes on every mesh.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.config import invalid
from alexnet_jax.model import platform
from alexnet_jax.model.alexnet import AlexNet, TowerCollectives
from alexnet_jax.model.architecture import TOWERS, Architecture, outputs
from alexnet_jax.model.partition import partition_layers
from alexnet_jax.model.settings import available_devices

DATA, TOWER = "data", "tower"


def make_mesh(
    *,
    towers: int | Literal["auto"] = "auto",
    data: int | Literal["auto"] = "auto",
    batch: int,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Return a mesh `(data, tower)` over the devices of all processes.

    Args:
        towers: devices that share one copy of the network, 1 or 2; auto: 2 if there are enough.
        data: shards of the batch; auto: the largest number of devices that divides the batch.
        batch: images a step.
        devices: to choose from, also compile-only ones (`analysis/targets.py`); None: JAX's.

    Raises:
        ValueError: there are no devices or too few, the shards do not divide the batch, or a
            process would have no device in the mesh.
    """
    devices = available_devices() if devices is None else devices
    if towers == "auto":
        towers = min(TOWERS, max(1, len(devices) // (1 if data == "auto" else data)))
    if data == "auto":
        data = max(n for n in range(1, max(1, len(devices) // towers) + 1) if batch % n == 0)
    if data * towers > len(devices):
        rule = (
            f"with mesh.towers={towers} needs {data * towers} devices, but there are "
            f"{len(devices)} ({devices[0].platform})"
        )
        raise invalid("mesh.data", data, rule, "use mesh.data=auto mesh.towers=auto")
    if batch % data:
        rule = f"must be divisible by mesh.data={data}"
        nearest = max(1, round(batch / data)) * data
        raise invalid("optimizer.batch_size", batch, rule, f"try {nearest}")
    used = devices[: data * towers]
    if idle := {device.process_index for device in devices} - {d.process_index for d in used}:
        rule = (
            f"with mesh.towers={towers} uses {len(used)} of {len(devices)} devices and none of "
            f"process {', '.join(map(str, sorted(idle)))}"
        )
        remedy = (
            "use mesh.data=auto mesh.towers=auto with an optimizer.batch_size that all devices "
            "divide, or fewer processes"
        )
        raise invalid("mesh.data", data, rule, remedy)
    # jax.make_mesh refuses pairs in some tori, as in the 4 x 4 chips of a v6e-16.
    grid = create_device_mesh((data, towers), used, allow_split_physical_axes=True)
    # Auto axes: with Explicit ones every convolution outside shard_map would need a sharding.
    return Mesh(grid, (DATA, TOWER), axis_types=(AxisType.Auto, AxisType.Auto))


def describe_mesh(mesh: Mesh) -> str:
    """Return a phrase such as "2 cpu devices, one tower each"."""
    data, towers = mesh.shape[DATA], mesh.shape[TOWER]
    kind = mesh.devices.flat[0].platform
    each = "one tower each" if towers == TOWERS else "both towers each"
    shards = f", the batch in {data} shards" if data > 1 else ""
    return f"{mesh.size} {kind} device{'s'[: mesh.size > 1]}, {each}{shards}"


def num_shards(mesh: Mesh) -> int:
    """Return into how many equal parts a batch is split."""
    return mesh.shape[DATA]


def check_batch(images: int, mesh: Mesh) -> None:
    """Check that a number of images can be split into equal data shards.

    Raises:
        ValueError: it cannot.
    """
    shards = num_shards(mesh)
    if images < 1:
        raise invalid("images", images, "must be at least one", "add some")
    if images % shards:
        rule = f"the number of images must be a multiple of the mesh's {shards} data shards"
        raise invalid("images", images, rule, "pad the batch, or use a mesh with data=1")


def _spec(axis: int | None, *leading: str | None) -> P:
    """Return the PartitionSpec of an array with one axis split over the towers, or with none."""
    if axis is None:
        return P(*leading)
    return P(*leading, *(None,) * (axis - len(leading)), TOWER)


def parameter_specs(architecture: Architecture, mesh: Mesh) -> dict[str, dict[str, P]]:
    """Return the PartitionSpec of each kernel and bias."""
    return {
        part.name: {"kernel": _spec(part.kernel_axis), "bias": _spec(part.bias_axis)}
        for part in partition_layers(architecture, mesh.shape[TOWER])
    }


def state_shardings(tree: Any, architecture: Architecture, mesh: Mesh) -> Any:
    """Return a NamedSharding for each leaf of a train state.

    An array whose path ends in a layer's kernel or bias (a parameter, its velocity) is sharded like
    that parameter; everything else, such as its learning rate, is replicated.
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
    """Return the rows of a batch that this process loads: those of its devices' data shards.

    The slices are in order and do not overlap; one process loads all rows. Processes that share a
    pair of towers load the same rows. `devices`: this process's in the mesh.
    """
    local_devices = mesh.local_devices if devices is None else devices
    shards = batch_sharding(mesh).devices_indices_map((batch,))
    bounds = {shards[device][0].indices(batch)[:2] for device in local_devices}
    return tuple(slice(first, end) for first, end in sorted(bounds))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: rows by data shard, the same rows for both towers."""
    return NamedSharding(mesh, P(DATA))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
    """Move a batch to the devices, sharded as `batch_sharding`.

    Each process passes the rows that `local_rows` gives it; the result is global arrays.
    """
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(dict(batch), sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def fetch(array: Array) -> np.ndarray:
    """Return a whole global array on every process; all processes must call this."""
    if array.is_fully_addressable:
        return jax.device_get(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def make_any_reduce(mesh: Mesh) -> Callable[[bool], Array]:
    """Return `flag -> bool []`: whether any process passes True.

    All processes must call it; they wait for each other only when they read the result.
    """
    sharding, everywhere = NamedSharding(mesh, P((DATA, TOWER))), NamedSharding(mesh, P())
    any_of = jax.jit(jnp.any, out_shardings=everywhere)

    def any_reduce(flag: bool) -> Array:
        flags = np.full(mesh.size, flag)  # each process fills in those of its own devices
        return any_of(jax.make_array_from_callback(flags.shape, sharding, flags.__getitem__))

    return any_reduce


def initializer(architecture: Architecture) -> Callable[[Array], Any]:
    """Return `key -> variables`, the initial parameters, which are the same on every mesh."""
    net = AlexNet(architecture, platform.GPU)

    def initialize(key: Array) -> Any:
        return net.init(key, jnp.zeros((1, architecture.crop, architecture.crop, 3)))

    return initialize


def ops(mesh: Mesh) -> platform.Ops:
    """Return the operations of the mesh's platform."""
    return platform.for_platform(mesh.devices.flat[0].platform)


def jit(
    function: Callable[..., Any], mesh: Mesh, deterministic: bool = True, **options: Any
) -> Callable[..., Any]:
    """Return `jax.jit(function)` with the compiler options of the mesh's platform.

    `deterministic`: the same numbers on the same inputs; see `platform.compiler_options`.
    """
    compiler_options = platform.compiler_options(mesh.devices.flat[0], deterministic)
    return jax.jit(function, compiler_options=compiler_options, **options)


def jit_anywhere(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Return `jit(function, mesh)`, which may also be called inside another `jax.jit` or gradient.

    There XLA's options are those of the outer program: JAX accepts no others. Elsewhere arrays that
    are not on the mesh are copied to it.
    """
    outermost, nested = jit(function, mesh), jax.jit(function)

    def call(*args: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
        if traced:
            return nested(*args)
        return outermost(*jax.tree.map(functools.partial(_on_mesh, mesh), args))

    return call


def _on_mesh(mesh: Mesh, x: Any) -> Any:
    if not isinstance(x, jax.Array) or x.sharding.device_set == {*mesh.devices.flat}:
        return x
    return jax.device_put(x, NamedSharding(mesh, P()))


def all_gather_towers(x: Array) -> Array:
    """Concatenate the maps or units of both towers."""
    # `to="invarying"`: its transpose is a slice, not a reduce-scatter, which gloo gets wrong across
    # processes. The transpose of pcast then sums the gradients of both towers, and custom VJPs may
    # follow.
    # Gathered as [2, ...] and concatenated: gathered along the maps, XLA's CPU backend would store
    # them map by map and compute the pooling before it in that order, which misses the caches.
    gathered = lax.all_gather(x, TOWER, to="invarying")
    return jnp.concatenate(list(lax.pcast(gathered, TOWER, to="varying")), axis=-1)


def all_gather_maps(x: Array) -> Array:
    """Compute `all_gather_towers` as one operation, without the copies of a concatenation."""
    gathered = lax.all_gather(x, TOWER, axis=x.ndim - 1, tiled=True, to="invarying")
    return lax.pcast(gathered, TOWER, to="varying")


def psum_towers(x: Array) -> Array:
    """Sum over both towers."""
    return lax.psum(x, TOWER)


def halo_exchange(x: Array, n: int) -> tuple[Array, Array]:
    """Return the n maps before and after this tower's, of the other tower; zeros at the ends."""
    tower = lax.axis_index(TOWER)
    first, last = x[..., :n], x[..., max(0, x.shape[-1] - n) :]  # all, if there are fewer
    # Tower 0's last maps are next to tower 1's first: one exchange carries both.
    received = lax.ppermute(jnp.where(tower == 0, last, first), TOWER, [(0, 1), (1, 0)])
    return jnp.where(tower == 1, received, 0), jnp.where(tower == 0, received, 0)


def tower_collectives(ops: platform.Ops) -> TowerCollectives:
    """Return the communication between two devices in a platform's form."""
    gather = all_gather_maps if ops.gather_along_maps else all_gather_towers
    return TowerCollectives(gather, psum_towers, halo_exchange)


def _batch_axis(mesh: Mesh) -> str | None:
    """Return the mesh axis that a batch is split over, None if one device has all of it.

    With an axis of size 1 XLA would still sum gradients over it, which on a CPU copies them all.
    """
    return DATA if mesh.shape[DATA] > 1 else None


def output_specs(architecture: Architecture, mesh: Mesh) -> dict[str, P]:
    """Return the PartitionSpec of the outputs of every layer and operation."""
    batch = _batch_axis(mesh)
    return {
        name: _spec(part.output_axis, batch)
        for part in partition_layers(architecture, mesh.shape[TOWER])
        for name in (part.name, *(output for _, output in outputs(part.layer)))
    }


def forward(
    architecture: Architecture, mesh: Mesh, taps: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Return `apply(variables, images, dropout_masks, perturbations) -> logits`.

    Differentiate outside it.

    `variables` are global arrays, `images` float [B, crop, crop, 3], `dropout_masks` bool
    [B, ...outputs] over both towers, drawn by the caller so that they are the same on every mesh,
    or None; `perturbations` float [B, H, W, maps] over both towers, added to outputs, or None.
    Between the two devices of a pair cross the inputs of layers that see both towers (all-gathers;
    in the network of 2012 the outputs of pool2, pool5 and fc6), the partial logits (all-reduce)
    and, if LRN is over all maps, those at the border (halo exchange).

    With `taps` the result is `(logits, outputs)`, a dict of global arrays by name: a layer before
    its activation ("conv5") or an operation that follows it ("relu5", "pool5").
    """
    split = mesh.shape[TOWER] == TOWERS
    chosen = ops(mesh)
    net = AlexNet(architecture, chosen, tower_collectives(chosen) if split else None, taps)

    def body(variables: Any, images: Array, dropout_masks: Any, perturbations: Any) -> Any:
        # Custom VJPs (pooling.py, response_norm.py) need operands that vary over the same axes.
        if batch:
            variables = jax.tree.map(lambda x: lax.pcast(x, batch, to="varying"), variables)
        if split:
            images = lax.pcast(images, TOWER, to="varying")
        if chosen.image_layout:
            images = with_layout_constraint(images, Layout(chosen.image_layout))
        logits, tapped = net.apply(variables, images, dropout_masks, perturbations)
        return (logits, tapped) if taps else logits

    batch = _batch_axis(mesh)
    specs = output_specs(architecture, mesh)
    logits = specs[architecture.layers[-1].name]
    outs = (logits, {name: specs[name] for name in taps}) if taps else logits
    masks = {name: specs[name] for name in architecture.dropped}
    params = {"params": parameter_specs(architecture, mesh)}

    def apply(
        variables: Any,
        images: Array,
        dropout_masks: Mapping[str, Array] | None = None,
        perturbations: Mapping[str, Array] | None = None,
    ) -> Any:
        dropped = P() if dropout_masks is None else masks
        perturbed = {name: specs[name] for name in perturbations or {}}
        ins = (params, P(batch), dropped, perturbed)
        sharded = jax.shard_map(body, mesh=mesh, in_specs=ins, out_specs=outs)
        return sharded(variables, images, dropout_masks, dict(perturbations or {}))

    return apply


def make_gradient_barrier(architecture: Architecture, mesh: Mesh) -> Callable[[Any], Any]:
    """Return `gradients -> gradients`; on a CPU, none is available before all are computed.

    A step updates the parameters in place. If XLA cannot tell that an update comes after the last
    read of a parameter in the backward pass, it copies the parameter first.
    """
    if not ops(mesh).gradient_barrier:
        return lambda gradients: gradients

    def join(gradients: Any) -> Any:
        # XLA's CPU backend drops an `optimization_barrier` too early. XLA must compute 0 * x, as it
        # may be nan: then all parameters become nan, and training stops.
        factor = 1 + 0 * sum(leaf.ravel()[0] for leaf in jax.tree.leaves(gradients))
        return jax.tree.map(lambda leaf: leaf * factor, gradients)

    specs = {"params": parameter_specs(architecture, mesh)}
    # check_vma=False: on each device `factor` is of its own halves, and the product need not vary.
    return jax.shard_map(join, mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False)
