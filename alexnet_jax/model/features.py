"""What any layer of the network says about images: for similarity, retrieval, neuroscience."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture, weighted_rows


def features(
    params: Mapping[str, Any],
    images: Array | np.ndarray,
    layers: Sequence[str] = ("conv5", "pool5", "fc7"),
    *,
    architecture: Architecture,
    mesh: Mesh | None = None,
) -> dict[str, Array]:
    """Return outputs of any layers for a batch of images, at test.

    Args:
        params: {layer: {"kernel", "bias"}}, global arrays, wherever they lie.
        images: float32 [B, crop, crop, 3], as `preprocess.finish` leaves them.
        layers: names of outputs: a layer before its ReLU ("conv5", "fc7"), after it ("relu5",
            "relu7"), or what follows ("norm1", "pool5", "drop6"); see `describe`.
        table: the network that `params` belong to, such as `config.model.table(1000, 224)`.
        mesh: devices, of which `data` shards divide B; None: one device with both towers.

    Returns:
        By name, float32 [B, H, W, maps], or [B, units] for fully connected layers; the maps of
        tower 0 first.

    Raises:
        ValueError: no output is called that, or `params` or `images` do not fit the table.
    """
    mesh = mesh or towers.make_mesh(towers=1, data=1, batch=len(images))
    _check(params, images, layers, architecture, mesh)
    variables = {"params": dict(params)}
    variables = jax.device_put(variables, towers.state_shardings(variables, architecture, mesh))
    return _extractor(architecture, mesh, tuple(layers))(variables, images)


@functools.lru_cache
def _extractor(
    architecture: Architecture, mesh: Mesh, layers: tuple[str, ...]
) -> Callable[..., Any]:
    apply = towers.forward(architecture, mesh, layers)
    return towers.jit(lambda variables, images: apply(variables, images)[1], mesh)


def _check(params, images, layers, architecture: Architecture, mesh: Mesh) -> None:
    known = towers.output_specs(architecture, mesh)
    if unknown := [name for name in layers or [""] if name not in known]:
        raise ValueError(
            f"{', '.join(unknown)}: no output of this network is called that; "
            f"the names are {', '.join(known)}."
        )
    _check_params(params, architecture)
    side = (architecture.crop, architecture.crop, 3)
    if np.ndim(images) != 4 or np.shape(images)[1:] != side:
        raise ValueError(
            f"images of shape {np.shape(images)}: this network takes [B, {side[0]}, {side[1]}, 3]; "
            "crop them, or make the table for their size."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images of {images.dtype}: this network takes numbers less the mean, float32; put "
            "them through `preprocess.finish`."
        )
    towers.check_batch(len(images), mesh)


def _check_params(params, architecture: Architecture) -> None:
    rows = weighted_rows(architecture)
    shapes = {f"{row.name} kernel": row.kernel_shape for row in rows}
    shapes |= {f"{row.name} bias": row.kernel_shape[-1:] for row in rows}
    given = {
        f"{layer} {kind}": np.shape(array)
        for layer, weights in params.items()
        for kind, array in weights.items()
    }
    if given != shapes:
        wrong = [
            f"{name} {given.get(name)}, {shapes.get(name)} wanted"
            for name in sorted({*given, *shapes})
            if given.get(name) != shapes.get(name)
        ]
        raise ValueError(
            f"the parameters are not this table's: {'; '.join(wrong)}; use their own table."
        )
