"""Max pooling (P3.4), in the plain form and in two with a custom gradient, for CPU and GPU."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from alexnet_jax.model.architecture import Pooling


def overhang(side: int, pooling: Pooling) -> int:
    """Return by how many pixels the last window reaches past an axis of `side` pixels."""
    last = (pooling.output_side(side) - 1) * pooling.stride
    return max(0, last + pooling.window - side)


def pool(x: Array, pooling: Pooling) -> Array:
    """Max pooling over [B, H, W, C] (P3.4).

    The gradient of a tie goes to the first pixel, or as in the 2012 code to each of them: with
    `pooling.ties` "all" every pixel that equals the maximum gets all of it (conv_util.cu:1766).
    """
    if pooling.ties == "all":  # reduce_window's gradient always goes to the first
        return pool_by_index(x, pooling)
    height, width = x.shape[1:3]
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, pooling.window, pooling.window, 1),
        (1, pooling.stride, pooling.stride, 1),
        ((0, 0), (0, overhang(height, pooling)), (0, overhang(width, pooling)), (0, 0)),
    )


def _window_slices(x: Array, pooling: Pooling) -> list[Array]:
    """Return an array [B, H', W', C] for each position in the window, row by row."""
    sides = x.shape[1:3]
    over = tuple((0, overhang(side, pooling)) for side in sides)
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

    On a CPU, XLA runs reduce_window and its gradient, select_and_scatter, without vector
    instructions. The gradient is custom because that of `maximum` splits between ties, which are
    common after ReLU.
    """
    return functools.reduce(jnp.maximum, _window_slices(x, pooling))


def _pool_forward(x, pooling):
    y = pool_by_slices(x, pooling)
    return y, (x, y)


def _pool_backward(pooling, saved, g):
    x, y = saved
    shares, assigned = [], jnp.zeros(y.shape, bool)
    for pixels in _window_slices(x, pooling):
        winner = pixels == y
        if pooling.ties == "first":
            winner &= ~assigned
            assigned |= winner
        shares.append(jnp.where(winner, g, 0))
    return (_unslice(shares, x.shape, pooling),)


def _shifted(x: Array, pooling: Pooling, sides: Sequence[int], down: int, right: int) -> Array:
    """Return x[:, r - down, c - right], or 0, for each stride r, c of an image with these sides."""
    rows, columns = (-(-side // pooling.stride) for side in sides)
    # A negative fill crops the part of a window past the edge.
    fill = (
        (0, 0, 0),
        (down, rows - down - x.shape[1], 0),
        (right, columns - right - x.shape[2], 0),
        (0, 0, 0),
    )
    return lax.pad(x, jnp.zeros((), x.dtype), fill)


def _unslice(shares: list[Array], shape: tuple[int, ...], pooling: Pooling) -> Array:
    """Sum the gradients of each position in the window: the transpose of `_window_slices`.

    Rows 2r + p of the result, p = 0 or 1, sum positions i = p, p + 2, ... of windows r - i // 2,
    and columns likewise; so each of the 2 x 2 phases is a sum of shifted arrays, and the phases
    interleave.
    """
    batch, height, width, channels = shape
    stride, window = pooling.stride, pooling.window
    rows, columns = (-(-side // stride) for side in (height, width))

    def share(i: int, j: int) -> Array:
        sides = (height, width)
        return _shifted(shares[i * window + j], pooling, sides, i // stride, j // stride)

    phases = [
        sum(share(i, j) for i in range(p, window, stride) for j in range(q, window, stride))
        for p in range(stride)
        for q in range(stride)
    ]
    whole = jnp.stack(phases, axis=-2).reshape(batch, rows, columns, stride, stride, channels)
    whole = whole.transpose(0, 1, 3, 2, 4, 5)
    return whole.reshape(batch, stride * rows, stride * columns, channels)[:, :height, :width]


pool_by_slices.defvjp(_pool_forward, _pool_backward)


POOL_INDEX = "pool_index"


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def pool_by_index(x: Array, pooling: Pooling) -> Array:
    """Compute `pool` as `pool_by_slices` does; the backward pass reads no pixels.

    Between the passes lies one byte for each window, the first position of its maximum, or with
    `ties` "all" two bytes, a bit for each position, instead of the pixels. A GPU's speed here is
    the bytes it moves. `jax.checkpoint` may keep that by the name POOL_INDEX.
    """
    return _index_forward(x, pooling)[0]


def _index_forward(x, pooling):
    first, *slices = _window_slices(x, pooling)
    if pooling.ties == "all":
        y = functools.reduce(jnp.maximum, slices, first)
        bits = [(pixels == y).astype(jnp.uint16) << i for i, pixels in enumerate((first, *slices))]
        index = functools.reduce(jnp.bitwise_or, bits)
    else:
        y, index = first, jnp.zeros(first.shape, jnp.uint8)
        for i, pixels in enumerate(slices, start=1):
            index = jnp.where(pixels > y, jnp.uint8(i), index)
            y = jnp.maximum(y, pixels)
    # Without the barrier XLA computes the maxima again for each operation that reads them.
    y, index = lax.optimization_barrier(y), checkpoint_name(index, POOL_INDEX)
    return y, (index, jnp.zeros((x.shape[1], x.shape[2], 0), x.dtype))


def _index_backward(pooling, saved, g):
    index, sides = saved
    stride, window = pooling.stride, pooling.window
    height, width = sides.shape[:2]

    def spread(x: Array, down: int, right: int) -> Array:
        """Return for pixel (r, c) the value of window (r // stride - down, c // stride - right)."""
        x = _shifted(x, pooling, (height, width), down, right)
        x = jnp.repeat(jnp.repeat(x, stride, axis=1), stride, axis=2)
        return x[:, :height, :width]

    def share(down: int, right: int) -> Array:
        """Return what each pixel gets from that window."""
        i = np.arange(height)[:, None] % stride + stride * down
        j = np.arange(width) % stride + stride * right
        inside = ((i < window) & (j < window))[None, :, :, None]
        position = (i * window + j)[None, :, :, None].astype(index.dtype)
        found = spread(index, down, right)
        chosen = (found >> position) & 1 == 1 if pooling.ties == "all" else found == position
        return jnp.where(chosen & inside, spread(g, down, right), 0)

    back = range(-(-window // stride))
    return (sum(share(down, right) for down in back for right in back),)


pool_by_index.defvjp(_index_forward, _index_backward)
