"""Outputs of any layer for a batch of images, for similarity, retrieval or neuroscience."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.config import invalid
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture, weighted_rows
from alexnet_jax.model.settings import fixed_settings


@fixed_settings()
def features(
    params: Mapping[str, Any],
    images: Array | np.ndarray,
    layers: Sequence[str] = ("conv5", "pool5", "fc7"),
    *,
    architecture: Architecture,
    mesh: Mesh | None = None,
) -> dict[str, Array]:
    """Return outputs of any layers for a batch of images, without dropout.

    Args:
        params: {layer: {"kernel", "bias"}}, global arrays on any devices.
        images: float32 [B, crop, crop, 3], as `preprocess` returns them.
        layers: names of outputs: a layer before its ReLU ("conv5", "fc7") or an operation that
            follows it ("relu5", "norm1", "pool5", "drop6"); see `describe`.
        architecture: of `params`, such as `build_architecture(config.model, 1000, 224)`.
        mesh: its number of data shards must divide B; None: one device with both towers.

    Returns:
        By name, float32 [B, H, W, maps], or [B, units] for fully connected layers; the maps of
        tower 0 first.

    Raises:
        ValueError: an output has another name, or `params` or `images` do not fit `architecture`.
    """
    mesh = mesh or towers.make_mesh(towers=1, data=1, batch=len(images))
    _check_layers(layers, architecture, mesh)
    check_inputs(params, images, architecture, mesh)
    variables = {"params": dict(params)}
    variables = jax.device_put(variables, towers.state_shardings(variables, architecture, mesh))
    return _extractor(architecture, mesh, tuple(layers))(variables, images)


@functools.lru_cache
def _extractor(
    architecture: Architecture, mesh: Mesh, layers: tuple[str, ...]
) -> Callable[..., Any]:
    apply = towers.forward(architecture, mesh, layers)
    return towers.jit_anywhere(lambda variables, images: apply(variables, images)[1], mesh)


def _check_layers(layers: Sequence[str], architecture: Architecture, mesh: Mesh) -> None:
    names = list(towers.output_specs(architecture, mesh))
    if unknown := [name for name in layers or [""] if name not in names]:
        rule = "must name an output of the network"
        raise invalid("layers", ", ".join(unknown) or "()", rule, f"choose from {', '.join(names)}")


def check_inputs(
    params: Mapping[str, Any], images: Array | np.ndarray, architecture: Architecture, mesh: Mesh
) -> None:
    """Check the shapes of parameters, and shape and dtype of images from `preprocess`.

    Raises:
        ValueError: they do not fit the architecture or the mesh.
    """
    _check_params(params, architecture)
    side = architecture.crop
    if np.ndim(images) != 4 or np.shape(images)[1:] != (side, side, 3):
        rule = f"must have the shape [B, {side}, {side}, 3]"
        remedy = "use preprocess(files), or build the architecture for their size"
        raise invalid("images", str(np.shape(images)), rule, remedy)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        rule = "must be float32 with the mean subtracted"
        raise invalid("images", images.dtype, rule, "pass them through `preprocess`")
    towers.check_batch(len(images), mesh)


def _check_params(params, architecture: Architecture) -> None:
    rows = weighted_rows(architecture)
    expected = {f"{row.name} kernel": row.kernel_shape for row in rows}
    expected |= {f"{row.name} bias": row.kernel_shape[-1:] for row in rows}
    shapes = {
        f"{layer} {kind}": np.shape(array)
        for layer, weights in params.items()
        for kind, array in weights.items()
    }
    for name in sorted({*shapes, *expected}):
        if shapes.get(name) != expected.get(name):
            rule = f"must have the shape {expected.get(name)} of this architecture"
            remedy = "pass the architecture that they were trained with"
            raise invalid("params", f"{name} {shapes.get(name)}", rule, remedy)
