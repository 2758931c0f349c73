"""The formulation of each operation on each platform; only `for_platform` chooses.

All three compute the same. What is fast differs: a CPU has caches and vector instructions, a GPU is
limited here by the bytes that it moves, a TPU has a matrix unit that sums windows, too. Timings,
and what the compilers of TPU and GPU estimate, are in experiments/RESULTS.md.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
from jax import Array
from jax.sharding import SingleDeviceSharding
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from alexnet_jax.config import Precision
from alexnet_jax.model.architecture import Pooling
from alexnet_jax.model.convolution import convolve, convolve_on_cpu, convolve_on_tpu
from alexnet_jax.model.loss import cross_entropy_by_selection
from alexnet_jax.model.pooling import pool, pool_by_index, pool_by_slices
from alexnet_jax.model.preprocess import flip_by_bits, flip_by_product
from alexnet_jax.model.response_norm import (
    normalize,
    normalize_by_product,
    normalize_in_few_bytes,
)


@dataclasses.dataclass(frozen=True)
class Ops:
    """The operations of one platform and its settings of XLA."""

    convolve: Callable[..., Array]  # as `convolution.convolve`
    normalize: Callable[..., Array]  # as `response_norm.normalize`
    pool: Callable[[Array, Pooling], Array]
    cross_entropy: Callable[[Array, Array], Array]  # of logits [B, classes] and labels [B]
    block_size: Callable[[int], int]  # batch size -> number of images to convolve at a time
    flip: Callable[[Array, Array], Array] = flip_by_bits  # bytes, where the second argument is true
    gradient_barrier: bool = False  # see `towers.make_gradient_barrier`
    # Where the outputs of a layer, if both towers are on one device, become an array for each.
    # Before the bias of a convolution: its gradient is one more output of the kernel that computes
    # the gradient of LRN, and does not read that of both towers once more. When needed: in a layer
    # whose towers see their own maps alone.
    split_towers: Literal["before bias", "after bias", "when needed"] = "after bias"
    # Whether the backward pass computes what follows a layer's products again from them.
    recompute: bool = False
    # Whether the maps of both towers are gathered as one array, not as two that are joined.
    gather_along_maps: bool = False
    # Order of the axes of images [B, h, w, 3] in memory, the slowest first; None: XLA's choice.
    image_layout: tuple[int, ...] | None = None
    compiler_options: tuple[tuple[str, str], ...] = ()  # see `compiler_options`


GPUS = ("gpu", "cuda", "rocm")  # names of the platform: on a device, of a compiler without one


def whole_batch(batch: int) -> int:
    """Return the batch itself as the block size."""
    return batch


def cpu_block_size(batch: int) -> int:
    """Return a quarter of a batch, but 8 to 32 images, so that blocks are nearly equal.

    Larger blocks do not fit in the caches.
    """
    largest = min(max(-(-batch // 4), 8), 32)
    blocks = -(-batch // largest)
    return -(-batch // blocks)


def tpu_block_size(batch: int) -> int:
    """Return 128 images, the lanes of a chip, for a batch of two to four times as many.

    More of what lies between a convolution and its pooling then stays on the chip. Blocks of larger
    batches take long to compile, and gain on some meshes alone; see experiments/RESULTS.md.
    """
    lanes = 128
    return lanes if batch in (2 * lanes, 3 * lanes, 4 * lanes) else batch


# Pooling not by reduce_window: its gradient is a scatter, with atomic adds in any order.
GPU = Ops(
    convolve,
    normalize_in_few_bytes,
    pool_by_index,
    cross_entropy_by_selection,
    whole_batch,
    split_towers="when needed",
    recompute=True,
)
TPU = Ops(
    convolve_on_tpu,
    normalize_by_product,
    pool,
    cross_entropy_by_selection,
    tpu_block_size,
    split_towers="before bias",
    gather_along_maps=True,
    flip=flip_by_product,
    # That of the bytes as they arrive; XLA would transpose them and the images after the mean.
    image_layout=(1, 3, 2, 0),
    # KiB of memory on the chip for one operation at a time, 2.25 times XLA's default for a v5e: LRN
    # and conv1 then work in larger parts. With more, other operations wait for their inputs.
    compiler_options=(("xla_tpu_scoped_vmem_limit_kib", "36864"),),
)
CPU = Ops(
    convolve_on_cpu,
    normalize,
    pool_by_slices,
    cross_entropy,
    cpu_block_size,
    gradient_barrier=True,
    compiler_options=(
        # Block after block. XLA's default schedules the same layer of every block one after the
        # other, which keeps the temporaries of all blocks in memory and misses the caches.
        ("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"),
        # Convolutions by Eigen, which splits them by pixels. XLA's default, YNNPACK, gives each
        # thread 64 maps: one thread computes all 48 maps of a tower, and the others wait. Matrix
        # products stay with YNNPACK, which is as fast or faster for them.
        ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"),
    ),
)


def for_platform(platform: str) -> Ops:
    """Return the operations for a platform as JAX names it: cpu, tpu, and gpu, cuda or rocm."""
    return {"cpu": CPU, "tpu": TPU}.get(platform, GPU)


DETERMINISTIC = {"xla_gpu_deterministic_ops": True}
TPU_PRODUCTS: dict[Precision, str] = {
    "default": "one bfloat16 pass",
    "high": "three bfloat16 passes",
    "highest": "six bfloat16 passes",
}


def describe_precision(
    dtype: Literal["float32", "bfloat16"], precision: Precision, device: jax.Device
) -> str:
    """Return what products are computed in on a device: "float32 arrays; products in TF32".

    See https://docs.jax.dev/en/latest/jax.lax.html#jax.lax.Precision.
    """
    products = "float32"
    if device.platform == "tpu":
        products = TPU_PRODUCTS[precision]
    elif device.platform in GPUS and precision != "highest":
        capability = str(getattr(device, "compute_capability", ""))  # "9.0", "gfx942" or none
        if not capability[:1].isdecimal():
            products = "TF32 if the GPU has it, otherwise float32"
        elif float(capability) >= 8:  # Ampere
            products = "TF32"
    if dtype == "float32":
        return f"float32 arrays; products in {products}"
    return f"bfloat16 arrays and products; those of the last layer in {products}"


@functools.cache
def compiler_options(device: jax.Device, deterministic: bool = True) -> dict[str, str | bool]:
    """Return XLA's compiler options for a device's platform, as jax.jit takes them.

    Those for speed are left out if this release of XLA does not know them. `deterministic`: on a
    GPU, additions have a fixed order, and kernels are not chosen by trial; XLA for CPU and TPU does
    so anyway.
    """
    options = for_platform(device.platform).compiler_options
    fast = {k: v for k, v in options if is_supported(k, v, device)}
    return fast | (DETERMINISTIC if deterministic and device.platform in GPUS else {})


def is_supported(option: str, value: str | bool, device: jax.Device) -> bool:
    """Return whether XLA supports a value of a compiler option for a device's platform."""
    # On JAX's own platform XLA is asked for this process's device, as `device` may be another's.
    # Otherwise `device` is not there, and its compiler is asked.
    here = device.platform == jax.default_backend()
    sharding = None if here else SingleDeviceSharding(device)
    options: dict[str, Any] = {"compiler_options": {option: value}, "out_shardings": sharding}
    try:
        jax.jit(lambda: 0, **options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
