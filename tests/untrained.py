"""Run folders of small networks with random weights, without the time of training."""

import dataclasses
from pathlib import Path

import numpy as np

from alexnet_jax.data.statistics import published
from alexnet_jax.model.architecture import trace
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS, Preset
from alexnet_jax.weights import run_folder
from alexnet_jax.weights.import_plan import ImportPlan

CLASSES = ["amber", "beige", "coral"]


def make(workdir: Path, preset: Preset = "photos", seed: int = 0, crop: int = 64) -> Path:
    """Write the run folder of a network of a twentieth of the width; return it."""
    config = PRESETS[preset]
    data = dataclasses.replace(config.data, image_size=crop + 8, crop=crop)
    model = dataclasses.replace(config.model, width=0.05)
    config = dataclasses.replace(config, data=data, model=model)
    architecture = build_architecture(model, len(CLASSES), crop)
    rng = np.random.default_rng(seed)
    params = {
        row.name: {
            # Preserves the variance of activations, as otherwise all features would be alike.
            "kernel": rng.normal(0, np.prod(row.kernel_shape[:-1]) ** -0.5, row.kernel_shape),
            "bias": np.zeros(row.channels),
        }
        for row in trace(architecture)
        if row.kernel_shape
    }
    params = {n: {k: a.astype(np.float32) for k, a in w.items()} for n, w in params.items()}
    statistics = published("imagenet", data.image_size)
    plan = ImportPlan(config, architecture, params, statistics, CLASSES, [])
    run_folder.make(plan, workdir / "random.npz", workdir)
    return workdir
