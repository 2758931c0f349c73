"""A layer's feature maps of one image, tower 0's above tower 1's."""

import math
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.plots.text import literal
from alexnet_jax.plots.tiles import DPI, NAME, draw_mosaic, mosaic, scaled

PER_ROW = 16
MIN_SIDE = 48  # of a map, pixels of the file
CLIPPED = 0.5  # percent of the values at either end that are drawn as black or as white


@literal
def draw(
    maps: np.ndarray,
    name: str,
    towers: bool,
    image: np.ndarray | None = None,
    contrast: Literal["layer", "filter"] = "layer",
) -> Figure:
    """Draw the maps of a layer, [H, W, C] of any range; the first half of C is tower 0's.

    Args:
        maps: the outputs of the layer.
        name: of the layer and the image, for the title.
        towers: whether there are two.
        image: what the network sees, uint8 [crop, crop, 3]; drawn left of the maps.
        contrast: layer: the range from black to white is that of all maps together, so that
            strengths can be compared; filter: that of each map by itself.

    Raises:
        ValueError: the shape is another, or C is odd, with towers.
    """
    if maps.ndim != 3 or (towers and maps.shape[2] % 2):
        raise ValueError(
            f"{name} of shape {maps.shape}: must be [H, W, C], with towers an even C; name a "
            "convolution, or what follows one."
        )
    axis = (0, 1) if contrast == "filter" else None
    black, white = np.percentile(maps, (CLIPPED, 100 - CLIPPED), axis=axis, keepdims=True)
    flat = white <= black  # nearly all values are the same
    black = np.where(flat, maps.min(axis=axis, keepdims=True), black)
    white = np.where(flat, maps.max(axis=axis, keepdims=True), white)
    picture = mosaic(scaled(maps, black, white).transpose(2, 0, 1), towers, PER_ROW)
    # Large enough to see a map, and for the towers' names next to their halves.
    scale = max(MIN_SIDE / maps.shape[0], 2 * NAME * DPI / picture.shape[0])
    height, width, count = maps.shape
    where = ", tower 0 above tower 1" if towers else ""
    size = f"{count} maps of {height} x {width}{where}"
    if contrast == "filter":
        range_ = "each map from its least value (black) to its greatest (white)"
    else:
        range_ = f"black {black.item():.3g}, white {white.item():.3g}"
    seen = "" if image is None else f"seen by the network: {' x '.join(map(str, image.shape[:2]))}"
    caption = f"{size}; {range_}"
    return draw_mosaic(picture, math.ceil(scale), towers, (name, caption), image, seen)
