"""Arrays in the layouts of other frameworks <-> parameters in the layout of `model/`.

Kernels in `model/` are (row, column, in, out), and the inputs of a fully connected layer are in the
order (row, column, map), tower 0's maps first. A fully connected layer is a convolution as large as
its input, so that one order of four axes describes a format's layout of both.
"""

from collections.abc import Mapping

import numpy as np

from alexnet_jax.model.architecture import Architecture, Conv, Layer, Row, trace
from alexnet_jax.weights.files import RawWeights
from alexnet_jax.weights.layer_names import TORCHVISION, Format, list_arrays, no_network

MAX_LISTED = 50  # problems named in a message
Params = dict[str, dict[str, np.ndarray]]  # {layer: {"kernel", "bias"}}, float32

# The four axes of `model/` in the order of a file.
#
# caffe, plain, torchvision: (out, in, row, column), and (out, in) with the map outermost, which is
# how Caffe and PyTorch flatten.
# tensorflow: as in `model/`. caffe-tensorflow reorders the inputs of the first dense layer for
# TensorFlow, which flattens (row, column, map): kaffe/core.py (003cbfd), DataReshaper.reshape;
# users of bvlc_alexnet.npy flatten pool5 in that order (kratzert's alexnet.py, 3e2b50e).
# theano: "c01b", (in, row, column, out), flattened with the map outermost; theano_alexnet
# lib/layers.py:25, alex_net.py:111 (413f892).
_AXES: dict[Format, tuple[int, int, int, int]] = {
    "caffe": (3, 2, 0, 1),
    "plain": (3, 2, 0, 1),
    "torchvision": (3, 2, 0, 1),
    "tensorflow": (0, 1, 2, 3),
    "theano": (2, 0, 1, 3),
}


def names(format: Format, architecture: Architecture) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the names of the arrays of each `(layer, "kernel" or "bias")`; of two, one a tower.

    Raises:
        ValueError: the format cannot represent a layer.
    """
    by_parameter = {}
    for number, layer in enumerate(architecture.layers):
        towers = ("0", "1") if layer.sees == "own" else ("",)
        if format == "torchvision":
            if not in_torchvision(layer):
                raise ValueError(
                    f"{layer.name}: torchvision's AlexNet has eight layers without towers and no "
                    "such layer; use .npz, or towers=merge."
                )
            part = "features" if isinstance(layer, Conv) else "classifier"
            part = f"{part}.{TORCHVISION[layer.name]}"
            kernel, bias = (f"{part}.weight",), (f"{part}.bias",)
        elif format == "theano":
            kernel = tuple(f"W{tower}_{number}" for tower in towers)
            bias = tuple(f"b{tower}_{number}" for tower in towers)
        else:
            kernel, bias = (f"{layer.name}_w",), (f"{layer.name}_b",)
        by_parameter[layer.name, "kernel"] = kernel
        by_parameter[layer.name, "bias"] = bias
    return by_parameter


def in_torchvision(layer: Layer) -> bool:
    """Return whether torchvision's layout can represent a layer."""
    return layer.name in TORCHVISION and layer.sees != "own"


def head_names(format: Format) -> tuple[str, str]:
    """Return the names of the last layer's kernel and bias."""
    if format == "torchvision":
        return "classifier.6.weight", "classifier.6.bias"
    return ("W_7", "b_7") if format == "theano" else ("fc8_w", "fc8_b")


def num_classes(raw: RawWeights) -> int | None:
    """Return the number of outputs of the last layer, or None if it is not in the file."""
    bias = raw.arrays.get(head_names(raw.format)[1])
    return None if bias is None else bias.size


def unmatched(raw: RawWeights, architecture: Architecture) -> tuple[list[str], list[str]]:
    """Return the arrays of the architecture missing in the file, and those of the file alone."""
    expected = [name for group in names(raw.format, architecture).values() for name in group]
    return (
        [name for name in expected if name not in raw.arrays],
        [name for name in raw.arrays if name not in expected],
    )


def to_params(
    raw: RawWeights,
    architecture: Architecture,
    *,
    bgr: bool = False,
    kernel_flip: bool = True,
    partial: bool = False,
) -> Params:
    """Return the parameters in a file.

    Args:
        raw: from `files.read`.
        architecture: the network that they are of.
        bgr: conv1's inputs are blue, green, red; they are reordered to red, green, blue.
        kernel_flip: flip Theano's kernels, as its `dnn_conv` is a true convolution by default and
            the published weights are used so; False if trained with `lib_conv: cudaconvnet`.
        partial: accept missing arrays, and ignore those that the network lacks.

    Raises:
        ValueError: arrays are missing, unknown, of other shapes or not finite; it names up to 50.
    """
    _check(raw, architecture, partial)
    params: Params = {}
    infinite: list[str] = []
    shapes = _shapes(architecture)
    for (layer, kind), group in names(raw.format, architecture).items():
        if not all(name in raw.arrays for name in group):
            continue
        # Only Theano has a file for each tower, and its last axis is the output.
        array = np.concatenate([raw.arrays[name] for name in group], axis=-1)
        if kind == "kernel":
            array = _from_file(raw.format, array, shapes[layer], kernel_flip)
            if bgr and layer == architecture.layers[0].name:
                array = array[:, :, ::-1]
        with np.errstate(over="ignore", invalid="ignore"):
            converted = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(converted).all():
            infinite += group
        params.setdefault(layer, {})[kind] = converted
    if infinite:
        raise ValueError(
            f"{', '.join(infinite)}: must be finite numbers in float32, and some are NaN or "
            "infinite, as after training that diverged or where float16 was too small; name a file "
            "from before that, or save it as float32."
        )
    return params


def from_params(
    params: Mapping[str, Mapping[str, np.ndarray]],
    architecture: Architecture,
    format: Format,
    metadata: Mapping[str, str] | None = None,
) -> RawWeights:
    """Return the arrays of all parameters in the layout of a format; the inverse of `to_params`."""
    shapes, arrays = _shapes(architecture), {}
    for (layer, kind), group in names(format, architecture).items():
        array = np.asarray(params[layer][kind], np.float32)
        if kind == "kernel":
            array = _to_file(format, array, shapes[layer])
        parts = np.split(array, len(group), axis=-1) if len(group) > 1 else [array]
        arrays |= dict(zip(group, map(np.ascontiguousarray, parts), strict=True))
    return RawWeights(format, arrays, dict(metadata or {}))


def _shapes(architecture: Architecture) -> dict[str, tuple[Row, tuple[int, ...]]]:
    """Return each layer's row, and its kernel's shape as a convolution of four axes."""
    before, shapes = (1, 1, 3), {}
    for row in trace(architecture):
        if shape := row.kernel_shape:
            if len(shape) == 2:
                side = before[0]
                shape = (side, side, shape[0] // side**2, shape[1])
            shapes[row.name] = row, shape
        before = row.shape
    return shapes


def _from_file(
    format: Format, array: np.ndarray, shapes: tuple[Row, tuple[int, ...]], kernel_flip: bool
) -> np.ndarray:
    row, shape = shapes
    axes = _AXES[format]
    kernel = array.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))
    return _flipped(format, kernel.reshape(row.kernel_shape), kernel_flip)


def _to_file(format: Format, kernel: np.ndarray, shapes: tuple[Row, tuple[int, ...]]) -> np.ndarray:
    row, shape = shapes
    array = _flipped(format, kernel, True).reshape(shape).transpose(_AXES[format])
    return array.reshape(_file_shape(format, row.kernel_shape))


def _flipped(format: Format, kernel: np.ndarray, kernel_flip: bool) -> np.ndarray:
    flip = kernel_flip and format == "theano" and kernel.ndim == 4
    return kernel[::-1, ::-1] if flip else kernel


def _file_shape(format: Format, kernel_shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(kernel_shape) == 4:
        return tuple(kernel_shape[axis] for axis in _AXES[format])
    return kernel_shape[::-1] if _AXES[format][0] == 3 else kernel_shape


def _check(raw: RawWeights, architecture: Architecture, partial: bool) -> None:
    problems = _wrong_arrays(raw, architecture)
    expected = names(raw.format, architecture).values()
    missing, unknown = unmatched(raw, architecture)
    if not partial:
        problems += [f"{name} is missing" for name in missing]
        problems += [f"{name} is not of this network" for name in unknown]
    elif halves := [group for group in expected if len({name in missing for name in group}) > 1]:
        problems += [f"one of {' and '.join(group)} is missing" for group in halves]
    elif not raw.arrays:
        problems.append(f"none of {', '.join(missing)} is in the file")
    if raw.arrays and len(unknown) == len(raw.arrays):
        raise no_network(unknown)
    if quantized := _quantized(raw):
        raise ValueError(
            f"The weights are quantized to int8 or uint8 ({list_arrays(quantized)}); save them in "
            "float32, from before they were quantized."
        )
    if len(problems) > MAX_LISTED:
        problems[MAX_LISTED:] = [f"and {len(problems) - MAX_LISTED:,} others"]
    if problems:
        raise ValueError(
            f"The arrays are not those of the network: {', '.join(problems)}; name their network "
            "with preset=NAME, or make a partial import."
        )


def _quantized(raw: RawWeights) -> list[str]:
    """Return the arrays of 8-bit integers, and those that torch.ao.quantization adds."""
    return [
        name
        for name, array in raw.arrays.items()
        if (array.dtype.kind in "iu" and array.dtype.itemsize == 1)
        or "_packed_params" in name
        or name.endswith(".zero_point")
    ]


def _wrong_arrays(raw: RawWeights, architecture: Architecture) -> list[str]:
    """Return a clause for each array of another shape, or not of numbers."""
    shapes, problems = _shapes(architecture), []
    for (layer, kind), group in names(raw.format, architecture).items():
        shape = shapes[layer][0].kernel_shape
        expected = _file_shape(raw.format, shape) if kind == "kernel" else shape[-1:]
        if len(group) > 1:
            expected = (*expected[:-1], expected[-1] // len(group))
        for name in group:
            array = raw.arrays.get(name)
            if array is not None and array.shape != expected:
                problems.append(f"{name} is {array.shape} and not {expected}")
            elif array is not None and array.dtype.kind != "f":
                problems.append(f"{name} is of {array.dtype} and not of floating-point numbers")
    return problems
