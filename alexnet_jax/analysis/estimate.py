"""What the compiled training step needs of hardware that is not there: an estimate, no measurement.

Memory, collectives and kernels are those of the program that XLA compiled; the time is the TPU
compiler's own estimate, or of a GPU the least that its memory's bandwidth and its peak allow.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.analysis import compiled, targets
from alexnet_jax.analysis.compiled import Traffic
from alexnet_jax.analysis.targets import Target
from alexnet_jax.config import Config, invalid
from alexnet_jax.data.pipeline import empty_batch
from alexnet_jax.model import devices, towers
from alexnet_jax.model.architecture import Architecture, training_flop
from alexnet_jax.model.partition import step_collectives
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.setup import make_preprocess
from alexnet_jax.training.state import TrainState, abstract_state
from alexnet_jax.training.step import make_train_step

MIB = 2**20
# Loss, error and finiteness are not counted, but XLA may sum them in one collective with gradients.
SCALARS = 8


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    parameters: int
    velocity: int
    batch: int
    temporaries: int  # activations and gradients
    code: int
    total: int  # of the program: also what its layouts pad
    chip: int  # 0: not known


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A training step, compiled for hardware that is not there."""

    target: str
    chip: str
    mesh: str
    devices: int  # of the mesh
    images: int  # a step
    dtype: str
    memory: Memory
    flop: int  # of the products of a step, by the layer table, on all devices
    compiler_flop: float | None  # of everything, on one device
    peak: float | None  # FLOP/s of a device
    table: tuple[Traffic, ...]
    program: tuple[Traffic, ...]
    collectives_agree: bool
    cycles: int | None  # TPU
    seconds: float | None  # TPU: by the compiler; GPU: at least, by bandwidth and by peak
    peak_share: float | None  # TPU: that `seconds` means
    kernels: int | None  # GPU
    bytes_moved: int | None
    atomic_scatters: int | None


def estimate(config: Config, classes: int, target: Target) -> Estimate:
    """Compile the training step of a configuration for a target; nothing is computed.

    Raises:
        ValueError: the compiler is not installed, the mesh does not fit, or the memory is too
            small.
    """
    batch_size, dtype, chip = config.optimizer.batch_size, config.model.dtype, target.chip
    mesh = targets.make_mesh(target, config.mesh, batch_size)
    architecture = build_architecture(config.model, classes, config.data.crop)
    step, state, batch = train_step(config, architecture, mesh)
    try:
        program = compile_for(target, step.lower(state, batch))
    except jax.errors.JaxRuntimeError as error:
        raise compile_error(target, error) from error
    text = program.as_text()
    data, pair = mesh.devices.shape
    table = compiled.table_traffic(step_collectives(architecture, batch_size, data, pair))
    traffic = compiled.program_traffic(text)
    flop = training_flop(architecture, config.optimizer.frozen) * batch_size
    cycles = compiled.estimated_cycles(text) if chip.platform == "tpu" else None
    kernels = compiled.kernels(text) if chip.platform == "gpu" else None
    kind = target.name.rpartition("-")[0]
    tflop_per_second = devices.peak(kind, dtype, config.model.precision)
    peak = 1e12 * tflop_per_second if tflop_per_second else None
    seconds = cycles / chip.clock if cycles else None
    if kernels:
        seconds = max(kernels.bytes / chip.bandwidth, flop / mesh.size / peak if peak else 0)
    cost = program.cost_analysis() or {}
    return Estimate(
        target=target.name,
        chip=chip.title,
        mesh=towers.describe_mesh(mesh),
        devices=mesh.size,
        images=batch_size,
        dtype=dtype,
        memory=_memory(program.memory_analysis(), state, batch, chip.memory),
        flop=flop,
        compiler_flop=cost.get("flops"),
        peak=peak,
        table=table,
        program=traffic,
        collectives_agree=agree(table, traffic),
        cycles=cycles,
        seconds=seconds,
        peak_share=flop / mesh.size / seconds / peak if cycles and seconds and peak else None,
        kernels=kernels.number if kernels else None,
        bytes_moved=kernels.bytes if kernels else None,
        atomic_scatters=compiled.atomic_scatters(text) if chip.platform == "gpu" else None,
    )


def compile_for(target: Target, lowered: Any) -> Any:
    """Return the compiled program of a lowered one, for hardware that is not there."""
    if target.chip.platform != "gpu":
        return lowered.compile()
    # Matrix products by cuBLAS. Whether one by Triton is faster XLA finds out on the device, and
    # that of jax 0.12 does not compile deterministic ones without it.
    return lowered.compile(compiler_options={"xla_gpu_enable_triton_gemm": False})


def train_step(config: Config, architecture: Architecture, mesh: Mesh) -> tuple[Any, Any, Any]:
    """Return the step that training compiles, and its arguments as shapes with shardings."""
    tx = paper_sgd(config.optimizer)
    _, state = abstract_state(architecture, tx, mesh, config.seed)
    constants, frozen = any_preprocess(config), config.optimizer.frozen
    deterministic = config.process.deterministic
    step = make_train_step(architecture, tx, mesh, constants, config.seed, frozen, deterministic)
    return step, state, abstract_batch(architecture, config.optimizer.batch_size, mesh)


def any_preprocess(config: Config) -> Preprocess:
    """Return a preprocessing of arbitrary numbers, but not of zeros, which XLA would leave out."""
    side, rng = config.data.image_size, np.random.default_rng(0)
    statistics = {
        "mean_image": rng.uniform(100, 130, (side, side, 3)).astype(np.float32),
        "mean_color": rng.uniform(100, 130, 3).astype(np.float32),
        "lighting_std": rng.uniform(20, 120, 3).astype(np.float32),
        "lighting_axes": rng.uniform(-1, 1, (3, 3)).astype(np.float32),
        "scale": np.ones(3, np.float32),
    }
    return make_preprocess(config.data, statistics)


def abstract_batch(architecture: Architecture, batch_size: int, mesh: Mesh) -> dict[str, Any]:
    """Return the shapes of a batch, with shardings."""
    rows = towers.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(
            (batch_size, *array.shape[1:]),
            jax.dtypes.canonicalize_dtype(array.dtype),
            sharding=rows,
        )
        for name, array in empty_batch(1, architecture.crop).items()
    }


def agree(table: Sequence[Traffic], program: Sequence[Traffic]) -> bool:
    """Return whether a program has the collectives of the table, up to a few scalars."""
    counts = [
        {(each.kind, each.devices, each.stride): each.values for each in side}
        for side in (table, program)
    ]
    expected, compiled_for = counts
    return expected.keys() == compiled_for.keys() and all(
        0 <= compiled_for[key] - values <= SCALARS for key, values in expected.items()
    )


def compile_error(target: Target, error: Exception) -> Exception:
    """Return a compiler's error; if the step is too large for a device, one that says so."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        return error
    sizes = re.findall(r"\(([\d.]+[KMGT])\)", text)  # of the temporaries, and what there is
    amounts = f" (temporaries of {sizes[0]}, available {sizes[1]})" if len(sizes) == 2 else ""
    remedy = "use a smaller optimizer.batch_size or more devices"
    rule = f"by the compiler's estimate the step does not fit into a device's memory{amounts}"
    return invalid("target", target.name, rule, remedy)


def _memory(stats: Any, state: TrainState, batch: Any, chip: int) -> Memory:
    total = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )
    return Memory(
        parameters=_shard_bytes(state.variables),
        velocity=_shard_bytes(state.opt_state.velocity),
        batch=_shard_bytes(batch),
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        total=total,
        chip=chip,
    )


def _shard_bytes(tree: Any) -> int:
    """Return the bytes of arrays on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def render(result: Estimate) -> str:
    """Return an estimate as text, 100 columns wide at most."""
    return "\n".join(_lines(result))


def _lines(result: Estimate) -> Iterator[str]:
    yield f"Compiled for {result.target}, hardware that is not there: estimates, not measurements"
    yield f"  {result.chip}: {result.mesh}; {result.images:,} images a step, {result.dtype}"
    yield ""
    yield from _memory_lines(result.memory)
    yield ""
    yield f"Products of the layers: {result.flop / 1e9:,.1f} GFLOP a step, {_rate(result)}"
    if result.compiler_flop:
        compiler = result.compiler_flop / 1e9
        yield f"  the compiler counts {compiler:,.1f} GFLOP a device, of all operations"
    yield ""
    yield from _traffic_lines(result)
    if result.seconds:
        yield ""
        yield from _time_lines(result)


def _rate(result: Estimate) -> str:
    each = f"{result.flop / result.devices / 1e9:,.1f} a device"
    if not result.peak:
        return each
    return f"{each}; its peak is {result.peak / 1e12:,.0f} TFLOP/s"


def _memory_lines(memory: Memory) -> Iterator[str]:
    yield "Memory of a device, MiB (estimate)"
    rows = {
        "parameters": memory.parameters,
        "velocity": memory.velocity,
        "images and labels": memory.batch,
        "temporaries: activations, gradients": memory.temporaries,
        "program": memory.code,
        "total, with the padding of layouts": memory.total,
    }
    if memory.chip:
        rows["the chip has"] = memory.chip
    for name, size in rows.items():
        yield f"  {name:36}{size / MIB:>12,.1f}"
    if memory.total > memory.chip > 0:
        yield "  It does not fit."


def _traffic_lines(result: Estimate) -> Iterator[str]:
    verdict = "equal" if result.collectives_agree else "DIFFERENT from"
    if not result.table and not result.program:
        yield "Collectives: none, as in the layer table"
        return
    yield f"Collectives of a step: {verdict} {'to ' * result.collectives_agree}the layer table's"
    table = {each.title: each for each in result.table}
    program = {each.title: each for each in result.program}
    for title in dict.fromkeys((*table, *program)):
        yield f"  {title}"
        for name, side in (("the table", table), ("the program", program)):
            yield f"    {name:12}{_amount(side.get(title))}"


def _amount(traffic: Traffic | None) -> str:
    if traffic is None:
        return "nothing"
    return f"{traffic.number:>3} x, {traffic.values:>13,} values, {traffic.bytes / MIB:>9,.1f} MiB"


def _time_lines(result: Estimate) -> Iterator[str]:
    seconds = result.seconds or 0
    each = f"{result.images / result.devices / seconds:,.0f} images/s a device"
    if result.cycles:
        yield "Time, estimated by the TPU compiler, without waiting for collectives"
        yield f"  {result.cycles / 1e6:,.1f} million cycles, {1e3 * seconds:,.1f} ms a step"
        share = result.peak_share
        yield f"  {each}" + (f", {share:.3f} of the chip's peak" if share else "")
        return
    yield "Work of the GPU program on a device, estimated from its text"
    moved = (result.bytes_moved or 0) / 1e9
    yield f"  {result.kernels:,} kernels; {moved:,.1f} GB read and written"
    yield f"  {result.atomic_scatters} scatters add floats atomically, in no fixed order"
    bounds = "the memory's bandwidth" + (" and the peak" if result.peak else "")
    yield f"  by {bounds} at least {1e3 * seconds:,.1f} ms a step,"
    yield f"  so at most {each}"
