"""What the pictures share: images side by side, one tower's above the other's; the file."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

DPI = 150
PER_ROW = 16  # shownet.py:110
TOWER_GAP = 4  # white pixels between the towers' tiles
MARGIN = 0.45  # inches on the left for the towers' names
EDGE = 0.1  # inches around
LINE, SIZE = 0.17, 9  # inches of a line of a title; points of its letters
NAME = 0.5  # inches that a tower's name takes beside its tiles


def save(figure: Figure, path: Path) -> Path:
    """Write a picture, as PNG or as the ending says, making its folder; return `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path


def mosaic(images: np.ndarray, towers: bool) -> np.ndarray:
    """Return images uint8 [n, h, w, ...] in rows of at most 16, with one white pixel around each.

    With `towers`, the first half, tower 0's, stands above the second.
    """
    if not towers:
        return _tiles(images)
    first, second = (_tiles(half) for half in np.split(images, 2))
    gap = np.full((TOWER_GAP, *first.shape[1:]), 255, np.uint8)
    return np.concatenate([first, gap, second])


def _tiles(images: np.ndarray) -> np.ndarray:
    count, high, wide = images.shape[:3]
    columns = min(PER_ROW, count)
    rows = -(-count // columns)
    picture = np.full(
        (rows * (high + 1) + 1, columns * (wide + 1) + 1, *images.shape[3:]), 255, np.uint8
    )
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        top, left = 1 + row * (high + 1), 1 + column * (wide + 1)
        picture[top : top + high, left : left + wide] = image
    return picture


def draw_mosaic(
    picture: np.ndarray, enlarged: int, towers: bool, title: tuple[str, ...] = ()
) -> Figure:
    """Draw a mosaic to the pixel, each of its pixels `enlarged` times, the towers named beside it.

    The lines of the title stand above it.
    """
    if picture.ndim == 2:  # gray, which imshow would stretch and color
        picture = np.repeat(picture[..., None], 3, axis=-1)
    height, width = (side * enlarged / DPI for side in picture.shape[:2])
    left = MARGIN if towers else EDGE
    above = EDGE + LINE * len(title)
    total_height = EDGE + height + above
    points = max((TextPath((0, 0), line, SIZE).get_extents().x1 for line in title), default=0)
    total_width = left + EDGE + max(width, 1.1 * points / 72)  # letters stand at whole pixels
    figure = Figure(figsize=(total_width, total_height))
    box = (left / total_width, EDGE / total_height, width / total_width, height / total_height)
    axes = figure.add_axes(box)
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for number, line in enumerate(title):
        top = EDGE / 2 + LINE * number
        figure.text(left / total_width, 1 - top / total_height, line, va="top", fontsize=SIZE)
    if towers:
        _name_towers(axes, picture.shape[0], enlarged)
    return figure


def _name_towers(axes: Axes, pixels: int, enlarged: int) -> None:
    half = (pixels - TOWER_GAP) / 2
    style = {"rotation": 90, "ha": "right", "va": "center", "fontsize": SIZE}
    for tower, center in enumerate((half / 2, pixels - half / 2)):
        axes.text(-18 / enlarged, center, f"tower {tower}", **style)
