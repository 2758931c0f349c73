"""A network as it lies on two devices: Figure 2 of the paper, drawn from the table of layers."""

import math
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from alexnet_jax.model.architecture import TOWERS, Architecture, Dense, Layer, outputs, trace
from alexnet_jax.model.partition import parameters_held

# Inches.
COLUMN, EDGE = 1.16, 0.06  # from one layer to the next; around the picture
HEAD, BLOCKS, FOOT = 0.86, 1.32, 1.08  # names, shapes; blocks of a device; notes and a name
BETWEEN, STACKED = 0.72, 0.5  # devices; more of it where two things cross in one gap
BAR, LEAST, TALLEST = 0.13, 0.05, 1.22  # a fully connected layer's width; limits of any block
LONGEST = 13  # letters of a note that fit in a column
# What is drawn grows with the square root of what it stands for: beside 224 pixels 13 would vanish.
PER_PIXEL, PER_MAP, PER_UNIT = 0.062, 0.032, 0.017
BACK = (0.3, 0.2)  # shares of a block's height by which its rear stands to the right and above
BANDS, COLORS = ("#dbe9f6", "#fde5cc"), ("#6baed6", "#fd9a4b")  # of the devices
SHADES = {"front": 1.0, "top": 0.6, "side": 0.8}
IMAGE, CROSSING, QUIET = "#969696", "#b2182b", "#444444"


def draw(architecture: Architecture) -> Figure:
    """Draw what each of two devices computes and holds, and what crosses between them."""
    exchanges = any(crossing[2] == "exchange" for crossing in _crossings(architecture))
    between = BETWEEN + STACKED * exchanges
    wide = (len(architecture.layers) + 1.85) * COLUMN  # the image before them, the logits behind
    high = HEAD + 2 * BLOCKS + between + FOOT
    figure = Figure(figsize=(wide + 2 * EDGE, high + 2 * EDGE))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-EDGE, wide + EDGE), ylim=(-EDGE, high + EDGE))
    axes.set_axis_off()
    below = FOOT + BLOCKS
    for tower, (low, tall) in enumerate(((below + between, BLOCKS + HEAD), (0, below))):
        style = {"boxstyle": "round,pad=0,rounding_size=0.1", "linewidth": 0}
        axes.add_patch(FancyBboxPatch((0, low), wide, tall, facecolor=BANDS[tower], **style))
    middles = (below + between + BLOCKS / 2, FOOT + BLOCKS / 2)
    _words(axes, architecture, wide, high)
    for tower, middle in enumerate(middles):
        _blocks(axes, architecture, tower, middle)
    _lines(axes, architecture, middles, exchanges)
    return figure


def _center(column: int) -> float:
    return (column + 0.5) * COLUMN


def _words(axes: Axes, architecture: Architecture, wide: float, high: float) -> None:
    """Write names and shapes above the blocks of device 0, what is in them below those of 1."""
    for tower, y in enumerate((high - 0.16, 0.16)):
        named = f"device {tower}" + f": tower {tower}" * architecture.has_towers
        axes.text(0.1, y, named, va="center", fontsize=11.5, fontweight="bold")
    held = parameters_held(architecture, TOWERS)
    said = f"{sum(held.values()):,} parameters on each device"
    axes.text(wide - 0.1, 0.16, said, va="center", ha="right", fontsize=10.5)
    rows = {row.name: row for row in trace(architecture)}
    columns = [
        ("image", f"{architecture.crop} × {architecture.crop} × 3", "kernels", "then", "parameters")
    ]
    for layer in architecture.layers:
        row, mine = rows[layer.name], _channels(layer)
        shape = " or ".join(f"{n:,}" for n in dict.fromkeys(mine))
        shape = f"{row.side} × {row.side} × {shape}" if row.side > 1 else shape
        held_here = f"{held[layer.name]:,}"
        columns.append(
            (layer.name, shape, _kernel(layer, row.kernel_shape), _then(layer), held_here)
        )
    for column, (name, shape, *notes) in enumerate(columns):
        centered = {"x": _center(column), "ha": "center", "va": "center"}
        axes.text(y=high - 0.46, s=name, fontsize=11, fontweight="bold", **centered)
        axes.text(y=high - 0.7, s=shape, fontsize=10, **centered)
        for line, note in enumerate(notes):
            color = "black" if line == 2 and column else QUIET
            y = FOOT - 0.14 - 0.235 * line
            size = 10 if len(note) <= LONGEST else 8
            axes.text(y=y, s=note, fontsize=size, color=color, **centered)


def _channels(layer: Layer) -> tuple[int, int]:
    """Return the maps or units that each device computes: of "rows", its part of every sum."""
    if isinstance(layer, Dense) and layer.sees == "rows":
        return layer.features, layer.features
    half = layer.features // TOWERS
    return half, layer.features - half


def _kernel(layer: Layer, shape: tuple[int, ...]) -> str:
    """Return what a map or unit multiplies on one device."""
    if isinstance(layer, Dense):
        return f"{shape[0] // (TOWERS if layer.sees == 'rows' else 1):,}"
    return " × ".join(map(str, shape[:-1]))


def _then(layer: Layer) -> str:
    words = {"relu": "ReLU", "lrn": "LRN", "spatial_norm": "LRN"}
    return " ".join(words.get(operation, operation) for operation in layer.ops)


def _blocks(axes: Axes, architecture: Architecture, tower: int, middle: float) -> None:
    """Draw the image and the layers of a device, with arrows between them."""
    right = _block(axes, _center(0), middle, IMAGE, architecture.crop, 3)
    rows = {row.name: row for row in trace(architecture)}
    for column, layer in enumerate(architecture.layers, 1):
        side, channels = rows[layer.name].side, _channels(layer)[tower]
        entered, center = right, _center(column)
        right = _block(axes, center, middle, COLORS[tower], side, channels)
        _arrow(axes, entered, 2 * center - right, middle)
    end = (len(architecture.layers) + 1.3) * COLUMN
    _arrow(axes, right, end, middle)
    centered = {"ha": "center", "va": "center", "fontsize": 10}
    axes.text(end + 0.29 * COLUMN, middle, f"{architecture.num_classes:,}\nlogits", **centered)


def _block(axes: Axes, center: float, middle: float, color: str, side: int, channels: int) -> float:
    """Draw maps as a block, units as a bar; return its right edge."""
    style = {"edgecolor": "white", "linewidth": 0.8}
    if side == 1:
        tall = min(max(LEAST, PER_UNIT * math.sqrt(channels)), TALLEST)
        corner = (center - BAR / 2, middle - tall / 2)
        axes.add_patch(Rectangle(corner, BAR, tall, facecolor=color, **style))
        return center + BAR / 2
    wide = max(LEAST, PER_MAP * math.sqrt(channels))
    tall = min(PER_PIXEL * math.sqrt(side), TALLEST / (1 + BACK[1]))
    right, up = (share * tall for share in BACK)
    x0, x1 = center - (wide + right) / 2, center + (wide - right) / 2
    y0, y1 = middle - (tall + up) / 2, middle + (tall - up) / 2
    faces = {
        "front": [(x0, y0), (x1, y0), (x1, y1), (x0, y1)],
        "top": [(x0, y1), (x1, y1), (x1 + right, y1 + up), (x0 + right, y1 + up)],
        "side": [(x1, y0), (x1, y1), (x1 + right, y1 + up), (x1 + right, y0 + up)],
    }
    for face, corners in faces.items():
        axes.add_patch(Polygon(corners, facecolor="white"))  # or the band would shine through
        axes.add_patch(Polygon(corners, facecolor=color, alpha=SHADES[face], **style))
    return x1 + right


def _arrow(axes: Axes, start: float, end: float, y: float) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "linewidth": 1.1, "color": QUIET}
    axes.add_patch(FancyArrowPatch((start, y), (end, y), shrinkA=1, shrinkB=1, **style))


def _crossings(architecture: Architecture) -> Iterator[tuple[int, str, str, int]]:
    """Yield what crosses: behind which column, what, by what, values an image each way."""
    rows = {row.name: row for row in trace(architecture)}
    enters = "image"
    for column, layer in enumerate(architecture.layers, 1):
        crossing = rows[layer.name].crossing
        if isinstance(layer, Dense) and layer.sees != "both":
            yield column, "logits", "all-reduce", crossing
        elif crossing:
            yield column - 1, enters, "all-gather", crossing
        enters = layer.name
        for _, output in outputs(layer):
            if output in rows:  # activations have no row: their layer's name stands for them
                if rows[output].crossing:
                    yield column, output, "exchange", rows[output].crossing
                enters = output


def _lines(
    axes: Axes, architecture: Architecture, middles: tuple[float, float], exchanges: bool
) -> None:
    """Draw a line between the devices wherever something crosses, and say what, and how much."""
    between = sum(middles) / 2
    style = {"ha": "center", "va": "center", "fontsize": 9.5, "color": CROSSING}
    axes.text(_center(0), between, "what crosses,\nvalues an image\neach way", **style)
    for column, what, by, values in _crossings(architecture):
        x, y = (column + 1) * COLUMN, between
        if exchanges:  # those stand above, and to the left
            x -= 0.14 * COLUMN if by == "exchange" else -0.04 * COLUMN
            y += STACKED / 2 if by == "exchange" else -STACKED / 2
        axes.plot([x, x], middles, color=CROSSING, linewidth=1.6, zorder=4)
        axes.plot([x, x], middles, "o", color=CROSSING, markersize=5, zorder=4)
        text = f"{by}\n{'for' if by == 'exchange' else 'of'} {what}\n{values:,}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(x, y, text, bbox=box, zorder=5, **style)
