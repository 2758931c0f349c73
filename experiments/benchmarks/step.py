"""A training step of the full network, compared with PyTorch in turns on the same machine.

    pip install '.[parity]'
    python experiments/benchmarks/step.py --batch 128 --json step.json

Full width, 1,000 classes, 224 pixels, LRN and dropout on, synthetic images, float32 unless stated
otherwise. alexnet_jax starts from uint8 crops, mean and lighting; PyTorch from preprocessed images.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import side_by_side

from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.variants import build_architecture

if TYPE_CHECKING:
    from jax import Device
    from jax.sharding import Mesh


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the batch size."""
    parser.add_argument("--batch", type=int, default=128, help="images a step")


@dataclasses.dataclass
class Training:
    """`paper` with 1,000 classes on a mesh, and a batch of noise."""

    architecture: Architecture
    mesh: "Mesh"
    constants: Any
    state: Any
    images: Any
    train_step: Callable[..., Any]


def training(
    batch: int,
    towers: int,
    data: int = 1,
    crop: int = 224,
    devices: "Sequence[Device] | None" = None,
    **model_changes: Any,
) -> Training:
    """Return the training of `paper` with these changes on `data` x `towers` devices."""
    import numpy as np

    from alexnet_jax.data import statistics
    from alexnet_jax.model import towers as model
    from alexnet_jax.presets import PRESETS
    from alexnet_jax.training.optimizer import paper_sgd
    from alexnet_jax.training.setup import make_preprocess
    from alexnet_jax.training.state import abstract_state
    from alexnet_jax.training.step import make_train_step

    config = PRESETS["paper"]
    mesh = model.make_mesh(towers=towers, data=data, batch=batch, devices=devices)
    network = dataclasses.replace(config.model, **model_changes)
    architecture, tx = build_architecture(network, 1000, crop), paper_sgd(config.optimizer)
    constants = make_preprocess(config.data, vars(statistics.published("imagenet", crop + 32)))
    create, _ = abstract_state(architecture, tx, mesh, seed=0)
    rng = np.random.default_rng(0)
    images = model.put_batch(
        {
            "image": rng.integers(0, 256, (batch, crop, crop, 3), np.uint8),
            "label": rng.integers(0, 1000, batch).astype(np.int32),
            "lighting": rng.normal(0, 0.1, (batch, 3)).astype(np.float32),
            "divisor": np.ones(batch, np.float32),
            "offset": rng.integers(0, 32, (batch, 2)).astype(np.int32),
            "mirror": rng.random(batch) < 0.5,
        },
        mesh,
    )
    train_step = make_train_step(architecture, tx, mesh, constants, seed=0)
    return Training(architecture, mesh, constants, create(), images, train_step)


def alexnet_jax(towers: int, data: int = 1, **changes: Any):
    """Return the contestant on `data` x `towers` devices; see `training`."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        import jax

        jax.config.update("jax_num_cpu_devices", towers * data)  # no effect on a GPU
        import numpy as np

        job = training(args.batch, towers, data, **changes)

        def run(steps: int) -> int:
            for _ in range(steps):
                job.state, metrics = job.train_step(job.state, job.images)
                assert np.isfinite(metrics["loss"].item())  # waits for the result, as logging does
            return steps * args.batch

        run(1)
        return run

    return make


def pytorch(compiled: bool, fast: bool = False, device: str = "cpu"):
    """Return PyTorch's contestant; see `torch_alexnet.training_step`."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        import torch_alexnet

        return torch_alexnet.training_step(args.batch, compiled, fast, device)

    return make


CONTESTANTS = {
    "torch.compile": pytorch(compiled=True),
    "torch eager": pytorch(compiled=False),
    "torch.compile, bf16, channels last": pytorch(compiled=True, fast=True),
    "alexnet_jax, 1 device": alexnet_jax(towers=1),
    "alexnet_jax, 2 devices": alexnet_jax(towers=2),
    "alexnet_jax, 4 devices": alexnet_jax(towers=2, data=2),
    "alexnet_jax, 1 device, bf16": alexnet_jax(towers=1, dtype="bfloat16"),
}

if __name__ == "__main__":
    side_by_side.main(__file__, CONTESTANTS, "images/s", add_arguments)
