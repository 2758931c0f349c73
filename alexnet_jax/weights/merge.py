"""Two towers as one network and back: a grouped kernel is a block-diagonal one."""

from collections.abc import Mapping

import numpy as np

from alexnet_jax.model.architecture import TOWERS, Architecture
from alexnet_jax.weights.convert import Params


def merge(params: Mapping[str, Mapping[str, np.ndarray]], architecture: Architecture) -> Params:
    """Return the parameters of the network without towers that computes the same.

    Args:
        params: of two towers, `{layer: {"kernel", "bias"}}`; layers may be missing.
        table: of the two towers.

    Raises:
        ValueError: response normalization stays within the towers, which then do not go away.
    """
    _check_norm(architecture)
    return _map_own(params, architecture, _block_diagonal)


def split(params: Mapping[str, Mapping[str, np.ndarray]], architecture: Architecture) -> Params:
    """Return the parameters of two towers that compute the same as a network without; undoes merge.

    Args:
        params: of the merged network; layers may be missing.
        table: of the two towers.

    Raises:
        ValueError: a map of one tower would have to see the other, in the layers named; or response
            normalization stays within the towers, and did not before.
    """
    _check_norm(architecture)
    crossing = [
        layer.name
        for layer in architecture.layers
        if layer.sees == "own"
        and "kernel" in params.get(layer.name, {})
        and _crosses(params[layer.name]["kernel"])
    ]
    if crossing:
        raise ValueError(
            f"--towers split: {', '.join(crossing)}: a map of one tower sees maps of the other; "
            "towers can be split where those weights are all 0: keep it merged."
        )
    return _map_own(params, architecture, _blocks)


def _check_norm(architecture: Architecture) -> None:
    if architecture.lrn_scope == "tower" and any(
        "lrn" in layer.ops for layer in architecture.layers
    ):
        raise ValueError(
            "--towers merge or split: in this network LRN takes its neighbors within a tower, and "
            "without towers they would be those of all maps; networks with --model.lrn-scope all "
            "(bvlc_alexnet, caffenet) or --model.lrn False can be changed: use --towers keep."
        )


def _map_own(params, architecture: Architecture, change) -> Params:
    own = {layer.name for layer in architecture.layers if layer.sees == "own"}
    return {
        layer: {
            kind: change(array) if kind == "kernel" and layer in own else array
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
