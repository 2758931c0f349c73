"""Hardware that a training step can be compiled for without having it.

XLA compiles for a description of a TPU (which libtpu knows) or of a GPU (a text that is made here).
Memories and bandwidths are those that makers publish, as the peaks in `model/devices.py`. The
descriptions of A100, H100 and H200 are OpenXLA's (xla/backends/gpu/target_config/specs); those of
L4 and T4 have the same fields, from what is known of their architectures.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Mapping
from typing import Literal

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from alexnet_jax.config import MeshConfig, invalid
from alexnet_jax.model import towers
from alexnet_jax.model.devices import PEAKS

GIB = 2**30
GPUS_PER_MACHINE = 8
MAX_TPUS = 256  # of one slice of the smallest kind
# What libtpu needs on a machine without TPUs; several processes may then use it at once.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # of the host; a topology is whatever is named
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of device."""

    title: str
    platform: Literal["cpu", "gpu", "tpu"]
    memory: int = 0  # bytes; 0: not known
    bandwidth: float = 0  # of the memory, bytes/s
    # FLOP/s by `model.dtype`, for products at JAX's default precision: of float32 arrays in one
    # pass of bfloat16 on a TPU, in TF32 on a GPU that has it.
    peak: Mapping[str, float] = dataclasses.field(default_factory=dict)
    clock: float = 0  # of a TPU, Hz: peak / (FLOP of the matrix units in a cycle)
    sides: int = 0  # dimensions of a TPU's network
    cores: int = 1  # that a TPU's name counts for each chip: a v4-8 has four chips
    options: tuple[tuple[str, str], ...] = ()  # of a TPU's topology
    description: str = ""  # of a GPU: XLA's GpuTargetConfigProto


def _peaks(name: str) -> dict[str, float]:
    return {dtype: 1e12 * tflop for dtype, tflop in PEAKS[name].items()}


def _tpu(name: str, gib: int, bandwidth: float, flop: int, sides: int = 2, cores: int = 1) -> Chip:
    """Return a TPU: `flop` are those of its matrix units in a cycle."""
    peaks = _peaks(name)
    clock = peaks["bfloat16"] / flop
    return Chip(f"TPU {name}", "tpu", gib * GIB, bandwidth, peaks, clock, sides, cores)


def _gpu(
    name: str,
    title: str,
    capability: tuple[int, int],
    memory: int,
    bandwidth: int,
    multiprocessors: int,
    units: int,
    threads: int,
    shared: tuple[int, int],
    cache: int,
    clock: float,
) -> Chip:
    """Return a GPU: units, threads and shared memory are those of a multiprocessor."""
    major, minor = capability
    features = " feature_extension: ACCELERATED_FEATURES" if major == 9 else ""
    description = f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {threads}
          shared_memory_per_block: 49152 shared_memory_per_core: {shared[0]}
          shared_memory_per_block_optin: {shared[1]}
          core_count: {multiprocessors} fpus_per_core: {units} clock_rate_ghz: {clock}
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
          memory_bandwidth: {bandwidth} l2_cache_size: {cache} device_memory_size: {memory}
          cuda_compute_capability {{ major: {major} minor: {minor}{features} }}
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          driver_version: "13.0.0" runtime_version: "12.8.0" dnn_version: "9.10.0"
          compile_time_toolkit_version: "12.8.0"
        }}
        platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
        device_description_str: "{title}"
    """
    return Chip(title, "gpu", memory, bandwidth, _peaks(name), description=description)


MATRIX = 2 * 128 * 128  # FLOP of a TPU's matrix unit in a cycle
CHIPS = {
    "cpu": Chip("CPU", "cpu"),
    "v4": dataclasses.replace(
        _tpu("v4", 32, 1.228e12, 8 * MATRIX, sides=3, cores=2),
        options=(("chip_config_name", "megacore"),),  # both cores are one device, as in training
    ),
    "v5e": _tpu("v5e", 16, 0.819e12, 4 * MATRIX),
    "v5p": _tpu("v5p", 95, 2.765e12, 8 * MATRIX, sides=3, cores=2),
    "v6e": _tpu("v6e", 32, 1.640e12, 16 * MATRIX),
    "t4": _gpu(
        *("t4", "Tesla T4", (7, 5), 15_843_721_216, 320_064_000_000),
        *(40, 64, 1024, (65_536, 65_536), 4_194_304, 1.59),
    ),
    "l4": _gpu(
        *("l4", "NVIDIA L4", (8, 9), 23_580_639_232, 300_096_000_000),
        *(58, 128, 1536, (102_400, 101_376), 50_331_648, 2.04),
    ),
    "a100": _gpu(
        *("a100", "NVIDIA A100-SXM4-40GB", (8, 0), 42_331_013_120, 1_555_200_000_000),
        *(108, 64, 2048, (167_936, 166_912), 41_943_040, 1.41),
    ),
    "h100": _gpu(
        *("h100", "NVIDIA H100 80GB HBM3", (9, 0), 84_942_979_072, 3_352_320_000_000),
        *(132, 128, 2048, (233_472, 232_448), 52_428_800, 1.98),
    ),
    "h200": _gpu(
        *("h200", "NVIDIA H200 141GB HBM3e", (9, 0), 151_397_597_184, 4_800_000_000_000),
        *(132, 128, 2048, (233_472, 232_448), 52_428_800, 1.98),
    ),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices of one kind: `h100-2`, or `v4-8`, which has four chips with two cores each."""

    name: str
    chip: Chip
    devices: int


def parse_target(name: str) -> Target:
    """Return the hardware that people call `name`: a chip and a number.

    Raises:
        ValueError: there is no such chip, or it does not come in that number.
    """
    kind, _, digits = name.lower().rpartition("-")
    if kind not in CHIPS or not digits.isdecimal() or int(digits) < 1:
        rule = f"must be one of {', '.join(CHIPS)}, a hyphen and the number of devices"
        raise invalid("target", name, rule, "try v5e-8 or h100-2")
    chip, number = CHIPS[kind], int(digits)
    devices = number // chip.cores
    if chip.platform == "tpu" and not _is_slice(number, devices, chip):
        numbers = ", ".join(str(chip.cores * 2**power) for power in range(9))
        rule = f"{chip.title} comes in slices of {numbers}" + (
            " cores, two in each chip" if chip.cores > 1 else " chips"
        )
        raise invalid("target", name, rule, f"try {kind}-8")
    if chip.platform == "gpu" and devices > GPUS_PER_MACHINE and devices % GPUS_PER_MACHINE:
        rule = f"more than {GPUS_PER_MACHINE} GPUs must be a multiple of {GPUS_PER_MACHINE}"
        remedy = f"try {kind}-{devices // GPUS_PER_MACHINE * GPUS_PER_MACHINE}"
        raise invalid("target", name, rule, remedy)
    return Target(name.lower(), chip, devices)


def _is_slice(number: int, devices: int, chip: Chip) -> bool:
    power_of_two = devices > 0 and devices & (devices - 1) == 0
    return power_of_two and devices <= MAX_TPUS and number == devices * chip.cores


def make_mesh(target: Target, mesh: MeshConfig, batch: int) -> Mesh:
    """Return the mesh that training on this hardware would have; no array can be put on it.

    Raises:
        ValueError: the compiler for it is not installed, or the mesh does not fit.
    """
    devices = compile_only_devices(target)
    return towers.make_mesh(towers=mesh.towers, data=mesh.data, batch=batch, devices=devices)


def compile_only_devices(target: Target) -> list[jax.Device]:
    """Return devices that programs can be compiled for; of a CPU this machine's own.

    Raises:
        ValueError: the compiler for them is not installed.
    """
    if target.chip.platform == "cpu":
        return _cpu_devices(target)
    return _tpus(target) if target.chip.platform == "tpu" else _gpus(target)


def _cpu_devices(target: Target) -> list[jax.Device]:
    devices = jax.devices("cpu")
    if len(devices) < target.devices:
        rule = f"this process emulates {len(devices)} CPU devices"
        raise invalid("target", target.name, rule, f"set JAX_NUM_CPU_DEVICES={target.devices}")
    return devices[: target.devices]


def _tpus(target: Target) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        rule = "its compiler, libtpu, is missing"
        raise invalid("target", target.name, rule, "run pip install '.[tpu]' (x86-64 Linux)")
    for name, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sides = tpu_sides(target.devices, target.chip.sides)
    bounds = (*sides, *(1,) * (3 - len(sides)))
    # One machine has a whole small slice; larger ones are of machines with four chips each.
    largest = 8 if target.chip.sides == 2 else 4
    options = dict(target.chip.options)
    if target.devices <= largest:
        options |= {"chips_per_host_bounds": bounds}
    generation = target.name.partition("-")[0]
    topology = f"{generation}:{'x'.join(map(str, sides))}"
    return list(topologies.get_topology_desc(topology, "tpu", **options).devices)


def tpu_sides(chips: int, sides: int) -> tuple[int, ...]:
    """Return the shape of a slice: 8 chips are 2 x 4 in a plane, 2 x 2 x 2 in space."""
    power = chips.bit_length() - 1
    powers = sorted((power + number) // sides for number in range(sides))
    if sides == 3 and power < 3:  # within one machine, which is flat
        powers = [power // 2, (power + 1) // 2, 0]
    return tuple(2**power for power in powers)


def _gpus(target: Target) -> list[jax.Device]:
    machines = -(-target.devices // GPUS_PER_MACHINE)
    topology = f"1x{machines}x{target.devices // machines}"
    try:
        description = topologies.get_topology_desc(
            "", "cuda", target_config=target.chip.description, topology=topology
        )
    except NotImplementedError:
        rule = "its compiler, JAX's CUDA plugin, is missing"
        raise invalid("target", target.name, rule, "run pip install '.[cuda]' (Linux)") from None
    return list(description.devices)
