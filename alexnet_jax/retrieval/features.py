"""Features of image files by layer, in batches, whatever other files lie among them."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.config import PREPROCESSING, DataConfig, fields_marked, flatten, invalid
from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.data.sources import Record, open_image
from alexnet_jax.inference.model import Model
from alexnet_jax.inference.network import Network
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture, Conv, outputs, trace
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.model.settings import fixed_settings
from alexnet_jax.storage.digest import bytes_sha256, digest

LAYER = "fc7"
Reduce = Literal["none", "flatten", "mean", "max"]
BATCH = 32  # images at a time
SHOWN = 5  # unreadable files that are named


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Which outputs the features are, and what becomes of them."""

    layers: tuple[str, ...]  # outputs of the network, as `describe` lists them
    # Of maps [H, W, C]. none: as they are; flatten: in the order row, column, map; mean, max: over
    # all pixels of a map.
    reduce: Reduce = "none"
    # Each row divided by its length, if it is not 0: their Euclidean distance is then
    # sqrt(2 - 2 cosine).
    unit_length: bool = False


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of some files; each file is in `numbers` or in `reasons`."""

    numbers: list[int]  # which of the files are readable
    rows: dict[str, np.ndarray]  # of those, by layer, float32 [n, ...]
    reasons: dict[int, str]  # why the other files are unreadable


class ImageFiles:
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


def describe_unreadable(reasons: Mapping[str, str]) -> str:
    """Return a sentence about unreadable files, from the reasons by file."""
    shown = [f"{file} ({reason})" for file, reason in list(reasons.items())[:SHOWN]]
    more = " ..." if len(reasons) > SHOWN else ""
    return f"{len(reasons):,} unreadable files: {', '.join(shown)}{more}."


def retrieval_recipe(network: Network, layer: str = "", *, unit_length: bool = False) -> Recipe:
    """Return what images are compared by: fc7 after its ReLU ("relu7"), unless `layer` is given.

    As in the paper's figure 4, before dropout. At test time dropout multiplies all features by the
    same factor (section 4.2), which leaves the neighbors as they are.

    Raises:
        ValueError: the network has no such layer.
    """
    if layer:
        return Recipe(output_names(network, [layer]), "flatten", unit_length)
    layers = {layer.name: layer for layer in network.architecture.layers}
    if LAYER not in layers:
        rule = f"the network has no layer {LAYER}, whose outputs are compared"
        raise invalid(
            "workdir", network.workdir, rule, "name a layer, or the run of another network"
        )
    after = [name for kind, name in outputs(layers[LAYER]) if kind in ("relu", "tanh")]
    return Recipe((after[0] if after else LAYER,), "flatten", unit_length)


def output_names(network: Model, layers: Sequence[str]) -> tuple[str, ...]:
    """Return the network's own names of outputs, where some may be torchvision's.

    "features.10" and "classifier.5" are modules of torchvision's AlexNet, which `torchvision`
    networks may be asked for by these names.

    Raises:
        ValueError: there is no such output, or one is named twice.
    """
    is_torchvision = network.config.model.variant == "torchvision"
    nodes = torchvision_nodes(network.architecture) if is_torchvision else {}
    known = list(towers.output_specs(network.architecture, network.mesh))
    names = tuple(nodes.get(layer, layer) for layer in layers)
    if unknown := [layer for layer, name in zip(layers, names, strict=True) if name not in known]:
        rule = "must name an output of the network"
        choices = [*known, *(["torchvision's, such as features.10"] if nodes else [])]
        raise invalid("layers", ", ".join(unknown), rule, f"choose from {', '.join(choices)}")
    if len(set(names)) < len(names) or not names:
        rule = "must name each output once"
        raise invalid("layers", ", ".join(layers) or "()", rule, "name different ones")
    return names


def torchvision_nodes(architecture: Architecture) -> dict[str, str]:
    """Return the outputs by the names of torchvision's modules (torchvision/models/alexnet.py)."""
    nodes: dict[str, list[str]] = {"features": [], "classifier": []}
    for layer in architecture.layers:
        part = nodes["features" if isinstance(layer, Conv) else "classifier"]
        part.append(layer.name)
        for operation, output in outputs(layer):
            # Dropout of pool5 is the first module of the classifier.
            (nodes["classifier"] if operation == "dropout" else part).append(output)
    return {
        f"{part}.{number}": name
        for part, names in nodes.items()
        for number, name in enumerate(names)
    }


def fingerprint(network: Network, recipe: Recipe) -> str:
    """Digest all that determines the features of an image: weights, network, preprocessing."""
    config, constants = flatten(network.config), network.constants
    fields = {name: config[name] for name in sorted(fields_marked(PREPROCESSING))}
    arrays = jax.tree.leaves((constants, network.variables))
    weights = bytes_sha256(np.ascontiguousarray(towers.fetch(array)).data for array in arrays)
    architecture = repr(network.architecture)
    return digest(
        repr(recipe), architecture, constants.mean_alignment, constants.channels, fields, weights
    )


def shapes(network: Network, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Return the shape of one image's features by layer: (H, W, C) of maps, or (units,)."""
    rows, whole = {row.name: row for row in trace(network.architecture)}, {}
    for layer in network.architecture.layers:
        row = rows[layer.name]
        for name in (layer.name, *(output for _, output in outputs(layer))):
            row = rows.get(name, row)  # an activation has none: the shape stays
            whole[name] = row.shape if isinstance(layer, Conv) else (row.channels,)
    if recipe.reduce == "none":
        return {layer: whole[layer] for layer in recipe.layers}
    if recipe.reduce == "flatten":
        return {layer: (math.prod(whole[layer]),) for layer in recipe.layers}
    return {layer: whole[layer][-1:] for layer in recipe.layers}


def width(network: Network, recipe: Recipe) -> int:
    """Return the number of features of an image."""
    return sum(math.prod(shape) for shape in shapes(network, recipe).values())


def _reduced(x: Array, recipe: Recipe) -> Array:
    """Return rows [B, ...] of an output [B, H, W, C] or [B, units]."""
    if recipe.reduce == "flatten":
        x = x.reshape(len(x), -1)
    elif recipe.reduce != "none" and x.ndim == 4:
        x = x.mean((1, 2)) if recipe.reduce == "mean" else x.max((1, 2))
    if recipe.unit_length:
        length = jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))
        x = x / jnp.where(length > 0, length, 1)
    return x


class Extractor:
    """Features of image files by one network, compiled once."""

    def __init__(self, network: Network, recipe: Recipe | None = None):
        recipe = recipe or retrieval_recipe(network)
        apply = towers.forward(network.architecture, network.mesh, recipe.layers)

        def extract(variables: Any, batch: Any, constants: Preprocess) -> dict[str, Array]:
            taps = apply(variables, preprocess(batch, constants))[1]
            return {layer: _reduced(taps[layer], recipe) for layer in recipe.layers}

        self.recipe = recipe
        self._network = network
        self._extract = towers.jit(extract, network.mesh)

    def __call__(self, files: Sequence[Path]) -> Iterator[Features]:
        """Yield the features of `BATCH` files at a time, in order, read ahead in threads.

        Raises:
            ValueError: a feature is NaN or infinite.
        """
        network = self._network
        source = ImageFiles(files, network.config.data)
        # Grain accepts no empty source.
        batches = evaluation_batches(source, network.config.data, BATCH) if files else ()
        for batch in batches:
            views = {name: batch[name] for name in ("image", "offset", "mirror")}
            with fixed_settings():  # not around a `yield`, where the caller's own hold
                placed = towers.put_batch(views, network.mesh)
                taps = self._extract(network.variables, placed, network.constants)
                arrays = jax.device_get(taps)
            numbers = batch["index"][batch["index"] >= 0].tolist()
            readable = [number for number in numbers if number not in source.reasons]
            kept = np.isin(batch["index"], readable)
            rows = {layer: array[kept].astype(np.float32) for layer, array in arrays.items()}
            self._check_finite([files[number] for number in readable], rows)
            reasons = {n: source.reasons[n] for n in numbers if n in source.reasons}
            yield Features(readable, rows, reasons)

    def _check_finite(self, files: Sequence[Path], rows: Mapping[str, np.ndarray]) -> None:
        for layer, array in rows.items():
            finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            if not finite.all():
                rule = f"its features of {files[int(np.argmin(finite))]} in {layer} are not finite"
                remedy = "name another run, or use checkpoint=best"
                raise invalid("workdir", self._network.workdir, rule, remedy)
