"""Convolution, in the plain form and in those for a CPU and a TPU."""

import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.config import Precision

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Padding = tuple[int, int]


def convolve(
    x: Array, kernel: Array, stride: int, padding: Padding, precision: Precision = "default"
) -> Array:
    """Convolve `x` [B, H, W, in] with `kernel` [k, k, in, out]; `padding` applies to both axes.

    The gradients have the same `precision`.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (padding, padding),
        dimension_numbers=DIMENSIONS,
        precision=precision,
    )


def convolve_on_cpu(
    x: Array, kernel: Array, stride: int, padding: Padding, precision: Precision = "default"
) -> Array:
    """Compute `convolve` in the form that is fastest for its stride."""
    form = convolve_by_folding if stride > 1 else convolve
    return form(x, kernel, stride, padding, precision)


def convolve_on_tpu(
    x: Array, kernel: Array, stride: int, padding: Padding, precision: Precision = "default"
) -> Array:
    """Compute `convolve`, by folding if it has a stride and takes several passes of bfloat16.

    A TPU's compiler takes minutes for the plain form of conv1 in three passes, and does not end in
    six; see experiments/RESULTS.md.
    """
    form = convolve_by_folding if stride > 1 and precision != "default" else convolve
    return form(x, kernel, stride, padding, precision)


def convolve_by_folding(
    x: Array, kernel: Array, stride: int, padding: Padding, precision: Precision = "default"
) -> Array:
    """Compute a strided `convolve` as one of stride 1 on blocks of stride x stride pixels.

    11 x 11 / 4 on 3 colors becomes 3 x 3 / 1 on 48, with the kernel padded by zeros to 12 x 12. It
    is faster on two emulated devices of a CPU; see experiments/RESULTS.md.
    """
    batch, height, width, channels = x.shape
    side, _, inputs, outputs = kernel.shape
    blocks = -(-side // stride)
    out = [(size + sum(padding) - side) // stride + 1 for size in (height, width)]
    rows, columns = (n + blocks - 1 for n in out)
    fill = [(padding[0], n * stride - size - padding[0], 0)
            for n, size in ((rows, height), (columns, width))]  # fmt: skip
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *fill, (0, 0, 0)))
    x = x.reshape(batch, rows, stride, columns, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, rows, columns, stride * stride * channels)
    extra = blocks * stride - side
    kernel = jnp.pad(kernel, ((0, extra), (0, extra), (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, inputs, outputs)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(blocks, blocks, -1, outputs)
    return convolve(x, kernel, 1, (0, 0), precision)
