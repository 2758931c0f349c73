"""Compile the training step for TPUs and GPUs that are not there, and read the programs.

    pip install '.[tpu]'      # brings the compiler; for a GPU '.[cuda]' (4 GB); no device is needed
    JAX_PLATFORMS=cpu python experiments/benchmarks/compiled_step.py
    ... compiled_step.py --targets h100-2 --batches 1024 --json

A row for each target, mesh, batch size and formulation: the platform's own, alternatives, and the
same network as it is usually written in Flax (`peer`). **Nothing here is measured on a device**:

- TPU: the compiler's estimate, the sum of `estimated_cycles` of the entry computation at the chip's
  clock. It counts no waiting for collectives, no dispatch and no loop, so it compares formulations
  and not machines. A compilation takes about a minute.
- GPU: the bytes of operands and results of all kernels of the compiled program, on each device.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.model import platform, towers
from alexnet_jax.model.architecture import Architecture, trace
from alexnet_jax.model.convolution import convolve, convolve_on_cpu
from alexnet_jax.model.pooling import pool, pool_by_index, pool_by_slices
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.model.response_norm import (
    normalize,
    normalize_by_product,
    normalize_in_few_bytes,
)
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import abstract_state
from alexnet_jax.training.step import make_train_step

CLASSES, IMAGE = 1000, 256
CONFIG = PRESETS["paper"]


# --- Targets ---


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for. Peak: of bfloat16 products of one chip, as its vendor states it."""

    topology: str
    devices: int
    tflops: float
    gigahertz: float = 0.0  # TPU: at which its matrix units reach the peak
    card: str = ""  # GPU: text proto of the card

    def make(self) -> list[Any]:
        """Return the devices, which compile and cannot run."""
        # No search for a TPU; several processes may compile at once.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        if self.card:
            described = topologies.get_topology_desc(
                platform="cuda",
                topology_name="",
                target_config=self.card,
                topology=f"1x1x{self.devices}",
            )
        else:
            described = topologies.get_topology_desc(platform="tpu", topology_name=self.topology)
        return list(described.devices)[: self.devices]


# From OpenXLA's published specification of the card.
H100 = """
gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 driver_version: "13.0.0"
  runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0" dnn_version: "9.10.0" }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
TARGETS = {
    "v4-4": Target("v4:2x2x1", 4, 275, 1.05),
    "v5e-4": Target("v5e:2x2", 4, 197, 1.5),
    "v6e-4": Target("v6e:2x2", 4, 918, 1.75),
    "h100-2": Target("", 2, 989, card=H100),
}


# --- Formulations ---


def plain(**changes: Any) -> platform.Ops:
    """Return XLA's plain operations, with some replaced."""
    return dataclasses.replace(
        platform.Ops(
            convolve,
            normalize,
            pool,
            optax.softmax_cross_entropy_with_integer_labels,
            platform.whole_batch,
        ),
        **changes,
    )


ALTERNATIVES = {
    "plain operations": plain(),
    "LRN by product": plain(normalize=normalize_by_product),
    "pooling by slices": plain(pool=pool_by_slices),
    "LRN in few bytes": plain(normalize=normalize_in_few_bytes),
    "pooling by index": plain(pool=pool_by_index),
    "LRN by product, conv1 folded": plain(normalize=normalize_by_product, convolve=convolve_on_cpu),
}
FORMULATIONS = ("ours", *ALTERNATIVES, "peer")


class Peer(nn.Module):
    """The same network, as somebody who knows Flax would write it."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = True) -> Array:
        """Return the logits."""

        def conv(x, name, features, side, stride, padding, groups=1):
            return nn.relu(
                nn.Conv(
                    features,
                    (side, side),
                    (stride, stride),
                    (padding, padding),
                    feature_group_count=groups,
                    dtype=self.dtype,
                    name=name,
                )(x)
            )

        def normalize(x):
            halves = x.reshape(*x.shape[:-1], 2, -1)
            squares = jnp.pad(halves**2, [(0, 0)] * 4 + [(2, 2)])
            maps = halves.shape[-1]
            window = sum(squares[..., i : i + maps] for i in range(5))
            return (halves / (2 + 1e-4 * window) ** 0.75).reshape(x.shape)

        def pooled(x):
            return nn.max_pool(x, (3, 3), (2, 2))

        x = pooled(normalize(conv(x, "conv1", 96, 11, 4, (0, 3))))
        x = pooled(normalize(conv(x, "conv2", 256, 5, 1, (2, 2), 2)))
        x = conv(x, "conv3", 384, 3, 1, (1, 1))
        x = conv(x, "conv4", 384, 3, 1, (1, 1), 2)
        x = pooled(conv(x, "conv5", 256, 3, 1, (1, 1), 2)).reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(4096, dtype=self.dtype, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(CLASSES, name="fc8")(x)


# --- Programs ---


def abstract_batch(mesh: Mesh, batch: int) -> dict[str, Any]:
    """Return the shapes of a batch as the loader makes it."""
    crop = CONFIG.data.crop
    shapes = {
        "image": ((crop, crop, 3), np.uint8),
        "label": ((), np.int32),
        "offset": ((2,), np.int32),
        "mirror": ((), np.bool_),
        "lighting": ((3,), np.float32),
        "divisor": ((), np.float32),
        "index": ((), np.int32),
    }
    rows = towers.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=rows)
        for name, (shape, dtype) in shapes.items()
    }


def constants() -> Preprocess:
    """Return a mean image and lighting; what values they have does not matter."""
    return Preprocess(jnp.full((IMAGE, IMAGE, 3), 117.3), jnp.eye(3), jnp.ones(3))


def architecture_for(dtype: Any) -> Architecture:
    """Return the network of the paper."""
    model = dataclasses.replace(CONFIG.model, dtype=dtype)
    return build_architecture(model, CLASSES, CONFIG.data.crop)


def compile_ours(mesh: Mesh, batch: int, dtype: str, ops: platform.Ops | None) -> Any:
    """Return the compiled training step, with `ops` in place of the platform's own."""
    architecture, tx = architecture_for(dtype), paper_sgd(CONFIG.optimizer)
    _, state = abstract_state(architecture, tx, mesh, seed=0)
    chosen = platform.for_platform if ops is None else lambda _: ops
    with mock.patch.object(platform, "for_platform", chosen):
        step = make_train_step(architecture, tx, mesh, constants(), seed=0)
        lowered: Any = step
        return lowered.lower(state, abstract_batch(mesh, batch)).compile()


def compile_peer(mesh: Mesh, batch: int, dtype: str) -> Any:
    """Return the compiled training step of `Peer`: data-parallel over all devices."""
    mesh = Mesh(
        mesh.devices.reshape(-1, 1), mesh.axis_names, axis_types=(AxisType.Auto, AxisType.Auto)
    )
    net, replicated = Peer(jnp.dtype(dtype)), NamedSharding(mesh, P())
    tx = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.01, momentum=0.9))
    images = jax.ShapeDtypeStruct((2, CONFIG.data.crop, CONFIG.data.crop, 3), np.float32)
    params = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), images)
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated),
        (jax.ShapeDtypeStruct((), np.int32), params, jax.eval_shape(tx.init, params)),
    )

    def train_step(state: Any, batch: Any) -> Any:
        step, params, opt_state = state
        images, labels = preprocess(batch, constants()), batch["label"]

        def loss_of(params: Any) -> tuple[Array, Array]:
            rngs = {"dropout": jax.random.fold_in(jax.random.key(0), step)}
            logits: Any = net.apply(params, images, rngs=rngs)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), logits

        (loss, logits), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        error = jnp.mean(jnp.argmax(logits, -1) != labels)
        return (step + 1, optax.apply_updates(params, updates), opt_state), (loss, error)

    step = jax.jit(train_step, donate_argnums=0)
    return step.lower(state, abstract_batch(mesh, batch)).compile()


# --- Reading a program ---

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?(%\S+) = (.+?) ([a-z][\w-]*)\((.*)$")
ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16)\[([\d,]*)\]")
SCATTER = re.compile(r"= \(?(?:f\d+|bf16)\[[^=]*? scatter\(")
NO_KERNEL = {"parameter", "tuple", "bitcast", "constant", "get-tuple-element"}


def entry(program: str) -> list[str]:
    """Return the lines of the entry computation."""
    first = program.index("\nENTRY")
    return program[first : program.index("\n}", first)].splitlines()[2:]


def estimated_cycles(program: str) -> int:
    """Return the TPU compiler's estimate, the sum over the entry computation."""
    return sum(
        int(match[1])
        for line in entry(program)
        if (match := re.search(r'"estimated_cycles":"(\d+)"', line))
    )


def moved_bytes(program: str) -> tuple[int, int]:
    """Return kernels and the bytes of their operands and results, each read or written once."""
    sizes, kernels, moved = {}, 0, 0
    for line in entry(program):
        if not (match := INSTRUCTION.match(line)):
            continue
        name, result, operation, rest = match.groups()
        sizes[name] = _bytes(result)
        if operation in NO_KERNEL or operation.endswith("-done"):
            continue
        kernels += 1
        operands = re.findall(r"%[\w.-]+", rest.partition("), ")[0])
        moved += sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
    return kernels, moved


def _bytes(text: str) -> int:
    total = 0
    for kind, shape in ARRAY.findall(text):
        bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
        total += bits // 8 * int(np.prod([int(n) for n in shape.split(",") if n]))
    return total


# --- Table ---


@dataclasses.dataclass(frozen=True)
class Row:
    """One compiled program."""

    target: str
    mesh: str
    batch: int
    dtype: str
    formulation: str
    peak_share: float | None  # TPU, estimated by the compiler
    megacycles: float | None
    gigabytes: float | None  # GPU, on each device
    kernels: int | None
    scatters: int  # of floats
    temporaries_mib: int


def model_flop(architecture: Architecture) -> float:
    """Return the operations of an image: forward and both gradients, but none of the image's."""
    products = [row.multiply_adds for row in trace(architecture) if row.kernel_shape]
    return 2.0 * (3 * sum(products) - products[0])


def compile_row(name: str, mesh_towers: int, batch: int, dtype: str, formulation: str) -> Row:
    """Compile one program and read it."""
    target = TARGETS[name]
    devices = np.array(target.make()).reshape(-1, mesh_towers)
    mesh = Mesh(devices, (towers.DATA, towers.TOWER), axis_types=(AxisType.Auto, AxisType.Auto))
    if formulation == "peer":
        compiled = compile_peer(mesh, batch, dtype)
    else:
        compiled = compile_ours(mesh, batch, dtype, ALTERNATIVES.get(formulation))
    program = compiled.as_text()
    cycles = None if target.card else estimated_cycles(program)
    kernels, moved = moved_bytes(program) if target.card else (None, None)
    share = None
    if cycles:
        flop = model_flop(architecture_for(dtype)) * batch / target.devices
        share = flop / (cycles / (target.gigahertz * 1e9)) / (target.tflops * 1e12)
    return Row(
        name,
        f"{target.devices} x 1" if formulation == "peer" else " x ".join(map(str, devices.shape)),
        batch,
        dtype,
        formulation,
        share and round(share, 3),
        cycles and round(cycles / 1e6, 2),
        moved and round(moved / 1e9, 1),
        kernels,
        len(SCATTER.findall(program)),
        compiled.memory_analysis().temp_size_in_bytes >> 20,
    )


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each combination."""
    for target, batch, dtype in itertools.product(args.targets, args.batches, args.dtypes):
        for mesh_towers, formulation in itertools.product(args.towers, args.formulations):
            if formulation == "peer" and mesh_towers != args.towers[0]:
                continue  # it has one mesh
            yield compile_row(target, mesh_towers, batch, dtype, formulation)


COLUMNS: dict[str, Callable[[Row], Any]] = {
    "target": lambda row: row.target,
    "mesh": lambda row: row.mesh,
    "batch": lambda row: row.batch,
    "dtype": lambda row: row.dtype,
    "formulation": lambda row: row.formulation,
    "Mcycles": lambda row: row.megacycles,
    "of the peak": lambda row: row.peak_share,
    "GB moved": lambda row: row.gigabytes,
    "kernels": lambda row: row.kernels,
    "float scatters": lambda row: row.scatters,
    "temporaries, MiB": lambda row: row.temporaries_mib,
}


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=["v5e-4", "h100-2"])
    parser.add_argument("--towers", nargs="+", type=int, choices=(1, 2), default=[2, 1])
    parser.add_argument("--batches", nargs="+", type=int, default=[1024])
    parser.add_argument(
        "--dtypes", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16"]
    )
    parser.add_argument(
        "--formulations", nargs="+", choices=FORMULATIONS, default=list(FORMULATIONS)
    )
    parser.add_argument("--json", action="store_true", help="one object a row")
    args = parser.parse_args()
    if not args.json:
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows(args):
        if args.json:
            print(json.dumps(dataclasses.asdict(row)), flush=True)
        else:
            cells = ("" if (cell := read(row)) is None else cell for read in COLUMNS.values())
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
