"""Which difference between the paper and the 2012 code leaves the plateau at ln(classes)?

The paper's text initializes every layer with a standard deviation of 0.01 and has one learning rate
for all parameters (P5). The authors' code initializes conv3-5 with 0.03, trains biases at twice the
rate, divides LRN's alpha by 5 and normalizes conv2 once more, over pixels (layers-145.cfg,
layer-params-145.cfg). It also has LRN and pooling before the ReLU of conv1, divides training images
by 1.1, and treats crops, mean and order differently.

Paper:    has no number for this; its code was published years later.
Changed:  the size of the baseline (caltech_baseline.py) and 12 epochs at one learning rate: too few
          to learn much, enough to see which setting leaves the plateau; batches of 128 as in both
          presets. Initial weights are scaled to the smaller fan-in, which preserves the activation
          variance of the full size.
Settings: both presets; the paper's text with each of four differences alone, and with all four; the
          2012 code with each of the four reverted.
Expected: with 0.03 the training loss falls below ln(classes) within a few epochs, without it later
          or not at all. The other three have little effect on either side.
Cost:     12 epochs, 50 seconds a run on two nearly idle cores; 33 runs in half an hour
Run:      python experiments/claims/paper_vs_source2012.py --data DIR --workdir runs/caltech

The mean training loss of an epoch includes augmentation and dropout. A run has left the plateau
when it is 0.1 nats below ln(classes), interpolated linearly between the means of two epochs.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import caltech_baseline
import record
from matplotlib.figure import Figure

from alexnet_jax.config import Config, Preset, flatten
from alexnet_jax.plots.tiles import save
from alexnet_jax.presets import PRESETS

EPOCHS = 12
MARGIN = 0.1  # nats below ln(classes)
DIFFERENCES = {
    "0.03 in conv3-5": "model.conv345_init_std",
    "biases x 2": "optimizer.bias_lr_multiplier",
    "alpha / 5": "model.lrn_alpha_over_n",
    "spatial norm": "model.spatial_norm",
}


def _setting(preset: Preset, other: Preset, *fields: str) -> Config:
    """Return a preset at the baseline's size, with some `fields` of the other preset."""
    source = flatten(PRESETS[other])
    changes = {"schedule.milestones": [], **{field: source[field] for field in fields}}
    return caltech_baseline.setting(changes, preset, EPOCHS)


FROM_PAPER = {
    "paper": _setting("paper", "source2012"),
    **{f"paper, {n}": _setting("paper", "source2012", f) for n, f in DIFFERENCES.items()},
    "paper, all four": _setting("paper", "source2012", *DIFFERENCES.values()),
}
FROM_CODE = {
    "source2012": _setting("source2012", "paper"),
    **{
        f"source2012 without {name}": _setting("source2012", "paper", field)
        for name, field in DIFFERENCES.items()
    },
}
# The two presets first: they matter most if the runs are interrupted.
PAIR = ("paper", "source2012")
SETTINGS = {name: {**FROM_PAPER, **FROM_CODE}[name] for name in PAIR}
SETTINGS |= {**FROM_PAPER, **FROM_CODE}


def left_after(run: Mapping[str, Any]) -> float | None:
    """Return the epochs after which the training loss was MARGIN below ln(classes), or None."""
    goal = math.log(run["classes"]) - MARGIN
    epochs, losses = run["train"]["epoch"], run["train"]["loss"]
    if losses[0] <= goal:
        return epochs[0]
    for epoch, loss, later, lower in zip(epochs, losses, epochs[1:], losses[1:], strict=False):
        if lower <= goal:
            return epoch + (later - epoch) * (loss - goal) / (loss - lower)
    return None


def table(path: Path) -> str:
    """Return when each setting leaves the plateau, its final loss and error, and differences."""
    losses = {name: caltech_baseline.last(path, name, "train", "loss") for name in SETTINGS}
    rows = []
    for name in (*FROM_PAPER, *FROM_CODE):
        if not losses[name]:
            continue
        errors = caltech_baseline.last(path, name, "validation", "top1_error", 100)
        left = [left_after(run) for run in caltech_baseline.runs(path, name)]
        differences = [
            caltech_baseline.difference(losses[preset], losses[name], same=name == preset)
            for preset in PAIR
        ]
        rows.append(
            [
                name,
                ", ".join("-" if epochs is None else f"{epochs:.1f}" for epochs in left),
                record.estimate(list(losses[name].values())),
                *differences,
                record.estimate(list(errors.values())),
            ]
        )
    header = ["", "epochs on the plateau, each seed", f"training loss, epoch {EPOCHS}"]
    minus = [f"minus that of {preset}" for preset in PAIR]
    return record.table([*header, *minus, "top-1 error, %"], rows)


def draw(path: Path, to: Path) -> Path:
    """Draw the training losses: variants of the paper's text left, of the 2012 code right."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    families = {"from the paper's text": FROM_PAPER, "from the 2012 code": FROM_CODE}
    for axes, (title, family) in zip(
        figure.subplots(1, 2, sharey=True), families.items(), strict=True
    ):
        for number, name in enumerate(family):
            lines = caltech_baseline.runs(path, name)
            # Curves of settings without effect coincide: every other one is dashed.
            style = "--" if number % 2 else "-"
            caltech_baseline.draw_seeds(axes, lines, "train", "loss", f"C{number}", name, style)
            if lines and number == 0:
                goal = math.log(lines[0]["classes"])
                axes.axhline(goal, color="gray", linestyle=":", label="ln(classes)")
        axes.set(title=title, xlabel="epochs")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("training loss (nats)")
    return save(figure, to)


def main(args: caltech_baseline.Arguments) -> None:
    """Run every setting with every seed, print the table, draw the figure."""
    caltech_baseline.train(SETTINGS, args)
    caltech_baseline.print_table(table(args.record), args.record)
    print(draw(args.record, args.folder / "paper_vs_source2012.png"))


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
