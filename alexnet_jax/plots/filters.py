"""The first layer's filters, one tower's above the other's: Figure 3 of the paper."""

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.plots.text import literal
from alexnet_jax.plots.tiles import draw_mosaic, mosaic

SCALE = 6  # pixels of the file to a side of a weight


@literal
def draw(kernel: np.ndarray, towers: bool = True) -> Figure:
    """Draw `filter_mosaic(kernel, towers)`, a weight as 6 x 6 pixels, with the towers named."""
    return draw_mosaic(filter_mosaic(kernel, towers), SCALE, towers)


def filter_mosaic(kernel: np.ndarray, towers: bool = True) -> np.ndarray:
    """Return uint8 [H, W, 3]: the filters of `kernel` [k, k, 3, C], tower 0 above tower 1.

    The range from black to white is that of all weights together, so that strengths can be
    compared (shownet.py:110-197); 16 a row, with 1 white pixel around each. Tower 0 has the first
    half of the filters; without `towers` they are in one block. Raises ValueError for another
    shape or, with towers, an odd C.
    """
    if kernel.ndim != 4 or kernel.shape[2] != 3 or (towers and kernel.shape[3] % 2):
        raise ValueError(
            f"kernel of shape {kernel.shape}: must be [k, k, 3, C], with towers an even C; pass "
            "the first layer's kernel."
        )
    least, greatest = float(kernel.min()), float(kernel.max())
    scaled = (kernel - least) / max(greatest - least, np.finfo(np.float32).tiny)
    return mosaic(np.rint(255 * scaled).astype(np.uint8).transpose(3, 0, 1, 2), towers)
