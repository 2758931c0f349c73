"""Photographs, each with its nearest images: Figure 4 of the paper, right."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage, open_image
from alexnet_jax.plots.text import literal
from alexnet_jax.storage.names import printable

SIDE = 1.25  # of an image, inches
GAP = 0.25  # between a photograph and its neighbors, inches
PIXELS = 192  # side of an image
MAX_LENGTH = 24  # of a name, characters


@dataclasses.dataclass(frozen=True)
class Line:
    """A photograph and its neighbors, nearest first."""

    image: np.ndarray  # uint8 [s, s, 3]
    name: str
    neighbors: Sequence[tuple[np.ndarray, str, float]]  # images, names, distances


def thumbnail(file: Path) -> np.ndarray:
    """Return the center of an image as a small square, uint8 [s, s, 3]; white if unreadable."""
    try:
        return resize_center(open_image(file), PIXELS)
    except UnreadableImage:
        return np.full((PIXELS, PIXELS, 3), 255, np.uint8)


@literal
def draw(lines: Sequence[Line]) -> Figure:
    """Draw a line for each photograph, followed by its neighbors with their distances.

    Raises ValueError without any line.
    """
    if not lines:
        raise ValueError("lines []: must have at least one photograph; name one.")
    columns = 1 + max(len(line.neighbors) for line in lines)
    width, height = columns * SIDE + GAP, len(lines) * (SIDE + 0.3)
    figure = Figure(figsize=(width, height))
    for row, line in enumerate(lines):
        shown = [(line.image, printable(line.name))]
        shown += [(i, f"{printable(name)}\n{d:#.4g}") for i, name, d in line.neighbors]
        for column, (image, text) in enumerate(shown):
            left = column * SIDE + GAP * (column > 0) + 0.03
            bottom = height - (row + 1) * (SIDE + 0.3) + 0.3
            box = (left / width, bottom / height, (SIDE - 0.06) / width, (SIDE - 0.06) / height)
            _picture(figure.add_axes(box), image, text)
    return figure


def _picture(axes: Axes, image: np.ndarray, text: str) -> None:
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    first, *rest = text.split("\n")
    if len(first) > MAX_LENGTH:  # it begins with the class and ends with the number
        half = MAX_LENGTH // 2
        first = f"{first[: half - 1]}…{first[-half:]}"
    axes.set_xlabel("\n".join([first, *rest]), fontsize=6, labelpad=2)
