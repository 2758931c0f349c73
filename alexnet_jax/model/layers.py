"""Convolution, response normalisation and overlapping pooling: NHWC arrays, each written for speed.

Two sets of the same three functions: `ACCELERATOR` is what XLA does well on GPU and TPU, `CPU` says
the same in a form that XLA's CPU backend runs faster, with gradients written by hand.
`for_platform` is the only place that chooses.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.model.architecture import Pooling, ResponseNorm

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
        return convolve_by_patches
    if kernel_side == 3:
        return convolve_3x3
    return convolve


def convolve_on_cpu(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Compute `convolve`, each geometry in its fastest form."""
    return _convolution_of(kernel.shape[0], stride)(x, kernel, stride, padding)


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
        jnp.einsum("bhwi,bhwo->io", padded[:, i : i + height, j : j + width], g)
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return dx, jnp.stack(taps).reshape(kernel.shape)


convolve_3x3.defvjp(_convolve_3x3_forward, _convolve_3x3_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_by_patches(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Compute a strided `convolve` as one matrix product over patches, and so its kernel gradient.

    The input is folded into blocks of stride x stride pixels first, so that a patch is a few
    contiguous blocks (9 for 11 x 11 / 4) instead of 121 scattered pixels.
    """
    return _patch_product(x, kernel, stride, padding)


def _patches(x: Array, side: int, stride: int, padding: Padding) -> Array:
    """Return [B, H', W', n * n * stride * stride * in] with n = ceil(side / stride)."""
    batch, height, width, channels = x.shape
    blocks = -(-side // stride)
    out = [(size + sum(padding) - side) // stride + 1 for size in (height, width)]
    fill = [(padding[0], (n + blocks - 1) * stride - size - padding[0], 0)
            for n, size in zip(out, (height, width), strict=True)]  # fmt: skip
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *fill, (0, 0, 0)))
    rows, columns = (n + blocks - 1 for n in out)
    x = x.reshape(batch, rows, stride, columns, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, rows, columns, stride * stride * channels)
    return jnp.concatenate(
        [x[:, i : i + out[0], j : j + out[1]] for i in range(blocks) for j in range(blocks)],
        axis=-1,
    )


def _as_patch_matrix(kernel: Array, stride: int) -> Array:
    """Return the kernel as [patch, out], in the order of `_patches`."""
    side, _, inputs, outputs = kernel.shape
    blocks = -(-side // stride)
    extra = blocks * stride - side
    kernel = jnp.pad(kernel, ((0, extra), (0, extra), (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, inputs, outputs)
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(-1, outputs)


def _patch_product(x, kernel, stride, padding):
    return _patches(x, kernel.shape[0], stride, padding) @ _as_patch_matrix(kernel, stride)


def _by_patches_forward(x, kernel, stride, padding):
    return _patch_product(x, kernel, stride, padding), (x, kernel)


def _by_patches_backward(stride, padding, saved, g):
    x, kernel = saved
    (dx,) = jax.linear_transpose(lambda x: convolve(x, kernel, stride, padding), x)(g)
    patches = _patches(x, kernel.shape[0], stride, padding)  # cheaper to make again than to keep
    matrix = jnp.einsum("bhwp,bhwo->po", patches, g)
    (dk,) = jax.linear_transpose(lambda k: _as_patch_matrix(k, stride), kernel)(matrix)
    return dx, dk


convolve_by_patches.defvjp(_by_patches_forward, _by_patches_backward)


def _window_sum(x: Array, norm: ResponseNorm) -> Array:
    """Sum over the n maps, or n x n pixels, around each number; fewer at the edges."""
    axes = (x.ndim - 1,) if norm.over == "maps" else (1, 2)
    for axis in axes:
        fill = [(0, 0)] * x.ndim
        fill[axis] = (norm.n // 2, norm.n // 2)
        size, padded = x.shape[axis], jnp.pad(x, fill)
        x = sum(
            (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(1, norm.n)),
            start=lax.slice_in_dim(padded, 0, size, axis=axis),
        )
    return x


def _inverse_power(s: Array, beta: float) -> Array:
    """Return s ** -beta; the paper's .75 by square roots, which vector units have."""
    if beta == 0.75:
        r = lax.rsqrt(s)
        return r * jnp.sqrt(r)
    return s**-beta


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalize(x: Array, norm: ResponseNorm) -> Array:
    """Response normalisation (P3.3) of `x` [..., maps], or [B, H, W, maps] for windows of pixels.

    y_i = x_i / s_i ** beta, s_i = k + alpha * sum over the window around i of x_j ** 2. With
    u = g y / s the gradient is g / s ** beta - 2 alpha beta x * (window sum of u): one pass
    over the window instead of the several that differentiating it term by term gives.
    """
    return _normalize_forward(x, norm)[0]


def _normalize_forward(x, norm):
    s = norm.k + norm.alpha * _window_sum(x * x, norm)
    # Without the barrier XLA computes y again for every window of the pooling that reads it.
    y = lax.optimization_barrier(x * _inverse_power(s, norm.beta))
    return y, (x, s)


def _normalize_backward(norm, saved, g):
    x, s = saved
    scaled = g * _inverse_power(s, norm.beta)
    spread = _window_sum(scaled * x / s, norm)
    return (scaled - 2 * norm.alpha * norm.beta * x * spread,)


normalize.defvjp(_normalize_forward, _normalize_backward)


def _overhang(side: int, pooling: Pooling) -> int:
    """Return how far the last pooling window reaches past an axis of `side` pixels."""
    last = (pooling.output_side(side) - 1) * pooling.stride
    return max(0, last + pooling.window - side)


def pool(x: Array, pooling: Pooling) -> Array:
    """Max pooling over [B, H, W, C]; a tie's gradient goes to the first (P3.4)."""
    height, width = x.shape[1:3]
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, pooling.window, pooling.window, 1),
        (1, pooling.stride, pooling.stride, 1),
        ((0, 0), (0, _overhang(height, pooling)), (0, _overhang(width, pooling)), (0, 0)),
    )


def _window_slices(x: Array, pooling: Pooling) -> list[Array]:
    """Return for each place in the window, row by row, what lies there: arrays [B, H', W', C]."""
    sides = x.shape[1:3]
    over = tuple((0, _overhang(side, pooling)) for side in sides)
    if any(o for _, o in over):
        x = jnp.pad(x, ((0, 0), *over, (0, 0)), constant_values=-jnp.inf)
    stride = pooling.stride
    reach = [(pooling.output_side(side) - 1) * stride + 1 for side in sides]
    return [
        x[:, i : i + reach[0] : stride, j : j + reach[1] : stride]
        for i in range(pooling.window)
        for j in range(pooling.window)
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def pool_by_slices(x: Array, pooling: Pooling) -> Array:
    """Compute `pool` as a maximum over strided slices, with the same rule for ties.

    XLA runs reduce_window, and select_and_scatter behind it, without vector instructions on a CPU.
    Pixels tie in flat regions and after ReLU: differentiating `maximum` would split the gradient.
    """
    return functools.reduce(jnp.maximum, _window_slices(x, pooling))


def _pool_forward(x, pooling):
    y = pool_by_slices(x, pooling)
    return y, (x, y)


def _pool_backward(pooling, saved, g):
    x, y = saved
    shares, taken = [], jnp.zeros(y.shape, bool)
    for place in _window_slices(x, pooling):
        winner = (place == y) & ~taken
        shares.append(jnp.where(winner, g, 0))
        taken |= winner
    return (_unslice(shares, x.shape, pooling),)


def _unslice(shares: list[Array], shape: tuple[int, ...], pooling: Pooling) -> Array:
    """Add up what each place in the window gives back: the transpose of `_window_slices`.

    Rows 2r + p of the result, p = 0 or 1, collect places i = p, p + 2, ... of windows r - i // 2,
    and columns likewise; so each of the 2 x 2 phases is a sum of shifted arrays, and all
    interleave.
    """
    batch, height, width, channels = shape
    stride, window = pooling.stride, pooling.window
    rows, columns = (-(-side // stride) for side in (height, width))

    def shifted(i: int, j: int) -> Array:
        share = shares[i * window + j]
        down, right = i // stride, j // stride
        # A negative fill crops: windows that hang over the edge give nothing back there.
        fill = (
            (0, 0, 0),
            (down, rows - down - share.shape[1], 0),
            (right, columns - right - share.shape[2], 0),
            (0, 0, 0),
        )
        return lax.pad(share, jnp.zeros((), share.dtype), fill)

    phases = [
        sum(shifted(i, j) for i in range(p, window, stride) for j in range(q, window, stride))
        for p in range(stride)
        for q in range(stride)
    ]
    whole = jnp.stack(phases, axis=-2).reshape(batch, rows, columns, stride, stride, channels)
    whole = whole.transpose(0, 1, 3, 2, 4, 5)
    return whole.reshape(batch, stride * rows, stride * columns, channels)[:, :height, :width]


pool_by_slices.defvjp(_pool_forward, _pool_backward)


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The functions of one platform, and how many images it convolves at a time (None: all)."""

    convolve: Callable[[Array, Array, int, Padding], Array]
    normalize: Callable[[Array, ResponseNorm], Array]
    pool: Callable[[Array, Pooling], Array]
    microbatch: int | None


ACCELERATOR = Kernels(convolve, normalize, pool, None)
# Larger blocks fall out of the caches: conv2's kernel gradient runs 3 times faster at 32 images
# than at 128.
CPU = Kernels(convolve_on_cpu, normalize, pool_by_slices, 32)


def for_platform(platform: str) -> Kernels:
    """Return the functions for `platform`, as jax names it: cpu, gpu, tpu."""
    return CPU if platform == "cpu" else ACCELERATOR
