"""Occlusion (Zeiler and Fergus 2014): how much a class loses when a square of the image is gray."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from tqdm import tqdm

from alexnet_jax.config import invalid
from alexnet_jax.explanations.scores import Classes, Score, check_arguments, scores_of
from alexnet_jax.inference.model import Model
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.settings import fixed_settings

BATCH = 64  # occluded copies of an image at a time


@fixed_settings()
def occlusion(
    network: Model,
    images: Array | np.ndarray,
    classes: Classes = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    score: Score = "logit",
    progress: bool = False,
) -> np.ndarray:
    """Return by how much the class's score drops where the image is covered, float32 [B, h, w].

    A square of the mean of the training images (zeros, after preprocessing) slides over the image;
    the value of a pixel is the mean drop of the score over the squares that cover it. It is
    negative where something speaks against the class.

    Args:
        network: from `ax.load` or `ax.create`, on a mesh of any shape.
        images: float [B, crop, crop, 3] from `network.preprocess`.
        classes: int [B], or one for all images; None: the predicted ones.
        window: side of the square in pixels; None: a quarter of the crop.
        stride: pixels between squares; None: a quarter of the window.
        score: the logit, or, as in the paper, the probability.
        progress: whether to show a bar on stderr if that is a terminal.

    Raises:
        ValueError: an argument does not fit the network.
    """
    window, stride = check_window(network.architecture, window, stride)
    labels = check_arguments(network, images, classes, score)
    corners = _corners(network.architecture.crop, window, stride)
    compiled = _compiled(network.architecture, network.mesh, score)
    shards = towers.num_shards(network.mesh)
    size = -(-BATCH // shards) * shards
    maps = []
    # disable=None: no bar unless stderr is a terminal.
    with tqdm(
        total=len(images) * (1 + len(corners)), desc="occluding", disable=None if progress else True
    ) as bar:
        for image, label in zip(np.asarray(images, np.float32), np.asarray(labels), strict=True):
            scores = []
            # Outside of the image nothing is covered: its own score.
            queue = np.concatenate([[[-window, -window]], corners]).astype(np.int32)
            for start in range(0, len(queue), size):
                chunk = queue[start : start + size]
                filled = np.resize(chunk, (size, 2))
                row = compiled(network.variables, image, filled, np.int32(window), label)
                scores.append(np.asarray(row)[: len(chunk)])
                bar.update(len(chunk))
            whole, *covered = np.concatenate(scores)
            maps.append(_spread(whole - np.array(covered), corners, window, image.shape[0]))
    return np.stack(maps)


def check_window(
    architecture: Architecture, window: int | None, stride: int | None
) -> tuple[int, int]:
    """Return side and stride of the square, the defaults where they are None.

    Raises:
        ValueError: they are too small or too large.
    """
    crop = architecture.crop
    window = max(1, crop // 4) if window is None else window
    if not 1 <= window < crop:
        rule = f"must be from 1 to {crop - 1} pixels: the network sees {crop} x {crop}"
        raise invalid("window", window, rule, f"try {max(1, crop // 4)}")
    stride = max(1, window // 4) if stride is None else stride
    if not 1 <= stride <= window:
        rule = f"must be from 1 to window={window}, so that every pixel is covered"
        raise invalid("stride", stride, rule, f"try {max(1, window // 4)}")
    return window, stride


def _corners(crop: int, window: int, stride: int) -> np.ndarray:
    """Return the top left corners of the squares, int [N, 2]; the last ones are at the edge."""
    starts = sorted({*range(0, crop - window, stride), crop - window})
    return np.stack(np.meshgrid(starts, starts, indexing="ij"), -1).reshape(-1, 2)


def _spread(drops: np.ndarray, corners: np.ndarray, window: int, crop: int) -> np.ndarray:
    """Return the mean drop over the squares that cover each pixel, float32 [crop, crop]."""
    total, count = np.zeros((crop, crop)), np.zeros((crop, crop))
    for drop, (top, left) in zip(drops, corners, strict=True):
        total[top : top + window, left : left + window] += drop
        count[top : top + window, left : left + window] += 1
    return np.asarray(total / count, np.float32)


@functools.lru_cache
def _compiled(architecture: Architecture, mesh: Mesh, score: Score) -> Callable[..., Array]:
    """Return `variables, image, corners [b, 2], window, label -> scores [b]`.

    The size of the square is no constant of the program, so that there is one for all sizes.
    """
    apply = towers.forward(architecture, mesh)

    def occluded(
        variables: Any, image: Array, corners: Array, window: Array, label: Array
    ) -> Array:
        pixels = jnp.arange(architecture.crop)[None, None, :]
        from_corner = pixels - corners[:, :, None]  # [b, 2, crop]
        inside = (from_corner >= 0) & (from_corner < window)
        covered = inside[:, 0, :, None] & inside[:, 1, None, :]
        images = jnp.where(covered[..., None], 0, image[None])
        labels = jnp.broadcast_to(label, (len(corners),))
        return scores_of(apply(variables, images), labels, score)

    return towers.jit(occluded, mesh)
