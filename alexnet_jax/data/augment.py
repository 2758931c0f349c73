"""From an image to the square that the network sees. The colours change on the device (P4.1)."""

from typing import TypedDict

import numpy as np
from PIL import Image


class View(TypedDict):
    """A square of an image, and how it was taken."""

    image: np.ndarray  # uint8 [crop, crop, 3], mirrored already
    offset: np.ndarray  # int32 [2], row and column of its corner, before mirroring
    mirror: bool
    lighting: np.ndarray  # float32 [3], in standard deviations along the axes of colour


def resize_centre(image: np.ndarray, size: int) -> np.ndarray:
    """Return the centre square of an image, resized: uint8 [H, W, 3] -> [size, size, 3] (P2).

    Antialiased bilinear; smaller images are enlarged. Cutting before resizing instead of after it
    shows the same to half a pixel, and 1 x 20,000 is never blown up to 256 x 5,120,000 first.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    resized = Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def random_view(
    image: np.ndarray, rng: np.random.Generator, crop: int, mirror: bool, lighting: float
) -> View:
    """Draw a training view of a square image; `lighting` is the standard deviation of its draws.

    Every corner from 0 to side - crop is as likely, the last one included: 33 x 33 at 256 and 224
    (convdata_jpeg.py:239; P4.1 says 32 x 32).
    """
    # The same draws in the same order always: switching one off leaves the others as they were.
    offset = rng.integers(0, image.shape[0] - crop, size=2, endpoint=True, dtype=np.int32)
    mirrored = bool(rng.random() < 0.5) and mirror
    draw = (lighting * rng.standard_normal(3)).astype(np.float32)
    return _view(image, offset, crop, mirrored, draw)


def centre_view(image: np.ndarray, crop: int) -> View:
    """Return the centre of a square image, neither mirrored nor lit, as evaluation sees it."""
    offset = np.full(2, (image.shape[0] - crop) // 2, np.int32)
    return _view(image, offset, crop, False, np.zeros(3, np.float32))


def ten_views(image: np.ndarray, crop: int) -> list[View]:
    """Return four corners and the centre, then all mirrored (P4.1, convdata_jpeg.py:226-233)."""
    last = image.shape[0] - crop
    offsets = [(0, 0), (0, last), (last // 2, last // 2), (last, 0), (last, last)]
    return [
        _view(image, np.array(offset, np.int32), crop, mirror, np.zeros(3, np.float32))
        for mirror in (False, True)
        for offset in offsets
    ]


def _view(
    image: np.ndarray, offset: np.ndarray, crop: int, mirror: bool, lighting: np.ndarray
) -> View:
    top, left = offset
    square = image[top : top + crop, left : left + crop]
    return {
        "image": square[:, ::-1] if mirror else square,
        "offset": offset,
        "mirror": mirror,
        "lighting": lighting,
    }
