"""Photographs, each with its nearest images: Figure 4 of the paper, right."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage, open_image
from alexnet_jax.plots.framed import check_mark, draw_caption, draw_legend, frame, mark_handles
from alexnet_jax.plots.palette import QUIET
from alexnet_jax.plots.text import fitted, literal

# Inches.
SIDE, GAP = 1.3, 0.12  # of an image; between two of them
APART = 0.3  # between a photograph and its neighbors
TEXT, HEADING = 0.55, 0.25  # three lines below an image; one above the first row
PIXELS = 192  # side of an image
MIN_COLUMNS = 3  # wide enough for a caption
SIZE, SMALL = 8, 7  # of fonts, in points


@dataclasses.dataclass(frozen=True)
class Neighbor:
    """An image near a photograph."""

    image: np.ndarray  # uint8 [s, s, 3]
    name: str  # of the file
    distance: float
    class_name: str = ""  # its own, or "" where classes are unknown
    is_right: bool | None = None  # whether the photograph has the same class


@dataclasses.dataclass(frozen=True)
class Line:
    """A photograph and its neighbors, nearest first."""

    image: np.ndarray  # uint8 [s, s, 3]
    name: str  # of the file
    neighbors: Sequence[Neighbor]
    class_name: str = ""


def thumbnail(file: Path) -> np.ndarray:
    """Return the center of an image as a small square, uint8 [s, s, 3]; white if unreadable."""
    try:
        return resize_center(open_image(file), PIXELS)
    except UnreadableImage:
        return np.full((PIXELS, PIXELS, 3), 255, np.uint8)


@literal
def draw(lines: Sequence[Line], caption: str = "") -> Figure:
    """Draw a line for each photograph, followed by its neighbors with their distances.

    Below each image are its class, if it is known, its file, and its distance. Where it is known
    whether a neighbor has the class of the photograph, a frame and a symbol tell.

    Raises ValueError without any line.
    """
    if not lines:
        raise ValueError("lines []: must have at least one photograph; name one.")
    columns = 1 + max(len(line.neighbors) for line in lines)
    width = max(columns, MIN_COLUMNS) * (SIDE + GAP) + APART + GAP
    content = HEADING + len(lines) * (SIDE + TEXT)
    figure = Figure(figsize=(width, content))
    marks = [near.is_right for line in lines for near in line.neighbors]
    names = {True: "same class as the query", False: "another class"}
    below = draw_legend(figure, mark_handles(names, [mark for mark in marks if mark is not None]))
    height = content + below
    height += draw_caption(figure, caption, height)
    figure.set_size_inches(width, height)

    def left_of(column: int) -> float:
        return GAP + column * (SIDE + GAP) + APART * (column > 0)

    for column, text in enumerate(("query", "nearest images, from left to right")):
        x, y = left_of(column) / width, (below + content - HEADING + 0.06) / height
        figure.text(x, y, text, fontsize=SIZE, fontweight="bold")
    for row, line in enumerate(lines):
        top = below + content - HEADING - row * (SIDE + TEXT)
        shown = [Neighbor(line.image, line.name, -1, line.class_name), *line.neighbors]
        for column, near in enumerate(shown):
            corner = (left_of(column) / width, (top - SIDE) / height)
            _draw_image(figure.add_axes((*corner, SIDE / width, SIDE / height)), near)
    return figure


def _draw_image(axes: Axes, near: Neighbor) -> None:
    axes.imshow(near.image)
    frame(axes, near.is_right)
    room, style = 72 * SIDE, {"ha": "center", "va": "top"}
    class_name = fitted(
        check_mark(near.is_right) + near.class_name, room, SIZE, end=0.4, weight="bold"
    )
    file = fitted(near.name, room, SMALL, end=0.5)
    distance = f"{near.distance:#.4g}" if near.distance >= 0 else ""
    texts = [
        ("class", class_name, {"fontsize": SIZE, "fontweight": "bold"}),
        ("file", file, {"fontsize": SMALL, "color": QUIET}),
        ("distance", distance, {"fontsize": SIZE}),
    ]
    for number, (gid, text, own) in enumerate(entry for entry in texts if entry[1]):
        drawn = axes.text(
            0.5, -0.04 - 0.115 * number, text, transform=axes.transAxes, gid=gid, **style
        )
        drawn.set(**own)
