"""A network as an ONNX model that needs nothing of this package: squares in, probabilities out.

The graph is written from the table of layers, both towers in one program; grouped convolutions and
normalization within a tower keep them apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from alexnet_jax.model.architecture import (
    SPATIAL_NORM,
    TOWERS,
    Architecture,
    Conv,
    Operation,
    Pooling,
    ResponseNorm,
    outputs,
    trace,
)
from alexnet_jax.model.pooling import overhang
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.weights import convert

# Old enough for the runtimes in use; every operation here has been the same since opset 13.
OPSET, IR_VERSION = 17, 8


def build_model(
    architecture: Architecture,
    params: convert.Params,
    constants: Preprocess,
    image_size: int,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Return the ONNX model of a network.

    Input `image`, uint8 [N, image_size, image_size, 3], RGB; output `probabilities`, float32
    [N, classes]. The center crop and the rest of preprocessing are in the graph, which computes in
    float32 whatever `architecture.dtype` is.
    """
    graph = _Graph()
    arrays = convert.from_params(params, architecture, "plain").arrays
    x = _add_preprocessing(graph, constants, image_size, architecture.crop)
    rows = {row.name: row for row in trace(architecture)}
    side, maps, is_flat = architecture.crop, 3, False
    for layer in architecture.layers:
        kernel, bias = (
            graph.constant(f"{layer.name}_{kind}", arrays[f"{layer.name}_{kind}"]) for kind in "wb"
        )
        if isinstance(layer, Conv):
            x = _add_convolution(graph, layer, x, kernel, bias, side)
        else:
            x = x if is_flat else graph.add("Flatten", x)
            is_flat = True
            x = graph.add("Gemm", x, kernel, bias, transB=1)
        side, maps = rows[layer.name].side, layer.features
        for operation, output in outputs(layer):
            x = _add_operation(graph, operation, x, architecture, side, maps)
            side = rows[output].side if output in rows else side
    graph.add("Softmax", x, axis=-1, output="probabilities")
    shape: Sequence[Any] = ("N", image_size, image_size, 3)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "alexnet",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
            [
                helper.make_tensor_value_info(
                    "probabilities", TensorProto.FLOAT, ("N", architecture.num_classes)
                )
            ],
            graph.constants,
        ),
        producer_name="alexnet_jax",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants, each added under a name that is not taken yet."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant; return its name."""
        name = f"{name}.{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(value, dtype))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the name of the output."""
        return self.split(
            kind, *inputs, names=[output or f"{kind}.{len(self.nodes)}"], **attributes
        )[0]

    def split(self, kind: str, *inputs: str, names: list[str], **attributes: Any) -> list[str]:
        """Add a node with these outputs; return their names."""
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return names


def _add_preprocessing(graph: _Graph, constants: Preprocess, image_size: int, crop: int) -> str:
    """Add what `preprocess` does to the center crop; return [N, 3, crop, crop]."""
    start = (image_size - crop) // 2
    x = graph.add("Cast", "image", to=TensorProto.FLOAT)
    if crop < image_size:
        ends = [start, start], [start + crop, start + crop], [1, 2]
        x = graph.add("Slice", x, *(graph.constant("crop", end, np.int64) for end in ends))
    mean, scale = np.asarray(constants.mean), np.asarray(constants.scale)
    if mean.ndim == 3:
        mean = mean[start : start + crop, start : start + crop]
    x = graph.add("Sub", x, graph.constant("mean", mean))
    if (scale != 1).any():
        x = graph.add("Mul", x, graph.constant("scale", scale))
    if constants.channels == "bgr":
        x = graph.add("Gather", x, graph.constant("bgr", [2, 1, 0], np.int64), axis=3)
    return graph.add("Transpose", x, perm=[0, 3, 1, 2])


def _add_convolution(graph: _Graph, layer: Conv, x: str, kernel: str, bias: str, side: int) -> str:
    before, after = layer.padding(side)
    return graph.add(
        "Conv",
        *(x, kernel, bias),
        group=TOWERS if layer.sees == "own" else 1,
        kernel_shape=[layer.kernel] * 2,
        pads=[before, before, after, after],
        strides=[layer.stride] * 2,
    )


def _add_operation(
    graph: _Graph, operation: Operation, x: str, architecture: Architecture, side: int, maps: int
) -> str:
    match operation:
        case "relu":
            return graph.add("Relu", x)
        case "tanh":
            return graph.add("Tanh", x)
        case "lrn" if architecture.lrn_scope == "all":
            return _add_norm(graph, architecture.lrn, x)
        case "lrn":
            halves = graph.constant("towers", [maps // TOWERS] * TOWERS, np.int64)
            names = [f"tower{tower}.{len(graph.nodes)}" for tower in range(TOWERS)]
            towers = graph.split("Split", x, halves, names=names, axis=1)
            normalized = [_add_norm(graph, architecture.lrn, tower) for tower in towers]
            return graph.add("Concat", *normalized, axis=1)
        case "spatial_norm":
            return _add_spatial_norm(graph, SPATIAL_NORM, x)
        case "pool":
            return _add_pooling(graph, architecture.pooling, x, side)
        case "dropout" if architecture.dropout_scale == "training":
            return x
        case "dropout":
            return graph.add("Mul", x, graph.constant("kept", 1 - architecture.dropout))


def _add_norm(graph: _Graph, norm: ResponseNorm, x: str) -> str:
    if norm.alpha == 0 or norm.beta == 0:  # which ONNX Runtime refuses
        return graph.add("Mul", x, graph.constant("scale", norm.k**-norm.beta))
    # ONNX divides alpha by the number of maps, as Caffe does; the paper does not.
    return graph.add("LRN", x, size=norm.n, alpha=norm.alpha * norm.n, beta=norm.beta, bias=norm.k)


def _add_spatial_norm(graph: _Graph, norm: ResponseNorm, x: str) -> str:
    window, edge = [norm.n] * 2, [norm.n // 2] * 4
    mean = graph.add(
        "AveragePool",
        graph.add("Mul", x, x),
        kernel_shape=window,
        pads=edge,
        count_include_pad=1,  # zeros beyond the edge count, so that mean * n**2 is the sum
    )
    scaled = graph.add("Mul", mean, graph.constant("alpha", norm.alpha * norm.n**2))
    s = graph.add("Add", scaled, graph.constant("k", norm.k))
    return graph.add("Div", x, graph.add("Pow", s, graph.constant("beta", norm.beta)))


def _add_pooling(graph: _Graph, pooling: Pooling, x: str, side: int) -> str:
    # Padding instead of ceil_mode, which runtimes have read differently.
    after = overhang(side, pooling)
    return graph.add(
        "MaxPool",
        x,
        kernel_shape=[pooling.window] * 2,
        pads=[0, 0, after, after],
        strides=[pooling.stride] * 2,
    )
