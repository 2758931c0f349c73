"""Confusion matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from alexnet_jax.plots.class_labels import short_names
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

    A row for each true class, in label order; a row without images is gray. Shade is proportional
    to the square root of a share, so that rare confusions can be seen.

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
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    right, gray = int(np.trace(counts)), "" if totals.all() else "; gray: no images"
    what = f"{right:,} of {counts.sum():,} images right"
    axes.set_title(f"{what}\nrows: the images of a true class{gray}", fontsize=10)
    if number <= MAX_NAMED:
        size = 8 if number <= MAX_NUMBERED else 7
        names = short_names(class_names)
        axes.set_xticks(range(number), names, rotation=90, fontsize=size)
        axes.tick_params(length=2)
        axes.set_yticks(range(number), names, fontsize=size)
    if number <= MAX_NUMBERED:
        style = {"ha": "center", "va": "center", "fontsize": 7 if number > 8 else 9}
        for row, column in np.argwhere(counts):
            share = shares[row, column]
            color = "white" if share > 0.3 else "black"
            axes.text(column, row, _percent(share), color=color, **style)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, format=lambda share, _: f"{share:.0%}")
    bar.set_label("share of the images of a true class")
    bar.outline.set_visible(False)
    return figure


def _percent(share: float) -> str:
    """Return a share that is not zero in whole percent, which must not look like none."""
    return f"{share:.0%}" if share >= 0.005 else "<1%"
