"""Pictures of a run: curves, first-layer filters by tower, predictions.

Layout and colors follow the 2012 plotting code, shownet.py of cuda-convnet2.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from alexnet_jax.plots.class_labels import short
from alexnet_jax.plots.tiles import draw_mosaic, mosaic, save

TRAINING, VALIDATION_COLOR = "black", "red"  # shownet.py:101-108
TRUE_CLASS, OTHER_CLASS = "#ffaaaa", "#aaaaff"  # shownet.py:252-257


def curves(metrics: Sequence[dict[str, Any]], path: Path) -> Path:
    """Save top-1 error and loss over epochs, from the records of metrics.jsonl; return `path`."""
    return save(draw_curves(metrics), path)


def draw_curves(metrics: Sequence[dict[str, Any]]) -> Figure:
    """Draw training (each record faint, mean of each epoch solid), validation and test.

    A dotted line marks each fall of the learning rate. Raises ValueError without any record.
    """
    if not metrics:
        raise ValueError("metrics=[]: curves need at least one record; train for some steps first.")
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
    axes.plot(epochs, values, color=TRAINING, alpha=0.2, linewidth=0.6, gid="train records")
    # A record at epoch 2.4 belongs to the third pass, one at 3.0 still does.
    passes = np.ceil(epochs)
    weights = np.diff(epochs, prepend=0)  # a record counts for the stretch since the one before
    means = [
        [
            np.average(column[passes == one], weights=weights[passes == one])
            for one in np.unique(passes)
        ]
        for column in (epochs, values)
    ]
    style = {"marker": ".", "markersize": 4, "linewidth": 1.2}
    axes.plot(*means, color=TRAINING, **style, label="training, augmented", gid="train")
    validation = _series(metrics, "validation", name)
    axes.plot(*validation, color=VALIDATION_COLOR, **style, label="validation", gid="validation")
    test = _series(metrics, "test", name)
    if test[0].size:
        axes.plot(
            *test, "D", color=VALIDATION_COLOR, markerfacecolor="none", label="test", gid="test"
        )


def _series(metrics: Sequence[dict[str, Any]], split: str, name: str) -> np.ndarray:
    """Return [2, n]: epochs and values of the records of `split` that have `name`."""
    points = [
        (record["epoch"], record[name])
        for record in metrics
        if record["split"] == split and record.get(name) is not None
    ]
    return np.asarray(points, float).reshape(-1, 2).T


def _mark_drops(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    epochs, rates = _series(metrics, "train", "rate")
    for epoch, before, after in zip(epochs[1:], rates, rates[1:], strict=False):
        if after < before:
            # Rates fall between epochs, the first record with the new one comes some steps later.
            end_of_epoch = math.ceil(epoch) - 1
            axes.axvline(end_of_epoch, color="gray", linestyle=":", linewidth=1, gid="drop")
            axes.annotate(
                f"rate {after:.2g}",
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


def filters(kernel: np.ndarray, path: Path, towers: bool = True) -> Path:
    """Save the first layer's filters, `kernel` [k, k, 3, C], tower 0 above tower 1."""
    return save(draw_filters(kernel, towers), path)


def draw_filters(kernel: np.ndarray, towers: bool = True) -> Figure:
    """Draw `filter_mosaic(kernel, towers)`, a weight as 6 x 6 pixels, with the towers named."""
    return draw_mosaic(filter_mosaic(kernel, towers), enlarged=6, towers=towers)


def filter_mosaic(kernel: np.ndarray, towers: bool = True) -> np.ndarray:
    """Return uint8 [H, W, 3]: the filters of `kernel` [k, k, 3, C], tower 0 above tower 1.

    Black to white is the least to the greatest weight of all filters together, so their strengths
    compare (shownet.py:110-197); 16 a row, 1 white pixel around each. Tower 0 holds the first
    half of the filters; without `towers` they are in one block. Raises ValueError for another
    shape or, with towers, an odd C.
    """
    if kernel.ndim != 4 or kernel.shape[2] != 3 or (towers and kernel.shape[3] % 2):
        raise ValueError(
            f"kernel of shape {kernel.shape}: filters are drawn from [k, k, 3, C] with an even C, "
            "one half a tower; pass the first layer's kernel."
        )
    least, greatest = float(kernel.min()), float(kernel.max())
    scaled = (kernel - least) / max(greatest - least, np.finfo(np.float32).tiny)
    return mosaic(np.rint(255 * scaled).astype(np.uint8).transpose(3, 0, 1, 2), towers)


def predictions(
    images: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    path: Path,
) -> Path:
    """Save the first eight images with their five most probable classes; return `path`."""
    return save(draw_predictions(images, probabilities, labels, class_names), path)


def draw_predictions(
    images: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Draw figure 4 (left) of the paper: 2 x 4 images, true class above, bars below.

    images uint8 [N, h, w, 3], probabilities [N, K] with rows that sum to 1, labels int [N], -1
    where nobody knows. The bar of the true class is red, others are blue (shownet.py:199-264).
    Raises ValueError where N or K disagree.
    """
    if not 1 <= len(images) == len(probabilities) == len(labels):
        raise ValueError(
            f"{len(images)} images, {len(probabilities)} rows of probabilities, {len(labels)} "
            "labels: each image needs one of each; pass arrays of one length, at least 1."
        )
    if probabilities.shape[1] != len(class_names):
        raise ValueError(
            f"{probabilities.shape[1]} probabilities an image and {len(class_names)} class names: "
            "each class needs one of each; pass the names in label order."
        )
    shown = min(len(images), 8)
    columns = min(shown, 4)
    rows = -(-shown // columns)
    figure = Figure(figsize=(2.3 * columns, 3.5 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, height_ratios=[2.2, 1.2] * rows, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for place in range(shown):
        row, column = divmod(place, columns)
        picture, bars = grid[2 * row, column], grid[2 * row + 1, column]
        picture.imshow(images[place])
        label = int(labels[place])
        picture.set_title(short(class_names[label]) if label >= 0 else "", fontsize=9)
        _draw_bars(bars, np.asarray(probabilities[place]), label, class_names)
    return figure


def _draw_bars(
    axes: Axes, probabilities: np.ndarray, label: int, class_names: Sequence[str]
) -> None:
    best = np.argsort(-probabilities, kind="stable")[:5]
    axes.set_axis_on()
    axes.barh(
        range(len(best)),
        probabilities[best],
        height=0.85,
        color=[TRUE_CLASS if one == label else OTHER_CLASS for one in best],
    )
    for place, one in enumerate(best):
        axes.text(0.02, place, short(class_names[one]), va="center", fontsize=8, clip_on=True)
    axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
