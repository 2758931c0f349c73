"""What each device of a mesh holds of a layer, and what the devices send each other.

`partition_layers` is the only place that derives this from the layer table. The network
(`alexnet.py`), its arrays on a mesh (`towers.py`), the table that `describe` prints
(`fidelity/table.py`) and the drawing of the network (`plots/network.py`) all read its result.
`step_collectives` lists the collectives of a training step.

The network is split between at most two devices, one for each tower (P3.2, Figure 2). How a layer
is split follows from what it sees (`architecture.py`):

    sees                 kernel            bias         outputs      collective
    own                  by output         by output    by output    none
    both                 by output         by output    by output    all-gather of the inputs
    row-split (fc8)      by input          replicated   replicated   all-reduce of partial outputs

The image is on both devices. LRN over the maps of both towers adds a halo exchange: each device
needs the outermost maps of the other.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from alexnet_jax.model.architecture import (
    TOWERS,
    Architecture,
    Conv,
    Layer,
    Row,
    outputs,
    trace,
)

FLOAT32 = 4  # bytes
CrossingKind = Literal["all-gather", "all-reduce", "halo exchange"]
Kind = CrossingKind | Literal["reduce-scatter", "all-to-all"]


@dataclasses.dataclass(frozen=True)
class Crossing:
    """What the devices of the two towers send each other at one point of the forward pass."""

    kind: CrossingKind
    output: str  # the row of `trace` that is computed with it: "conv3", "fc8", "norm1"
    what: str  # what is sent: the row that is gathered ("pool2"), "logits", "maps"
    values: int  # an image, that each device sends the other


@dataclasses.dataclass(frozen=True)
class LayerPartition:
    """What one device holds of a layer, and the collectives that the layer needs.

    An axis is None where every device holds the whole array.
    """

    layer: Layer
    row: Row  # shapes and counts of the whole layer
    kernel_axis: int | None  # split over the towers
    kernel_shape: tuple[int, ...]  # that one device holds
    bias_axis: int | None
    output_axis: int | None  # of [batch, height, width, maps] or [batch, units]
    tower_outputs: int  # that each tower computes; of a row-split layer partial sums
    crossing: Crossing | None = None  # gathers its inputs, or sums its partial outputs
    halos: tuple[Crossing, ...] = ()  # of the normalizations that follow the layer

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def gathers_inputs(self) -> bool:
        """Whether the inputs of both towers are gathered before the layer."""
        return self.crossing is not None and self.crossing.kind == "all-gather"

    @property
    def inputs(self) -> int:
        """Number of inputs of one output on one device."""
        return math.prod(self.kernel_shape[:-1])

    @property
    def parameters(self) -> int:
        """Number of weights and biases that one device holds."""
        return math.prod(self.kernel_shape) + self.kernel_shape[-1]

    @property
    def crossings(self) -> tuple[Crossing, ...]:
        """All that crosses for this layer and what follows it, in order."""
        return (*((self.crossing,) if self.crossing else ()), *self.halos)


def partition_layers(architecture: Architecture, towers: int) -> tuple[LayerPartition, ...]:
    """Return what one device holds of each layer.

    Args:
        architecture: the layers.
        towers: devices that share one copy of the network: 2, one for each tower; or 1, which
            holds every array whole and needs no collective.
    """
    rows = {row.name: row for row in trace(architecture)}
    entering: Row | None = None  # None: the image
    partitions = []
    for layer in architecture.layers:
        row = rows[layer.name]
        computed = layer.features // (1 if layer.sees == "row-split" else TOWERS)
        part = LayerPartition(layer, row, None, row.kernel_shape, None, None, computed)
        if towers == TOWERS:
            part = dataclasses.replace(
                _split(part),
                crossing=_crossing(layer, entering),
                halos=tuple(_halos(layer, rows, architecture)),
            )
        partitions.append(part)
        # Activations have no row.
        entering = [row, *(rows[name] for _, name in outputs(layer) if name in rows)][-1]
    return tuple(partitions)


def _split(part: LayerPartition) -> LayerPartition:
    """Return a layer that is held whole as one of two devices holds it."""
    layer, kernel = part.layer, part.kernel_shape
    if layer.sees == "row-split":
        return dataclasses.replace(
            part, kernel_axis=0, kernel_shape=(kernel[0] // TOWERS, kernel[1])
        )
    return dataclasses.replace(
        part,
        kernel_axis=len(kernel) - 1,
        kernel_shape=(*kernel[:-1], kernel[-1] // TOWERS),
        bias_axis=0,
        output_axis=3 if isinstance(layer, Conv) else 1,
    )


def _crossing(layer: Layer, entering: Row | None) -> Crossing | None:
    if layer.sees == "row-split":
        return Crossing("all-reduce", layer.name, "logits", layer.features)
    if layer.sees == "own" or entering is None:
        return None
    return Crossing("all-gather", layer.name, entering.name, math.prod(entering.shape) // TOWERS)


def _halos(layer: Layer, rows: Mapping[str, Row], architecture: Architecture) -> Iterator[Crossing]:
    for operation, output in outputs(layer):
        if operation == "lrn" and architecture.lrn_scope == "all":
            row = rows[output]
            maps = min(architecture.lrn.n // 2, row.channels // TOWERS)
            yield Crossing("halo exchange", output, "maps", row.side**2 * maps)


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective of a program: `devices` devices, `stride` places apart in the mesh."""

    kind: Kind
    what: str  # the layer that needs it, or "gradients"
    devices: int
    stride: int
    values: int  # float32, whole: of the result of a gather, of the operand of a scatter
    direction: Literal["forward", "backward"] = "forward"

    @property
    def bytes(self) -> int:
        """Bytes of the whole."""
        return FLOAT32 * self.values

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a ring."""
        if self.kind == "halo exchange":
            return self.bytes
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * (self.devices - 1) / self.devices * self.bytes

    @property
    def hops(self) -> int:
        """Messages that each device sends one after the other in a ring."""
        if self.kind == "halo exchange":
            return 1
        return (2 if self.kind == "all-reduce" else 1) * (self.devices - 1)


def step_collectives(
    architecture: Architecture, images: int, data: int, towers: int
) -> tuple[Collective, ...]:
    """Return the collectives of a training step of `images` images on `data` x `towers` devices.

    The gradient of a gathered array is summed whole over both towers
    (`towers.all_gather_towers`), that of a halo exchange is exchanged. Scalars (loss, error,
    finiteness) are not counted. Sizes are those of float32; in a network that computes in bfloat16,
    gathered arrays and their gradients have half as many bytes.
    """
    partitions = partition_layers(architecture, towers)
    collectives: list[Collective] = []
    for part in partitions:
        for crossing in part.crossings:
            collectives += _between_towers(crossing, images // data)
    if data > 1:
        held = sum(part.parameters for part in partitions)
        collectives.append(Collective("all-reduce", "gradients", data, towers, held, "backward"))
    return tuple(collectives)


def _between_towers(crossing: Crossing, images: int) -> Iterator[Collective]:
    values = images * crossing.values * (TOWERS if crossing.kind == "all-gather" else 1)
    yield Collective(crossing.kind, crossing.output, TOWERS, 1, values)
    if crossing.kind == "all-gather":
        yield Collective("all-reduce", crossing.output, TOWERS, 1, values, "backward")
    elif crossing.kind == "halo exchange":
        yield Collective("halo exchange", crossing.output, TOWERS, 1, values, "backward")
