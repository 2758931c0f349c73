"""Inference with the full network, compared with PyTorch in turns on the same machine.

    pip install '.[parity]'
    python experiments/benchmarks/inference.py --batch 128 --json inference.json

Full width, 1,000 classes, 224 pixels, LRN on. alexnet_jax starts from uint8 crops and the mean
image, PyTorch from preprocessed images.
"""

import argparse

import side_by_side

from alexnet_jax.model.variants import build_architecture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the batch size."""
    parser.add_argument("--batch", type=int, default=128, help="images a step")


def alexnet_jax(towers: int):
    """Return the contestant that computes on this number of devices."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        import jax

        jax.config.update("jax_num_cpu_devices", towers)  # no effect on a GPU
        import numpy as np

        from alexnet_jax.data import statistics
        from alexnet_jax.model import towers as model
        from alexnet_jax.presets import PRESETS
        from alexnet_jax.training.optimizer import paper_sgd
        from alexnet_jax.training.setup import make_preprocess
        from alexnet_jax.training.state import abstract_state
        from alexnet_jax.training.step import make_predict_step

        config, batch = PRESETS["paper"], args.batch
        mesh = model.make_mesh(towers=towers, data=1, batch=batch)
        architecture = build_architecture(config.model, 1000, 224)
        constants = make_preprocess(config.data, vars(statistics.published("imagenet", 256)))
        variables = abstract_state(architecture, paper_sgd(config.optimizer), mesh, 0)[
            0
        ]().variables
        predict_step = make_predict_step(architecture, mesh, constants)
        images = model.put_batch(
            {
                "image": np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8),
                "offset": np.full((batch, 2), 16, np.int32),
                "mirror": np.zeros(batch, bool),
            },
            mesh,
        )

        def run(steps: int) -> int:
            for _ in range(steps):
                assert np.isfinite(predict_step(variables, images)).all()
            return steps * batch

        run(1)
        return run

    return make


def pytorch(compiled: bool, fast: bool = False):
    """Return PyTorch's contestant."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        import torch_alexnet

        return torch_alexnet.inference(args.batch, compiled, fast)

    return make


CONTESTANTS = {
    "torch.compile": pytorch(compiled=True),
    "torch eager": pytorch(compiled=False),
    "torch.compile, bf16, channels last": pytorch(compiled=True, fast=True),
    "alexnet_jax, 1 device": alexnet_jax(towers=1),
    "alexnet_jax, 2 devices": alexnet_jax(towers=2),
}

if __name__ == "__main__":
    side_by_side.main(__file__, CONTESTANTS, "images/s", add_arguments, steps=4)
