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
    """Sum over the n maps, or n x n pixels, around each value; fewer at the edges.

    Windows of maps end at the edges of their group.
    """
    if norm.over == "pixels":
        return _sum_of_shifts(_sum_of_shifts(x, norm.n, axis=1), norm.n, axis=2)
    if form.product is not None:
        return _window_sum_by_product(x, norm, form.product, form.groups)
    return _sum_of_shifts(x, norm.n, axis=x.ndim - 1, groups=form.groups)


def _sum_of_shifts(x: Array, n: int, axis: int, groups: int = 1) -> Array:
    """Sum n neighbors along an axis, or those of them in the same of its equal `groups`."""
    size, reach = x.shape[axis], n // 2
    fill = [(0, 0)] * x.ndim
    fill[axis] = (reach, reach)
    padded = jnp.pad(x, fill)
    group = np.arange(-reach, size + reach) // (size // groups)

    def shifted(i: int) -> Array:
        part = lax.slice_in_dim(padded, i, i + size, axis=axis)
        if groups == 1:
            return part
        same = group[i : i + size] == group[reach : reach + size]
        return jnp.where(np.expand_dims(same, [a for a in range(x.ndim) if a != axis]), part, 0)

    return sum(map(shifted, range(1, n)), start=shifted(0))


def _window_sum_by_product(
    x: Array, norm: ResponseNorm, precision: Precision, groups: int
) -> Array:
    """Compute `_window_sum` over maps as x B; B[j, i] is 1 if map j is in the window of map i.

    Otherwise it is 0. Faster on a TPU by its compiler's estimate, as the matrix unit computes it;
    see experiments/RESULTS.md. At the precision "default" a TPU rounds each x to bfloat16, and
    their sum is float32.
    """
    maps = np.arange(x.shape[-1])
    group = maps // (len(maps) // groups)
    band = (np.abs(maps[:, None] - maps) <= norm.n // 2) & (group[:, None] == group)
    return jnp.matmul(x, jnp.asarray(band, x.dtype), precision=precision)


def _inverse_power(s: Array, beta: float) -> Array:
    """Return s ** -beta; for the paper's 0.75 by square roots, which have vector instructions."""
    if beta == 0.75:
        r = lax.rsqrt(s)
        return r * jnp.sqrt(r)
    return s**-beta


def normalize(x: Array, norm: ResponseNorm, _: Precision = "default", groups: int = 1) -> Array:
    """Normalize `x` [..., maps], or [B, H, W, maps] if `norm` is over pixels.

    Over maps, each of `groups` equal parts of them is normalized by itself.

    y_i = x_i / s_i ** beta, s_i = k + alpha * sum over the window around i of x_j ** 2. With
    u = g y / s the gradient is g / s ** beta - 2 alpha beta x * (window sum of u), which needs one
    window sum; automatic differentiation needs several. Sums and powers are float32 also for
    bfloat16 inputs.
    """
    return _normalize(x, norm, _Form(groups))


def normalize_by_product(
    x: Array, norm: ResponseNorm, precision: Precision = "default", groups: int = 1
) -> Array:
    """Compute `normalize` with both window sums as products with a banded matrix of 0 and 1.

    Between forward and backward pass lies s - k, rounded to the dtype of x.
    """
    return _normalize(x, norm, _Form(groups, product=precision))


def normalize_in_few_bytes(
    x: Array, norm: ResponseNorm, _: Precision = "default", groups: int = 1
) -> Array:
    """Compute `normalize` with fewer bytes moved in the backward pass, for a GPU.

    For kernels that compute s from x, which they read anyway; see `platform.Ops.recompute`. Between
    the two of the backward pass lies t = g / s ** (beta + 1) alone, in the dtype of x: u is t x,
    and the gradient's first term is t s, in bfloat16 thus rounded twice.
    """
    return _normalize(x, norm, _Form(groups, few_bytes=True))


@dataclasses.dataclass(frozen=True)
class _Form:
    groups: int = 1
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
    if form.product is not None:
        # The barrier keeps XLA from storing it as it was before rounding.
        return y, (narrow, lax.optimization_barrier(above_k.astype(narrow.dtype)))
    return y, (narrow, s)


def _normalize_backward(norm, form, saved, g):
    narrow, s = saved
    if form.product is not None:
        s = norm.k + to_float32(s)  # it was s - k
    x = to_float32(narrow)
    scaled = to_float32(g) * _inverse_power(s, norm.beta)
    if form.few_bytes:
        t = scaled / s
        if narrow.dtype != t.dtype:
            # The barrier keeps XLA from storing it as it was before rounding.
            t = to_float32(lax.optimization_barrier(t.astype(narrow.dtype)))
        # Written otherwise than in the forward pass, so that XLA does not store one s for both
        # kernels: the second computes it from x, too.
        s = norm.k + _window_sum(norm.alpha * x * x, norm, form)
        scaled, u = t * s, t * x
    else:
        u = scaled * x / s
    spread = _window_sum(u, norm, form)
    return ((scaled - 2 * norm.alpha * norm.beta * x * spread).astype(narrow.dtype),)


_normalize.defvjp(_normalize_forward, _normalize_backward)
