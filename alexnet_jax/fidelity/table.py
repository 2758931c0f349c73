"""A layer table in numbers: what every layer has, what two devices hold and exchange."""

from collections.abc import Iterator
from typing import Any

from alexnet_jax.model.architecture import (
    SPATIAL_NORM,
    TOWERS,
    Architecture,
    Conv,
    Dense,
    Layer,
    Operation,
    Row,
    outputs,
    trace,
)

FLOAT32 = 4  # bytes


def network(architecture: Architecture) -> dict[str, Any]:
    """Return rows and sums: of layers, and of what each of two devices holds and sends."""
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
    """Yield the rows of a layer: itself and what follows it, each with its activation, if any."""
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
    return TOWERS if isinstance(layer, Conv) and layer.sees == "own" else 1


def _layer(layer: Layer, side: int) -> str:
    if isinstance(layer, Dense):
        return "fully connected"
    before, after = layer.padding(side)
    pad = f"{before}" if before == after else f"{before}+{after}"
    return f"stride {layer.stride}, pad {pad}"


def _operation(operation: Operation, architecture: Architecture) -> str:
    pool = f"{architecture.pooling.window}x{architecture.pooling.window}"
    towers = any(layer.sees == "own" for layer in architecture.layers if isinstance(layer, Conv))
    within = "of a tower" if towers else "of a half"
    others = within if architecture.lrn_scope == "tower" else "of all"
    return {
        "lrn": f"LRN, {architecture.lrn.n} maps {others}",
        "spatial_norm": f"LRN, {SPATIAL_NORM.n}x{SPATIAL_NORM.n} pixels",
        "pool": f"max {pool}, stride {architecture.pooling.stride}",
        "dropout": f"dropout {architecture.dropout:g}",
    }[operation]


def _devices(architecture: Architecture) -> Iterator[dict[str, Any]]:
    """Yield what each of two devices holds and sends: layers, and what else crosses."""
    rows = {row.name: row for row in trace(architecture)}
    entering = "the image"
    for layer in architecture.layers:
        for row, operation, _ in _followed(layer, rows):
            if not operation:
                seen = {"sees": entering} if layer is architecture.layers[0] else {}
                crossing = _crossing(layer, row, entering)
                yield {"name": row.name, **_held(layer, row), **seen, **crossing}
            elif row.crossing:
                yield {
                    "name": row.name,
                    "sees": "own and border",
                    "holds": row.channels // TOWERS,
                    "of": row.channels,
                    "unit": "maps",
                    "parameters": 0,
                    "crossing": row.crossing,
                    "by": "exchange",
                    "what": "maps",
                }
            entering = row.name


def _held(layer: Layer, row: Row) -> dict[str, Any]:
    weights, biases = row.parameters - row.channels, row.channels
    half = {"holds": row.channels // TOWERS, "of": row.channels, "parameters": row.parameters // 2}
    if isinstance(layer, Conv):
        return {**half, "unit": "maps", "sees": f"{layer.sees} tower{'s'[layer.sees == 'own' :]}"}
    match layer.sees:
        case "rows":
            inputs = row.kernel_shape[0]
            return {
                "sees": "own half",
                "holds": inputs // TOWERS,
                "of": inputs,
                "unit": "inputs",
                "parameters": weights // TOWERS + biases,
            }
        case "own":  # towers.py keeps both halves, which need not be equal, on both devices
            return {**half, "parameters": row.parameters, "unit": "classes", "sees": "own tower"}
        case "both":
            return {**half, "unit": "units", "sees": "both towers"}


def _crossing(layer: Layer, row: Row, entering: str) -> dict[str, Any]:
    if not row.crossing:
        return {"crossing": 0, "by": "", "what": ""}
    if layer.sees == "both":
        return {"crossing": row.crossing, "by": "all-gather", "what": entering}
    return {"crossing": row.crossing, "by": "all-reduce", "what": "logits"}
