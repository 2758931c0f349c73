"""Local response normalization (LRN, P3.3), over maps or over pixels, with a custom gradient."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.model.architecture import ResponseNorm


def _window_sum(x: Array, norm: ResponseNorm) -> Array:
    """Sum over the n maps, or n x n pixels, around each value; fewer at the edges."""
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
    """Return s ** -beta; for the paper's 0.75 by square roots, which have vector instructions."""
    if beta == 0.75:
        r = lax.rsqrt(s)
        return r * jnp.sqrt(r)
    return s**-beta


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalize(x: Array, norm: ResponseNorm) -> Array:
    """Normalize `x` [..., maps], or [B, H, W, maps] if `norm` is over pixels.

    y_i = x_i / s_i ** beta, s_i = k + alpha * sum over the window around i of x_j ** 2. With
    u = g y / s the gradient is g / s ** beta - 2 alpha beta x * (window sum of u), which needs one
    window sum; automatic differentiation needs several. Sums and powers are float32 also for
    bfloat16 inputs.
    """
    return _normalize_forward(x, norm)[0]


def to_float32(x: Array) -> Array:
    """Return `x` in at least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _normalize_forward(narrow, norm):
    x = to_float32(narrow)
    s = norm.k + norm.alpha * _window_sum(x * x, norm)
    # Without the barrier XLA recomputes y for every pooling window that reads it.
    y = lax.optimization_barrier((x * _inverse_power(s, norm.beta)).astype(narrow.dtype))
    return y, (narrow, s)


def _normalize_backward(norm, saved, g):
    narrow, s = saved
    x = to_float32(narrow)
    scaled = to_float32(g) * _inverse_power(s, norm.beta)
    spread = _window_sum(scaled * x / s, norm)
    return ((scaled - 2 * norm.alpha * norm.beta * x * spread).astype(narrow.dtype),)


normalize.defvjp(_normalize_forward, _normalize_backward)
