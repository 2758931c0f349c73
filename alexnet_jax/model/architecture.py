"""AlexNet as a table of layers, from which everything else about the network is derived.

A row gives a layer's width and kernel, the operations that follow it, and whether its outputs
**see** one tower or both. `trace` derives shapes, parameter counts, multiply-adds and receptive
fields. The tables are in `variants.py`, what each device holds of a layer in `partition.py`, the
network in `alexnet.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Collection
from typing import Literal

from alexnet_jax.config import Precision, invalid

TOWERS = 2

Operation = Literal["relu", "tanh", "lrn", "spatial_norm", "pool", "dropout"]
# Names of the outputs, without the layer's number, as in the 2012 code: norm1, pool1, drop6.
OUTPUTS: dict[Operation, str] = {
    "relu": "relu",
    "tanh": "tanh",
    "lrn": "norm",
    "spatial_norm": "cnorm",
    "pool": "pool",
    "dropout": "drop",
}


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with square kernels; `sees="own"`: a map sees the maps of its own tower."""

    name: str
    features: int
    kernel: int
    stride: int
    sees: Literal["own", "both"]
    ops: tuple[Operation, ...]
    std: float
    bias: float
    pad: int | Literal["end"]  # zeros on every side, or see `padding`

    def padding(self, side: int) -> tuple[int, int]:
        """Return the zeros before and after an axis of `side` pixels.

        "end": only after it, as many as the last window reaches past the edge, because the 2012
        code rounds the number of windows up (layer.py:1004): 3 at 224 pixels, 0 at 227.
        """
        if self.pad == "end":
            return 0, -(side - self.kernel) % self.stride
        return self.pad, self.pad

    def output_side(self, side: int) -> int:
        """Return the side of the output maps for an input of `side` pixels."""
        return (side + sum(self.padding(side)) - self.kernel) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer.

    `sees="both"`: each unit sees the outputs of both towers. `sees="row-split"`: the same, but each
    tower multiplies its half of the inputs and the partial outputs are summed, so that nothing is
    gathered and the number of outputs may be odd.
    """

    name: str
    features: int
    sees: Literal["both", "row-split"]
    ops: tuple[Operation, ...]
    std: float
    bias: float


Layer = Conv | Dense


@dataclasses.dataclass(frozen=True)
class ResponseNorm:
    """Response normalization (P3.3): a / (k + alpha * sum of squares in the window) ** beta."""

    n: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    over: Literal["maps", "pixels"] = "maps"  # n maps at one pixel, or n x n pixels of one map


# "cnorm2" (layers-145.cfg:107-117, layer-params-145.cfg:157-163): in the 2012 code only.
SPATIAL_NORM = ResponseNorm(n=5, k=1.0, alpha=1e-3 / 25, over="pixels")


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Max pooling; overlapping where the window is wider than the stride (P3.4)."""

    window: int = 3
    stride: int = 2
    rounds: Literal["up", "down"] = "up"  # the number of windows
    ties: Literal["first", "all"] = "first"  # pixels of a tie that get the gradient, all of it

    def output_side(self, side: int) -> int:
        """Return the side after pooling; the 2012 code rounds up (layer.py:1164)."""
        spare = side - self.window
        return 1 + (-(-spare // self.stride) if self.rounds == "up" else spare // self.stride)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The layers of a network, and the settings that they share."""

    layers: tuple[Layer, ...]
    crop: int
    lrn: ResponseNorm = ResponseNorm()
    lrn_scope: Literal["tower", "all"] = "tower"  # maps that LRN sums over
    pooling: Pooling = Pooling()
    dropout: float = 0.5  # fraction of outputs set to zero in training
    dropout_scale: Literal["test", "training"] = "test"  # where outputs are scaled
    dtype: Literal["float32", "bfloat16"] = "float32"  # of products and activations
    precision: Precision = "default"  # of products, see `platform.describe_precision`

    @property
    def num_classes(self) -> int:
        """Number of outputs of the last layer."""
        return self.layers[-1].features

    @property
    def has_towers(self) -> bool:
        """Whether any layer treats the two towers separately."""
        within = self.lrn_scope == "tower" and any("lrn" in row.ops for row in self.layers)
        return within or any(row.sees == "own" for row in self.layers)

    @functools.cached_property
    def dropped(self) -> dict[str, tuple[int, ...]]:
        """Shape, over both towers, of the outputs of each layer with dropout."""
        rows = {row.name: row for row in trace(self)}
        return {
            layer.name: rows[output].shape if isinstance(layer, Conv) else (layer.features,)
            for layer in self.layers
            for operation, output in outputs(layer)
            if operation == "dropout"
        }


def outputs(layer: Layer) -> list[tuple[Operation, str]]:
    """Return the operations that follow a layer and the names of their outputs: relu1, norm1.

    A sixth convolution has them in full, relu_conv6, as relu6 is that of fc6.
    """
    number = layer.name.removeprefix("conv").removeprefix("fc")
    number = f"_{layer.name}" if layer.name == "conv6" else number
    named: list[tuple[Operation, str]] = []
    for operation in layer.ops:
        name = OUTPUTS[operation] + number
        again = sum(operation == earlier for earlier, _ in named)
        named.append((operation, name + "b" * again))
    return named


@dataclasses.dataclass(frozen=True)
class Row:
    """Shapes and counts of a layer or an operation, over both towers."""

    name: str
    side: int  # pixels; 1 for fully connected layers
    channels: int
    receptive_field: int  # pixels of the input, before the edge clips it
    kernel_shape: tuple[int, ...]  # (kh, kw, in, out) or (in, out); () without weights
    multiply_adds: int  # of one image, forward

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.side, self.side, self.channels

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return math.prod(self.kernel_shape) + self.kernel_shape[-1] if self.kernel_shape else 0

    @property
    def neurons(self) -> int:
        """Number of outputs of a layer with weights."""
        return self.side**2 * self.channels if self.kernel_shape else 0


def trace(architecture: Architecture) -> tuple[Row, ...]:
    """Return a `Row` for each layer, normalization, pooling and dropout, in order.

    Raises:
        ValueError: the outputs of some layer would have no pixels.
    """
    side, channels, field, jump = architecture.crop, 3, 1, 1
    rows: list[Row] = []

    def append(name, kernel_shape=(), multiply_adds=0):
        rows.append(Row(name, side, channels, field, kernel_shape, multiply_adds))
        if side < 1:
            raise ValueError(f"crop {architecture.crop}: leaves no pixels to {name}")

    for layer in architecture.layers:
        seen = channels // (TOWERS if layer.sees == "own" else 1)
        if isinstance(layer, Conv):
            side = layer.output_side(side)
            field, jump = field + (layer.kernel - 1) * jump, jump * layer.stride
            channels = layer.features
            kernel_shape = (layer.kernel, layer.kernel, seen, channels)
            append(layer.name, kernel_shape, side**2 * math.prod(kernel_shape))
        else:
            inputs = side**2 * seen
            field, side, channels = field + (side - 1) * jump, 1, layer.features
            append(layer.name, (inputs, channels), inputs * channels)
        for operation, output in outputs(layer):
            if operation == "pool":
                side = architecture.pooling.output_side(side)
                field += (architecture.pooling.window - 1) * jump
                jump *= architecture.pooling.stride
            elif operation == "spatial_norm":
                field += (SPATIAL_NORM.n - 1) * jump
            if operation not in ("relu", "tanh"):
                append(output)
    return tuple(rows)


def weighted_rows(architecture: Architecture) -> list[Row]:
    """Return the rows of the layers, without the operations that follow them."""
    return [row for row in trace(architecture) if row.kernel_shape]


def training_flop(architecture: Architecture, frozen: Collection[str] = ()) -> int:
    """Return the floating-point operations of the products of one image in a training step.

    Two for each multiply-add: forward, for the gradient of the kernel, and for the gradient of the
    input. A layer that is `frozen` needs no gradient of its kernel, and one below which nothing is
    trained none of its input: the first layer never needs the gradient of the image.
    """
    passes, trained_below = 0, False
    for row in weighted_rows(architecture):
        trained = row.name not in frozen
        passes += row.multiply_adds * (1 + trained + trained_below)
        trained_below |= trained
    return 2 * passes


def smallest_crop(architecture: Architecture) -> int:
    """Return the smallest crop, in pixels, that leaves every layer at least 1 x 1."""
    crop = 1
    while True:
        try:
            trace(dataclasses.replace(architecture, crop=crop))
        except ValueError:
            crop += 1
        else:
            return crop


def check_crop(architecture: Architecture) -> None:
    """Check that every layer has at least 1 x 1 pixel.

    Raises:
        ValueError: the crop is too small; the message names the smallest.
    """
    smallest = smallest_crop(architecture)
    if architecture.crop < smallest:
        rule = f"must be at least {smallest}, so that every layer has at least 1 x 1 pixel"
        raise invalid("data.crop", architecture.crop, rule, f"try {smallest}")
