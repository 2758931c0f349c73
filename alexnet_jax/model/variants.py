"""The rows of the layer table: the network of 2012, those that go by its name, and its controls."""

import dataclasses
import math
from typing import Literal

from alexnet_jax.config import ModelConfig
from alexnet_jax.model.architecture import (
    TOWERS,
    Architecture,
    Conv,
    Dense,
    Layer,
    Operation,
    Pooling,
    ResponseNorm,
    check_crop,
    weighted_rows,
)

# Maps of the convolutions at width 1.
WIDTHS = {
    "two_towers": (96, 256, 384, 384, 256),  # layers-145.cfg
    "merged": (96, 256, 384, 384, 256),
    "half": (48, 128, 192, 192, 256),  # layers-145-half.cfg
    "six_conv": (96, 256, 384, 384, 256, 256),  # layers-146-2012-2011.cfg
    "torchvision": (64, 192, 384, 256, 256),  # torchvision/models/alexnet.py
}


def build_architecture(model: ModelConfig, num_classes: int, crop: int) -> Architecture:
    """Return the table that `model` describes; by default the network of 2012 (P3.5).

    Its towers meet at conv3, fc6, fc7 and fc8 (layers-145.cfg).

    Args:
        model: which rows, and what follows them.
        num_classes: outputs of fc8, any number.
        crop: side of the input in pixels.

    Raises:
        ValueError: `crop` is too small for some layer.
    """
    convolutions = _without(model.drop_layer, _convolutions(model))
    layers = [*convolutions, *_fully_connected(model, num_classes)]
    architecture = Architecture(
        layers=tuple(layers),
        crop=crop,
        lrn=ResponseNorm(
            n=model.lrn_n,
            k=model.lrn_k,
            alpha=model.scaled_lrn_alpha,
            beta=model.lrn_beta,
        ),
        lrn_scope=model.lrn_scope,
        # Two pixels a window leave maps of the same sizes only where they are rounded down, and the
        # paper compares "output of equivalent dimensions" (P3.4). PyTorch always rounds down.
        pooling=Pooling(
            window=model.pool_window,
            rounds="down" if model.pool_window == 2 or model.variant == "torchvision" else "up",
        ),
        dropout=model.dropout,
        dropout_scale=model.dropout_scale,
        dtype=model.dtype,
    )
    check_crop(architecture)
    return _scaled(architecture, model) if model.scale_init else architecture


def _features(model: ModelConfig, at_width_1: int) -> int:
    """Return an even number of maps or units, at least one a tower."""
    return TOWERS * max(1, round(at_width_1 * model.width / TOWERS))


def _convolutions(model: ModelConfig) -> list[Conv]:
    act = model.activation
    own: Literal["own", "both"] = "own" if model.variant in ("two_towers", "six_conv") else "both"
    norm: tuple[Operation, ...] = ("lrn",) if model.lrn else ()
    spatial: tuple[Operation, ...] = ("spatial_norm",) if model.spatial_norm else ()
    first, second = (act, *norm, "pool"), (act, *norm, *spatial, "pool")
    if model.op_order == "norm_first":
        first = (*norm, "pool", act)
    elif model.op_order == "pool_first":
        first, second = (act, "pool", *norm), (act, "pool", *norm, *spatial)
    silenced: tuple[Operation, ...] = ("dropout",) if model.dropout_on == "pool5-fc6" else ()
    last = (act, "pool", *(silenced if model.dropout else ()))
    pads: dict[str, int | Literal["end"]] = {"end": "end", "none": 0, "both": 2}
    pad = pads[model.conv1_padding]
    widths = [_features(model, width) for width in WIDTHS[model.variant]]
    low, middle = model.init_std, model.conv345_init_std
    layers = [
        Conv("conv1", widths[0], 11, 4, "both", first, low, 0, pad),
        Conv("conv2", widths[1], 5, 1, own, second, low, model.init_bias, 2),
        Conv("conv3", widths[2], 3, 1, "both", (act,), middle, 0, 1),
        Conv("conv4", widths[3], 3, 1, own, (act,), middle, model.init_bias, 1),
        Conv("conv5", widths[4], 3, 1, own, last, middle, model.init_bias, 1),
    ]
    if len(widths) == 6:
        layers.append(Conv("conv6", widths[5], 3, 1, "both", (act,), middle, model.init_bias, 1))
    return layers


def _fully_connected(model: ModelConfig, num_classes: int) -> list[Layer]:
    act: Operation = model.activation
    silenced: tuple[Operation, ...] = (act, "dropout") if model.dropout else (act,)
    last = silenced if model.dropout_on == "fc6-fc7" else (act,)
    units = _features(model, 4096)
    layers: list[Layer] = [
        Dense("fc6", units, "both", silenced, model.fc_init_std, model.init_bias),
        Dense("fc7", units, "both", last, model.fc_init_std, model.init_bias),
    ]
    if model.bottleneck:
        layers.append(Dense("bottleneck", model.bottleneck, "both", (), model.init_std, 0))
    sees = "own" if model.bottleneck else "rows"
    return [*layers, Dense("fc8", num_classes, sees, (), model.init_std, 0)]


def _without(name: str, layers: list[Conv]) -> list[Conv]:
    """Leave a layer out, with nothing else changed that need not change.

    What pools behind it stays, so that the maps behind keep their sizes; where towers met in it,
    they meet in the next.
    """
    names = [layer.name for layer in layers]
    if name not in names:
        return layers
    number = names.index(name)
    before, layer, behind = layers[number - 1], layers[number], layers[number + 1 :]
    for operation in layer.ops:
        if operation in ("pool", "dropout"):
            before = dataclasses.replace(before, ops=(*before.ops, operation))
    if layer.sees == "both" and behind:
        behind[0] = dataclasses.replace(behind[0], sees="both")
    return [*layers[: number - 1], before, *behind]


def _scaled(architecture: Architecture, model: ModelConfig) -> Architecture:
    """Multiply each initial std by sqrt(inputs at width 1 and 224 pixels / inputs).

    That keeps the variance of every layer's outputs where it was there.
    """
    full = dataclasses.replace(model, width=1.0, scale_init=False)
    inputs, inputs_2012 = (
        {row.name: math.prod(row.kernel_shape[:-1]) for row in weighted_rows(t)}
        for t in (architecture, build_architecture(full, architecture.num_classes, 224))
    )
    return dataclasses.replace(
        architecture,
        layers=tuple(
            dataclasses.replace(
                layer, std=layer.std * math.sqrt(inputs_2012[layer.name] / inputs[layer.name])
            )
            for layer in architecture.layers
        ),
    )
