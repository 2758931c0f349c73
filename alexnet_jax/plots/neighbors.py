"""Photographs, and beside each the images nearest to it: Figure 4 of the paper, right."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.sources import open_image

SIDE = 1.25  # inches of an image
BETWEEN = 0.25  # inches between a photograph and its neighbors
PIXELS = 192  # of an image
LONGEST = 24  # characters of a name


@dataclasses.dataclass(frozen=True)
class Line:
    """A photograph and its neighbors, nearest first."""

    image: np.ndarray  # uint8 [s, s, 3]
    name: str
    neighbors: Sequence[tuple[np.ndarray, str, float]]  # images, their names, how far they are


def thumbnail(file: Path) -> np.ndarray:
    """Return the center of an image as a small square, uint8 [s, s, 3]; white if it is gone."""
    try:
        return resize_center(open_image(file), PIXELS)
    except UnreadableImage:
        return np.full((PIXELS, PIXELS, 3), 255, np.uint8)


def draw(lines: Sequence[Line]) -> Figure:
    """Draw a line for each photograph: itself, then its neighbors with their distances.

    Raises ValueError without any line.
    """
    if not lines:
        raise ValueError("lines=[]: a panel of neighbors has at least one photograph; name one.")
    columns = 1 + max(len(line.neighbors) for line in lines)
    width, height = columns * SIDE + BETWEEN, len(lines) * (SIDE + 0.3)
    figure = Figure(figsize=(width, height))
    for row, line in enumerate(lines):
        shown = [(line.image, line.name), *((i, f"{n}\n{d:#.4g}") for i, n, d in line.neighbors)]
        for column, (image, text) in enumerate(shown):
            left = column * SIDE + BETWEEN * (column > 0) + 0.03
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
    if len(first) > LONGEST:  # the class before, the number behind
        half = LONGEST // 2
        first = f"{first[: half - 1]}…{first[-half:]}"
    axes.set_xlabel("\n".join([first, *rest]), fontsize=6, labelpad=2)
