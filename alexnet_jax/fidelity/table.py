"""The layers of a network in numbers, and what two devices hold and exchange."""

from collections.abc import Iterator
from typing import Any

from alexnet_jax.model.architecture import (
    SPATIAL_NORM,
    TOWERS,
    Architecture,
    Dense,
    Layer,
    Operation,
    Row,
    outputs,
    trace,
)
from alexnet_jax.model.partition import FLOAT32, Crossing, LayerPartition, partition_layers


def describe_layers(architecture: Architecture) -> dict[str, Any]:
    """Return rows and totals: of layers, and of what each of two devices holds and sends."""
    layers, devices = list(_layers(architecture)), list(_devices(architecture))
    whole = {
        name: sum(row[name] for row in layers)
        for name in ("parameters", "weights", "biases", "multiply_adds", "neurons")
    }
    held = sum(row["parameters"] for row in devices)
    return {
        "layers": layers,
        "totals": {**whole, "bytes": whole["parameters"] * FLOAT32},
        "devices": devices,
        "device_totals": {
            "parameters": held,
            "bytes": held * FLOAT32,
            "crossing": sum(row["crossing"] for row in devices),
        },
    }


def _followed(layer: Layer, rows: dict[str, Row]) -> Iterator[tuple[Row, Operation | None, bool]]:
    """Yield the rows of a layer and of the operations after it, and whether each is activated."""
    steps: list[tuple[str, Operation | None]] = [(layer.name, None)]
    activated = set()
    for operation, output in outputs(layer):
        if operation in ("relu", "tanh"):
            activated.add(steps[-1][0])
        else:
            steps.append((output, operation))
    for name, operation in steps:
        yield rows[name], operation, name in activated


def _layers(architecture: Architecture) -> Iterator[dict[str, Any]]:
    rows = {row.name: row for row in trace(architecture)}
    side = architecture.crop
    for layer in architecture.layers:
        for row, operation, activated in _followed(layer, rows):
            what = _operation(operation, architecture) if operation else _layer(layer, side)
            activation = "tanh" if "tanh" in layer.ops else "ReLU"
            biases = row.kernel_shape[-1] if row.kernel_shape else 0
            yield {
                "name": row.name,
                "what": f"{what}, {activation}" if activated else what,
                "shape": list(row.shape),
                "fully_connected": isinstance(layer, Dense),
                "receptive_field": row.receptive_field,
                "kernels": _kernels(layer) if row.kernel_shape else 0,
                "kernel": list(row.kernel_shape),
                "parameters": row.parameters,
                "weights": row.parameters - biases,
                "biases": biases,
                "multiply_adds": row.multiply_adds,
                "neurons": row.neurons,
            }
            side = row.side


def _kernels(layer: Layer) -> int:
    return TOWERS if layer.sees == "own" else 1


def _layer(layer: Layer, side: int) -> str:
    if isinstance(layer, Dense):
        return "fully connected"
    before, after = layer.padding(side)
    pad = f"{before}" if before == after else f"{before}+{after}"
    return f"stride {layer.stride}, pad {pad}"


def _operation(operation: Operation, architecture: Architecture) -> str:
    pool = f"{architecture.pooling.window}x{architecture.pooling.window}"
    towers = any(layer.sees == "own" for layer in architecture.layers)
    n, half = architecture.lrn.n, "tower" if towers else "half"
    maps = f"{n} maps of a {half}" if architecture.lrn_scope == "tower" else f"{n} of all maps"
    return {
        "lrn": f"LRN, {maps}",
        "spatial_norm": f"LRN, {SPATIAL_NORM.n}x{SPATIAL_NORM.n} pixels",
        "pool": f"max {pool}, stride {architecture.pooling.stride}",
        "dropout": f"dropout {architecture.dropout:g}",
    }[operation]


def _devices(architecture: Architecture) -> Iterator[dict[str, Any]]:
    """Yield what each of two devices holds and sends: layers, and normalizations with a halo."""
    rows = {row.name: row for row in trace(architecture)}
    for part in partition_layers(architecture, TOWERS):
        crossing = _crossing(part.crossing)
        yield {"name": part.name, **_held(part), "parameters": part.parameters, **crossing}
        for halo in part.halos:
            row = rows[halo.output]
            held = {"holds": row.channels // TOWERS, "of": row.channels, "unit": "maps"}
            sees = {"sees": "own and border"}
            yield {"name": row.name, **sees, **held, "parameters": 0, **_crossing(halo)}


def _held(part: LayerPartition) -> dict[str, Any]:
    """Return what a device sees and holds of a layer."""
    layer, row = part.layer, part.row
    if layer.sees == "row-split":
        inputs = row.kernel_shape[0]
        return {"sees": "own half", "holds": part.inputs, "of": inputs, "unit": "inputs"}
    unit = "units" if isinstance(layer, Dense) else "maps"
    sees = "own tower" if layer.sees == "own" else "both towers"
    if part.crossing is None and layer.sees == "both":
        sees = "the image"
    return {"sees": sees, "holds": part.tower_outputs, "of": row.channels, "unit": unit}


def _crossing(crossing: Crossing | None) -> dict[str, Any]:
    if crossing is None:
        return {"crossing": 0, "by": "", "what": ""}
    return {"crossing": crossing.values, "by": crossing.kind, "what": crossing.what}
