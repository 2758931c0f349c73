"""Pictures as data: addresses, which an HTML file holds in itself."""

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax.model.architecture import Architecture
from alexnet_jax.plots import filters, network, tiles
from alexnet_jax.plots.text import each_letter_not_named

JPEG_QUALITY = 88


def photograph(pixels: np.ndarray) -> str:
    """Return an image uint8 [H, W, 3] as the address of a JPEG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _address("image/jpeg", content)


def drawing(pixels: np.ndarray) -> str:
    """Return an image uint8 [H, W, 3 or 4] as the address of a PNG, to the last bit."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return _address("image/png", content)


def filters_of(kernel: np.ndarray, towers: bool) -> list[dict[str, Any]]:
    """Return the filters of the first layer as one picture, or as one of each tower.

    Each has an address and a width, pixels. Between the filters the pictures are transparent; see
    `plots.filters.filter_mosaic`.
    """
    picture = filters.filter_mosaic(kernel, towers)
    side, count = kernel.shape[0], kernel.shape[-1] // (1 + towers)
    between = tiles.mosaic(np.zeros((count, side, side), np.uint8), False, filters.PER_ROW)
    opaque = (255 - between)[..., None]
    # Of both towers in one range from black to white.
    halves = [picture[: len(opaque)], picture[-len(opaque) :]] if towers else [picture]
    return [
        {"address": drawing(np.concatenate([half, opaque], axis=-1)), "width": half.shape[1]}
        for half in halves
    ]


def network_of(architecture: Architecture) -> str:
    """Return the picture of the network as the address of an SVG, the same in every call."""
    return vector(network.draw(architecture))


def vector(figure: Figure) -> str:
    """Return a figure as the address of an SVG, with letters as shapes."""
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "page"}), each_letter_not_named():
        figure.savefig(content, format="svg", facecolor="white", metadata={"Date": None})
    return _address("image/svg+xml", content)


def _address(kind: str, content: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
