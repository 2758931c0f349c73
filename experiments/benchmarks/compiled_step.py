"""Compile the training step for TPUs and GPUs that are not there, and read the programs.

    pip install '.[tpu]'      # brings the compiler; for a GPU '.[cuda]' (4 GB); no device is needed
    JAX_PLATFORMS=cpu python experiments/benchmarks/compiled_step.py
    ... compiled_step.py --targets h100-2 --batches 1024 --json

A row for each target, mesh, batch size and formulation: the platform's own with its compiler
options, and with XLA's defaults alternatives and the same network as it is usually written in Flax
(`peer`). **Nothing here is measured on a device**:

- TPU: the compiler's estimate, the sum of `estimated_cycles` of the entry computation at the chip's
  clock. It counts no waiting for collectives, no dispatch, no loop, no reversal and no gradient of
  `reduce_window`, so it compares formulations and not machines. A compilation takes a minute or
  two.
- GPU: the bytes of operands and results of all kernels of the compiled program, on each device.
"""

import argparse
import dataclasses
import functools
import itertools
import json
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
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.analysis import compiled, estimate, targets
from alexnet_jax.config import Config
from alexnet_jax.model import platform
from alexnet_jax.model.architecture import training_flop
from alexnet_jax.model.convolution import convolve, convolve_on_cpu
from alexnet_jax.model.pooling import pool, pool_by_index, pool_by_slices
from alexnet_jax.model.preprocess import preprocess
from alexnet_jax.model.response_norm import (
    normalize,
    normalize_by_product,
    normalize_in_few_bytes,
)
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

CLASSES = 1000
CONFIG = PRESETS["paper"]

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
    "LRN in few bytes, recomputed": plain(normalize=normalize_in_few_bytes, recompute=True),
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


def lower_ours(config: Config, mesh: Mesh, ops: platform.Ops | None) -> Any:
    """Return the lowered training step, with `ops` in place of the platform's own."""
    architecture = build_architecture(config.model, CLASSES, config.data.crop)
    chosen = platform.for_platform if ops is None else lambda _: ops
    process = dataclasses.replace(config.process, deterministic=ops is None)
    config = dataclasses.replace(config, process=process)
    with mock.patch.object(platform, "for_platform", chosen):
        step, state, batch = estimate.train_step(config, architecture, mesh)
        return step.lower(state, batch)


def lower_peer(config: Config, mesh: Mesh) -> Any:
    """Return the lowered training step of `Peer`, data-parallel over the mesh."""
    architecture = build_architecture(config.model, CLASSES, config.data.crop)
    batch = estimate.abstract_batch(architecture, config.optimizer.batch_size, mesh)
    constants = estimate.any_preprocess(config)
    net, replicated = Peer(jnp.dtype(config.model.dtype)), NamedSharding(mesh, P())
    tx = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.01, momentum=0.9))
    images = jax.ShapeDtypeStruct((2, *batch["image"].shape[1:]), np.float32)
    params = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), images)
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated),
        (jax.ShapeDtypeStruct((), np.int32), params, jax.eval_shape(tx.init, params)),
    )

    def train_step(state: Any, batch: Any) -> Any:
        step, params, opt_state = state
        images, labels = preprocess(batch, constants), batch["label"]

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
    return step.lower(state, batch)


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
    scatters: int | None  # of floats
    temporaries_mib: int | None
    failure: str | None = None  # why there is no program


def compile_row(name: str, mesh_towers: int, batch: int, dtype: Any, formulation: str) -> Row:
    """Compile one program and read it, or say why it cannot be compiled."""
    peer = formulation == "peer"
    config = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(CONFIG.model, dtype=dtype),
        optimizer=dataclasses.replace(CONFIG.optimizer, batch_size=batch),
        mesh=dataclasses.replace(CONFIG.mesh, towers=1 if peer else mesh_towers),
    )
    target = targets.parse_target(name)
    mesh = targets.make_mesh(target, config.mesh, batch)
    shape = " x ".join(map(str, mesh.devices.shape))
    try:
        if peer:
            lowered = lower_peer(config, mesh)
        else:
            lowered = lower_ours(config, mesh, ALTERNATIVES.get(formulation))
        program = estimate.compile_for(target, lowered)
    except jax.errors.JaxRuntimeError as error:
        reason, *_ = str(estimate.compile_error(target, error)).splitlines()
        return Row(name, shape, batch, dtype, formulation, *(None,) * 6, failure=reason)
    text, chip = program.as_text(), target.chip
    cycles = compiled.estimated_cycles(text) if chip.platform == "tpu" else None
    kernels = compiled.kernels(text) if chip.platform == "gpu" else None
    share = None
    if cycles:
        architecture = build_architecture(config.model, CLASSES, config.data.crop)
        flop = training_flop(architecture) * batch / mesh.size
        share = flop / (cycles / chip.clock) / chip.peak[dtype]
    return Row(
        name,
        shape,
        batch,
        dtype,
        formulation,
        share and round(share, 3),
        cycles and round(cycles / 1e6, 2),
        round(kernels.bytes / 1e9, 1) if kernels else None,
        kernels.number if kernels else None,
        compiled.atomic_scatters(text),
        program.memory_analysis().temp_size_in_bytes >> 20,
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
    "temporaries, MiB": lambda row: row.temporaries_mib or row.failure,
}


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", default=["v5e-4", "h100-2"])
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
