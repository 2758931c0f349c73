"""Grad-CAM (Selvaraju et al. 2017): where a layer's maps speak for a class, by tower."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.config import invalid
from alexnet_jax.explanations.scores import Classes, Score, check_arguments, scores_of
from alexnet_jax.inference.model import Model
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import TOWERS, Architecture, Conv, outputs
from alexnet_jax.model.receptive_field import trace_outputs
from alexnet_jax.model.settings import fixed_settings

MIN_SIDE = 5  # values of a map's side, of the default layer


class GradCam(NamedTuple):
    """Maps at the layer's own resolution; `upsample` places them on the image."""

    total: Array  # float32 [B, H, W], not negative: the ReLU of the towers' sum
    towers: Array  # float32 [B, T, H, W], what each of T towers (1 without them) adds, of any sign


def default_layer(architecture: Architecture) -> str:
    """Return the last convolution after its ReLU whose maps have at least 5 x 5 values.

    "relu5" at 224 pixels, "relu2" at 64, where each of the 3 x 3 values of relu5 sees the whole
    image and cannot tell where. Without such a layer, the last one.
    """
    last = [layer.name for layer in architecture.layers if isinstance(layer, Conv)][-1]
    found = (last_layer_of_side(architecture, side) for side in (MIN_SIDE, 1))
    return next(filter(None, found), last)


def last_layer_of_side(architecture: Architecture, side: int) -> str:
    """Return the last layer after its ReLU whose maps have at least `side` pixels a side, or ""."""
    traced = trace_outputs(architecture)
    found = [
        name
        for layer in architecture.layers
        for operation, name in outputs(layer)
        if operation in ("relu", "tanh") and traced[name].is_maps and traced[name].side >= side
    ]
    return found[-1] if found else ""


@fixed_settings()
def grad_cam(
    network: Model,
    images: Array | np.ndarray,
    classes: Classes = None,
    *,
    layer: str = "",
    score: Score = "logit",
) -> GradCam:
    """Return the Grad-CAM maps of a class for each image.

    Each map A_k of the layer counts by the mean over its pixels of the score's gradient; the sum of
    these products over all maps is the total, and over a tower's maps what this tower adds.

    Args:
        network: from `ax.load` or `ax.create`, on a mesh of any shape.
        images: float [B, crop, crop, 3] from `network.preprocess`.
        classes: int [B], or one for all images; None: the predicted ones.
        layer: a convolution ("conv5") or what follows one ("relu5", "pool2"); "": that of
            `default_layer`.
        score: the logit, as in the paper, or the probability.

    Raises:
        ValueError: an argument does not fit the network.
    """
    layer = layer or default_layer(network.architecture)
    check_maps(network.architecture, layer)
    labels = check_arguments(network, images, classes, score)
    compiled = _compiled(network.architecture, network.mesh, layer, score)
    return GradCam(*compiled(network.variables, images, labels))


def check_maps(architecture: Architecture, layer: str) -> None:
    """Check that a layer has maps.

    Raises:
        ValueError: it is fully connected, or does not exist.
    """
    choices = [name for name, output in trace_outputs(architecture).items() if output.is_maps]
    if layer not in choices:
        rule = "must be a convolution or what follows one, which have maps"
        raise invalid("layer", layer, rule, f"choose from {', '.join(choices)}")


@functools.lru_cache
def _compiled(
    architecture: Architecture, mesh: Mesh, layer: str, score: Score
) -> Callable[..., tuple[Array, Array]]:
    apply = towers.forward(architecture, mesh, (layer,))
    output = trace_outputs(architecture)[layer]
    shape = output.side, output.side, output.channels
    parts = TOWERS if architecture.has_towers else 1

    def maps(variables: Any, images: Array, labels: Array) -> tuple[Array, Array]:
        def total(added: Array) -> tuple[Array, Array]:
            logits, taps = apply(variables, images, None, {layer: added})
            return scores_of(logits, labels, score).sum(), taps[layer]

        # Differentiated with respect to zeros that are added to the output, and outside of the
        # towers' shard_map.
        zeros = jnp.zeros((len(images), *shape))
        gradients, values = jax.grad(total, has_aux=True)(zeros)
        products = values * gradients.mean(axis=(1, 2), keepdims=True)
        by_tower = jnp.stack([part.sum(axis=-1) for part in jnp.split(products, parts, axis=-1)], 1)
        return jax.nn.relu(by_tower.sum(axis=1)), by_tower

    return towers.jit_anywhere(maps, mesh)


def upsample(maps: Array | np.ndarray, architecture: Architecture, layer: str) -> np.ndarray:
    """Return maps [..., H, W] of a layer at the size of the image, float32 [..., crop, crop].

    Each value is at the center of the pixels that it sees; between the centers it is interpolated
    linearly, and beyond the outermost it is theirs.

    Raises:
        ValueError: the layer has no maps, or maps of another size.
    """
    check_maps(architecture, layer)
    output, maps = trace_outputs(architecture)[layer], np.asarray(maps, np.float32)
    if maps.shape[-2:] != (output.side, output.side):
        rule = f"must be {output.side} x {output.side} as those of {layer}"
        raise invalid("maps", maps.shape, rule, "name the layer that they are of")
    pixels = np.arange(architecture.crop)
    columns = [np.interp(pixels, output.centers, unit) for unit in np.eye(output.side)]
    weights = np.stack(columns, axis=1)  # [crop, side]
    return np.asarray(weights @ maps @ weights.T, np.float32)
