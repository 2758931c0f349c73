"""Images with their most probable classes: Figure 4 of the paper, left."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from alexnet_jax.inference.examples import MAX_SHOWN
from alexnet_jax.plots.class_labels import short_names
from alexnet_jax.plots.framed import check_mark, draw_caption, draw_legend, frame, mark_handles
from alexnet_jax.plots.palette import OTHER_CLASS, QUIET, TRUE_CLASS
from alexnet_jax.plots.text import Weight, fitted, literal

COLUMNS = 4  # of images, as in Figure 4; more if there are more than 16
CLASSES = 5  # bars of an image
# Inches.
CELL, SMALL_CELL, GAP = 2.2, 1.7, 0.25  # width of an image, of one of many; space between two
MANY = 20  # images; more are drawn smaller
TITLE, FILE, BAR, BELOW = 0.28, 0.24, 0.22, 0.15  # above an image, and below it
PERCENT = 0.3  # of the length of the longest bar, for the percentages to the right of it
SIZE, SMALL = 9, 8  # of fonts, in points


@literal
def draw(
    images: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    files: Sequence[str] = (),
    caption: str = "",
) -> Figure:
    """Draw images, each with its true class above, its file and its best five classes below.

    The bar of the true class is red, the others are blue (shownet.py:199-264), with the
    probabilities to the right. Where the true class is known, a frame and a symbol tell whether it
    is the most probable one.

    Args:
        images: uint8 [N, h, w, 3].
        probabilities: [N, K]; rows sum to 1.
        labels: int [N], -1 where the class is unknown.
        class_names: K of them.
        files: names to write below the images; none, or N.
        caption: written above all of them.

    Raises:
        ValueError: N or K differ, or there are more than `MAX_SHOWN`.
    """
    _check(images, probabilities, labels, class_names, files)
    count, names = len(images), short_names(class_names)
    columns = min(count, max(COLUMNS, math.ceil(math.sqrt(count))))
    side = CELL if count <= MANY else SMALL_CELL
    bars_height = BAR * min(CLASSES, len(names))
    cell_height = TITLE + side + FILE + bars_height + BELOW
    width = max(columns, 1.6) * (side + GAP) + GAP  # of one image: the legend's
    content = -(-count // columns) * cell_height
    figure = Figure(figsize=(width, content))
    below = draw_legend(figure, _handles(probabilities, labels))
    height = content + below
    height += draw_caption(figure, caption, height)
    figure.set_size_inches(width, height)
    start = (width - columns * (side + GAP) + GAP) / 2
    for index in range(count):
        row, column = divmod(index, columns)
        left, top = start + column * (side + GAP), below + content - row * cell_height - TITLE
        boxes = ((top - side, side), (top - side - FILE - bars_height, bars_height))
        picture, bars = (
            figure.add_axes((left / width, bottom / height, side / width, tall / height))
            for bottom, tall in boxes
        )
        probability, label = np.asarray(probabilities[index]), int(labels[index])
        is_right = None if label < 0 else label == int(np.argmax(probability))
        title = check_mark(is_right) + (names[label] if label >= 0 else "")
        _draw_picture(picture, images[index], title, files[index] if files else "", 72 * side)
        frame(picture, is_right)
        _draw_bars(bars, probability, label, names, 72 * side)
    return figure


def _check(
    images: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    files: Sequence[str],
) -> None:
    if not 1 <= len(images) == len(probabilities) == len(labels):
        raise ValueError(
            f"{len(images)} images, {len(probabilities)} rows of probabilities, {len(labels)} "
            "labels: must be as many of each; pass arrays of one length, at least 1."
        )
    if len(images) > MAX_SHOWN:
        raise ValueError(
            f"{len(images)} images: must be at most {MAX_SHOWN} in a figure; draw several."
        )
    if files and len(files) != len(images):
        raise ValueError(
            f"{len(files)} files and {len(images)} images: must be as many; pass one for each."
        )
    if probabilities.shape[1] != len(class_names):
        raise ValueError(
            f"{probabilities.shape[1]} probabilities per image and {len(class_names)} class names: "
            "must be as many of each; pass the names in label order."
        )


def _handles(probabilities: np.ndarray, labels: np.ndarray) -> list[Patch]:
    """Return what the legend explains."""
    if (labels < 0).all():
        return [Patch(color=OTHER_CLASS, label="probability of a class (true class unknown)")]
    best = probabilities.argmax(axis=1)[labels >= 0]
    right = (best == labels[labels >= 0]).tolist()
    return [
        Patch(color=TRUE_CLASS, label="the true class (the title)"),
        Patch(color=OTHER_CLASS, label="other classes"),
        *mark_handles({True: "right", False: "wrong"}, right),
    ]


def _draw_picture(axes: Axes, image: np.ndarray, title: str, file: str, width: float) -> None:
    """Draw an image of a width in points, with a title above and its file below."""
    axes.imshow(image)
    title = fitted(title, width, SIZE, end=0.4, weight="bold")
    axes.set_title(title, fontsize=SIZE, fontweight="bold", pad=4)
    file = fitted(file, width, SMALL - 1, end=0.5)
    axes.set_xlabel(file, fontsize=SMALL - 1, color=QUIET, labelpad=3)


def _draw_bars(
    axes: Axes, probabilities: np.ndarray, label: int, names: Sequence[str], width: float
) -> None:
    best = np.argsort(-probabilities, kind="stable")[:CLASSES]
    colors = [TRUE_CLASS if number == label else OTHER_CLASS for number in best]
    axes.barh(range(len(best)), probabilities[best], height=0.85, color=colors)
    for position, number in enumerate(best):
        weight: Weight = "bold" if number == label else "normal"
        style = {"va": "center", "fontsize": SMALL, "fontweight": weight}
        room = 0.95 * width / (1 + PERCENT)
        name = fitted(names[number], room, SMALL, end=0.4, weight=weight)
        axes.text(0.02, position, name, **style)
        percent = f"{probabilities[number]:.1%}"
        axes.text(1 + PERCENT, position, percent, ha="right", **style)
    axes.set(xlim=(0, 1 + PERCENT), ylim=(len(best) - 0.4, -0.6), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
