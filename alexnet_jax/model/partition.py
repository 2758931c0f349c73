"""What the devices of a mesh send each other in one training step, from the table of layers alone.

Between the two towers, on the way forward: what enters a layer that sees both is gathered, the
partial logits are summed, and where response normalization runs over all maps, those at the border
are exchanged. On the way back: the gradient of what was gathered is summed, whole, over both
towers (`towers._meet`), and that of an exchange is exchanged. Between the shards of the batch: the
gradient of every parameter that a device holds is summed. A few scalars beside that (loss, error,
finite or not) are not counted. All numbers are taken for float32; in a network that computes in
bfloat16, what is gathered and its gradients have half as many bytes.
"""

import dataclasses
import math
from typing import Literal

from alexnet_jax.model.architecture import (
    TOWERS,
    Architecture,
    Conv,
    Dense,
    Layer,
    Row,
    trace,
    weighted_rows,
)

FLOAT = 4  # bytes
Kind = Literal["all-gather", "reduce-scatter", "all-reduce", "all-to-all", "exchange"]
Way = Literal["forward", "back"]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One thing that `devices` devices do together, `stride` places in the mesh apart."""

    kind: Kind
    what: str  # the layer it serves, or "gradients"
    devices: int
    stride: int
    values: int  # float32, whole: of the result of a gather, of the operand of a scatter
    way: Way = "forward"

    @property
    def bytes(self) -> int:
        """Bytes of the whole."""
        return FLOAT * self.values

    @property
    def sent(self) -> float:
        """Bytes that each device sends, in a ring."""
        rounds = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2, "all-to-all": 1}
        if self.kind == "exchange":
            return self.bytes
        return rounds[self.kind] * (self.devices - 1) / self.devices * self.bytes

    @property
    def hops(self) -> int:
        """Messages that each device sends one after the other, in a ring."""
        if self.kind == "exchange":
            return 1
        return (2 if self.kind == "all-reduce" else 1) * (self.devices - 1)


def step_collectives(
    architecture: Architecture, images: int, data: int, towers: int
) -> tuple[Collective, ...]:
    """Return what crosses in a step of `images` images on a mesh of `data` x `towers` devices."""
    found = _between_towers(architecture, images // data) if towers == TOWERS else []
    if data > 1:
        held = sum(parameters_held(architecture, towers).values())
        found.append(Collective("all-reduce", "gradients", data, towers, held, "back"))
    return tuple(found)


def parameters_held(architecture: Architecture, towers: int) -> dict[str, int]:
    """Return for each layer the parameters that one device holds, as `towers.py` lays them out."""
    rows = {row.name: row for row in weighted_rows(architecture)}
    return {layer.name: _held(layer, rows[layer.name], towers) for layer in architecture.layers}


def _held(layer: Layer, row: Row, towers: int) -> int:
    if isinstance(layer, Dense) and layer.sees == "own":
        return row.parameters
    biases = row.channels if layer.sees == "rows" else row.channels // towers
    return math.prod(row.kernel_shape) // towers + biases


def _between_towers(architecture: Architecture, images: int) -> list[Collective]:
    rows = {row.name: row for row in trace(architecture)}
    found: list[Collective] = []

    def add(kind: Kind, what: str, values: int, way: Way = "forward") -> None:
        found.append(Collective(kind, what, TOWERS, 1, images * values, way))

    for layer in architecture.layers:
        crossing = rows[layer.name].crossing
        if isinstance(layer, Conv) or layer.sees == "both":
            if crossing:
                add("all-gather", layer.name, TOWERS * crossing)
                add("all-reduce", layer.name, TOWERS * crossing, "back")
        else:
            add("all-reduce", layer.name, crossing)
            if layer.sees == "own":  # on both devices, each of which has a part of the gradient
                whole = math.prod(rows[layer.name].kernel_shape)
                found.append(Collective("all-reduce", layer.name, TOWERS, 1, whole, "back"))
    for row in rows.values():
        if row.crossing and not row.kernel_shape:
            add("exchange", row.name, row.crossing)
            add("exchange", row.name, row.crossing, "back")
    return found
