"""Resizing and crops: random, center, ten views. The device flips and adds lighting (P4.1)."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypedDict

import numpy as np
from PIL import Image

from alexnet_jax.config import DataConfig


class View(TypedDict):
    """A crop of a square image."""

    image: np.ndarray  # uint8 [crop, crop, 3], not flipped
    offset: np.ndarray  # int32 [2], row and column of its top left corner
    mirror: bool  # whether `model.preprocess` flips it left to right


Box = tuple[float, float, float, float]  # left, top, right, bottom


def resize_center(
    image: np.ndarray,
    size: int,
    resize: Literal["shorter-side", "stretch"] = "shorter-side",
    filter: Literal["antialias", "bilinear"] = "antialias",
) -> np.ndarray:
    """Return a square of [size, size, 3] from uint8 [H, W, 3].

    shorter-side: resizes the shorter side and keeps the center (P2), computing only that center:
    1 x 20,000 would become 256 x 5,120,000. stretch: resizes both sides (Caffe
    examples/imagenet/create_imagenet.sh). antialias: Pillow's antialiased bilinear. bilinear:
    OpenCV's and Caffe's, between the four nearest pixels, centers on halves, edges repeated.
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
    """Return the part of an image that becomes its center square of side `size`."""
    side = min(height, width)

    def extent(length: int) -> tuple[float, float]:
        resized = round(length * size / side)
        start = (resized - size) // 2
        # Integers up to the division: Pillow refuses a box past the edge by a rounding error.
        return start * length / resized, (start + size) * length / resized

    (top, bottom), (left, right) = extent(height), extent(width)
    return left, top, right, bottom


def _between(image: np.ndarray, axis: int, start: float, stop: float, size: int) -> np.ndarray:
    """Interpolate `size` points along an axis between the two nearest pixels, float32."""
    # Not Pillow's transform(): it truncates, which darkens by half a gray level.
    points = start + (np.arange(size) + 0.5) * (stop - start) / size - 0.5
    below = np.floor(points).astype(int)
    weight = np.expand_dims((points - below).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
    near, far = (image.take(below + step, axis, mode="clip").astype(np.float32) for step in (0, 1))
    return near + weight * (far - near)


def random_views(
    config: DataConfig, seed: int, positions: np.ndarray, lighting_end: int = sys.maxsize
) -> dict[str, np.ndarray]:
    """Draw the views of the images at `positions` of a run, int64 [n].

    Returns offset int32 [n, 2], mirror bool [n], lighting float32 [n, 3] and divisor float32 [n].
    Crop and mirror depend on (seed, position // config.images_per_crop) alone, lighting on (seed,
    position), and each is drawn whether or not the others are switched off. From position
    `lighting_end` on there is no lighting, and without lighting no division
    (convdata_jpeg.py:155-179).
    """
    crops = _draws_at(_uniform_block, seed, positions // config.images_per_crop)
    last = config.image_size - config.crop
    if config.crop_offsets == "all-but-last":
        last = max(0, last - 1)
    lighting = config.pca_std * _draws_at(_normal_block, seed, positions)
    has_lighting = (positions < lighting_end) & (config.pca_std > 0)
    return {
        "offset": (crops[:, :2] * (last + 1)).astype(np.int32),
        "mirror": (crops[:, 2] < 0.5) & config.horizontal_flip,
        "lighting": np.where(has_lighting[:, None], lighting, 0).astype(np.float32),
        "divisor": np.where(has_lighting, config.train_divisor, 1).astype(np.float32),
    }


# Positions that share a random generator: one generator for each position is slow to seed.
BLOCK = 1024


def _draws_at(
    block_of: Callable[[int, int], np.ndarray], seed: int, positions: np.ndarray
) -> np.ndarray:
    """Return the draws of the positions out of their blocks, float64 [n, 3]."""
    blocks, rows = np.divmod(positions, BLOCK)
    unique, inverse = np.unique(blocks, return_inverse=True)
    return np.stack([block_of(seed, block) for block in unique.tolist()])[inverse, rows]


@functools.lru_cache(maxsize=64)
def _uniform_block(seed: int, block: int) -> np.ndarray:
    """Return uniform draws for row, column and mirror, float64 [BLOCK, 3] in [0, 1)."""
    return np.random.default_rng((seed, block)).random((BLOCK, 3))


@functools.lru_cache(maxsize=64)
def _normal_block(seed: int, block: int) -> np.ndarray:
    """Return standard normal draws for lighting, float64 [BLOCK, 3], from a separate stream."""
    return np.random.default_rng((seed, block, 1)).standard_normal((BLOCK, 3))


def center_view(image: np.ndarray, crop: int) -> View:
    """Return the center crop of a square image, as evaluation uses it."""
    return _view(image, np.full(2, (image.shape[0] - crop) // 2, np.int32), crop, False)


def ten_views(image: np.ndarray, crop: int) -> list[View]:
    """Return four corners and the center, then all flipped (P4.1, convdata_jpeg.py:226-233)."""
    last = image.shape[0] - crop
    offsets = [(0, 0), (0, last), (last // 2, last // 2), (last, 0), (last, last)]
    return [
        _view(image, np.array(offset, np.int32), crop, mirror)
        for mirror in (False, True)
        for offset in offsets
    ]


def center_views(images: Iterable[np.ndarray], config: DataConfig) -> dict[str, np.ndarray]:
    """Return the batch that evaluation makes of images of any size, uint8 [H, W, 3]."""
    size, resize, filter = config.image_size, config.resize, config.filter
    squares = [resize_center(image, size, resize, filter) for image in images]
    (batch,) = views_of(squares, config.crop)
    return batch


def views_of(
    squares: Iterable[np.ndarray], crop: int, number: Literal[1, 10] = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Yield a batch for each view of square images: their centers, or the ten of P4.1 in turn."""
    by_image = [
        ten_views(square, crop) if number == 10 else [center_view(square, crop)]
        for square in squares
    ]
    for views in zip(*by_image, strict=True):
        yield {
            name: np.stack([np.asarray(view[name]) for view in views])
            for name in ("image", "offset", "mirror")
        }


def _view(image: np.ndarray, offset: np.ndarray, crop: int, mirror: bool) -> View:
    return {"image": take_square(image, offset, crop), "offset": offset, "mirror": mirror}


def take_square(image: np.ndarray, offset: np.ndarray, crop: int) -> np.ndarray:
    """Return the crop at `offset` of an image, uint8 [H, W, 3], as a view [crop, crop, 3]."""
    top, left = offset.tolist()
    return image[top : top + crop, left : left + crop]
