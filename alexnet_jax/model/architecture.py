"""AlexNet is a table of layers; everything else about the network is read off that table.

A row says how wide a layer is, how it slides over its input, what follows it, and whether a map of
it **sees** its own tower or both. Shapes, parameter counts, multiply-adds, receptive fields and
what crosses between the towers follow (`trace`), and so do the network (`alexnet.py`) and where
every array lies (`towers.py`).
"""

import dataclasses
import math
from typing import Literal

TOWERS = 2

Operation = Literal["relu", "lrn", "pool", "dropout"]
POOL_WINDOW, POOL_STRIDE = 3, 2  # overlapping: P3.4


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with square kernels; with `sees="own"` a map sees the maps of its own tower."""

    name: str
    features: int
    kernel: int
    stride: int
    sees: Literal["own", "both"]
    then: tuple[Operation, ...]
    std: float
    bias: float

    def padding(self, side: int) -> tuple[int, int]:
        """Return the zeros before and after an axis of `side` pixels.

        Strided: none before, and after it what the last, overhanging window needs, because the 2012
        code rounds the number of windows up (layer.py:1004): 3 at 224 pixels, 0 at 227.
        Stride 1: kernel // 2 on both sides (layers-145.cfg).
        """
        if self.stride == 1:
            return self.kernel // 2, self.kernel // 2
        return 0, -(side - self.kernel) % self.stride

    def output_side(self, side: int) -> int:
        """Return the side of the output maps for an input of `side` pixels."""
        return (side + sum(self.padding(side)) - self.kernel) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer.

    `sees="both"`: each unit sees the outputs of both towers. `sees="rows"`: each tower multiplies
    the half of the inputs that it holds, and the partial outputs are summed; nothing is gathered,
    and the number of outputs need not be even.
    """

    name: str
    features: int
    sees: Literal["both", "rows"]
    then: tuple[Operation, ...]
    std: float
    bias: float


Layer = Conv | Dense


@dataclasses.dataclass(frozen=True)
class ResponseNorm:
    """Constants of response normalisation (P3.3): a / (k + alpha * sum of n squares) ** beta."""

    n: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The table, and what its rows share."""

    layers: tuple[Layer, ...]
    crop: int
    lrn: ResponseNorm = ResponseNorm()
    dropout: float = 0.5

    @property
    def num_classes(self) -> int:
        """Number of outputs of the last layer."""
        return self.layers[-1].features

    @property
    def dropped(self) -> dict[str, int]:
        """Units of each layer whose outputs dropout silences, over both towers."""
        return {row.name: row.features for row in self.layers if "dropout" in row.then}


@dataclasses.dataclass(frozen=True)
class Row:
    """What one layer, or the pooling behind it, amounts to; counts are for both towers."""

    name: str
    side: int  # pixels; 1 for fully connected layers
    channels: int
    receptive_field: int  # pixels of the input, before the edge clips it
    kernel_shape: tuple[int, ...]  # (kh, kw, in, out) or (in, out); () for pooling
    multiply_adds: int  # of one image, forward
    crossing: int  # values an image that each tower sends the other to compute this row

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
        """Outputs that are computed by weights."""
        return self.side**2 * self.channels if self.kernel_shape else 0


def pooled_side(side: int) -> int:
    """Return the side after 3 x 3 / 2 pooling, rounded up as in the 2012 code (layer.py:1164)."""
    return 1 + -((POOL_WINDOW - side) // POOL_STRIDE)


def trace(table: Architecture) -> tuple[Row, ...]:
    """Return a `Row` for each layer and each pooling, in order.

    Raises:
        ValueError: some layer would be left without a single pixel.
    """
    side, channels, field, jump = table.crop, 3, 1, 1
    rows: list[Row] = []

    def append(name, kernel_shape=(), multiply_adds=0, crossing=0):
        rows.append(Row(name, side, channels, field, kernel_shape, multiply_adds, crossing))

    for layer in table.layers:
        inputs = side**2 * channels
        # The image lies on both devices; every other input lies half on each.
        crossing = 0 if not rows or layer.sees == "own" else inputs // TOWERS
        if isinstance(layer, Conv):
            seen = channels // (TOWERS if layer.sees == "own" else 1)
            side = layer.output_side(side)
            field, jump = field + (layer.kernel - 1) * jump, jump * layer.stride
            channels = layer.features
            kernel_shape = (layer.kernel, layer.kernel, seen, channels)
            append(layer.name, kernel_shape, side**2 * math.prod(kernel_shape), crossing)
        else:
            crossing = layer.features if layer.sees == "rows" else crossing
            field, side, channels = field + (side - 1) * jump, 1, layer.features
            append(layer.name, (inputs, channels), inputs * channels, crossing)
        if "pool" in layer.then:
            side = pooled_side(side)
            field, jump = field + (POOL_WINDOW - 1) * jump, jump * POOL_STRIDE
            append(f"pool{layer.name.removeprefix('conv')}")
        if side < 1:
            raise ValueError(f"a crop of {table.crop} pixels leaves nothing of {rows[-1].name}")
    return tuple(rows)


def weighted_rows(table: Architecture) -> list[Row]:
    """Return the rows of `table.layers`, without those of pooling."""
    return [row for row in trace(table) if row.kernel_shape]


def smallest_crop(table: Architecture) -> int:
    """Return the smallest crop, in pixels, that leaves every layer at least 1 x 1."""
    crop = 1
    while True:
        try:
            trace(dataclasses.replace(table, crop=crop))
        except ValueError:
            crop += 1
        else:
            return crop


def check_crop(table: Architecture) -> None:
    """Raise a ValueError that names the smallest crop that would do where the table's will not."""
    smallest = smallest_crop(table)
    if table.crop < smallest:
        raise ValueError(
            f"--data.crop {table.crop}: every layer must keep at least 1 x 1 pixel; "
            f"the smallest crop that would do is {smallest}."
        )


def two_towers(
    num_classes: int,
    crop: int = 224,
    width: float = 1.0,
    middle_std: float = 0.01,
    scale_std: bool = False,
    lrn_alpha: float = 1e-4,
    dropout: float = 0.5,
) -> Architecture:
    """Return the network of 2012 (P3.5; layers-145.cfg): its towers meet at conv3, fc6, fc7, fc8.

    Args:
        num_classes: outputs of fc8, any number.
        crop: side of the input in pixels.
        width: maps and units relative to 2012; each layer keeps an even number, at least 2.
        middle_std: initial weight std of conv3-5: .01 in P5, .03 in the 2012 code.
        scale_std: multiply each initial std by sqrt(inputs in 2012 / inputs), which keeps the
            variance of every layer's outputs where it was at full width and 224 pixels.
        lrn_alpha: response normalisation's alpha, not divided by n.
        dropout: share of the outputs of fc6 and fc7 silenced in training.

    Raises:
        ValueError: `width` is not positive, or `crop` is too small for some layer.
    """
    if not width > 0:
        raise ValueError(f"--model.width {width}: it is positive; try 1 for the network of 2012.")

    def features(of_2012: int) -> int:
        return TOWERS * max(1, round(of_2012 * width / TOWERS))

    conv, fc = ("relu",), ("relu", "dropout")
    first = ("relu", "lrn", "pool")
    table = Architecture(
        layers=(
            Conv("conv1", features(96), 11, 4, "both", first, std=0.01, bias=0),
            Conv("conv2", features(256), 5, 1, "own", first, std=0.01, bias=1),
            Conv("conv3", features(384), 3, 1, "both", conv, std=middle_std, bias=0),
            Conv("conv4", features(384), 3, 1, "own", conv, std=middle_std, bias=1),
            Conv("conv5", features(256), 3, 1, "own", ("relu", "pool"), std=middle_std, bias=1),
            Dense("fc6", features(4096), "both", fc, std=0.01, bias=1),
            Dense("fc7", features(4096), "both", fc, std=0.01, bias=1),
            Dense("fc8", num_classes, "rows", (), std=0.01, bias=0),
        ),
        crop=crop,
        lrn=ResponseNorm(alpha=lrn_alpha),
        dropout=dropout,
    )
    check_crop(table)
    return _scaled(table) if scale_std else table


def _scaled(table: Architecture) -> Architecture:
    inputs, inputs_2012 = (
        {row.name: math.prod(row.kernel_shape[:-1]) for row in weighted_rows(t)}
        for t in (table, two_towers(table.num_classes))
    )
    return dataclasses.replace(
        table,
        layers=tuple(
            dataclasses.replace(
                layer, std=layer.std * math.sqrt(inputs_2012[layer.name] / inputs[layer.name])
            )
            for layer in table.layers
        ),
    )
