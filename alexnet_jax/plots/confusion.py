"""Confusion matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.plots.class_labels import short
from alexnet_jax.plots.text import literal

# Numbers of classes up to which shares are printed, names are printed, a figure is drawn at all.
MAX_NUMBERED, MAX_NAMED, MAX_CLASSES = 25, 130, 2000
CELL = 0.15  # inches per class


def check_classes(number: int) -> None:
    """Raise a ValueError if there are too many classes to `draw`."""
    if number > MAX_CLASSES:
        raise ValueError(
            f"{number:,} classes: a confusion matrix must have at most {MAX_CLASSES:,}; use the "
            "scores per class instead."
        )


@literal
def draw(label: np.ndarray, best: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw the share of each class's images that is predicted as each class.

    A row for each true class, in label order; a row without images is gray.

    Args:
        label: true classes, int [N].
        best: most probable classes, int [N].
        class_names: K of them.

    Raises:
        ValueError: there are too many classes for a figure.
    """
    number = len(class_names)
    check_classes(number)
    counts = np.bincount(label * number + best, minlength=number**2).reshape(number, number)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals, counts / np.maximum(totals, 1), np.nan)
    side = min(max(CELL * number, 4.0), 16.0) if number > MAX_NUMBERED else max(0.45 * number, 3.0)
    figure = Figure(figsize=(side + 2.2, side + 1.4), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("lightgray")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    if number <= MAX_NAMED:
        size = 8 if number <= MAX_NUMBERED else 6
        names = [short(name) for name in class_names]
        axes.set_xticks(range(number), names, rotation=90, fontsize=size)
        axes.set_yticks(range(number), names, fontsize=size)
    if number <= MAX_NUMBERED:
        for row, column in np.argwhere(counts):
            share = shares[row, column]
            color = "white" if share > 0.5 else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, format=lambda share, _: f"{share:.0%}")
    bar.set_label("share of the images of a class")
    bar.outline.set_visible(False)
    return figure
