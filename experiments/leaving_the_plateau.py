"""Which part of the 2012 code's recipe leaves the plateau at ln(classes) on real photographs?

The paper's text starts every layer at a standard deviation of .01 and gives all parameters one
rate (P5). The authors' code starts conv3-5 at .03 and lets biases learn at twice the rate
(layers-145.cfg; layer-params-145.cfg). Four runs a seed take the two differences apart; all else
is equal: the full-width two-tower network on photographs shrunk to 72 pixels, 64 pixel crops,
rate .01 throughout.

Expected: with .03 the training loss falls below ln(classes) after four epochs and to 3.85 after 15;
          with .01 it is still at ln(classes) then. The bias rate alone changes nothing.
Cost:     about 2 minutes a run on 2 CPU cores (15 epochs of 3,030 images): 24 minutes for 3 seeds
Run:      python experiments/leaving_the_plateau.py --data DIR --workdir runs/plateau

DIR is a folder of class folders with `train` and `test` (measured: Caltech-101, 30 images a class).
Runs go on where they were interrupted.
"""

import dataclasses
import math
import statistics
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

from alexnet_jax.config import Config, DataConfig, ScheduleConfig
from alexnet_jax.main import emulate_devices
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.writer import read_metrics

RECIPES = {  # initial std of conv3-5, rate of biases relative to weights
    "paper: .01, one rate": (0.01, 1.0),
    "biases x 2 alone": (0.01, 2.0),
    ".03 alone": (0.03, 1.0),
    "2012 code: .03, biases x 2": (0.03, 2.0),
}
EPOCHS = 15


def recipe_config(data: Path, recipe: str, seed: int) -> Config:
    """Return the configuration of one run."""
    photos = PRESETS["photos"]
    std, bias_rate = RECIPES[recipe]
    return dataclasses.replace(
        photos,
        seed=seed,
        data=DataConfig(
            source="folder", path=str(data), image_size=72, crop=64, validation_fraction=0
        ),
        model=dataclasses.replace(photos.model, middle_std=std, scale_std=False),
        optimizer=dataclasses.replace(photos.optimizer, bias_rate=bias_rate),
        schedule=ScheduleConfig(kind="fixed", epochs=EPOCHS, at=(), every=EPOCHS),
    )


def training_loss(metrics: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return (epoch, mean loss since the line before) of each line of training metrics."""
    return [(line["epoch"], line["loss"]) for line in metrics if line["split"] == "train"]


def print_table(runs: dict[str, list[list[dict[str, Any]]]]) -> None:
    """Print mean and spread over seeds of the last training loss and of the final error."""
    print(f"\n{'':28}  training loss at the end      validation top-1 error")
    for recipe, seeds in runs.items():
        losses = [training_loss(metrics)[-1][1] for metrics in seeds]
        errors = [line["top1_error"] for m in seeds for line in m if line["split"] == "validation"]
        cells = [
            f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            for values in (losses, errors)
        ]
        print(f"{recipe:28}  {cells[0]:29}  {cells[1]}")


def draw(runs: dict[str, list[list[dict[str, Any]]]], classes: int, path: Path) -> None:
    """Draw the training loss of every run, one colour a recipe."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epochs", ylabel="training loss (nats)")
    # Pairs of recipes lie on each other: one of each pair is dashed.
    dashed = (0, (4, 4))
    styles = [("black", "-"), ("tab:blue", dashed), ("tab:orange", dashed), ("red", "-")]
    for (colour, line), (recipe, seeds) in zip(styles, runs.items(), strict=True):
        for number, metrics in enumerate(seeds):
            epochs, losses = zip(*training_loss(metrics), strict=True)
            axes.plot(
                epochs, losses, color=colour, linestyle=line, label=None if number else recipe
            )
    axes.axhline(math.log(classes), color="grey", linestyle=":", label=f"ln {classes}")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(data: Path, workdir: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Run every recipe with every seed, print the table, draw the picture."""
    emulate_devices(Config().mesh)
    from alexnet_jax.training.loop import train_and_evaluate

    runs: dict[str, list[list[dict[str, Any]]]] = {recipe: [] for recipe in RECIPES}
    for seed in seeds:
        for number, recipe in enumerate(RECIPES):
            folder = workdir / f"recipe{number}-seed{seed}"
            print(f"{recipe}, seed {seed}: {folder}")
            train_and_evaluate(recipe_config(data, recipe, seed), folder)
            runs[recipe].append(read_metrics(folder))
    print_table(runs)
    draw(runs, len([p for p in (data / "train").iterdir() if p.is_dir()]), workdir / "plateau.png")


if __name__ == "__main__":
    tyro.cli(main)
