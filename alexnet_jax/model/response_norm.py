"""Local response normalization (LRN, P3.3), over maps or over pixels, with a custom gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_jax.config import Precision
from alexnet_jax.model.architecture import ResponseNorm


def _window_sum(x: Array, norm: ResponseNorm, form: "_Form") -> Array:
    """Sum over the n maps, or n x n pixels, around each value; fewer at the edges."""
    if form.product is not None and norm.over == "maps":
        return _window_sum_by_product(x, norm, form.product)
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


def _window_sum_by_product(x: Array, norm: ResponseNorm, precision: Precision) -> Array:
    """Compute `_window_sum` over maps as x B; B[j, i] is 1 if |i - j| <= n // 2, and 0 otherwise.

    Faster on a TPU by its compiler's estimate, as the matrix unit computes it; see
    experiments/RESULTS.md. At the precision "default" a TPU rounds each x to bfloat16, and their
    sum is float32.
    """
    maps = np.arange(x.shape[-1])
    band = np.abs(maps[:, None] - maps) <= norm.n // 2
    return jnp.matmul(x, jnp.asarray(band, x.dtype), precision=precision)


def _inverse_power(s: Array, beta: float) -> Array:
    """Return s ** -beta; for the paper's 0.75 by square roots, which have vector instructions."""
    if beta == 0.75:
        r = lax.rsqrt(s)
        return r * jnp.sqrt(r)
    return s**-beta


def normalize(x: Array, norm: ResponseNorm, _: Precision = "default") -> Array:
    """Normalize `x` [..., maps], or [B, H, W, maps] if `norm` is over pixels.

    y_i = x_i / s_i ** beta, s_i = k + alpha * sum over the window around i of x_j ** 2. With
    u = g y / s the gradient is g / s ** beta - 2 alpha beta x * (window sum of u), which needs one
    window sum; automatic differentiation needs several. Sums and powers are float32 also for
    bfloat16 inputs.
    """
    return _normalize(x, norm, _Form())


def normalize_by_product(x: Array, norm: ResponseNorm, precision: Precision = "default") -> Array:
    """Compute `normalize` with both window sums as products with a banded matrix of 0 and 1.

    Between forward and backward pass lies s - k, rounded to the dtype of x.
    """
    return _normalize(x, norm, _Form(product=precision))


def normalize_in_few_bytes(x: Array, norm: ResponseNorm, _: Precision = "default") -> Array:
    """Compute `normalize` with fewer bytes between forward and backward pass, for a GPU.

    The backward pass computes s again from x, which it reads anyway, and u is rounded to the dtype
    of x (the window sum of the rounded values is float32).
    """
    return _normalize(x, norm, _Form(few_bytes=True))


@dataclasses.dataclass(frozen=True)
class _Form:
    product: Precision | None = None  # of window sums as products; None: as sums of slices
    few_bytes: bool = False


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _normalize(x: Array, norm: ResponseNorm, form: _Form) -> Array:
    return _normalize_forward(x, norm, form)[0]


def to_float32(x: Array) -> Array:
    """Return `x` in at least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _normalize_forward(narrow, norm, form):
    x = to_float32(narrow)
    above_k = norm.alpha * _window_sum(x * x, norm, form)
    s = norm.k + above_k
    # Without the barrier XLA recomputes y for every pooling window that reads it.
    y = lax.optimization_barrier((x * _inverse_power(s, norm.beta)).astype(narrow.dtype))
    if form.few_bytes:
        return y, (narrow, None)
    if form.product is not None:
        # The barrier keeps XLA from storing it as it was before rounding.
        return y, (narrow, lax.optimization_barrier(above_k.astype(narrow.dtype)))
    return y, (narrow, s)


def _normalize_backward(norm, form, saved, g):
    narrow, s = saved
    if form.product is not None:
        s = norm.k + to_float32(s)  # it was s - k
    if form.few_bytes:
        # The barrier keeps XLA from storing the s of the forward pass instead.
        narrow = lax.optimization_barrier(narrow)
        s = norm.k + norm.alpha * _window_sum(to_float32(narrow) ** 2, norm, form)
    x = to_float32(narrow)
    scaled = to_float32(g) * _inverse_power(s, norm.beta)
    u = scaled * x / s
    if form.few_bytes:
        u = to_float32(lax.optimization_barrier(u.astype(narrow.dtype)))
    spread = _window_sum(u, norm, form)
    return ((scaled - 2 * norm.alpha * norm.beta * x * spread).astype(narrow.dtype),)


_normalize.defvjp(_normalize_forward, _normalize_backward)
