"""Which part of the 2012 code's recipe leaves the plateau at ln(classes) on real photographs?

The paper's text starts every layer at a standard deviation of .01 and gives all parameters one rate
(P5). The authors' code starts conv3-5 at .03, lets biases learn at twice the rate, divides LRN's
alpha by 5 and normalizes conv2 once more, over pixels (layers-145.cfg, layer-params-145.cfg). It
also normalizes and pools conv1 before its ReLU, divides lit images by 1.1, and has other ways with
crops, mean and order.

Paper:    has no number for this; its code was published years later.
Changed:  the size of the caltech_baseline (caltech_baseline.py) and 12 epochs at one rate, too few to learn much
          and enough to see who leaves; batches of 128 as in both presets. The initial weights are
          scaled to the smaller sums, so that every layer starts as loud as at full size.
Settings: both presets; the paper's text with one difference of four, and with all four; the code
          with one of the four taken back.
Expected: with .03 the training loss falls below ln(classes) within a few epochs, without it late or
          not in this time. The other three change little, on either side.
Cost:     12 epochs, 50 seconds a run on two cores with little else to do; 33 runs in half an hour
Run:      python experiments/claims/paper_vs_source2012.py --data DIR --workdir runs/caltech

An epoch's mean loss is with augmentation and dropout. "Left" is when it is .1 nats below
ln(classes), which takes a straight line between the means of two epochs.
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
    ".03 in conv3-5": "model.conv345_init_std",
    "biases x 2": "optimizer.bias_lr_multiplier",
    "alpha / 5": "model.lrn_alpha_over_n",
    "spatial norm": "model.spatial_norm",
}


def _setting(preset: Preset, other: Preset, *fields: str) -> Config:
    """Return a preset at the caltech_baseline's size, with some `fields` as the other one has them."""
    taken = flatten(PRESETS[other])
    changes = {"schedule.milestones": [], **{field: taken[field] for field in fields}}
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
# The two presets first: what is compared before all else.
SETTINGS = {name: {**FROM_PAPER, **FROM_CODE}[name] for name in ("paper", "source2012")}
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
    """Return when each setting leaves, where it ends, and how far from the preset it began as."""
    rows = []
    for family in (FROM_PAPER, FROM_CODE):
        preset, *_ = family
        for name in family:
            beside = "paper" if name == preset else preset
            first = caltech_baseline.last(path, beside, "train", "loss")
            if not (losses := caltech_baseline.last(path, name, "train", "loss")):
                continue
            errors = caltech_baseline.last(path, name, "validation", "top1_error", 100)
            left = [left_after(run) for run in caltech_baseline.runs(path, name)]
            rows.append(
                [
                    name,
                    ", ".join("-" if one is None else f"{one:.1f}" for one in left),
                    record.estimate(list(losses.values())),
                    caltech_baseline.difference(first, losses, same=name == beside),
                    record.estimate(list(errors.values())),
                ]
            )
    header = ["", "epochs to leave, each seed", f"training loss, epoch {EPOCHS}"]
    return record.table([*header, "less that of its preset; that of paper", "top-1 error, %"], rows)


def draw(path: Path, to: Path) -> Path:
    """Draw the training loss, from the paper's text beside from the 2012 code."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    families = {"from the paper's text": FROM_PAPER, "from the 2012 code": FROM_CODE}
    for axes, (title, family) in zip(
        figure.subplots(1, 2, sharey=True), families.items(), strict=True
    ):
        for number, name in enumerate(family):
            lines = caltech_baseline.runs(path, name)
            # Settings that change nothing lie on each other: every other one is dashed.
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


def main(asked: caltech_baseline.Arguments) -> None:
    """Run every setting with every seed, print the table, draw the picture."""
    caltech_baseline.train(SETTINGS, asked)
    caltech_baseline.print_table(table(asked.record), asked.record)
    print(draw(asked.record, asked.folder / "paper_vs_source2012.png"))


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
