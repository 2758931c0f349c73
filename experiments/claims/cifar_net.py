"""The networks of the CIFAR-10 experiments, in forms that are fast on a CPU too.

FourLayerNet: layers-cifar/layers-18pct.cfg of the 2012 code, 5 x 5 convolutions to 32, 32 and 64
maps, pooling of 3 x 3 at stride 2 after each (maximum, mean, mean), 10 outputs. 89,578 parameters
for 32 pixels, 85,098 for crops of 24.

LocalNet: layers/layers-cifar10-11pct.cfg of cuda-convnet2, two 5 x 5 convolutions to 64 maps, each
with maximum pooling of 3 x 3 at stride 2, two locally connected layers of 3 x 3 to 64 and 32 maps,
10 outputs. 2,112,970 parameters for crops of 24.
"""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.model import platform
from alexnet_jax.model.architecture import Pooling, ResponseNorm
from alexnet_jax.model.convolution import convolve

# cuda-convnet2's layers-cifar10-11pct.cfg; its code divides the scale by n (layer.py:1331).
CIFAR_NORM = ResponseNorm(n=9, k=1.0, alpha=1e-3 / 9, beta=0.75)


@jax.custom_vjp
def convolve_colors(x: Array, kernel: Array) -> Array:
    """Convolve [B, H, W, 3], W divisible by 4, with [5, 5, 3, maps], padding 2, fast on a CPU.

    Computes four neighboring pixels at once, as one pixel of 4 x maps channels: a matrix product
    of 120 inputs and 128 outputs, 3/8 of whose kernel is zeros, instead of 75 inputs and 32
    outputs (experiments/RESULTS.md). The gradient is that of the plain convolution. It is for
    images: the gradient of x is zero.
    """
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    x = x.reshape(batch, height + 4, width // 4 + 1, 4 * channels)
    shifted = [jnp.pad(kernel, ((0, 0), (i, 3 - i), (0, 0), (0, 0))) for i in range(4)]
    wide = jnp.stack(shifted, axis=-2).reshape(5, 2, 4 * channels, -1)
    return convolve(x, wide, 1, (0, 0)).reshape(batch, height, width, -1)


def _colors_forward(x, kernel):
    return convolve_colors(x, kernel), (x, kernel)


def _colors_backward(saved, g):
    x, kernel = saved
    (dk,) = jax.linear_transpose(lambda kernel: convolve(x, kernel, 1, (2, 2)), kernel)(g)
    return jnp.zeros_like(x), dk


convolve_colors.defvjp(_colors_forward, _colors_backward)


class Convolution(nn.Module):
    """5 x 5 at stride 1, with padding that keeps the size."""

    maps: int
    std: float  # of the initial weights
    convolve: Callable[[Array, Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, C] to [B, H, W, maps]."""
        shape = (5, 5, x.shape[-1], self.maps)
        kernel = self.param("kernel", nn.initializers.normal(self.std), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.maps,))
        return self.convolve(x, kernel) + jnp.reshape(bias, (1, 1, 1, -1))


def mean_pool(x: Array, pooling: Pooling) -> Array:
    """Mean pooling over [B, H, W, C]; windows at the edge average the pixels inside the image."""

    def window_sum(x: Array) -> Array:
        for axis in (1, 2):
            side = x.shape[axis]
            reach = (pooling.output_side(side) - 1) * pooling.stride
            fill = [(0, 0)] * 4
            fill[axis] = (0, max(0, reach + pooling.window - side))
            x = jnp.pad(x, fill)
            x = sum(
                (
                    lax.slice_in_dim(x, i, i + reach + 1, pooling.stride, axis)
                    for i in range(1, pooling.window)
                ),
                start=lax.slice_in_dim(x, 0, reach + 1, pooling.stride, axis),
            )
        return x

    return window_sum(x) / window_sum(jnp.ones((1, *x.shape[1:3], 1)))


class Local(nn.Module):
    """3 x 3 at stride 1, padding 1, with kernels of its own at each pixel, from N(0, 0.04^2)."""

    maps: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, C] to [B, H, W, maps]."""
        batch, height, width, channels = x.shape
        pixels, inputs = height * width, 9 * channels
        kernel = self.param("kernel", nn.initializers.normal(0.04), (pixels, inputs, self.maps))
        bias = self.param("bias", nn.initializers.zeros, (pixels, self.maps))
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        patches = jnp.stack(windows, axis=3).reshape(batch, pixels, inputs)
        y = jnp.einsum("bpi,pio->pbo", patches, kernel) + bias[:, None]
        return y.transpose(1, 0, 2).reshape(batch, height, width, self.maps)


class FourLayerNet(nn.Module):
    """The network of layers-18pct.cfg; `norm` replaces its norm (same map, 3 x 3 pixels).

    `norm_before_pool2` is the order of layers-cifar10-11pct.cfg, whose second pooling takes maxima,
    not means.
    """

    activation: Callable[[Array], Array] = nn.relu
    norm: ResponseNorm | None = None  # after the first two poolings
    norm_before_pool2: bool = False  # and pool2 takes maxima
    window: int = 3  # side of the pooling window, at stride 2: 3 overlaps
    fc10_decay: float = 1.0  # that of layer-params-18pct.cfg

    @property
    def weight_decay(self) -> Mapping[str, float]:
        """The weight decay of layers that do not have the usual one."""
        return {"fc10": self.fc10_decay}

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return logits [B, 10] of images [B, side, side, 3] minus their mean; side 32 or 24."""
        kernels = platform.for_platform(jax.default_backend())
        plain = functools.partial(convolve, stride=1, padding=(2, 2))
        first = convolve_colors if kernels is platform.CPU else plain
        pooling = Pooling(self.window, 2)
        normalize = lambda x: kernels.normalize(x, self.norm) if self.norm else x
        # The activation commutes with the maximum, and costs a quarter after it.
        x = kernels.pool(Convolution(32, 1e-4, first, name="conv1")(x), pooling)
        x = normalize(self.activation(x))  # [B, 16, 16, 32] of 32 pixels
        x = self.activation(Convolution(32, 0.01, plain, name="conv2")(x))
        if self.norm_before_pool2:  # [B, 8, 8, 32]
            x = kernels.pool(normalize(x), pooling)
        else:
            x = normalize(mean_pool(x, pooling))
        x = self.activation(Convolution(64, 0.01, plain, name="conv3")(x))
        x = mean_pool(x, pooling)  # [B, 4, 4, 64]
        init = nn.initializers.normal(0.01)
        return nn.Dense(10, kernel_init=init, name="fc10")(x.reshape(len(x), -1))


class LocalNet(nn.Module):
    """The network of layers-cifar10-11pct.cfg, with its LRN if `norm` is given."""

    norm: ResponseNorm | None = None  # after the first pooling and before the second

    @property
    def weight_decay(self) -> Mapping[str, float]:
        """The weight decay of layers that do not have the usual one."""
        return {"conv1": 0.0, "conv2": 0.0, "fc10": 0.01}  # layer-params-cifar10-11pct.cfg

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return logits [B, 10] of crops [B, 24, 24, 3] minus their mean."""
        kernels = platform.for_platform(jax.default_backend())
        plain = functools.partial(convolve, stride=1, padding=(2, 2))
        first = convolve_colors if kernels is platform.CPU else plain
        pooling = Pooling(3, 2)
        normalize = lambda x: kernels.normalize(x, self.norm) if self.norm else x
        x = kernels.pool(Convolution(64, 1e-4, first, name="conv1")(x), pooling)
        x = normalize(nn.relu(x))  # [B, 12, 12, 64]
        x = nn.relu(Convolution(64, 0.01, plain, name="conv2")(x))
        x = kernels.pool(normalize(x), pooling)  # [B, 6, 6, 64]
        x = nn.relu(Local(64, name="local3")(x))
        x = nn.relu(Local(32, name="local4")(x))
        init = nn.initializers.normal(0.01)
        return nn.Dense(10, kernel_init=init, name="fc10")(x.reshape(len(x), -1))
