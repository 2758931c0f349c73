"""PyTorch's files without PyTorch: both containers that torch/serialization.py writes.

A tensor in them is a view: a storage, an offset, a shape and strides. The pickle holds the views,
and the storages lie beside it, in a zip archive or one after the other behind it.
"""

import dataclasses
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.weights.unpickle import AllowedCall, load

MAGIC = 0x1950A86A20F9469CFC6C  # the old container's
LEGACY = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little")  # how it begins
PROTOCOL = 1001
MOST_SIDES = 64  # NumPy's

_DTYPES = {
    "Double": "<f8",
    "Float": "<f4",
    "Half": "<f2",
    "BFloat16": "bfloat16",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}

_Read = Callable[[str], memoryview]  # bytes of a storage by its key


class _StateDict(dict):
    """An OrderedDict, less the attributes that a pickle would set: some hide its methods."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _state_dict(pairs: Any = ()) -> _StateDict:
    found = _StateDict(pairs)
    if isinstance(pairs, list):
        pairs.clear()  # a list given again and again would be copied as often
    return found


@dataclasses.dataclass(slots=True)
class _Storage:
    key: str
    dtype: str
    start: Any = 0  # elements of the stored bytes to leave out


# Not hashable, so that no key in a pickle is made of one that is made of one.
@dataclasses.dataclass(slots=True)
class _Tensor:
    storage: Any
    offset: Any
    shape: Any
    strides: Any


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_NAMES = {
    ("collections", "OrderedDict"): AllowedCall(_state_dict),
    ("torch._utils", "_rebuild_tensor"): AllowedCall(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): AllowedCall(_tensor),
    ("torch._utils", "_rebuild_parameter"): AllowedCall(lambda tensor, *_: tensor),
    # Called by nobody: the name alone stands in a reference to a storage.
    **{
        ("torch", f"{name}Storage"): AllowedCall(lambda *_, dtype=dtype: dtype)
        for name, dtype in _DTYPES.items()
    },
}


def _storage(pid: Any) -> _Storage:
    """Return what a reference ("storage", type, key, device, elements[, view]) stands for."""
    kind, make_dtype, key, *rest = pid
    if kind != "storage" or not isinstance(make_dtype, AllowedCall) or not isinstance(key, str):
        raise TypeError("it refers to something other than a storage")
    view = rest[2] if len(rest) > 2 else None  # (key, first element, elements), in old files
    return _Storage(key, make_dtype(), 0 if view is None else view[1])


def read_zip(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a zip container (PyTorch 1.6 and later) by name; see `_arrays`."""
    (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")

    def member(name: str) -> bytes:
        info = archive.getinfo(folder + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{path}: {folder}{name} is compressed; PyTorch's files are not.")
        return archive.read(info)

    if f"{folder}byteorder" in archive.namelist() and member("byteorder") != b"little":
        raise ValueError(f"{path}: it is big-endian; save it on a little-endian machine.")
    found = load(io.BytesIO(member("data.pkl")), path, _NAMES, _storage)
    return _arrays(found, lambda key: memoryview(member(f"data/{key}")), path)


def read_legacy(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the container before the zip, by name; see `_arrays`."""
    file = io.BytesIO(data)
    magic, protocol = load(file, path, _NAMES), load(file, path, _NAMES)
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError(
            f"{path}: it is a pickle, but none of PyTorch's: convert it to .safetensors or .npz."
        )
    system = load(file, path, _NAMES)
    if isinstance(system, Mapping) and not system.get("little_endian", True):
        raise ValueError(f"{path}: it is big-endian; save it on a little-endian machine.")
    widths: dict[str, int] = {}

    def reference(pid: Any) -> _Storage:
        storage = _storage(pid)
        widths[storage.key] = _dtype(storage.dtype).itemsize
        return storage

    found = load(file, path, _NAMES, reference)
    keys, whole, at = load(file, path, _NAMES), memoryview(data), file.tell()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"{path}: it does not say what it stores; fetch the file again.")
    storages: dict[str, memoryview] = {}
    for key in keys:
        size = int.from_bytes(whole[at : at + 8], "little") * widths.get(key, 1)
        storages[key] = whole[at + 8 : at + 8 + size]
        at += 8 + size
    return _arrays(found, lambda key: storages[key], path)


def _dtype(name: str) -> np.dtype:
    return np.dtype("<u2" if name == "bfloat16" else name)


def _arrays(found: Any, read: _Read, path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a state_dict, also inside a checkpoint, without DataParallel's prefix.

    Raises:
        ValueError: there is no state_dict, an entry is no tensor, or reaches beyond its storage.
    """
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{path}: it holds no state_dict; save model.state_dict() alone.")
    arrays, broken, storages = {}, [], {}
    for name, tensor in found.items():
        try:
            key = tensor.storage.key, tensor.storage.dtype
            if key not in storages:
                storages[key] = _numbers(read(key[0]), key[1])
            bare = ".".join(part for part in name.split(".") if part != "module")
            arrays[bare] = _view(tensor, storages[key])
        except (AttributeError, KeyError, TypeError, ValueError):
            broken.append(name)
    if broken:
        raise ValueError(
            f"{path}: {', '.join(broken)}: no tensor, or not all of it is there; a state_dict "
            "holds whole tensors: fetch the file again."
        )
    return arrays


def _numbers(data: memoryview, dtype: str) -> np.ndarray:
    numbers = np.frombuffer(data, _dtype(dtype))
    # A bfloat16 is the upper half of a float32.
    return (numbers.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else numbers


def _view(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """Return the tensor, not copied; ValueError where it reaches beyond its storage."""
    shape, strides = tensor.shape, tensor.strides
    values = (tensor.storage.start, tensor.offset, *shape, *strides)
    if len(shape) > MOST_SIDES or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("its shape is none")
    start, size = sum(values[:2]), math.prod(shape)
    # NumPy's own check passes an empty buffer, and sums that do not fit into 64 bits.
    last = start + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    # With strides of 0 a few bytes would be an array of any size.
    if size > numbers.size or (size and last >= numbers.size):
        raise ValueError("it reaches beyond its storage")
    width = numbers.itemsize
    return np.ndarray(
        shape, numbers.dtype, numbers, start * width, [stride * width for stride in strides]
    )
