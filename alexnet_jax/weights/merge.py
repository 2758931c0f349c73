"""Two towers as one network and back: a grouped kernel is a block-diagonal one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from alexnet_jax.config import Config, invalid
from alexnet_jax.model.architecture import TOWERS, Architecture
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.weights.convert import Params

Towers = Literal["keep", "merge", "split"]


def change_towers(
    config: Config, architecture: Architecture, params: Params, towers: Towers
) -> tuple[Config, Architecture, Params]:
    """Return a network's configuration, architecture and parameters after merging or splitting.

    Raises:
        ValueError: the network is of another variant, or cannot be merged or split.
    """
    if towers == "keep":
        return config, architecture, params
    before, after = ("two_towers", "merged") if towers == "merge" else ("merged", "two_towers")
    if config.model.variant != before:
        rule = f"the network must be of variant {before}, and is of {config.model.variant}"
        raise invalid("towers", towers, rule, "use towers=keep")
    changed = dataclasses.replace(config, model=dataclasses.replace(config.model, variant=after))
    new = build_architecture(changed.model, architecture.num_classes, architecture.crop)
    return changed, new, merge(params, architecture) if towers == "merge" else split(params, new)


def merge(params: Mapping[str, Mapping[str, np.ndarray]], architecture: Architecture) -> Params:
    """Return the parameters of the network without towers that computes the same.

    Args:
        params: of two towers, `{layer: {"kernel", "bias"}}`; layers may be missing.
        architecture: of the two towers.

    Raises:
        ValueError: local response normalization is within towers, so that there is no such network.
    """
    _check_norm("merge", architecture)
    return _map_grouped(params, architecture, _block_diagonal)


def split(params: Mapping[str, Mapping[str, np.ndarray]], architecture: Architecture) -> Params:
    """Return the parameters of two towers that compute the same; the inverse of `merge`.

    Args:
        params: of the merged network; layers may be missing.
        architecture: of the two towers.

    Raises:
        ValueError: weights between the towers are not 0, in the layers named; or local response
            normalization of the two towers is within towers.
    """
    _check_norm("split", architecture)
    crossing = [
        layer.name
        for layer in architecture.layers
        if layer.sees == "own"
        and "kernel" in params.get(layer.name, {})
        and _crosses(params[layer.name]["kernel"])
    ]
    if crossing:
        rule = f"weights between the towers must be 0, and are not in {', '.join(crossing)}"
        raise invalid("towers", "split", rule, "use towers=keep")
    return _map_grouped(params, architecture, _blocks)


def _check_norm(towers: Towers, architecture: Architecture) -> None:
    lrn = any("lrn" in layer.ops for layer in architecture.layers)
    if lrn and architecture.lrn_scope == "tower":
        rule = (
            "local response normalization must be over all maps (model.lrn_scope all), as in "
            "bvlc_alexnet and caffenet, and is within towers"
        )
        raise invalid("towers", towers, rule, "use towers=keep")


def _map_grouped(
    params: Mapping[str, Mapping[str, np.ndarray]],
    architecture: Architecture,
    change: Callable[[np.ndarray], np.ndarray],
) -> Params:
    grouped = {layer.name for layer in architecture.layers if layer.sees == "own"}
    return {
        layer: {
            kind: change(array) if kind == "kernel" and layer in grouped else array
            for kind, array in kinds.items()
        }
        for layer, kinds in params.items()
    }


def _block_diagonal(kernel: np.ndarray) -> np.ndarray:
    *sides, inputs, outputs = kernel.shape
    merged = np.zeros((*sides, TOWERS * inputs, outputs), kernel.dtype)
    half = outputs // TOWERS
    merged[..., :inputs, :half] = kernel[..., :half]
    merged[..., inputs:, half:] = kernel[..., half:]
    return merged


def _blocks(kernel: np.ndarray) -> np.ndarray:
    inputs, half = kernel.shape[-2] // TOWERS, kernel.shape[-1] // TOWERS
    blocks = kernel[..., :inputs, :half], kernel[..., inputs:, half:]
    return np.concatenate(blocks, axis=-1)


def _crosses(kernel: np.ndarray) -> bool:
    inputs, half = kernel.shape[-2] // TOWERS, kernel.shape[-1] // TOWERS
    return bool(kernel[..., :inputs, half:].any() or kernel[..., inputs:, :half].any())
