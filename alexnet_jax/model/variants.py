"""The layer tables of the network of 2012, of other networks called AlexNet, and of controls.

To add a variant: add its name to `ModelConfig.variant` and its widths to `WIDTHS`, and in
`_convolutions` say how its layers differ. For a variation of every variant, add a field to
`ModelConfig` and read it here. To add an operation that follows a layer: name it in
`architecture.Operation` and `OUTPUTS`, give its shape in `architecture.trace` and compute it in
`AlexNet._operate`. Nothing else lists layers.
"""

import dataclasses
import math
from typing import Literal

from alexnet_jax.config import Config, ModelConfig, invalid
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

# Number of maps of each convolution at model.width 1.
WIDTHS = {
    "two_towers": (96, 256, 384, 384, 256),  # layers-145.cfg
    "merged": (96, 256, 384, 384, 256),
    "half": (48, 128, 192, 192, 256),  # layers-145-half.cfg
    "six_conv": (96, 256, 384, 384, 256, 256),  # layers-146-2012-2011.cfg
    "torchvision": (64, 192, 384, 256, 256),  # torchvision/models/alexnet.py
}


def build_architecture(model: ModelConfig, num_classes: int, crop: int) -> Architecture:
    """Return the layers of `model`; by default the network of 2012 (P3.5).

    Its towers meet at conv3, fc6, fc7 and fc8 (layers-145.cfg).

    Args:
        model: settings of the network.
        num_classes: number of outputs of fc8.
        crop: side of the input in pixels.

    Raises:
        ValueError: `crop` is too small for a layer.
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
        # P3.4 compares window sizes at "output of equivalent dimensions": windows of 2 pixels give
        # those only if the number of windows is rounded down. PyTorch always rounds down.
        pooling=Pooling(
            window=model.pool_window,
            rounds="down" if model.pool_window == 2 or model.variant == "torchvision" else "up",
            ties=model.pool_ties,
        ),
        dropout=model.dropout,
        dropout_scale=model.dropout_scale,
        dtype=model.dtype,
        precision=model.precision,
    )
    check_crop(architecture)
    return _scaled(architecture, model) if model.scale_init else architecture


def check_layers(config: Config) -> None:
    """Check the fields of a configuration that refer to layers of its network.

    Raises:
        ValueError: `data.crop` is too small for a layer, or `optimizer.layer_learning_rates` names
            a layer that the network does not have or freezes all layers.
    """
    architecture = build_architecture(config.model, num_classes=2, crop=config.data.crop)
    layers = [layer.name for layer in architecture.layers]
    field, frozen = "optimizer.layer_learning_rates", config.optimizer.frozen
    for layer, entry in zip(
        config.optimizer.layer_multipliers, config.optimizer.layer_learning_rates, strict=True
    ):
        if layer not in layers:
            rule = f"must name a layer of the network ({', '.join(layers)})"
            raise invalid(field, entry, rule, "use one of these names")
    if frozen.issuperset(layers):
        entries = config.optimizer.layer_learning_rates
        raise invalid(field, entries, "must not freeze every layer", "leave one out")


def _features(model: ModelConfig, at_width_1: int) -> int:
    """Return an even number of maps or units, at least one for each tower."""
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
    dropout: tuple[Operation, ...] = ("dropout",) if model.dropout_on == "pool5-fc6" else ()
    last = (act, "pool", *(dropout if model.dropout else ()))
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
    dropout: tuple[Operation, ...] = (act, "dropout") if model.dropout else (act,)
    last = dropout if model.dropout_on == "fc6-fc7" else (act,)
    units = _features(model, 4096)
    layers: list[Layer] = [
        Dense("fc6", units, "both", dropout, model.fc_init_std, model.init_bias),
        Dense("fc7", units, "both", last, model.fc_init_std, model.init_bias),
    ]
    if model.bottleneck:
        layers.append(Dense("bottleneck", model.bottleneck, "both", (), model.init_std, 0))
    return [*layers, Dense("fc8", num_classes, "row-split", (), model.init_std, 0)]


def _without(name: str, layers: list[Conv]) -> list[Conv]:
    """Remove a layer, and keep the rest of the network as it is.

    The pooling and dropout that follow it now follow the layer before it, so that later layers keep
    their sizes. If towers meet in it, they meet in the next layer.
    """
    names = [layer.name for layer in layers]
    if name not in names:
        return layers
    number = names.index(name)
    before, layer, after = layers[number - 1], layers[number], layers[number + 1 :]
    for operation in layer.ops:
        if operation in ("pool", "dropout"):
            before = dataclasses.replace(before, ops=(*before.ops, operation))
    if layer.sees == "both" and after:
        after[0] = dataclasses.replace(after[0], sees="both")
    return [*layers[: number - 1], before, *after]


def _scaled(architecture: Architecture, model: ModelConfig) -> Architecture:
    """Multiply each initial standard deviation by sqrt(fan-in at width 1 and 224 pixels / fan-in).

    This preserves the variance of every layer's outputs.
    """
    full = dataclasses.replace(model, width=1.0, scale_init=False)
    fan_in, fan_in_2012 = (
        {row.name: math.prod(row.kernel_shape[:-1]) for row in weighted_rows(network)}
        for network in (architecture, build_architecture(full, architecture.num_classes, 224))
    )
    return dataclasses.replace(
        architecture,
        layers=tuple(
            dataclasses.replace(
                layer, std=layer.std * math.sqrt(fan_in_2012[layer.name] / fan_in[layer.name])
            )
            for layer in architecture.layers
        ),
    )
