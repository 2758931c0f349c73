"""A layer's feature maps of one image, tower 0's above tower 1's."""

import math

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.plots.text import literal
from alexnet_jax.plots.tiles import DPI, NAME, draw_mosaic, mosaic

MIN_SIDE = 48  # of a map, pixels of the file
CLIPPED = 0.5  # percent of the values at either end that are drawn as black or as white


@literal
def draw(maps: np.ndarray, name: str, towers: bool) -> Figure:
    """Draw the maps of a layer, [H, W, C] of any range; the first half of C is tower 0's.

    The range from black to white is that of all maps together, so that strengths can be compared.
    Raises ValueError for another shape or, with towers, an odd C.
    """
    if maps.ndim != 3 or (towers and maps.shape[2] % 2):
        raise ValueError(
            f"{name} of shape {maps.shape}: must be [H, W, C], with towers an even C; name a "
            "convolution, or what follows one."
        )
    black, white = np.percentile(maps, (CLIPPED, 100 - CLIPPED))
    if white <= black:  # nearly all values are the same
        black, white = float(maps.min()), float(maps.max())
    scaled = np.clip((maps - black) / max(white - black, np.finfo(np.float32).tiny), 0, 1)
    images = np.rint(255 * scaled).astype(np.uint8).transpose(2, 0, 1)
    picture = mosaic(images, towers)
    # Large enough to see a map, and for the towers' names next to their halves.
    scale = max(MIN_SIDE / maps.shape[0], 2 * NAME * DPI / picture.shape[0])
    height, width, count = maps.shape
    caption = f"{count} maps of {height} x {width}; black {black:.3g}, white {white:.3g}"
    return draw_mosaic(picture, math.ceil(scale), towers, (name, caption))
