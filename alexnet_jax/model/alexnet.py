"""The network as a Flax module: it applies the layers in order, for both towers or for one.

Convolution, LRN and pooling are in `convolution.py`, `response_norm.py` and `pooling.py`;
`platform.py` chooses their formulation. Devices are assigned in `towers.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from alexnet_jax.model.architecture import (
    SPATIAL_NORM,
    TOWERS,
    Architecture,
    Conv,
    Dense,
    Layer,
    Operation,
    ResponseNorm,
    outputs,
)
from alexnet_jax.model.partition import LayerPartition, partition_layers
from alexnet_jax.model.platform import Ops
from alexnet_jax.model.pooling import POOL_INDEX

# On this device: one array of both towers, or one for each tower computed here.
TowerArrays = list[Array]
Taps = dict[str, Array]  # requested outputs by name, the part that this device computes
HALO = "halo"
# What `Ops.recompute` keeps of what follows a product: little, or received from the other device.
KEEP = jax.checkpoint_policies.save_only_these_names(POOL_INDEX, HALO)


def add_bias(x: Array, bias: Array) -> Array:
    """Add a bias in float32: in bfloat16 a bias of 1 cannot change by less than 0.004."""
    return (x + bias.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Weights(nn.Module):
    """Kernel and bias of one layer, initialized as in P5."""

    shape: tuple[int, ...]
    std: float
    bias: float

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Return kernel and bias."""
        kernel = self.param("kernel", nn.initializers.normal(self.std), self.shape)
        bias = self.param("bias", nn.initializers.constant(self.bias), self.shape[-1:])
        return kernel, bias


@dataclasses.dataclass(frozen=True)
class TowerCollectives:
    """Communication between the two devices of a pair, each of which computes one tower."""

    all_gather: Callable[[Array], Array]  # [..., C / 2] of each tower -> [..., C]
    psum: Callable[[Array], Array]  # sums partial outputs
    # The n maps before and after this tower's, among all maps; zeros where there are none.
    halo_exchange: Callable[[Array, int], tuple[Array, Array]]


class AlexNet(nn.Module):
    """AlexNet, or one of its towers.

    The parameters are `{"conv1": {"kernel", "bias"}, ...}` with grouped kernels
    `(k, k, in / groups, out)`; the first half of the outputs belongs to tower 0. One device
    computes both towers from whole arrays, or each of two computes one from the part of every array
    that `partition_layers` gives it.

    Attributes:
        architecture: the layers.
        ops: how this platform convolves, normalizes and pools.
        collectives: communication with the other tower; None if this device computes both.
        taps: outputs to return with the logits: a layer before its activation ("conv5") or an
            operation that follows it ("relu5", "norm1", "pool5"); see `architecture.outputs`.
    """

    architecture: Architecture
    ops: Ops
    collectives: TowerCollectives | None = None
    taps: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self,
        images: Array,
        dropout_masks: Mapping[str, Array] | None = None,
        perturbations: Mapping[str, Array] | None = None,
    ) -> tuple[Array, Taps]:
        """Return the logits and the outputs in `taps`.

        Args:
            images: float [B, crop, crop, 3], as `preprocess` returns them.
            dropout_masks: for each layer with dropout the outputs to keep, bool [B, ..., outputs on
                this device]. None at test: all are kept (P4.2).
            perturbations: what is added to outputs of convolutions or of what follows them, by
                name, float [B, H, W, maps on this device]. The gradient with respect to zeros is
                that with respect to the output.

        Returns:
            Logits, float [B, classes], and the outputs in `taps`, the part that this device
            computes.
        """
        partitions = partition_layers(self.architecture, TOWERS // self._num_towers)
        weights = {
            part.name: Weights(part.kernel_shape, part.layer.std, part.layer.bias, name=part.name)()
            for part in partitions
        }
        x, taps = [images], {}
        for stage in _stages(partitions):
            if stage[0].gathers_inputs and self.collectives:
                x = [self.collectives.all_gather(jnp.concatenate(x, axis=-1))]
            layers = [part.layer for part in stage]
            run = functools.partial(self._run, layers, weights)
            run = self._in_blocks(run) if isinstance(layers[0], Conv) else run
            x, stage_taps = run(x, dropout_masks, perturbations or {})
            taps |= stage_taps
        (logits,) = x
        return logits, taps

    @property
    def _num_towers(self) -> int:
        """Towers that this device computes."""
        return TOWERS if self.collectives is None else 1

    def _in_blocks(self, run: Callable[..., tuple[TowerArrays, Taps]]):
        """Convolve a few images at a time, as many as the platform's `block_size` says."""

        def run_in_blocks(x: TowerArrays, *by_layer) -> tuple[TowerArrays, Taps]:
            batch = x[0].shape[0]
            size = self.ops.block_size(batch)
            if size == batch:
                return run(x, *by_layer)
            ends = list(range(0, batch, size))[1:]
            leaves, tree = jax.tree.flatten((x, *by_layer))
            # Gradients of slices would be padded to the whole batch and summed.
            blocks = zip(*(jnp.split(leaf, ends) for leaf in leaves), strict=True)
            done = [run(*jax.tree.unflatten(tree, block)) for block in blocks]
            return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *done)

        return run_in_blocks

    def _run(
        self, stage: Sequence[Layer], weights, x: TowerArrays, dropout_masks, perturbations
    ) -> tuple[TowerArrays, Taps]:
        taps: Taps = {}
        for layer in stage:
            kernel, bias = weights[layer.name]
            if isinstance(layer, Conv):
                x = self._convolve(layer, kernel, x)
            else:
                x = self._multiply(layer, kernel, x)
            follow = functools.partial(self._follow, layer)
            if self.ops.recompute:
                follow = jax.checkpoint(follow, policy=KEEP)
            x, layer_taps = follow(x, bias, dropout_masks, perturbations)
            taps |= layer_taps
        return x, taps

    def _follow(
        self, layer: Layer, x: TowerArrays, bias: Array, dropout_masks, perturbations
    ) -> tuple[TowerArrays, Taps]:
        """Add the bias to a layer's products and apply the operations that follow."""
        taps: Taps = {}

        def tap(name: str, x: TowerArrays) -> TowerArrays:
            if name in perturbations:
                added = jnp.split(perturbations[name], len(x), axis=-1)
                x = [tower + more.astype(tower.dtype) for tower, more in zip(x, added, strict=True)]
            if name in self.taps:
                taps[name] = jnp.concatenate(x, axis=-1).astype(jnp.float32)
            return x

        if self.ops.split_towers == "before bias" and isinstance(layer, Conv):
            x = self._apart(x)
        x = [add_bias(*pair) for pair in zip(x, jnp.split(bias, len(x)), strict=True)]
        if self.ops.split_towers != "when needed" and layer.sees != "row-split":
            x = self._apart(x)
        x = tap(layer.name, x)
        for operation, output in outputs(layer):
            x = tap(output, self._operate(operation, layer, dropout_masks, x))
        return x, taps

    def _convolve(self, layer: Conv, kernel: Array, x: TowerArrays) -> TowerArrays:
        padding = layer.padding(x[0].shape[1])

        def product(x: Array, kernel: Array) -> Array:
            # Rounded in each block, so that the gradients of the blocks are summed in float32.
            x, kernel = self._rounded(layer, x, kernel)
            precision = self.architecture.precision
            return self.ops.convolve(x, kernel, layer.stride, padding, precision)

        if layer.sees == "both":
            return [product(jnp.concatenate(x, axis=-1), kernel)]
        # On a CPU two ordinary convolutions are faster than one with two groups.
        return list(map(product, self._apart(x), self._towers(kernel)))

    def _rounded(self, layer: Layer, *arrays: Array) -> list[Array]:
        """Return arrays in the dtype in which a layer multiplies them; in the last, float32."""
        last = layer is self.architecture.layers[-1]
        return [array.astype(jnp.float32 if last else self.architecture.dtype) for array in arrays]

    def _multiply(self, layer: Dense, kernel: Array, x: TowerArrays) -> TowerArrays:
        kernel, *x = self._rounded(layer, kernel, *x)
        # Towers are joined before flattening: the inputs of fc6 are in the order row, column, map.
        whole = jnp.concatenate(x, axis=-1)
        inputs = whole.reshape(whole.shape[0], -1)
        y = jnp.matmul(inputs, kernel, precision=self.architecture.precision)
        if layer.sees == "row-split" and self.collectives:
            y = self.collectives.psum(y)
        return [y]

    @property
    def _num_parts(self) -> int:
        """Parts of the outputs on this device that layers may treat separately."""
        return self._num_towers if self.architecture.has_towers else 1

    def _towers(self, x: Array) -> TowerArrays:
        """Split an array by tower, unless no layer treats the towers separately."""
        return jnp.split(x, self._num_parts, axis=-1)

    def _apart(self, x: TowerArrays) -> TowerArrays:
        """Split an array of both towers in two."""
        return x if len(x) == self._num_parts else self._towers(*x)

    def _operate(
        self, operation: Operation, layer: Layer, dropout_masks, x: TowerArrays
    ) -> TowerArrays:
        match operation:
            case "relu":
                return [nn.relu(tower) for tower in x]
            case "tanh":
                return [jnp.tanh(tower) for tower in x]
            case "lrn" if self.architecture.lrn_scope == "all":
                return self._towers(self._normalize_across(x))
            case "lrn":
                towers_each = self._num_parts // len(x)
                lrn = self.architecture.lrn
                return [self._normalize(array, lrn, towers_each) for array in x]
            case "spatial_norm":
                return [self._normalize(tower, SPATIAL_NORM) for tower in x]
            case "pool":
                return [self.ops.pool(tower, self.architecture.pooling) for tower in x]
            case "dropout":
                return self._drop(layer, dropout_masks, x)

    def _normalize(self, x: Array, norm: ResponseNorm, groups: int = 1) -> Array:
        return self.ops.normalize(x, norm, self.architecture.precision, groups)

    def _normalize_across(self, x: TowerArrays) -> Array:
        """Normalize over the maps of both towers; the outermost sums include maps of the other."""
        lrn, maps = self.architecture.lrn, jnp.concatenate(x, axis=-1)
        if self.collectives is None:
            return self._normalize(maps, lrn)
        halo = self.collectives.halo_exchange(maps, lrn.n // 2)
        before, after = (checkpoint_name(received, HALO) for received in halo)
        whole = self._normalize(jnp.concatenate([before, maps, after], axis=-1), lrn)
        return whole[..., before.shape[-1] :][..., : maps.shape[-1]]

    def _drop(self, layer: Layer, dropout_masks, x: TowerArrays) -> TowerArrays:
        kept, at_test = 1 - self.architecture.dropout, self.architecture.dropout_scale == "test"
        if dropout_masks is None:
            return [tower * kept if at_test else tower for tower in x]
        scaled = x if at_test else [tower / kept for tower in x]
        masks = jnp.split(dropout_masks[layer.name], len(x), axis=-1)
        return [jnp.where(mask, tower, 0) for tower, mask in zip(scaled, masks, strict=True)]


def _stages(partitions: Sequence[LayerPartition]) -> list[list[LayerPartition]]:
    """Split the layers where inputs of two devices are gathered, and before each Dense layer.

    On one device nothing is gathered, and a block of images passes through all convolutions: if the
    blocks ended earlier, XLA would compute some of their pooling again for every pixel of it.
    """
    stages: list[list[LayerPartition]] = []
    for part in partitions:
        if not stages or part.gathers_inputs or isinstance(part.layer, Dense):
            stages.append([])
        stages[-1].append(part)
    return stages
