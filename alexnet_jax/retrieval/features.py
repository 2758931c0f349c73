"""Features of image files, in batches, whatever other files lie among them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alexnet_jax.config import PREPROCESSING, DataConfig, fields_marked, flatten, invalid
from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.data.sources import Record, open_image
from alexnet_jax.inference.network import Network
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import outputs
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.storage.digest import bytes_sha256, digest

LAYER = "fc7"
BATCH = 32  # images at a time


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of some files; each file is in `numbers` or in `reasons`."""

    numbers: list[int]  # which of the files are readable
    rows: np.ndarray  # float32 [n, units], of those
    reasons: dict[int, str]  # why the other files are unreadable


class _ImageFiles:
    """Image files as a source; an unreadable one is blank, and `reasons` has its error."""

    class_names = ("",)

    def __init__(self, files: Sequence[Path], config: DataConfig):
        self._files, self._config = files, config
        self.reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        config = self._config
        try:
            image = open_image(self._files[index])
        except UnreadableImage as error:
            self.reasons[index] = str(error)
            image = np.zeros((config.crop, config.crop, 3), np.uint8)
        square = resize_center(image, config.image_size, config.resize, config.filter)
        return {"image": square, "label": 0}

    def describe(self, index: int) -> str:
        """Return the path of the file."""
        return str(self._files[index])

    def fingerprint(self) -> str:
        """Digest the paths."""
        return digest([str(file) for file in self._files])


def layer_of(network: Network) -> str:
    """Return which output the features are: fc7 after its ReLU ("relu7"), before dropout.

    As in the paper's figure 4. At test time dropout multiplies all features by the same factor
    (section 4.2), which leaves the neighbors as they are.

    Raises:
        ValueError: the network has no such layer.
    """
    layers = {layer.name: layer for layer in network.architecture.layers}
    if LAYER not in layers:
        rule = f"the network has no layer {LAYER}, whose outputs are compared"
        raise invalid("workdir", network.workdir, rule, "name the run of another network")
    after = [name for kind, name in outputs(layers[LAYER]) if kind in ("relu", "tanh")]
    return after[0] if after else LAYER


def fingerprint(network: Network) -> str:
    """Digest all that determines the features of an image: weights, network, preprocessing."""
    config, constants = flatten(network.config), network.preprocess
    fields = {name: config[name] for name in sorted(fields_marked(PREPROCESSING))}
    arrays = jax.tree.leaves((constants, network.variables))
    weights = bytes_sha256(np.ascontiguousarray(towers.fetch(array)).data for array in arrays)
    layer, architecture = layer_of(network), repr(network.architecture)
    return digest(
        layer, architecture, constants.mean_alignment, constants.channels, fields, weights
    )


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

    def __call__(self, files: Sequence[Path]) -> Iterator[Features]:
        """Yield the features of `BATCH` files at a time, in order, read ahead in threads.

        Raises:
            ValueError: a feature is NaN or infinite.
        """
        network = self._network
        source = _ImageFiles(files, network.config.data)
        # Grain accepts no empty source.
        batches = evaluation_batches(source, network.config.data, BATCH) if files else ()
        for batch in batches:
            views = {name: batch[name] for name in ("image", "offset", "mirror")}
            views = towers.put_batch(views, network.mesh)
            rows = np.asarray(self._extract(network.variables, views, network.preprocess))
            numbers = batch["index"][batch["index"] >= 0].tolist()
            readable = [number for number in numbers if number not in source.reasons]
            rows = rows[np.isin(batch["index"], readable)].astype(np.float32)
            nonfinite = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if nonfinite.size:
                rule = f"its features of {files[readable[nonfinite[0]]]} are not finite"
                remedy = "name another run, or use checkpoint=best"
                raise invalid("workdir", network.workdir, rule, remedy)
            reasons = {n: source.reasons[n] for n in numbers if n in source.reasons}
            yield Features(readable, rows, reasons)
