"""The network as a Flax module: a walk over the layer table, for both towers or for one of them."""

import functools
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from alexnet_jax.model.architecture import TOWERS, Architecture, Conv, Dense, Layer, weighted_rows
from alexnet_jax.model.layers import Kernels

# What lies on this device: one array that both towers see, or one for each tower computed here.
Parts = list[Array]


def _unchanged(x: Array) -> Array:
    return x


def _shift(x: Array, bias: Array) -> Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


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


class AlexNet(nn.Module):
    """AlexNet, or as many of its towers as `held` says.

    The parameters are `{"conv1": {"kernel", "bias"}, ...}` with grouped kernels
    `(k, k, in / groups, out)`; tower 0 owns the first half of the outputs. One device holds both
    towers. Each of two devices holds one, with half of every array (fc8: half of the rows), and is
    given two functions to talk to the other.

    Attributes:
        table: the layers.
        kernels: how this platform convolves, normalises and pools.
        held: towers computed here, 1 or 2.
        meet: joins what the devices hold: [..., C / 2] here and there -> [..., C].
        total: sums partial results over the devices.
    """

    table: Architecture
    kernels: Kernels
    held: int = TOWERS
    meet: Callable[[Array], Array] = _unchanged
    total: Callable[[Array], Array] = _unchanged

    @nn.compact
    def __call__(self, images: Array, keep: Mapping[str, Array] | None = None) -> Array:
        """Return the logits.

        Args:
            images: float [B, crop, crop, 3], as `preprocess.py` leaves them.
            keep: for each layer with dropout which outputs stay, bool [B, units held here]. None at
                test: every output stays, multiplied by the share that training keeps (P4.2).

        Returns:
            Logits, float [B, classes].
        """
        weights = {
            layer.name: Weights(
                self._held_shape(layer, row.kernel_shape), layer.std, layer.bias, name=layer.name
            )()
            for layer, row in zip(self.table.layers, weighted_rows(self.table), strict=True)
        }
        x = [images]
        for number, stage in enumerate(self._stages()):
            if number and stage[0].sees == "both":
                x = [self.meet(jnp.concatenate(x, axis=-1))]
            run = functools.partial(self._run, stage, weights, keep)
            x = self._in_blocks(run, x) if isinstance(stage[0], Conv) else run(x)
        (logits,) = x
        return logits

    def _held_shape(self, layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
        if layer.sees == "rows":
            return shape[0] * self.held // TOWERS, shape[1]
        return *shape[:-1], shape[-1] * self.held // TOWERS

    def _stages(self) -> list[list[Layer]]:
        """Cut the table where towers meet: between two cuts no tower needs the other."""
        stages: list[list[Layer]] = []
        for layer in self.table.layers:
            if not stages or layer.sees == "both" or isinstance(layer, Dense):
                stages.append([])
            stages[-1].append(layer)
        return stages

    def _in_blocks(self, run: Callable[[Parts], Parts], x: Parts) -> Parts:
        """Convolve a few images at a time, as many as the platform's caches like."""
        batch = x[0].shape[0]
        size = self.kernels.microbatch or batch

        def block(start: int) -> Parts:
            return run([part[start : start + size] for part in x])

        blocks = [block(start) for start in range(0, batch, size)]
        return [jnp.concatenate(parts) for parts in zip(*blocks, strict=True)]

    def _run(self, stage: Sequence[Layer], weights, keep, x: Parts) -> Parts:
        for layer in stage:
            kernel, bias = weights[layer.name]
            if isinstance(layer, Conv):
                x = self._convolve(layer, kernel, bias, x)
            else:
                x = self._multiply(layer, kernel, bias, x)
            for operation in layer.then:
                x = self._operate(operation, layer, keep, x)
        return x

    def _convolve(self, layer: Conv, kernel: Array, bias: Array, x: Parts) -> Parts:
        padding = layer.padding(x[0].shape[1])

        def convolve(x: Array, kernel: Array, bias: Array) -> Array:
            return _shift(self.kernels.convolve(x, kernel, layer.stride, padding), bias)

        if layer.sees == "both":
            (whole,) = x
            return self._towers(convolve(whole, kernel, bias))
        # On a CPU two ordinary convolutions are five times as fast as one with two groups.
        return list(map(convolve, x, self._towers(kernel), self._towers(bias)))

    def _multiply(self, layer: Dense, kernel: Array, bias: Array, x: Parts) -> Parts:
        # Towers are joined before flattening: the inputs of fc6 run (row, column, map of both).
        whole = jnp.concatenate(x, axis=-1)
        y = whole.reshape(whole.shape[0], -1) @ kernel
        if layer.sees == "rows":
            return [_shift(self.total(y), bias)]
        return self._towers(_shift(y, bias))

    def _towers(self, x: Array) -> Parts:
        return jnp.split(x, self.held, axis=-1)

    def _operate(self, operation: str, layer: Layer, keep, x: Parts) -> Parts:
        match operation:
            case "relu":
                return [nn.relu(tower) for tower in x]
            case "lrn":
                return [self.kernels.normalize(tower, self.table.lrn) for tower in x]
            case "pool":
                return [self.kernels.pool(tower) for tower in x]
            case "dropout" if keep is None:
                return [tower * (1 - self.table.dropout) for tower in x]
            case "dropout":
                masks = self._towers(keep[layer.name])
                return [jnp.where(mask, tower, 0) for tower, mask in zip(x, masks, strict=True)]
        raise AssertionError(operation)
