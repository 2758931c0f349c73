"""Pictures of a run as PNG files: curves, first-layer filters by tower, predictions.

Each picture has a function that draws it (returns a matplotlib Figure) and one that saves it.
Layout and colours follow the 2012 plotting code, shownet.py of cuda-convnet2.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

DPI = 150
TRAINING, LOOKED_AT = "black", "red"  # shownet.py:101-108
TRUE_CLASS, OTHER_CLASS = "#ffaaaa", "#aaaaff"  # shownet.py:252-257
FILTERS_PER_ROW = 16  # shownet.py:110
TOWER_GAP = 4  # white pixels between the towers' filters


def curves(metrics: Sequence[dict[str, Any]], path: Path) -> Path:
    """Save top-1 error and loss over epochs, from the records of metrics.jsonl; return `path`."""
    return _save(draw_curves(metrics), path)


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
    axes.plot(*validation, color=LOOKED_AT, **style, label="validation", gid="validation")
    test = _series(metrics, "test", name)
    if test[0].size:
        axes.plot(*test, "D", color=LOOKED_AT, markerfacecolor="none", label="test", gid="test")


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
            axes.axvline(end_of_epoch, color="grey", linestyle=":", linewidth=1, gid="drop")
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
                color="grey",
            )


def filters(kernel: np.ndarray, path: Path) -> Path:
    """Save the first layer's filters, `kernel` [k, k, 3, C], tower 0 above tower 1."""
    return _save(draw_filters(kernel), path)


def draw_filters(kernel: np.ndarray) -> Figure:
    """Draw `filter_mosaic(kernel)` enlarged, with the towers named beside it."""
    mosaic = filter_mosaic(kernel)
    height, width, _ = mosaic.shape
    scale = 6 / DPI  # inches: a weight is 6 x 6 pixels of the file
    margin = 0.45  # inches on the left for the names
    figure = Figure(figsize=(width * scale + margin + 0.1, height * scale + 0.2))
    total_width, total_height = figure.get_size_inches()
    box = (margin / total_width, 0.1 / total_height)
    axes = figure.add_axes((*box, width * scale / total_width, height * scale / total_height))
    axes.imshow(mosaic, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    tower_height = (height - TOWER_GAP) / 2
    for tower, centre in enumerate((tower_height / 2, height - tower_height / 2)):
        axes.text(-3, centre, f"tower {tower}", rotation=90, ha="right", va="center", fontsize=9)
    return figure


def filter_mosaic(kernel: np.ndarray) -> np.ndarray:
    """Return uint8 [H, W, 3]: the filters of `kernel` [k, k, 3, C], tower 0 above tower 1.

    Black to white is the least to the greatest weight of all filters together, so their strengths
    compare (shownet.py:110-197); 16 a row, 1 white pixel around each. Tower 0 holds the first
    half of the filters. Raises ValueError for another shape or an odd C.
    """
    if kernel.ndim != 4 or kernel.shape[2] != 3 or kernel.shape[3] % 2:
        raise ValueError(
            f"kernel of shape {kernel.shape}: filters are drawn from [k, k, 3, C] with an even C, "
            "one half a tower; pass the first layer's kernel."
        )
    least, greatest = float(kernel.min()), float(kernel.max())
    scaled = (kernel - least) / max(greatest - least, np.finfo(np.float32).tiny)
    images = np.rint(255 * scaled).astype(np.uint8).transpose(3, 0, 1, 2)
    first, second = (_tiles(half) for half in np.split(images, 2))
    gap = np.full((TOWER_GAP, *first.shape[1:]), 255, np.uint8)
    return np.concatenate([first, gap, second])


def _tiles(images: np.ndarray) -> np.ndarray:
    """Return [n, k, k, 3] as rows of at most 16, with one white pixel around each."""
    count, side = len(images), images.shape[1]
    columns = min(FILTERS_PER_ROW, count)
    rows = -(-count // columns)
    pitch = side + 1
    mosaic = np.full((rows * pitch + 1, columns * pitch + 1, 3), 255, np.uint8)
    for place, image in enumerate(images):
        top, left = (1 + pitch * number for number in divmod(place, columns))
        mosaic[top : top + side, left : left + side] = image
    return mosaic


def predictions(
    images: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    path: Path,
) -> Path:
    """Save the first eight images with their five most probable classes; return `path`."""
    return _save(draw_predictions(images, probabilities, labels, class_names), path)


def draw_predictions(
    images: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Draw figure 4 (left) of the paper: 2 x 4 images, true class above, bars below.

    images uint8 [N, h, w, 3], probabilities [N, K] with rows that sum to 1, labels int [N].
    The bar of the true class is red, others are blue (shownet.py:199-264). Raises ValueError
    where N or K disagree.
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
        picture.set_title(class_names[label], fontsize=9)
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
        axes.text(0.02, place, class_names[one], va="center", fontsize=8, clip_on=True)
    axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _save(figure: Figure, path: Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path
