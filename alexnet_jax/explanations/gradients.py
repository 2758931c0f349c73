"""Gradients of a class's score with respect to the image (Simonyan, Vedaldi, Zisserman 2014)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.config import invalid
from alexnet_jax.explanations.scores import Classes, Score, check_arguments, scores_of
from alexnet_jax.inference.model import Model
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.settings import fixed_settings

REACH = 3  # standard deviations at which the Gaussian ends


@fixed_settings()
def gradient(
    network: Model, images: Array | np.ndarray, classes: Classes = None, *, score: Score = "logit"
) -> Array:
    """Return the gradient of the class's score in each preprocessed image, float32 [B, h, w, 3].

    Its colors are in the order of the images: RGB, or BGR for networks of Caffe.

    Args:
        network: from `ax.load` or `ax.create`, on a mesh of any shape.
        images: float [B, crop, crop, 3] from `network.preprocess`.
        classes: int [B], or one for all images; None: the predicted ones.
        score: the logit, as in the paper, or the probability.

    Raises:
        ValueError: an argument does not fit the network.
    """
    labels = check_arguments(network, images, classes, score)
    return _compiled(network.architecture, network.mesh, score)(network.variables, images, labels)


@functools.lru_cache
def _compiled(architecture: Architecture, mesh: Mesh, score: Score) -> Callable[..., Array]:
    apply = towers.forward(architecture, mesh)

    def total(images: Array, variables: Any, labels: Array) -> Array:
        return scores_of(apply(variables, images), labels, score).sum()

    def gradients(variables: Any, images: Array, labels: Array) -> Array:
        return jax.grad(total)(jnp.asarray(images, jnp.float32), variables, labels)

    return towers.jit_anywhere(gradients, mesh)


def saliency(gradients: Array | np.ndarray, blur: float = 0.0) -> np.ndarray:
    """Return the largest absolute gradient of the colors of each pixel, float32 [B, h, w].

    Args:
        gradients: [B, h, w, 3].
        blur: standard deviation, in pixels, of a Gaussian that averages over nearby pixels. The
            gradient is large at scattered pixels; where it is large on average is the object.

    Raises:
        ValueError: `gradients` have another shape, or `blur` is negative or not finite.
    """
    gradients = np.asarray(gradients, np.float32)
    if gradients.ndim != 4:
        rule = "must have the shape [B, h, w, colors]"
        raise invalid("gradients", gradients.shape, rule, "pass what `gradient` returns")
    if not 0 <= blur < np.inf:
        raise invalid("blur", blur, "must be at least 0 pixels", "try 4")
    maps = np.abs(gradients).max(axis=-1)
    if not blur:
        return maps
    rows, columns = (_gaussian(side, blur) for side in maps.shape[1:])
    return np.asarray(rows @ maps @ columns.T, np.float32)


def _gaussian(side: int, blur: float) -> np.ndarray:
    """Return a matrix [side, side] whose rows average over nearby pixels, those inside alone."""
    distance = np.abs(np.arange(side)[:, None] - np.arange(side))
    weights = np.where(distance <= REACH * blur, np.exp(-0.5 * (distance / blur) ** 2), 0)
    return weights / weights.sum(axis=1, keepdims=True)
