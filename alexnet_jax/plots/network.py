"""A network on two devices: Figure 2 of the paper, drawn from an architecture."""

import math
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from alexnet_jax.model.architecture import TOWERS, Architecture, Dense, Layer
from alexnet_jax.model.partition import Crossing, LayerPartition, partition_layers
from alexnet_jax.plots.text import literal

# Inches.
COLUMN, EDGE = 1.16, 0.06  # per layer; around the picture
HEAD, BLOCKS, FOOT = 0.86, 1.32, 1.08  # names and shapes; blocks of a device; notes and a name
BETWEEN, STACKED = 0.72, 0.5  # between devices; added if collectives are drawn in two rows
BAR, MIN_SIZE, MAX_HEIGHT = 0.13, 0.05, 1.22  # a fully connected layer's width; limits of a block
MAX_LENGTH = 13  # characters of a note that fit into a column
# Sizes are proportional to square roots: in a linear scale, 13 pixels would vanish next to 224.
PER_PIXEL, PER_MAP, PER_UNIT = 0.062, 0.032, 0.017
BACK = (0.3, 0.2)  # offset of a block's back to the right and upward, as shares of its height
BANDS, COLORS = ("#dbe9f6", "#fde5cc"), ("#6baed6", "#fd9a4b")  # of the devices
SHADES = {"front": 1.0, "top": 0.6, "side": 0.8}
IMAGE, CROSSING, QUIET = "#969696", "#b2182b", "#444444"


@literal
def draw(architecture: Architecture) -> Figure:
    """Draw what each of two devices computes and holds, and what crosses between them."""
    exchanges = any(crossing.kind == "halo exchange" for _, crossing in _crossings(architecture))
    between = BETWEEN + STACKED * exchanges
    width = (len(architecture.layers) + 1.85) * COLUMN  # with the image and the logits
    height = HEAD + 2 * BLOCKS + between + FOOT
    figure = Figure(figsize=(width + 2 * EDGE, height + 2 * EDGE))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-EDGE, width + EDGE), ylim=(-EDGE, height + EDGE))
    axes.set_axis_off()
    below = FOOT + BLOCKS
    for tower, (low, tall) in enumerate(((below + between, BLOCKS + HEAD), (0, below))):
        style = {"boxstyle": "round,pad=0,rounding_size=0.1", "linewidth": 0}
        axes.add_patch(FancyBboxPatch((0, low), width, tall, facecolor=BANDS[tower], **style))
    middles = (below + between + BLOCKS / 2, FOOT + BLOCKS / 2)
    _text(axes, architecture, width, height)
    for tower, middle in enumerate(middles):
        _blocks(axes, architecture, tower, middle)
    _lines(axes, architecture, middles, exchanges)
    return figure


def _center(column: int) -> float:
    return (column + 0.5) * COLUMN


def _text(axes: Axes, architecture: Architecture, width: float, height: float) -> None:
    """Write names and shapes above the blocks of device 0, and notes below those of device 1."""
    for tower, y in enumerate((height - 0.16, 0.16)):
        name = f"device {tower}" + f": tower {tower}" * architecture.has_towers
        axes.text(0.1, y, name, va="center", fontsize=11.5, fontweight="bold")
    partitions = partition_layers(architecture, TOWERS)
    total = f"{sum(part.parameters for part in partitions):,} parameters on each device"
    axes.text(width - 0.1, 0.16, total, va="center", ha="right", fontsize=10.5)
    columns = [
        ("image", f"{architecture.crop} × {architecture.crop} × 3", "kernels", "then", "parameters")
    ]
    for part in partitions:
        side = part.row.side
        outputs = f"{part.tower_outputs:,}"
        shape = f"{side} × {side} × {outputs}" if side > 1 else outputs
        columns.append((part.name, shape, _kernel(part), _then(part.layer), f"{part.parameters:,}"))
    for column, (name, shape, *notes) in enumerate(columns):
        centered = {"x": _center(column), "ha": "center", "va": "center"}
        axes.text(y=height - 0.46, s=name, fontsize=11, fontweight="bold", **centered)
        axes.text(y=height - 0.7, s=shape, fontsize=10, **centered)
        for line, note in enumerate(notes):
            color = "black" if line == 2 and column else QUIET
            y = FOOT - 0.14 - 0.235 * line
            size = 10 if len(note) <= MAX_LENGTH else 8
            axes.text(y=y, s=note, fontsize=size, color=color, **centered)


def _kernel(part: LayerPartition) -> str:
    """Return the inputs of one map or unit on one device."""
    if isinstance(part.layer, Dense):
        return f"{part.inputs:,}"
    return " × ".join(map(str, part.kernel_shape[:-1]))


def _then(layer: Layer) -> str:
    words = {"relu": "ReLU", "lrn": "LRN", "spatial_norm": "LRN"}
    return " ".join(words.get(operation, operation) for operation in layer.ops)


def _blocks(axes: Axes, architecture: Architecture, tower: int, middle: float) -> None:
    """Draw the image and the layers of a device, with arrows between them."""
    right = _block(axes, _center(0), middle, IMAGE, architecture.crop, 3)
    for column, part in enumerate(partition_layers(architecture, TOWERS), 1):
        entered, center = right, _center(column)
        right = _block(axes, center, middle, COLORS[tower], part.row.side, part.tower_outputs)
        _arrow(axes, entered, 2 * center - right, middle)
    end = (len(architecture.layers) + 1.3) * COLUMN
    _arrow(axes, right, end, middle)
    centered = {"ha": "center", "va": "center", "fontsize": 10}
    axes.text(end + 0.29 * COLUMN, middle, f"{architecture.num_classes:,}\nlogits", **centered)


def _block(axes: Axes, center: float, middle: float, color: str, side: int, channels: int) -> float:
    """Draw maps as a block, units as a bar; return its right edge."""
    style = {"edgecolor": "white", "linewidth": 0.8}
    if side == 1:
        tall = min(max(MIN_SIZE, PER_UNIT * math.sqrt(channels)), MAX_HEIGHT)
        corner = (center - BAR / 2, middle - tall / 2)
        axes.add_patch(Rectangle(corner, BAR, tall, facecolor=color, **style))
        return center + BAR / 2
    wide = max(MIN_SIZE, PER_MAP * math.sqrt(channels))
    tall = min(PER_PIXEL * math.sqrt(side), MAX_HEIGHT / (1 + BACK[1]))
    right, up = (share * tall for share in BACK)
    x0, x1 = center - (wide + right) / 2, center + (wide - right) / 2
    y0, y1 = middle - (tall + up) / 2, middle + (tall - up) / 2
    faces = {
        "front": [(x0, y0), (x1, y0), (x1, y1), (x0, y1)],
        "top": [(x0, y1), (x1, y1), (x1 + right, y1 + up), (x0 + right, y1 + up)],
        "side": [(x1, y0), (x1, y1), (x1 + right, y1 + up), (x1 + right, y0 + up)],
    }
    for face, corners in faces.items():
        axes.add_patch(Polygon(corners, facecolor="white"))  # hides the band
        axes.add_patch(Polygon(corners, facecolor=color, alpha=SHADES[face], **style))
    return x1 + right


def _arrow(axes: Axes, start: float, end: float, y: float) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "linewidth": 1.1, "color": QUIET}
    axes.add_patch(FancyArrowPatch((start, y), (end, y), shrinkA=1, shrinkB=1, **style))


def _crossings(architecture: Architecture) -> Iterator[tuple[int, Crossing]]:
    """Yield each crossing with the column after which it is drawn."""
    for column, part in enumerate(partition_layers(architecture, TOWERS), 1):
        for crossing in part.crossings:
            yield (column - 1 if crossing.kind == "all-gather" else column), crossing


def _lines(
    axes: Axes, architecture: Architecture, middles: tuple[float, float], exchanges: bool
) -> None:
    """Draw a line between the devices for each collective, with its kind, operand and size."""
    between = sum(middles) / 2
    style = {"ha": "center", "va": "center", "fontsize": 9.5, "color": CROSSING}
    axes.text(_center(0), between, "values that cross\nper image,\neach way", **style)
    for column, crossing in _crossings(architecture):
        halo = crossing.kind == "halo exchange"
        x, y = (column + 1) * COLUMN, between
        if exchanges:  # above the others, and to the left
            x -= 0.14 * COLUMN if halo else -0.04 * COLUMN
            y += STACKED / 2 if halo else -STACKED / 2
        axes.plot([x, x], middles, color=CROSSING, linewidth=1.6, zorder=4)
        axes.plot([x, x], middles, "o", color=CROSSING, markersize=5, zorder=4)
        what = f"for {crossing.output}" if halo else f"of {crossing.what}"
        text = f"{crossing.kind}\n{what}\n{crossing.values:,}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(x, y, text, bbox=box, zorder=5, **style)
