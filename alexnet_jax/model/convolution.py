"""Convolution: plainly, and as XLA's CPU backend runs it fastest, with gradients by hand."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Padding = tuple[int, int]


def convolve(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Convolve `x` [B, H, W, in] with `kernel` [k, k, in, out], the same `padding` on both axes."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), (padding, padding), dimension_numbers=DIMENSIONS
    )


def _convolution_of(kernel_side: int, stride: int) -> Callable[..., Array]:
    """Return the CPU formulation that measured fastest for this geometry."""
    if stride > 1:
        return convolve_by_folding
    if kernel_side == 3:
        return convolve_3x3
    return convolve


def convolve_on_cpu(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Compute `convolve`, each geometry in its fastest form."""
    return _convolution_of(kernel.shape[0], stride)(x, kernel, stride, padding)


def _outer(x: Array, g: Array) -> Array:
    """Sum x^T g over all pixels: [..., in], [..., out] -> [in, out].

    As matrices: contracting three axes at once, XLA may first transpose x in memory (conv1's
    gradient as one such product took 87 ms for 32 images, and 52 as matrices).
    """
    x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
    return lax.dot_general(x, g, (((0,), (0,)), ((), ())))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_3x3(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Compute `convolve` at stride 1, with a kernel gradient of one matrix product a tap.

    dK[i, j] = sum over pixels of x[. + i, . + j]^T g. XLA's own convolution for it re-packs the
    activations and runs at less than half of a matrix product's rate on a CPU.
    """
    return convolve(x, kernel, stride, padding)


def _convolve_3x3_forward(x, kernel, stride, padding):
    return convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_3x3_backward(stride, padding, saved, g):
    x, kernel = saved
    (dx,) = jax.linear_transpose(lambda x: convolve(x, kernel, stride, padding), x)(g)
    padded = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    _, height, width, _ = g.shape
    taps = [
        _outer(padded[:, i : i + height, j : j + width], g)
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return dx, jnp.stack(taps).reshape(kernel.shape)


convolve_3x3.defvjp(_convolve_3x3_forward, _convolve_3x3_backward)


def convolve_by_folding(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Compute a strided `convolve` as one of stride 1 on blocks of stride x stride pixels.

    11 x 11 / 4 on 3 colours becomes 3 x 3 on 48, zeros filling the kernel up to 12 x 12.
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
    return convolve_3x3(x, kernel, 1, (0, 0))
