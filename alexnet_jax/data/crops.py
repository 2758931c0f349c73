"""From an image to the square that is cut from it; the device flips and lights it (P4.1)."""

import functools
import sys
from collections.abc import Callable
from typing import Literal, TypedDict

import numpy as np
from PIL import Image

from alexnet_jax.config import DataConfig


class View(TypedDict):
    """A square of an image, and how it was taken."""

    image: np.ndarray  # uint8 [crop, crop, 3], as it was cut, never flipped
    offset: np.ndarray  # int32 [2], row and column of its corner
    mirror: bool  # whether `preprocess.finish` is to flip it


Box = tuple[float, float, float, float]  # left, top, right, bottom


def resize_center(
    image: np.ndarray,
    size: int,
    resize: Literal["shorter-side", "stretch"] = "shorter-side",
    filter: Literal["antialias", "bilinear"] = "antialias",
) -> np.ndarray:
    """Return a square of [size, size, 3] from uint8 [H, W, 3].

    crop: the shorter side resized and the center kept (P2), without the resized image ever being
    whole: 1 x 20,000 would be 256 x 5,120,000. warp: both sides resized (CAFFE
    examples/imagenet/create_imagenet.sh). area: Pillow's antialiased bilinear; point: OpenCV's and
    Caffe's bilinear between the four nearest pixels, centers on halves, edges repeated.
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image
    if resize == "shorter-side" and min(height, width) == size:
        top, left = (height - size) // 2, (width - size) // 2
        return image[top : top + size, left : left + size]
    box = (0, 0, width, height) if resize == "stretch" else _center(height, width, size)
    if filter == "antialias":
        picture = Image.fromarray(image)
        return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box))
    left, top, right, bottom = box
    rows = _between(image, 0, top, bottom, size)
    return np.rint(_between(rows, 1, left, right, size)).astype(np.uint8)


def _center(height: int, width: int, size: int) -> Box:
    """Return which part of an image is its center square once its shorter side is `size` long."""
    side = min(height, width)

    def extent(length: int) -> tuple[float, float]:
        resized = round(length * size / side)
        start = (resized - size) // 2
        # Integers until the last: past the edge by a rounding error, Pillow refuses the box.
        return start * length / resized, (start + size) * length / resized

    (top, bottom), (left, right) = extent(height), extent(width)
    return left, top, right, bottom


def _between(image: np.ndarray, axis: int, start: float, stop: float, size: int) -> np.ndarray:
    """Sample `size` places along an axis between the two nearest pixels, float32."""
    # Not Pillow's transform(): it cuts fractions off, which darkens by half a gray level.
    places = start + (np.arange(size) + 0.5) * (stop - start) / size - 0.5
    below = np.floor(places).astype(int)
    share = np.expand_dims((places - below).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
    near, far = (image.take(below + step, axis, mode="clip").astype(np.float32) for step in (0, 1))
    return near + share * (far - near)


def random_views(
    config: DataConfig, seed: int, positions: np.ndarray, lit: int = sys.maxsize
) -> dict[str, np.ndarray]:
    """Draw how the squares of `config.image_size` are seen that come at `positions`, int64 [n].

    Returns offset int32 [n, 2], mirror bool [n], lighting float32 [n, 3] and divisor float32 [n].
    Crop and mirror are drawn from (seed, position // config.share) alone, lighting from (seed,
    position), and each whether or not another is switched off. From position `lit` on there is no
    lighting, and with no lighting no division (convdata_jpeg.py:155-179).
    """
    places = _of_positions(_places, seed, positions // config.images_per_crop)
    last = config.image_size - config.crop
    if config.crop_offsets == "all-but-last":
        last = max(0, last - 1)
    lights = config.pca_std * _of_positions(_lights, seed, positions)
    is_lit = (positions < lit) & (config.pca_std > 0)
    return {
        "offset": (places[:, :2] * (last + 1)).astype(np.int32),
        "mirror": (places[:, 2] < 0.5) & config.horizontal_flip,
        "lighting": np.where(is_lit[:, None], lights, 0).astype(np.float32),
        "divisor": np.where(is_lit, config.train_divisor, 1).astype(np.float32),
    }


# Draws are made for a block of positions at once: to seed a generator for each position took as
# long as to read its raw record.
BLOCK = 1024


def _of_positions(
    draws: Callable[[int, int], np.ndarray], seed: int, positions: np.ndarray
) -> np.ndarray:
    """Return the rows that `draws` has for the positions, float64 [n, 3]."""
    blocks, rows = np.divmod(positions, BLOCK)
    numbers, which = np.unique(blocks, return_inverse=True)
    return np.stack([draws(seed, number) for number in numbers.tolist()])[which, rows]


@functools.lru_cache(maxsize=64)
def _places(seed: int, block: int) -> np.ndarray:
    """Return uniform draws for row, column and mirror, float64 [BLOCK, 3] in [0, 1)."""
    return np.random.default_rng((seed, block)).random((BLOCK, 3))


@functools.lru_cache(maxsize=64)
def _lights(seed: int, block: int) -> np.ndarray:
    """Return standard normal draws, float64 [BLOCK, 3], from a stream of their own."""
    return np.random.default_rng((seed, block, 1)).standard_normal((BLOCK, 3))


def center_view(image: np.ndarray, crop: int) -> View:
    """Return the center of a square image, neither mirrored nor lit, as evaluation sees it."""
    return _view(image, np.full(2, (image.shape[0] - crop) // 2, np.int32), crop, False)


def ten_views(image: np.ndarray, crop: int) -> list[View]:
    """Return four corners and the center, then all mirrored (P4.1, convdata_jpeg.py:226-233)."""
    last = image.shape[0] - crop
    offsets = [(0, 0), (0, last), (last // 2, last // 2), (last, 0), (last, last)]
    return [
        _view(image, np.array(offset, np.int32), crop, mirror)
        for mirror in (False, True)
        for offset in offsets
    ]


def _view(image: np.ndarray, offset: np.ndarray, crop: int, mirror: bool) -> View:
    return {"image": take_square(image, offset, crop), "offset": offset, "mirror": mirror}


def take_square(image: np.ndarray, offset: np.ndarray, crop: int) -> np.ndarray:
    """Return the square at `offset` of an image, uint8 [H, W, 3]: a view [crop, crop, 3]."""
    top, left = offset.tolist()
    return image[top : top + crop, left : left + crop]
