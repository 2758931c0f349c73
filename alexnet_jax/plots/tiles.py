"""Mosaics of small images, one tower's above the other's; and saving a figure."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.plots.palette import QUIET
from alexnet_jax.plots.text import each_letter_not_named, fitted, width_of
from alexnet_jax.storage.atomic import replacing

DPI = 150
TOWER_GAP = 4  # white pixels between the towers' tiles
# Inches, except FONT_SIZE.
MARGIN = 0.45  # on the left, for the towers' names
EDGE = 0.1  # around the picture
BESIDE = 2.0  # side of an image left of the picture
LINE, FONT_SIZE = 0.19, 9  # of a title
TITLE = 8.0  # up to which a title may be longer than the picture is wide
NAME = 0.5  # length of a tower's name


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, as PNG or what the suffix says, and make its folder; return `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, each_letter_not_named():
        figure.savefig(partial, dpi=DPI, facecolor="white", format=path.suffix.removeprefix("."))
    return path


def scaled(values: np.ndarray, black: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Return values as uint8: 0 from `black` down, 255 from `white` up; 0 if those are equal."""
    span = np.maximum(white - black, np.finfo(np.float32).tiny)
    return np.rint(255 * np.clip((values - black) / span, 0, 1)).astype(np.uint8)


def mosaic(images: np.ndarray, towers: bool, per_row: int) -> np.ndarray:
    """Arrange images uint8 [n, h, w, ...] in rows, with one white pixel around each.

    With `towers`, the first half, tower 0's, is above the second.
    """
    if not towers:
        return _tiles(images, per_row)
    first, second = (_tiles(half, per_row) for half in np.split(images, 2))
    gap = np.full((TOWER_GAP, *first.shape[1:]), 255, np.uint8)
    return np.concatenate([first, gap, second])


def _tiles(images: np.ndarray, per_row: int) -> np.ndarray:
    count, height, width = images.shape[:3]
    columns = min(per_row, count)
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
    picture: np.ndarray,
    scale: int,
    towers: bool,
    title: tuple[str, ...] = (),
    beside: np.ndarray | None = None,
    below_beside: str = "",
) -> Figure:
    """Draw a mosaic, each pixel as scale x scale pixels, below a title and next to tower names.

    Left of it is another image, if there is one, with a line of text below it.
    """
    if picture.ndim == 2:  # gray, which imshow would rescale and color
        picture = np.repeat(picture[..., None], 3, axis=-1)
    height, width = (side * scale / DPI for side in picture.shape[:2])
    side = 0.0 if beside is None else BESIDE
    left = EDGE + (side + EDGE if side else 0) + (MARGIN - EDGE if towers else 0)
    above = EDGE + LINE * len(title)
    low = max(height, side + LINE * bool(below_beside) if side else 0)  # below the title
    title_left = EDGE if side else left
    room = 72 * max(left + width - title_left, TITLE)
    title = tuple(fitted(line, room, FONT_SIZE, end=0.4, weight="bold") for line in title)
    points = max((width_of(line, FONT_SIZE, "bold") for line in title), default=0)
    total_width = EDGE + max(left + width, title_left + 1.04 * points / 72)  # whole pixels
    total_height = EDGE + low + above
    figure = Figure(figsize=(total_width, total_height))

    def axes_at(left: float, wide: float, tall: float) -> Axes:
        bottom = total_height - above - tall
        size = (wide / total_width, tall / total_height)
        axes = figure.add_axes((left / total_width, bottom / total_height, *size))
        axes.set_axis_off()
        return axes

    axes = axes_at(left, width, height)
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    for number, line in enumerate(title):
        y, x = 1 - (EDGE / 2 + LINE * number) / total_height, title_left / total_width
        weight = "normal" if number else "bold"
        figure.text(x, y, line, va="top", fontsize=FONT_SIZE, fontweight=weight)
    if towers:
        _name_towers(axes, picture.shape[0], scale)
    if beside is not None:
        photograph = axes_at(EDGE, side, side)
        photograph.imshow(beside)
        style = {"fontsize": FONT_SIZE - 1, "va": "top", "transform": photograph.transAxes}
        photograph.text(0, -0.03, below_beside, color=QUIET, **style)
    return figure


def _name_towers(axes: Axes, pixels: int, scale: int) -> None:
    half = (pixels - TOWER_GAP) / 2
    style = {"rotation": 90, "ha": "right", "va": "center", "fontsize": FONT_SIZE}
    for tower, center in enumerate((half / 2, pixels - half / 2)):
        axes.text(-18 / scale, center, f"tower {tower}", **style)
