"""Which part of every array each device of a mesh holds."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture, weighted_rows
from alexnet_jax.plots.palette import TOWERS
from alexnet_jax.plots.text import literal

# Inches.
COLUMN, ROW = 1.5, 0.44  # per device, per array
WIDTH, HEIGHT = 1.38, 0.34  # of a box
LEFT, ABOVE, BELOW = 1.5, 0.4, 0.45  # for names of arrays, of devices, and the parameters
IMAGES, EMPTY, FRAME = ("darkgray",), "#f4f4f4", "#9a9a9a"

PlacedArray = tuple[tuple[int, ...], NamedSharding]  # its shape and sharding


@literal
def draw(architecture: Architecture, mesh: Mesh, images: int) -> Figure:
    """Draw a column for each device and a row for the images and each layer's kernel.

    A box is a whole array along the axis that is split; the filled part is on this device, with its
    number of images or weights. The last row has the parameters on a device, including biases.
    """
    devices, parameters = list(mesh.devices.flat), _parameters(architecture, mesh)
    shape = (images, architecture.crop, architecture.crop, 3)
    rows = {"images": (shape, towers.batch_sharding(mesh))}
    rows |= {layer: arrays["kernel"] for layer, arrays in parameters.items()}
    width, height = LEFT + COLUMN * len(devices), ABOVE + ROW * len(rows) + BELOW
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for row, (name, (shape, sharding)) in enumerate(rows.items()):
        top = ABOVE + ROW * row
        axes.text(0.1, top + 0.12, name, va="center", fontsize=9, fontweight="bold")
        size = " x ".join(map(str, shape))
        axes.text(0.1, top + 0.29, size, va="center", fontsize=7, color="dimgray")
        for device, cuts in _cuts(shape, sharding).items():
            left = LEFT + COLUMN * devices.index(device)
            whole = zip(cuts, shape, strict=True)
            shares = [(cut.start / size, cut.stop / size) for cut, size in whole if len(cut) < size]
            text = f"{len(cuts[0]):,} images" if row == 0 else f"{math.prod(map(len, cuts)):,}"
            share = shares[0] if shares else (0, 1)  # at most one axis is split
            _box(axes, left, top, share, text, IMAGES if row == 0 else TOWERS)
    for column, device in enumerate(devices):
        middle = LEFT + COLUMN * column + WIDTH / 2
        style = {"ha": "center", "va": "center", "fontsize": 9}
        axes.text(middle, ABOVE / 2, f"{device.platform} {device.id}", fontweight="bold", **style)
        held = sum(
            math.prod(map(len, _cuts(*array)[device]))
            for arrays in parameters.values()
            for array in arrays.values()
        )
        axes.text(middle, height - BELOW / 2, f"{held:,}", **style)
    axes.text(0.1, height - BELOW / 2, "parameters", va="center", fontsize=9, fontweight="bold")
    return figure


def _parameters(architecture: Architecture, mesh: Mesh) -> dict[str, dict[str, PlacedArray]]:
    """Return for each layer the shapes and shardings of kernel and bias."""
    shapes = {
        row.name: {"kernel": row.kernel_shape, "bias": row.kernel_shape[-1:]}
        for row in weighted_rows(architecture)
    }
    leaves = {
        layer: {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in arrays.items()}
        for layer, arrays in shapes.items()
    }
    shardings = towers.state_shardings(leaves, architecture, mesh)
    return {
        layer: {name: (shape, shardings[layer][name]) for name, shape in arrays.items()}
        for layer, arrays in shapes.items()
    }


def _cuts(shape: tuple[int, ...], sharding: NamedSharding) -> dict[jax.Device, list[range]]:
    """Return for each device the range of each axis of an array that it holds."""
    return {
        device: [range(*cut.indices(size)) for cut, size in zip(index, shape, strict=True)]
        for device, index in sharding.devices_indices_map(shape).items()
    }


def _box(
    axes: Axes,
    left: float,
    top: float,
    share: tuple[float, float],
    text: str,
    colors: Sequence[str],
) -> None:
    """Draw a whole array as a box and fill a share of it, each half in its tower's color."""
    axes.add_patch(Rectangle((left, top), WIDTH, HEIGHT, facecolor=EMPTY, edgecolor="none"))
    for part, color in enumerate(colors):
        begin = max(share[0], part / len(colors))
        width = min(share[1], (part + 1) / len(colors)) - begin
        if width > 0:
            corner = left + begin * WIDTH, top
            axes.add_patch(Rectangle(corner, width * WIDTH, HEIGHT, facecolor=color, alpha=0.6))
    axes.add_patch(
        Rectangle((left, top), WIDTH, HEIGHT, fill=False, edgecolor=FRAME, linewidth=0.6)
    )
    fits = share[1] - share[0] >= 0.5
    middle = left + WIDTH * (sum(share) / 2 if fits else 0.5)
    axes.text(middle, top + HEIGHT / 2, text, ha="center", va="center", fontsize=7)
