"""The network as a Flax module: a walk over the layer table, for both towers or for one of them."""

import functools
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from alexnet_jax.model.architecture import TOWERS, Architecture, Conv, Dense, Layer, trace
from alexnet_jax.model.layers import Kernels

Towers = list[Array]  # one array for each tower computed here, split on the last axis


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

    The parameters are `{"conv1": {"kernel", "bias"}, ...}` with grouped kernels `(k, k, in / groups, out)`;
    tower 0 owns the first half of the outputs. One device holds both towers. Each of two devices holds
    one, with half of every array (fc8: half of the rows), and is given two functions:

    Attributes:
        table: the layers.
        kernels: how this platform convolves, normalises and pools.
        held: towers computed here, 1 or 2.
        meet: joins what this device holds with what the others hold: [..., held / 2 * C] -> [..., C].
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
            keep: for each layer with dropout which outputs stay, bool [B, units held here]. None at test:
                every output stays, multiplied by the share that training keeps (P4.2).

        Returns:
            Logits, float [B, classes].
        """
        weights = {
            layer.name: Weights(self._held_shape(layer, row.kernel_shape), layer.std, layer.bias,
                                name=layer.name)()
            for layer, row in zip(self.table.layers, self._rows(), strict=True)
        }  # fmt: skip
        x: Array | Towers = images
        for stage in self._stages():
            if isinstance(x, list) and stage[0].sees == "both":
                x = self.meet(jnp.concatenate(x, axis=-1))
            run = functools.partial(self._run, stage, weights, keep)
            x = self._in_blocks(run, x) if isinstance(stage[0], Conv) else run(x)
        assert not isinstance(x, list)
        return x

    def _rows(self):
        return [row for row in trace(self.table) if row.kernel_shape]

    def _held_shape(self, layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
        if layer.sees == "rows":
            return shape[0] * self.held // TOWERS, shape[1]
        return *shape[:-1], shape[-1] * self.held // TOWERS

    def _stages(self) -> list[list[Layer]]:
        """Cut the table before every layer that sees both towers: between cuts no tower needs another."""
        stages: list[list[Layer]] = []
        for layer in self.table.layers:
            if not stages or layer.sees == "both" or isinstance(layer, Dense):
                stages.append([])
            stages[-1].append(layer)
        return stages

    def _in_blocks(self, run: Callable, x: Array | Towers) -> Array | Towers:
        """Convolve a few images at a time, as many as the platform's caches like."""
        size = self.kernels.microbatch
        batch = jax.tree.leaves(x)[0].shape[0]
        if not size or batch <= size:
            return run(x)
        blocks = [
            run(jax.tree.map(lambda a: a[start : start + size], x))
            for start in range(0, batch, size)
        ]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *blocks)

    def _run(self, stage: Sequence[Layer], weights, keep, x: Array | Towers) -> Array | Towers:
        for layer in stage:
            kernel, bias = weights[layer.name]
            x = self._apply(layer, kernel, bias, x)
            for operation in layer.then:
                x = self._operate(operation, layer, keep, x)
        return x

    def _apply(self, layer: Layer, kernel: Array, bias: Array, x: Array | Towers) -> Array | Towers:
        if isinstance(layer, Dense):
            # Towers' maps are joined before flattening, so that the inputs of fc6 run (row, column, map).
            x = jnp.concatenate(x, axis=-1) if isinstance(x, list) else x
            y = x.reshape(x.shape[0], -1) @ kernel
            if layer.sees == "rows":
                return _shift(self.total(y), bias)
            return self._towers(_shift(y, bias))
        convolve = functools.partial(
            self.kernels.convolve,
            stride=layer.stride,
            padding=layer.padding(jax.tree.leaves(x)[0].shape[1]),
        )
        if layer.sees == "both":
            return self._towers(_shift(convolve(x, kernel), bias))
        # On a CPU two ordinary convolutions are five times as fast as one with two groups.
        return [
            _shift(convolve(tower, part), offset)
            for tower, part, offset in zip(x, self._towers(kernel), self._towers(bias), strict=True)
        ]

    def _towers(self, x: Array) -> Towers:
        return jnp.split(x, self.held, axis=-1)

    def _operate(self, operation: str, layer: Layer, keep, x: Towers) -> Towers:
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
                parts = self._towers(keep[layer.name])
                return [jnp.where(part, tower, 0) for tower, part in zip(x, parts, strict=True)]
        raise AssertionError(operation)
