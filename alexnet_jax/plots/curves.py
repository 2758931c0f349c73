"""Error and loss over the epochs of a run.

Layout and colors follow the 2012 plotting code, shownet.py of cuda-convnet2.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from alexnet_jax.plots.text import literal

TRAINING_COLOR, VALIDATION_COLOR = "black", "red"  # shownet.py:97-98


@literal
def draw(metrics: Sequence[dict[str, Any]]) -> Figure:
    """Draw top-1 error and loss from the records of metrics.jsonl.

    Training (each record faint, the mean of each epoch solid), validation and test; a dotted line
    marks each drop of the learning rate. Raises ValueError without any record.
    """
    if not metrics:
        raise ValueError("metrics []: must have at least one record; train for some steps first.")
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, name, label in zip(
        figure.subplots(1, 2), ("top1_error", "loss"), ("top-1 error", "loss (nats)"), strict=True
    ):
        _draw_curve(axes, metrics, name)
        axes.set(xlabel="epochs", ylabel=label)
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])  # room for the highest marker
        _mark_drops(axes, metrics)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    figure.axes[0].legend(edgecolor="none", framealpha=0.9)
    return figure


def _draw_curve(axes: Axes, metrics: Sequence[dict[str, Any]], name: str) -> None:
    epochs, values = _series(metrics, "train", name)
    axes.plot(epochs, values, color=TRAINING_COLOR, alpha=0.2, linewidth=0.6, gid="train records")
    style = {"marker": ".", "markersize": 4, "linewidth": 1.2}
    means = _epoch_means(epochs, values)
    axes.plot(*means, color=TRAINING_COLOR, **style, label="training, augmented", gid="train")
    validation = _series(metrics, "validation", name)
    axes.plot(*validation, color=VALIDATION_COLOR, **style, label="validation", gid="validation")
    test = _series(metrics, "test", name)
    if test[0].size:
        axes.plot(
            *test, "D", color=VALIDATION_COLOR, markerfacecolor="none", label="test", gid="test"
        )


def _epoch_means(epochs: np.ndarray, values: np.ndarray) -> list[list[float]]:
    """Return the mean position and value of each epoch's records."""
    numbers = np.ceil(epochs)  # 2.4 and 3.0 are both in the third epoch
    # A record covers the steps since the previous one; in a file that was edited maybe none.
    weights = np.maximum(np.diff(epochs, prepend=0), 1e-9)
    return [
        [
            float(np.average(column[numbers == number], weights=weights[numbers == number]))
            for number in np.unique(numbers)
        ]
        for column in (epochs, values)
    ]


def _series(metrics: Sequence[dict[str, Any]], split: str, name: str) -> np.ndarray:
    """Return [2, n]: epochs and values of the records of `split` that have `name`."""
    points = [
        (record["epoch"], record[name])
        for record in metrics
        if record.get("split") == split and None not in (record.get("epoch"), record.get(name))
    ]
    return np.asarray(points, float).reshape(-1, 2).T


def _mark_drops(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    epochs, rates = _series(metrics, "train", "learning_rate")
    for epoch, before, after in zip(epochs[1:], rates, rates[1:], strict=False):
        if after < before:
            # It drops between epochs; the first record with the new one follows some steps later.
            end_of_epoch = math.ceil(epoch) - 1
            axes.axvline(end_of_epoch, color="gray", linestyle=":", linewidth=1, gid="drop")
            axes.annotate(
                f"learning rate {after:.2g}",
                (end_of_epoch, 0.98),
                xycoords=("data", "axes fraction"),
                xytext=(-2, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="top",
                fontsize=7,
                color="gray",
            )
