"""The parts of images to which units of any layer answer most strongly."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from tqdm import tqdm

from alexnet_jax.config import invalid
from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.inference.model import Model
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import TOWERS, Architecture
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.model.receptive_field import trace_outputs
from alexnet_jax.model.settings import fixed_settings
from alexnet_jax.retrieval.features import BATCH, ImageFiles, output_names

TOP = 9  # patches of a unit, as in Zeiler and Fergus


@dataclasses.dataclass(frozen=True)
class Unit:
    """A map of a layer with maps, or a unit of a fully connected one."""

    layer: str
    number: int  # from 0
    tower: int | None  # that computes it; None without towers, and for what both compute

    def __str__(self) -> str:
        """Write it as it is parsed: conv5:3."""
        return f"{self.layer}:{self.number}"


@dataclasses.dataclass(frozen=True)
class Patch:
    """Where a unit answers most strongly in one image."""

    file: Path
    value: float  # the unit's largest output over the image
    point: tuple[int, int]  # row and column in the layer's map; (0, 0) of a fully connected layer
    box: tuple[int, int, int, int]  # left, top, right, bottom of what it sees, in the center crop
    image: np.ndarray  # uint8 [bottom - top, right - left, 3]


@dataclasses.dataclass(frozen=True)
class Strongest:
    """The patches of each unit, strongest first, at most one from an image."""

    patches: Mapping[Unit, Sequence[Patch]]
    unreadable: Mapping[Path, str]  # files and why


def parse_units(network: Model, texts: Sequence[str]) -> tuple[Unit, ...]:
    """Return units from texts such as "conv5:3", numbers from 0.

    Raises:
        ValueError: a text is written otherwise, or the network has no such layer or unit.
    """
    found: list[Unit] = []
    traced = trace_outputs(network.architecture)
    for text in texts:
        layer, _, number = text.rpartition(":")
        if not layer or not (number.isascii() and number.isdecimal()):
            rule = "must be a layer and the number of a unit, from 0"
            raise invalid("units", text, rule, "try conv5:3")
        try:
            (name,) = output_names(network, [layer])
        except ValueError as error:
            rule = f"must begin with an output of the network ({', '.join(traced)})"
            raise invalid("units", text, rule, "use one of these") from error
        channels = traced[name].channels
        if int(number) >= channels:
            rule = f"must be a unit of {layer}, which has {channels:,}, numbered from 0"
            raise invalid("units", text, rule, f"try {layer}:{channels - 1}")
        last = name == network.architecture.layers[-1].name
        has_tower = network.architecture.has_towers and not last
        tower = int(number) * TOWERS // channels if has_tower else None
        found.append(Unit(name, int(number), tower))
    return tuple(dict.fromkeys(found))


@fixed_settings()
def strongest_patches(
    network: Model, files: Sequence[Path], units: Sequence[Unit], top: int = TOP
) -> Strongest:
    """Return the images in which units answer most strongly, and there what the units see.

    Images are resized and center-cropped as for evaluation. Of each image counts the unit's largest
    output over all places; what it sees there is its receptive field, clipped at the border.

    Args:
        network: from `ax.load` or `ax.create`.
        files: images, each once.
        units: from `parse_units`.
        top: patches of each unit, fewer if there are fewer images.

    Raises:
        ValueError: there are no files or units, `top` is below 1, or an output is not finite.
    """
    for name, values, remedy in (("files", files, "images"), ("units", units, "units")):
        if not values:
            raise invalid(name, "()", "must have at least one", f"name {remedy}")
    if top < 1:
        raise invalid("top", top, "must be at least 1", f"try {TOP}")
    best: dict[Unit, list[Patch]] = {unit: [] for unit in units}
    outputs = trace_outputs(network.architecture)
    compiled = _compiled(network.architecture, network.mesh, tuple(units))
    source = ImageFiles(files, network.config.data)
    shards = towers.num_shards(network.mesh)
    size = -(-min(BATCH, len(files)) // shards) * shards
    batches = evaluation_batches(source, network.config.data, size)
    with contextlib.closing(batches), tqdm(total=len(files), unit="image", disable=None) as bar:
        for batch in batches:
            views = {name: batch[name] for name in ("image", "offset", "mirror")}
            views = towers.put_batch(views, network.mesh)
            values, points = jax.device_get(compiled(network.variables, views, network.constants))
            for row, index in enumerate(batch["index"].tolist()):
                if index < 0 or index in source.reasons:
                    continue
                _check_finite(files[index], units, values[row])
                for column, unit in enumerate(units):
                    value = float(values[row, column])
                    ranked = best[unit]
                    if len(ranked) == top and value <= ranked[-1].value:
                        continue
                    output = outputs[unit.layer]
                    point = divmod(int(points[row, column]), output.side)
                    left, top_row, right, bottom = box = output.box(*point)
                    image = batch["image"][row, top_row:bottom, left:right].copy()
                    ranked.append(Patch(files[index], value, point, box, image))
                    ranked.sort(key=lambda patch: -patch.value)
                    del ranked[top:]
            bar.update(int((batch["index"] >= 0).sum()))
    reasons = {files[index]: reason for index, reason in source.reasons.items()}
    return Strongest(best, reasons)


def _check_finite(file: Path, units: Sequence[Unit], values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        unit = units[int(np.argmin(np.isfinite(values)))]
        rule = f"its output for {file} is not finite"
        raise invalid("units", unit, rule, "use an earlier checkpoint of the network")


@functools.lru_cache
def _compiled(
    architecture: Architecture, mesh: Mesh, units: tuple[Unit, ...]
) -> Callable[..., tuple[Array, Array]]:
    """Return `variables, views, constants -> largest output, its place`, both [B, units]."""
    apply = towers.forward(architecture, mesh, tuple(dict.fromkeys(unit.layer for unit in units)))

    def strongest(
        variables: Any, views: Mapping[str, Array], constants: Preprocess
    ) -> tuple[Array, Array]:
        _, taps = apply(variables, preprocess(views, constants))
        columns = [taps[unit.layer][..., unit.number] for unit in units]
        flat = [column.reshape(len(column), -1) for column in columns]
        values = jnp.stack([column.max(axis=1) for column in flat], axis=1)
        return values, jnp.stack([column.argmax(axis=1) for column in flat], axis=1)

    return towers.jit(strongest, mesh)
