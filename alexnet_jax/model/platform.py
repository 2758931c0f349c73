"""Which formulation of a layer runs on which platform. `for_platform` is the only place that chooses.

`ACCELERATOR` is what XLA does well on GPU and TPU; `CPU` computes the same in forms that XLA's CPU
backend runs faster.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax import Array

from alexnet_jax.model.architecture import Pooling, ResponseNorm
from alexnet_jax.model.convolution import Padding, convolve, convolve_on_cpu
from alexnet_jax.model.pooling import pool, pool_by_slices
from alexnet_jax.model.response_norm import normalize


@dataclasses.dataclass(frozen=True)
class Ops:
    """The functions of one platform, and how XLA is to treat them there."""

    convolve: Callable[[Array, Array, int, Padding], Array]
    normalize: Callable[[Array, ResponseNorm], Array]
    pool: Callable[[Array, Pooling], Array]
    block_size: Callable[
        [int], int
    ]  # of a batch of so many images, how many are convolved at a time
    gradient_barrier: bool = False  # whether the updates of a step wait for all of its gradients
    compiler_options: tuple[tuple[str, str], ...] = ()  # see `compiler_options`


def whole_batch(batch: int) -> int:
    return batch


def cpu_block_size(batch: int) -> int:
    """Return a quarter of a batch, but from 8 to 32 images, and blocks as equal as can be.

    Larger blocks fall out of the caches: in two of them a step of 128 images took 1.02 times as
    long, and one of 64 images 1.03 times.
    """
    largest = min(max(-(-batch // 4), 8), 32)
    blocks = -(-batch // largest)
    return -(-batch // blocks)


ACCELERATOR = Ops(convolve, normalize, pool, whole_batch)
CPU = Ops(
    convolve_on_cpu,
    normalize,
    pool_by_slices,
    cpu_block_size,
    gradient_barrier=True,
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


def for_platform(platform: str) -> Ops:
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
