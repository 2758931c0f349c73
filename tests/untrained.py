"""Run folders of small networks with random weights: there at once, where training takes time."""

import dataclasses
from pathlib import Path

import numpy as np

from alexnet_jax.data.statistics import published
from alexnet_jax.model.architecture import trace
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS, Preset
from alexnet_jax.weights import run_folder
from alexnet_jax.weights.imported import Imported

CLASSES = ["amber", "beige", "coral"]


def make(workdir: Path, preset: Preset = "photos", seed: int = 0, crop: int = 64) -> Path:
    """Write the folder of a network of a twentieth of the width; return it."""
    config = PRESETS[preset]
    data = dataclasses.replace(config.data, image_size=crop + 8, crop=crop)
    model = dataclasses.replace(config.model, width=0.05)
    config = dataclasses.replace(config, data=data, model=model)
    architecture = build_architecture(model, len(CLASSES), crop)
    rng = np.random.default_rng(seed)
    params = {
        row.name: {
            # As loud behind a layer as before it, or the features would all be alike.
            "kernel": rng.normal(0, np.prod(row.kernel_shape[:-1]) ** -0.5, row.kernel_shape),
            "bias": np.zeros(row.channels),
        }
        for row in trace(architecture)
        if row.kernel_shape
    }
    params = {n: {k: a.astype(np.float32) for k, a in w.items()} for n, w in params.items()}
    statistics = published("imagenet", data.image_size)
    imported = Imported(config, architecture, params, statistics, CLASSES, [])
    run_folder.make(imported, workdir / "random.npz", workdir)
    return workdir
