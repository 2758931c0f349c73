"""Mosaics of small images, one tower's above the other's; and saving a figure."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.plots.text import each_letter_not_named, width_of
from alexnet_jax.storage.atomic import replacing
from alexnet_jax.storage.names import printable

DPI = 150
PER_ROW = 16  # shownet.py:110
TOWER_GAP = 4  # white pixels between the towers' tiles
# Inches, except FONT_SIZE.
MARGIN = 0.45  # on the left, for the towers' names
EDGE = 0.1  # around the picture
LINE, FONT_SIZE = 0.17, 9  # of a title
NAME = 0.5  # length of a tower's name


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, as PNG or what the suffix says, and make its folder; return `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, each_letter_not_named():
        figure.savefig(partial, dpi=DPI, facecolor="white", format=path.suffix.removeprefix("."))
    return path


def mosaic(images: np.ndarray, towers: bool) -> np.ndarray:
    """Arrange images uint8 [n, h, w, ...] in rows of at most 16, with one white pixel around each.

    With `towers`, the first half, tower 0's, is above the second.
    """
    if not towers:
        return _tiles(images)
    first, second = (_tiles(half) for half in np.split(images, 2))
    gap = np.full((TOWER_GAP, *first.shape[1:]), 255, np.uint8)
    return np.concatenate([first, gap, second])


def _tiles(images: np.ndarray) -> np.ndarray:
    count, height, width = images.shape[:3]
    columns = min(PER_ROW, count)
    rows = -(-count // columns)
    picture = np.full(
        (rows * (height + 1) + 1, columns * (width + 1) + 1, *images.shape[3:]), 255, np.uint8
    )
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = 1 + row * (height + 1), 1 + column * (width + 1)
        picture[top : top + height, left : left + width] = image
    return picture


def draw_mosaic(
    picture: np.ndarray, scale: int, towers: bool, title: tuple[str, ...] = ()
) -> Figure:
    """Draw a mosaic, each pixel as scale x scale pixels, below a title and next to tower names."""
    if picture.ndim == 2:  # gray, which imshow would rescale and color
        picture = np.repeat(picture[..., None], 3, axis=-1)
    height, width = (side * scale / DPI for side in picture.shape[:2])
    left = MARGIN if towers else EDGE
    above = EDGE + LINE * len(title)
    total_height = EDGE + height + above
    title = tuple(map(printable, title))
    points = max((width_of(line, FONT_SIZE) for line in title), default=0)
    total_width = left + EDGE + max(width, 1.1 * points / 72)  # characters start at whole pixels
    figure = Figure(figsize=(total_width, total_height))
    box = (left / total_width, EDGE / total_height, width / total_width, height / total_height)
    axes = figure.add_axes(box)
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for number, line in enumerate(title):
        top = EDGE / 2 + LINE * number
        figure.text(left / total_width, 1 - top / total_height, line, va="top", fontsize=FONT_SIZE)
    if towers:
        _name_towers(axes, picture.shape[0], scale)
    return figure


def _name_towers(axes: Axes, pixels: int, scale: int) -> None:
    half = (pixels - TOWER_GAP) / 2
    style = {"rotation": 90, "ha": "right", "va": "center", "fontsize": FONT_SIZE}
    for tower, center in enumerate((half / 2, pixels - half / 2)):
        axes.text(-18 / scale, center, f"tower {tower}", **style)
