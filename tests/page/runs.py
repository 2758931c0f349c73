"""Run folders for the page: a trained one with hostile class names, and copies of it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet_jax import main

SCRIPT, ARABIC, BYTES = "<script>alert('x')&\"", "قطة", os.fsdecode(b"caf\xe9")
CLASSES = (SCRIPT, ARABIC, BYTES)
SMALL = ["--preset", "photos", "--data.image-size", "36", "--data.crop", "36"]
SMALL += ["--model.width", "0.02", "--optimizer.batch-size", "8", "--schedule.kind", "step"]
SMALL += ["--schedule.epochs", "2", "--log.every", "1", "--mesh.towers", "1", "--mesh.data", "1"]


def train(folder: Path) -> Path:
    """Train on images of three classes of difficult names; return the run's folder."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 3)):
        for name in CLASSES:
            images = folder / "images" / split / name
            images.mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 256, (40, 44, 3), np.uint8)
                Image.fromarray(pixels).save(images / f"{index}.png")
    workdir = folder / "a run & <b>"
    args = ["--workdir", str(workdir), "--data.path", str(folder / "images"), *SMALL]
    assert main.main(args) == 0
    return workdir


def copy(workdir: Path, to: Path) -> Path:
    """Return a copy of a run in `to`, without its page."""
    shutil.copytree(workdir, to)
    (to / "index.html").unlink()
    return to


def write_metrics(workdir: Path, records: list[dict]) -> None:
    """Replace the metrics of a run."""
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def record(step: int, epochs: float | None, **values: float | None) -> dict:
    """Return a record of training, with the numbers that all have."""
    defaults: dict = {"loss": 1 / step, "top1_error": 0.5, "learning_rate": 0.01}
    speed = {"images_per_second": 100.0, "seconds": float(step)}
    return {"step": step, "epoch": epochs, "split": "train", **defaults, **speed, **values}
