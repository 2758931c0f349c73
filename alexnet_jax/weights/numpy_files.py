"""NumPy's files: `.npz`, a pickled dictionary inside `.npy`, and Theano's folders of `.npy`."""

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from alexnet_jax.weights.unpickle import MAX_REASON, AllowedCall, Names, load

METADATA = "metadata"  # an array of an .npz that is not weights but JSON text
MAX_SIDES = 64  # NumPy's
# Bytes of the directory of a zip archive: a member takes 100, and in memory a thousand.
MAX_DIRECTORY = 2**23
# Compression hardly shrinks weights, pruned ones (9 of 10) to a tenth, and zeros to a thousandth.
MAX_UNPACKED = 20  # times the size of the file
# W_0_65.npy: layer 0 after epoch 65; W0_1_65.npy: tower 0 of layer 1 (lib/tools.py:6-21).
_THEANO = re.compile(r"(?P<name>[Wb][01]?_\d+)_(?P<epoch>\d+)\.npy")


class _TooLarge(Exception):
    """Unpacked, an archive is far larger than weights can be."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive whose directory is short.

    Raises:
        zipfile.BadZipFile: it is damaged, or its directory is too long.
    """
    with path.open("rb") as file:
        # What ZipFile itself takes the size of the directory from: its sixth value.
        end = vars(zipfile)["_EndRecData"](file)
    if end and (size := end[5]) > MAX_DIRECTORY:
        raise zipfile.BadZipFile(f"a directory of {size:,} bytes")
    return zipfile.ZipFile(path)


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of an .npz file, and its metadata, a dictionary."""
    arrays, name = {}, "directory"
    try:
        # Not np.load, which trusts the sizes that the header of an array claims.
        with open_zip(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > MAX_UNPACKED * path.stat().st_size + 2**20:
                raise _TooLarge(f"unpacked it is {unpacked:,} bytes")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError("it is there twice")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("it is compressed by another method than deflate")
                with archive.open(member) as file:
                    arrays[name] = _read_plain(file, member.file_size)
        name = METADATA
        metadata = json.loads(str(arrays.pop(METADATA))) if METADATA in arrays else {}
        return arrays, {key: str(value) for key, value in dict(metadata).items()}
    except _TooLarge as error:
        remedy = "save it with np.savez, uncompressed"
        raise ValueError(f"{path}: {error}, too many for its size; {remedy}.") from None
    # A hostile archive or header makes zipfile and NumPy raise nearly anything.
    except Exception as error:  # noqa: BLE001
        raise _unreadable(f"{path}: {name}", error) from None


def _read_plain(file: IO[bytes], size: int) -> np.ndarray:
    """Return the array in an .npy file of `size` bytes; ValueError if it holds objects."""
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    shape, _, dtype = read_header(file)
    # Before NumPy allocates it. Elements of no bytes could be any number.
    if not dtype.hasobject and dtype.itemsize and math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{size:,} bytes for an array of shape {shape}")
    if not dtype.itemsize and math.prod(shape) > 1:
        raise ValueError(f"an array of {dtype}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def is_theano(file: Path) -> bool:
    """Return whether a file is one of theano_alexnet's."""
    return _THEANO.fullmatch(file.name) is not None


def read_theano(folder: Path) -> tuple[int, dict[str, np.ndarray]]:
    """Return the last epoch in a folder of theano_alexnet, and its arrays: `W_0`, `W0_1`, `b_0`."""
    matches = [match for file in folder.iterdir() if (match := _THEANO.fullmatch(file.name))]
    if not matches:
        raise ValueError(
            f"{folder}: holds no file of weights, and none like W_0_65.npy; name a file, or a "
            "folder of theano_alexnet."
        )
    epoch = max(int(match["epoch"]) for match in matches)
    arrays = {}
    for match in matches:
        if int(match["epoch"]) == epoch:
            arrays[match["name"]] = read_array(folder / match.string)
    return epoch, arrays


def read_array(path: Path) -> np.ndarray:
    """Return the array of an .npy file that holds no objects."""
    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        with path.open("rb") as file:
            return _read_plain(file, path.stat().st_size)
    except Exception as error:  # noqa: BLE001, as above
        raise _unreadable(path, error) from None


def _unreadable(name: str | Path, error: BaseException) -> ValueError:
    reason = str(error).rstrip(".")[:MAX_REASON] or type(error).__name__
    if "allow_pickle" in reason:
        rule, remedy = "holds Python objects, which are not read", "save the arrays alone"
        return ValueError(f"{name}: {rule}; {remedy}, each under a name of its own.")
    return ValueError(
        f"{name}: must be an intact file of plain arrays ({reason}); download it again."
    )


class _DType:
    """A dtype in a pickle: its name, and then its byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any, *_: Any):
        if not isinstance(name, str):
            raise TypeError("dtype without a name")
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype | None:
        """Return the dtype; None for objects."""
        if re.fullmatch(r"[|<>=]?O[48]?", self.name):
            return None
        if not re.fullmatch(r"[|<>=]?[fiu][1248]", self.name) or self.order not in "|<>=":
            raise TypeError(f"array of {self.name}")
        return np.dtype(self.order + self.name.lstrip("|<>="))


class _Bytes:
    """Encodes text as bytes, in total no more than the file: a text may be used many times."""

    def __init__(self, limit: int):
        self._remaining = limit

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding.replace("-", "") != "latin1":
            raise ValueError(f"bytes encoded as {encoding}")
        self._remaining -= len(text)
        if self._remaining < 0:
            raise ValueError("arrays larger than the file")
        return text.encode("latin1")


class _Array:
    """An array in a pickle, which is created empty and filled later."""

    __slots__ = ("_encode", "value")

    def __init__(self, encode: _Bytes):
        self._encode = encode
        self.value: Any = None  # then np.ndarray, or the list of an array of objects

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, raw = state[-4:]
        resolved = dtype.resolve()
        if resolved is None:
            if not isinstance(raw, list):
                raise TypeError("array of objects without a list")
            self.value = raw  # not a copy, as many arrays may name one list
            return
        data = self._encode(raw) if isinstance(raw, str) else raw
        # Not an int: bytes(2**40) would allocate as many zeros. One long list may be the shape of
        # many arrays.
        if not isinstance(data, bytes) or not isinstance(shape, list) or len(shape) > MAX_SIDES:
            raise TypeError("array without bytes or a shape")
        if not all(type(side) is int and 0 <= side < 2**63 for side in shape):
            raise TypeError("array without a shape")
        if math.prod(shape) * resolved.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, resolved).reshape(shape, order=order)


def _names(size: int) -> Names:
    encode = _Bytes(size)
    return {
        **{
            (f"{module}.multiarray", "_reconstruct"): AllowedCall(lambda *_: _Array(encode))
            for module in ("numpy.core", "numpy._core")
        },
        ("numpy", "ndarray"): AllowedCall(lambda *_: None),
        ("numpy", "dtype"): AllowedCall(_DType),
        ("_codecs", "encode"): AllowedCall(encode),  # how Python 3 writes bytes for Python 2
    }


def read_dictionary(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a pickled `{layer: [W, b]}` in an .npy file as `<layer>_w`, `<layer>_b`.

    The format of caffe-tensorflow and of bvlc_alexnet.npy, written by Python 2 or 3; later versions
    of it have `{"weights": W, "biases": b}` in place of the list.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, _, dtype = read_header(file)
    except Exception as error:  # noqa: BLE001, as above
        raise _unreadable(path, error) from None
    outer = load(file, path, _names(len(data))) if dtype.hasobject else None
    layers = outer.value[0] if isinstance(outer, _Array) and isinstance(outer.value, list) else None
    layers = _with_text_keys(layers)
    if shape != () or layers is None:
        raise ValueError(
            f"{path}: must hold a dictionary of layers, as in bvlc_alexnet.npy; name another file."
        )
    return {
        f"{layer}_{part}": array
        for layer, blobs in layers.items()
        for part, array in _blobs(layer, blobs, path)
    }


def _with_text_keys(layers: Any) -> dict[str, Any] | None:
    """Return a dictionary by text, also if it was read with encoding="bytes"; None of all else."""
    if not isinstance(layers, dict) or not all(isinstance(key, (str, bytes)) for key in layers):
        return None
    named = {
        key.decode("latin1") if isinstance(key, bytes) else key: value
        for key, value in layers.items()
    }
    return named if len(named) == len(layers) else None


def _blobs(layer: Any, blobs: Any, path: Path) -> list[tuple[str, np.ndarray]]:
    if isinstance(blobs, Mapping):
        parts = {"weights": "w", "biases": "b", "W": "w"}
        texts = _with_text_keys(blobs) or {}
        named = [(parts.get(name, name), array) for name, array in texts.items()]
    else:
        blobs = getattr(blobs, "value", blobs)  # a list that NumPy turned into an array of objects
        items = blobs if isinstance(blobs, (list, tuple)) else [blobs]
        named = list(zip(["w", "b", *map(str, range(2, len(items)))], items, strict=False))
    arrays = [(part, array.value) for part, array in named if isinstance(array, _Array)]
    if len(arrays) < len(named) or not all(isinstance(a, np.ndarray) for _, a in arrays):
        raise ValueError(f"{path}: {layer}: must hold arrays alone; name another file.")
    return arrays
