"""The network as a Flax module: a walk over the layer table, for both towers or for one of them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from alexnet_jax.model.architecture import (
    SPATIAL_NORM,
    TOWERS,
    Architecture,
    Conv,
    Dense,
    Layer,
    Operation,
    outputs,
    weighted_rows,
)
from alexnet_jax.model.platform import Ops

# What lies on this device: one array that both towers see, or one for each tower computed here.
TowerArrays = list[Array]
Taps = dict[str, Array]  # outputs that were asked for, by name, of what is held here


def add_bias(x: Array, bias: Array) -> Array:
    """Add a bias in its own precision: one of 1 would not move by less than .004 in bfloat16."""
    return (x + bias.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Weights(nn.Module):
    """Kernel and bias of one layer, at their initial values (P5)."""

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
    """How a device that holds one tower talks to the one that holds the other."""

    all_gather: Callable[
        [Array], Array
    ]  # joins what both hold: [..., C / 2] here and there -> [..., C]
    psum: Callable[[Array], Array]  # sums partial results
    # The n maps before and after those held here, among all maps; zeros where there are none.
    halo_exchange: Callable[[Array, int], tuple[Array, Array]]
    tower_index: Callable[[], Array]  # which tower is held here, 0 or 1


class AlexNet(nn.Module):
    """AlexNet, or one of its towers.

    The parameters are `{"conv1": {"kernel", "bias"}, ...}` with grouped kernels
    `(k, k, in / groups, out)`; tower 0 owns the first half of the outputs. One device holds both
    towers. Each of two devices holds one, with half of every array (fc8: half of the rows), and is
    told how to talk to the other.

    Attributes:
        table: the layers.
        kernels: how this platform convolves, normalizes and pools.
        other: the way to the other tower; None where both are held here.
        taps: outputs to return beside the logits: a layer ("conv5": before its ReLU) or what
            follows it ("relu5", "norm1", "pool5"), as `architecture.outputs` names it.
    """

    architecture: Architecture
    ops: Ops
    collectives: TowerCollectives | None = None
    taps: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self, images: Array, dropout_masks: Mapping[str, Array] | None = None
    ) -> tuple[Array, Taps]:
        """Return the logits, and what `taps` asks for.

        Args:
            images: float [B, crop, crop, 3], as `preprocess.py` leaves them.
            keep: for each layer with dropout which outputs stay, bool [B, ..., outputs held here].
                None at test: every output stays (P4.2).

        Returns:
            Logits, float [B, classes], and the outputs in `taps`, of what is held here.
        """
        weights = {
            layer.name: Weights(
                self._held_shape(layer, row.kernel_shape), layer.std, layer.bias, name=layer.name
            )()
            for layer, row in zip(
                self.architecture.layers, weighted_rows(self.architecture), strict=True
            )
        }
        x, taken = [images], {}
        for number, stage in enumerate(self._stages()):
            if number and stage[0].sees == "both":
                x = [self._join(x)]
            run = functools.partial(self._run, stage, weights)
            run = self._in_blocks(run) if isinstance(stage[0], Conv) else run
            x, found = run(x, dropout_masks)
            taken |= found
        (logits,) = x
        return logits, taken

    @property
    def _held(self) -> int:
        """Towers computed here."""
        return TOWERS if self.collectives is None else 1

    def _held_shape(self, layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(layer, Dense) and layer.sees == "own":
            return shape  # the halves of an odd number of classes do not fit two equal shards
        if layer.sees == "rows":
            return shape[0] * self._held // TOWERS, shape[1]
        return *shape[:-1], shape[-1] * self._held // TOWERS

    def _stages(self) -> list[list[Layer]]:
        """Cut the table where towers on two devices meet: between two cuts none needs the other.

        On one device they meet without a cut, and a block of images goes through all convolutions:
        cut there too, XLA would compute some of a block's pooling again for every pixel of it.
        """
        stages: list[list[Layer]] = []
        for layer in self.architecture.layers:
            meets = layer.sees == "both" and self.collectives is not None
            if not stages or meets or isinstance(layer, Dense):
                stages.append([])
            stages[-1].append(layer)
        return stages

    def _in_blocks(self, run: Callable[..., tuple[TowerArrays, Taps]]):
        """Convolve a few images at a time, as many as the platform's caches like."""

        def run_in_blocks(x: TowerArrays, dropout_masks) -> tuple[TowerArrays, Taps]:
            batch = x[0].shape[0]
            ends = list(range(0, batch, self.ops.block_size(batch)))[1:]
            leaves, tree = jax.tree.flatten((x, dropout_masks))
            # Not slices, whose gradients would be padded to the whole batch and added up.
            blocks = zip(*(jnp.split(leaf, ends) for leaf in leaves), strict=True)
            done = [run(*jax.tree.unflatten(tree, block)) for block in blocks]
            return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *done)

        return run_in_blocks

    def _run(
        self, stage: Sequence[Layer], weights, x: TowerArrays, dropout_masks
    ) -> tuple[TowerArrays, Taps]:
        taken: Taps = {}

        def take(name: str, x: TowerArrays) -> None:
            if name in self.taps:
                taken[name] = jnp.concatenate(x, axis=-1).astype(jnp.float32)

        for layer in stage:
            kernel, bias = weights[layer.name]
            if isinstance(layer, Conv):
                x = self._convolve(layer, kernel, bias, x)
            else:
                x = self._multiply(layer, kernel, bias, x)
            take(layer.name, x)
            for operation, output in outputs(layer):
                x = self._operate(operation, layer, dropout_masks, x)
                take(output, x)
        return x, taken

    def _convolve(self, layer: Conv, kernel: Array, bias: Array, x: TowerArrays) -> TowerArrays:
        padding = layer.padding(x[0].shape[1])

        def convolve(x: Array, kernel: Array, bias: Array) -> Array:
            # Rounded here, in each block: so the gradients of the blocks add up in float32.
            x, kernel = self._rounded(layer, x, kernel)
            return add_bias(self.ops.convolve(x, kernel, layer.stride, padding), bias)

        if layer.sees == "both":
            return self._towers(convolve(jnp.concatenate(x, axis=-1), kernel, bias))
        # On a CPU two ordinary convolutions are five times as fast as one with two groups.
        return list(map(convolve, x, self._towers(kernel), self._towers(bias)))

    def _rounded(self, layer: Layer, *arrays: Array) -> list[Array]:
        """Return arrays as a layer multiplies them; the last gives the loss its logits whole."""
        last = layer is self.architecture.layers[-1]
        return [array.astype(jnp.float32 if last else self.architecture.dtype) for array in arrays]

    def _multiply(self, layer: Dense, kernel: Array, bias: Array, x: TowerArrays) -> TowerArrays:
        kernel, *x = self._rounded(layer, kernel, *x)
        if layer.sees == "own":
            return self._multiply_own(kernel, bias, x)
        # Towers are joined before flattening: the inputs of fc6 run (row, column, map of both).
        whole = jnp.concatenate(x, axis=-1)
        y = whole.reshape(whole.shape[0], -1) @ kernel
        if layer.sees == "rows":
            return [add_bias(self.collectives.psum(y) if self.collectives else y, bias)]
        return self._towers(add_bias(y, bias))

    def _multiply_own(self, kernel: Array, bias: Array, x: TowerArrays) -> TowerArrays:
        """Multiply each tower's units with its own outputs, of which tower 0 has the first half."""
        half = kernel.shape[1] // TOWERS
        if self.collectives is None:
            y = jnp.concatenate([x[0] @ kernel[:, :half], x[1] @ kernel[:, half:]], axis=-1)
        else:
            mine = (jnp.arange(kernel.shape[1]) >= half) == self.collectives.tower_index()
            y = self.collectives.psum(jnp.where(mine, x[0] @ kernel, 0))
        return [add_bias(y, bias)]

    def _towers(self, x: Array) -> TowerArrays:
        """Split what is held here by tower, unless no layer would know the difference."""
        return jnp.split(x, self._held if self.architecture.has_towers else 1, axis=-1)

    def _join(self, x: TowerArrays) -> Array:
        whole = jnp.concatenate(x, axis=-1)
        return self.collectives.all_gather(whole) if self.collectives else whole

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
                return [self.ops.normalize(tower, self.architecture.lrn) for tower in x]
            case "spatial_norm":
                return [self.ops.normalize(tower, SPATIAL_NORM) for tower in x]
            case "pool":
                return [self.ops.pool(tower, self.architecture.pooling) for tower in x]
            case "dropout":
                return self._drop(layer, dropout_masks, x)

    def _normalize_across(self, x: TowerArrays) -> Array:
        """Normalize among the maps of both towers: the outermost see two of the other's."""
        lrn, maps = self.architecture.lrn, jnp.concatenate(x, axis=-1)
        if self.collectives is None:
            return self.ops.normalize(maps, lrn)
        before, after = self.collectives.halo_exchange(maps, lrn.n // 2)
        whole = self.ops.normalize(jnp.concatenate([before, maps, after], axis=-1), lrn)
        return whole[..., before.shape[-1] :][..., : maps.shape[-1]]

    def _drop(self, layer: Layer, dropout_masks, x: TowerArrays) -> TowerArrays:
        share, at_test = 1 - self.architecture.dropout, self.architecture.dropout_scale == "test"
        if dropout_masks is None:
            return [tower * share if at_test else tower for tower in x]
        scaled = x if at_test else [tower / share for tower in x]
        masks = self._towers(dropout_masks[layer.name])
        return [jnp.where(mask, tower, 0) for tower, mask in zip(scaled, masks, strict=True)]
