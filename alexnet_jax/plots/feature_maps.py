"""What a layer makes of one image: its maps, tower 0's above tower 1's."""

import math

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.plots.tiles import DPI, NAME, draw_mosaic, mosaic

SMALLEST = 48  # pixels of the file that a side of a map has at least
CUT = 0.5  # per cent of the values at either end that are drawn as black and as white


def draw(maps: np.ndarray, name: str, towers: bool) -> Figure:
    """Draw the maps of a layer, [H, W, C] of any range; the first half of C is tower 0's.

    Black to white is the range of all maps together, so that their strengths compare.
    Raises ValueError for another shape or, with towers, an odd C.
    """
    if maps.ndim != 3 or (towers and maps.shape[2] % 2):
        raise ValueError(
            f"{name} of shape {maps.shape}: maps are drawn from [H, W, C] with an even C, one half "
            "a tower; ask for a convolution, or what follows one."
        )
    black, white = np.percentile(maps, (CUT, 100 - CUT))
    if white <= black:  # all but a few values are the same
        black, white = float(maps.min()), float(maps.max())
    scaled = np.clip((maps - black) / max(white - black, np.finfo(np.float32).tiny), 0, 1)
    images = np.rint(255 * scaled).astype(np.uint8).transpose(2, 0, 1)
    picture = mosaic(images, towers)
    # Large enough to see a map, and to write the towers' names beside their halves.
    enlarged = max(SMALLEST / maps.shape[0], 2 * NAME * DPI / picture.shape[0])
    high, wide, count = maps.shape
    about = f"{count} maps of {high} x {wide}; black {black:.3g}, white {white:.3g}"
    return draw_mosaic(picture, math.ceil(enlarged), towers, (name, about))
