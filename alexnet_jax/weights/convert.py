"""Arrays as others lay them out <-> parameters as `model/` has them.

Our kernels are (row, column, in, out), and the inputs of a fully connected layer run (row, column,
map), tower 0's maps first. A fully connected layer is a convolution as large as its input, so one
order of four axes says how a format lays out both.
"""

from collections.abc import Mapping

import numpy as np

from alexnet_jax.model.architecture import Architecture, Conv, Layer, Row, trace
from alexnet_jax.weights.files import Format, RawWeights

Params = dict[str, dict[str, np.ndarray]]  # {layer: {"kernel", "bias"}}, float32

# Where our four axes lie in a file.
#
# caffe, plain, torchvision: (out, in, row, column), and (out, in) with the map outermost, which is
# how Caffe and PyTorch flatten.
# tensorflow: ours. caffe-tensorflow puts the inputs of the first fully connected layer in order for
# TensorFlow, which flattens (row, column, map): kaffe/core.py (003cbfd), DataReshaper.reshape; the
# users of bvlc_alexnet.npy flatten pool5 so (kratzert's alexnet.py, 3e2b50e).
# theano: "c01b", (in, row, column, out), flattened with the map outermost; theano_alexnet
# lib/layers.py:25, alex_net.py:111 (413f892).
_AXES: dict[Format, tuple[int, int, int, int]] = {
    "caffe": (3, 2, 0, 1),
    "plain": (3, 2, 0, 1),
    "torchvision": (3, 2, 0, 1),
    "tensorflow": (0, 1, 2, 3),
    "theano": (2, 0, 1, 3),
}

# torchvision/models/alexnet.py: what lies between has no weights.
_TORCHVISION = {
    **dict(zip(("conv1", "conv2", "conv3", "conv4", "conv5"), (0, 3, 6, 8, 10), strict=True)),
    **dict(zip(("fc6", "fc7", "fc8"), (1, 4, 6), strict=True)),
}


def names(format: Format, architecture: Architecture) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the arrays that hold each `(layer, "kernel" or "bias")`; more than one: a tower each.

    Raises:
        ValueError: the format has no place for some layer.
    """
    found = {}
    for number, layer in enumerate(architecture.layers):
        towers = ("0", "1") if layer.sees == "own" else ("",)
        if format == "torchvision":
            if not in_torchvision(layer):
                raise ValueError(
                    f"{layer.name}: torchvision's layout has no place for it, as its AlexNet has "
                    "eight layers without towers; use .npz, or --towers merge."
                )
            part = "features" if isinstance(layer, Conv) else "classifier"
            part = f"{part}.{_TORCHVISION[layer.name]}"
            kernel, bias = (f"{part}.weight",), (f"{part}.bias",)
        elif format == "theano":
            kernel = tuple(f"W{tower}_{number}" for tower in towers)
            bias = tuple(f"b{tower}_{number}" for tower in towers)
        else:
            kernel, bias = (f"{layer.name}_w",), (f"{layer.name}_b",)
        found[layer.name, "kernel"], found[layer.name, "bias"] = kernel, bias
    return found


def in_torchvision(layer: Layer) -> bool:
    """Return whether torchvision's layout has a place for a layer."""
    return layer.name in _TORCHVISION and layer.sees != "own"


def num_classes(raw: RawWeights) -> int | None:
    """Return the number of outputs of the last layer, or None where it is not in the file."""
    last = {"torchvision": "classifier.6.bias", "theano": "b_7"}.get(raw.format, "fc8_b")
    return raw.arrays[last].size if last in raw.arrays else None


def left_out(raw: RawWeights, architecture: Architecture) -> tuple[list[str], list[str]]:
    """Return the arrays that the table has and the file lacks, and the other way round."""
    wanted = [name for group in names(raw.format, architecture).values() for name in group]
    return (
        [name for name in wanted if name not in raw.arrays],
        [name for name in raw.arrays if name not in wanted],
    )


def to_params(
    raw: RawWeights,
    architecture: Architecture,
    *,
    bgr: bool = False,
    flip: bool = True,
    partial: bool = False,
) -> Params:
    """Return the parameters in a file.

    Args:
        raw: what `files.read` found.
        table: the network that they are of.
        bgr: conv1 sees blue, green, red; what is returned sees red, green, blue.
        flip: Theano's kernels slide mirrored (`dnn_conv`, by default a true convolution), and so do
            all users of the published ones; False for those trained with `lib_conv: cudaconvnet`.
        partial: leave out what the file lacks and leave aside what the network lacks.

    Raises:
        ValueError: arrays of other shapes, missing or extra ones: all of them in one sentence.
    """
    _check(raw, architecture, partial)
    params: Params = {}
    shapes = _shapes(architecture)
    for (layer, kind), group in names(raw.format, architecture).items():
        if not all(name in raw.arrays for name in group):
            continue
        # Out is Theano's last axis, and only Theano has a file for each tower.
        array = np.concatenate([raw.arrays[name] for name in group], axis=-1)
        if kind == "kernel":
            array = _from_file(raw.format, array, shapes[layer], flip)
            if bgr and layer == architecture.layers[0].name:
                array = array[:, :, ::-1]
        params.setdefault(layer, {})[kind] = np.ascontiguousarray(array, np.float32)
    return params


def from_params(
    params: Mapping[str, Mapping[str, np.ndarray]],
    architecture: Architecture,
    format: Format,
    metadata: Mapping[str, str] | None = None,
) -> RawWeights:
    """Return the arrays of all parameters as a format lays them out; undoes `to_params`."""
    shapes, arrays = _shapes(architecture), {}
    for (layer, kind), group in names(format, architecture).items():
        array = np.asarray(params[layer][kind], np.float32)
        if kind == "kernel":
            array = _to_file(format, array, shapes[layer])
        parts = np.split(array, len(group), axis=-1) if len(group) > 1 else [array]
        arrays |= dict(zip(group, map(np.ascontiguousarray, parts), strict=True))
    return RawWeights(format, arrays, dict(metadata or {}))


def _shapes(architecture: Architecture) -> dict[str, tuple[Row, tuple[int, ...]]]:
    """Return for each layer its row, and its kernel's shape with the maps of its input apart."""
    before, found = (1, 1, 3), {}
    for row in trace(architecture):
        if shape := row.kernel_shape:
            if len(shape) == 2:
                side = before[0]
                shape = (side, side, shape[0] // side**2, shape[1])
            found[row.name] = row, shape
        before = row.shape
    return found


def _from_file(
    format: Format, array: np.ndarray, shapes: tuple[Row, tuple[int, ...]], flip: bool = True
) -> np.ndarray:
    row, shape = shapes
    axes = _AXES[format]
    ours = array.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))
    return _flipped(format, ours.reshape(row.kernel_shape), flip)


def _to_file(format: Format, kernel: np.ndarray, shapes: tuple[Row, tuple[int, ...]]) -> np.ndarray:
    row, shape = shapes
    theirs = _flipped(format, kernel, True).reshape(shape).transpose(_AXES[format])
    return theirs.reshape(_file_shape(format, row.kernel_shape))


def _flipped(format: Format, kernel: np.ndarray, flip: bool) -> np.ndarray:
    return kernel[::-1, ::-1] if format == "theano" and flip and kernel.ndim == 4 else kernel


def _file_shape(format: Format, kernel_shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(kernel_shape) == 4:
        return tuple(kernel_shape[axis] for axis in _AXES[format])
    return kernel_shape[::-1] if _AXES[format][0] == 3 else kernel_shape


def _check(raw: RawWeights, architecture: Architecture, partial: bool) -> None:
    shapes, problems = _shapes(architecture), []
    for (layer, kind), group in names(raw.format, architecture).items():
        shape = shapes[layer][0].kernel_shape
        wanted = _file_shape(raw.format, shape) if kind == "kernel" else shape[-1:]
        wanted = (*wanted[:-1], wanted[-1] // len(group)) if len(group) > 1 else wanted
        for name in group:
            array = raw.arrays.get(name)
            if array is not None and array.shape != wanted:
                problems.append(f"{name} is {array.shape} and not {wanted}")
            elif array is not None and array.dtype.kind not in "fiu":
                problems.append(f"{name} is of {array.dtype} and not of numbers")
    missing, extra = left_out(raw, architecture)
    halves = [
        g for g in names(raw.format, architecture).values() if len({n in missing for n in g}) > 1
    ]
    if not partial:
        problems += [f"{name} is missing" for name in missing]
        problems += [f"{name} is not of this network" for name in extra]
    elif halves:
        problems += [f"of {' and '.join(group)} one is missing" for group in halves]
    elif len(missing) == sum(map(len, names(raw.format, architecture).values())):
        problems.append(f"none of {', '.join(missing)} is there")
    if not partial and raw.arrays and len(extra) == len(raw.arrays):
        few = ", ".join(extra[:3])
        problems = [f"no layer in common: it holds {len(extra)} arrays such as {few}"]
    if problems:
        raise ValueError(
            f"The arrays do not fit the network: {'; '.join(problems)}; name theirs with --model, "
            "or take what there is with --partial."
        )
