"""The four-layer network of the CIFAR-10 experiments, in forms that are fast on a CPU too.

cuda-convnet's layers-cifar/layers-18pct.cfg, of the 2012 code: 5 x 5 convolutions to 32, 32 and 64
maps, pooling of 3 x 3 at stride 2 after each (maximum, mean, mean), 10 outputs. 89,578 parameters
for 32 pixels, 85,098 for crops of 24.
"""

import functools
from collections.abc import Callable

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


class FourLayerNet(nn.Module):
    """The network of layers-18pct.cfg; `norm` replaces its norm (same map, 3 x 3 pixels)."""

    activation: Callable[[Array], Array] = nn.relu
    norm: ResponseNorm | None = None  # after the first two poolings
    window: int = 3  # side of the pooling window, at stride 2: 3 overlaps

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
        x = normalize(mean_pool(x, pooling))  # [B, 8, 8, 32]
        x = self.activation(Convolution(64, 0.01, plain, name="conv3")(x))
        x = mean_pool(x, pooling)  # [B, 4, 4, 64]
        init = nn.initializers.normal(0.01)
        return nn.Dense(10, kernel_init=init, name="fc10")(x.reshape(len(x), -1))
