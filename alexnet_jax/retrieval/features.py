"""Features of image files, in batches, whatever else lies among the files."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alexnet_jax.config import DataConfig
from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.data.sources import Record, open_image
from alexnet_jax.inference.network import PREPROCESSING, Network
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import outputs
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.storage.digest import digest

LAYER = "fc7"
BATCH = 32  # images at a time


class _Files:
    """Image files as a source; one that holds no image is blank, and `reasons` says why."""

    class_names = ("",)

    def __init__(self, files: Sequence[Path], config: DataConfig):
        self._files, self._config = files, config
        self.reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        config = self._config
        try:
            picture = open_image(self._files[index])
        except UnreadableImage as error:
            self.reasons[index] = str(error)
            picture = np.zeros((config.crop, config.crop, 3), np.uint8)
        square = resize_center(picture, config.image_size, config.resize, config.filter)
        return {"image": square, "label": 0}

    def describe(self, index: int) -> str:
        """Return the path of the file."""
        return str(self._files[index])

    def fingerprint(self) -> str:
        """Digest the paths."""
        return digest([str(file) for file in self._files])


def layer_of(network: Network) -> str:
    """Return which output the features are: fc7 after its ReLU ("relu7"), before dropout.

    That is what figure 4 of the paper compares. At test dropout halves all features alike (P4.2),
    or leaves them, so that the neighbors are the same behind it.

    Raises:
        ValueError: the network has no such layer.
    """
    layers = {layer.name: layer for layer in network.architecture.layers}
    if LAYER not in layers:
        raise ValueError(
            f"{network.workdir}: its network has no layer {LAYER}, whose outputs are compared; "
            "name a run of another network."
        )
    after = [name for kind, name in outputs(layers[LAYER]) if kind in ("relu", "tanh")]
    return after[0] if after else LAYER


def fingerprint(network: Network) -> str:
    """Digest all that the features of an image follow from: weights, network, preprocessing."""
    config, preprocess = network.config.data, network.preprocess
    parts = [layer_of(network), repr(network.architecture), preprocess.where, preprocess.channels]
    parts += [f"{name} {getattr(config, name)}" for name in PREPROCESSING]
    sha = hashlib.sha256("\n".join(parts).encode())
    for leaf in jax.tree.leaves((preprocess, network.variables)):
        sha.update(np.ascontiguousarray(towers.fetch(leaf)).data)
    return sha.hexdigest()


def width(network: Network) -> int:
    """Return the number of features of an image."""
    return next(layer.features for layer in network.architecture.layers if layer.name == LAYER)


class Extractor:
    """Features of image files by one network, compiled once."""

    def __init__(self, network: Network):
        layer = layer_of(network)
        apply = towers.forward(network.architecture, network.mesh, (layer,))

        def extract(variables: Any, batch: Any, constants: Preprocess) -> jax.Array:
            return apply(variables, preprocess(batch, constants))[1][layer]

        self._network = network
        self._extract = towers.jit(extract, network.mesh)

    def __call__(self, files: Sequence[Path]) -> Iterator["Features"]:
        """Yield the features of `BATCH` files at a time, in order, read ahead in threads.

        Raises:
            ValueError: the network gives numbers that are not finite.
        """
        network = self._network
        source = _Files(files, network.config.data)
        # Grain makes no batches of nothing.
        batches = evaluation_batches(source, network.config.data, BATCH) if files else ()
        for batch in batches:
            views = {name: batch[name] for name in ("image", "offset", "mirror")}
            views = towers.put_batch(views, network.mesh)
            rows = np.asarray(self._extract(network.variables, views, network.preprocess))
            numbers = batch["index"][batch["index"] >= 0].tolist()
            good = [number for number in numbers if number not in source.reasons]
            rows = rows[np.isin(batch["index"], good)].astype(np.float32)
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if bad.size:
                raise ValueError(
                    f"{files[good[bad[0]]]}: its features are not finite, as those of a run gone "
                    "wrong are; name another run, or its --checkpoint best."
                )
            reasons = {n: source.reasons[n] for n in numbers if n in source.reasons}
            yield Features(good, rows, reasons)


@dataclasses.dataclass(frozen=True)
class Features:
    """Of some files; each is in `numbers` or in `reasons`."""

    numbers: list[int]  # which of the files hold images
    rows: np.ndarray  # float32 [n, units], of those
    reasons: dict[int, str]  # why the others do not
