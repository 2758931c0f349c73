"""Response normalization, and which functions compute the layers on which platform.

`ACCELERATOR` is what XLA does well on GPU and TPU, `CPU` says the same in a form that XLA's CPU
backend runs faster. `for_platform` is the only place that chooses.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.model.architecture import Pooling, ResponseNorm
from alexnet_jax.model.convolution import Padding, convolve, convolve_on_cpu
from alexnet_jax.model.pooling import pool, pool_by_slices


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
    """Response normalization (P3.3) of `x` [..., maps], or [B, H, W, maps] for windows of pixels.

    y_i = x_i / s_i ** beta, s_i = k + alpha * sum over the window around i of x_j ** 2. With
    u = g y / s the gradient is g / s ** beta - 2 alpha beta x * (window sum of u): one pass
    over the window instead of the several that differentiating it term by term gives. Of bfloat16
    the sums and the power are float32.
    """
    return _normalize_forward(x, norm)[0]


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _normalize_forward(narrow, norm):
    x = _wide(narrow)
    s = norm.k + norm.alpha * _window_sum(x * x, norm)
    # Without the barrier XLA computes y again for every window of the pooling that reads it.
    y = lax.optimization_barrier((x * _inverse_power(s, norm.beta)).astype(narrow.dtype))
    return y, (narrow, s)


def _normalize_backward(norm, saved, g):
    narrow, s = saved
    x = _wide(narrow)
    scaled = _wide(g) * _inverse_power(s, norm.beta)
    spread = _window_sum(scaled * x / s, norm)
    return ((scaled - 2 * norm.alpha * norm.beta * x * spread).astype(narrow.dtype),)


normalize.defvjp(_normalize_forward, _normalize_backward)


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The functions of one platform, and how XLA is to treat them there."""

    convolve: Callable[[Array, Array, int, Padding], Array]
    normalize: Callable[[Array, ResponseNorm], Array]
    pool: Callable[[Array, Pooling], Array]
    block: Callable[[int], int]  # of a batch of so many images, how many are convolved at a time
    joined: bool = False  # whether the updates of a step wait for all of its gradients
    compiler_options: tuple[tuple[str, str], ...] = ()  # see `compiler_options`


def _all_at_once(batch: int) -> int:
    return batch


def _of_four(batch: int) -> int:
    """Return a quarter of a batch, but from 8 to 32 images, and blocks as equal as can be.

    Larger blocks fall out of the caches: in two of them a step of 128 images took 1.02 times as
    long, and one of 64 images 1.03 times.
    """
    largest = min(max(-(-batch // 4), 8), 32)
    blocks = -(-batch // largest)
    return -(-batch // blocks)


ACCELERATOR = Kernels(convolve, normalize, pool, _all_at_once)
CPU = Kernels(
    convolve_on_cpu,
    normalize,
    pool_by_slices,
    _of_four,
    joined=True,
    compiler_options=(
        # Block after block. XLA's default makes what could run at once follow one another, the same
        # layer of every block, and so keeps every block's temporaries and finds none in the caches:
        # a step took 1.16 times as long on one device and 1.3 on two, and 1.6 times the memory.
        ("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"),
        # Convolutions by Eigen, which splits them by pixels. XLA's default is YNNPACK for them too,
        # which gives a thread 64 maps: of 48 maps one thread computes all, and the others wait.
        # Matrix products stay YNNPACK's, where both measured alike or better. A step on two cores
        # took 1.11 times as long on one device and 1.06 on two.
        ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"),
    ),
)


def for_platform(platform: str) -> Kernels:
    """Return the functions for `platform`, as jax names it: cpu, gpu, tpu."""
    return CPU if platform == "cpu" else ACCELERATOR


@functools.cache
def compiler_options(platform: str) -> dict[str, str]:
    """Return how XLA is to treat programs over the network on `platform`, as jax.jit takes it.

    Less what this release of XLA does not know: its names change, and the program is right without.
    """
    return {k: v for k, v in for_platform(platform).compiler_options if is_known(k, v)}


def is_known(option: str, value: str) -> bool:
    """Return whether XLA takes a value of a compiler option."""
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
