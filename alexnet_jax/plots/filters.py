"""The first layer's filters, one tower's above the other's: Figure 3 of the paper."""

from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.plots.text import literal
from alexnet_jax.plots.tiles import draw_mosaic, mosaic, scaled

PER_ROW = 12
SCALE = 7  # pixels of the file to a side of a weight

Contrast = Literal["layer", "filter"]


@literal
def draw(kernel: np.ndarray, towers: bool = True, contrast: Contrast = "layer") -> Figure:
    """Draw `filter_mosaic`, a weight as 7 x 7 pixels, with a title and the towers named."""
    picture = filter_mosaic(kernel, towers, contrast)
    height, width, _, count = kernel.shape
    where = ": tower 0 above, tower 1 below" if towers else ""
    title = f"{count} filters of conv1, {height} x {width} pixels{where}"
    if contrast == "filter":
        range_ = "each filter from its least weight (black) to its greatest (white)"
    else:
        range_ = f"black {kernel.min():.3g}, white {kernel.max():.3g}, the same for all filters"
    return draw_mosaic(picture, SCALE, towers, (title, range_))


def filter_mosaic(
    kernel: np.ndarray, towers: bool = True, contrast: Contrast = "layer"
) -> np.ndarray:
    """Return uint8 [H, W, 3]: the filters of `kernel` [k, k, 3, C], tower 0 above tower 1.

    With the contrast "layer", the range from black to white is that of all weights together, so
    that strengths can be compared (shownet.py:110-197); with "filter", that of each filter. 12 a
    row, with 1 white pixel around each. Tower 0 has the first half of the filters; without `towers`
    they are in one block. Raises ValueError for another shape or, with towers, an odd C.
    """
    if kernel.ndim != 4 or kernel.shape[2] != 3 or (towers and kernel.shape[3] % 2):
        raise ValueError(
            f"kernel of shape {kernel.shape}: must be [k, k, 3, C], with towers an even C; pass "
            "the first layer's kernel."
        )
    images = kernel.transpose(3, 0, 1, 2)
    by_filter = (1, 2, 3) if contrast == "filter" else None
    black, white = (bound(images, axis=by_filter, keepdims=True) for bound in (np.min, np.max))
    return mosaic(scaled(images, black, white), towers, PER_ROW)
