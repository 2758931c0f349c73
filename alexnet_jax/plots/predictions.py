"""Images with their most probable classes: Figure 4 of the paper, left."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.plots.class_labels import short
from alexnet_jax.plots.text import literal

ROWS, COLUMNS = 2, 4  # of images, as in Figure 4
MAX_IMAGES = ROWS * COLUMNS
CLASSES = 5  # bars of an image
TRUE_CLASS, OTHER_CLASS = "#ffaaaa", "#aaaaff"  # shownet.py:259


@literal
def draw(
    images: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Draw up to eight images, each with its true class above and its best five classes below.

    The bar of the true class is red, the others are blue (shownet.py:199-264).

    Args:
        images: uint8 [N, h, w, 3]; the first eight are drawn.
        probabilities: [N, K]; rows sum to 1.
        labels: int [N], -1 where the class is unknown.
        class_names: K of them.

    Raises:
        ValueError: N or K differ.
    """
    if not 1 <= len(images) == len(probabilities) == len(labels):
        raise ValueError(
            f"{len(images)} images, {len(probabilities)} rows of probabilities, {len(labels)} "
            "labels: must be as many of each; pass arrays of one length, at least 1."
        )
    if probabilities.shape[1] != len(class_names):
        raise ValueError(
            f"{probabilities.shape[1]} probabilities per image and {len(class_names)} class names: "
            "must be as many of each; pass the names in label order."
        )
    count = min(len(images), MAX_IMAGES)
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.3 * columns, 3.5 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, height_ratios=[2.2, 1.2] * rows, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for index in range(count):
        row, column = divmod(index, columns)
        picture, bars = grid[2 * row, column], grid[2 * row + 1, column]
        picture.imshow(images[index])
        label = int(labels[index])
        picture.set_title(short(class_names[label]) if label >= 0 else "", fontsize=9)
        _draw_bars(bars, np.asarray(probabilities[index]), label, class_names)
    return figure


def _draw_bars(
    axes: Axes, probabilities: np.ndarray, label: int, class_names: Sequence[str]
) -> None:
    best = np.argsort(-probabilities, kind="stable")[:CLASSES]
    axes.set_axis_on()
    axes.barh(
        range(len(best)),
        probabilities[best],
        height=0.85,
        color=[TRUE_CLASS if number == label else OTHER_CLASS for number in best],
    )
    for position, number in enumerate(best):
        name = short(class_names[number])
        axes.text(0.02, position, name, va="center", fontsize=8, clip_on=True)
    axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
