"""Caffe's files, read from protobuf's wire format without Caffe (BVLC/caffe, caffe.proto).

Of a NetParameter only names and blobs are read: `layer` (field 100) and, in older files such as
bvlc_alexnet.caffemodel, `layers` (field 2). Everything else is skipped.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Field numbers.
NET_NAME, NET_LAYERS_V1, NET_LAYER = 1, 2, 100
LAYER_NAME, LAYER_BLOBS = 1, 7
V1_NAME, V1_BLOBS = 4, 6
BLOB_SIDES, BLOB_DATA, BLOB_SHAPE, BLOB_DOUBLES = (1, 2, 3, 4), 5, 7, 8
# NVCaffe's (NVIDIA/caffe caffe-0.17, caffe.proto): numbers of any type, and which.
BLOB_RAW_TYPE, BLOB_RAW = 10, 12
RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}
SHAPE_DIM = 1
MAX_SIDES = 32  # Caffe's kMaxBlobAxes
# A field takes two bytes at least, and up to 300 of memory. Networks of hundreds of layers have
# some thousands in what is read.
MAX_FIELDS = 200_000
MAX_NAME = 255  # bytes; every blob of a layer repeats its name
MAX_BLOBS = 64  # of one layer; BatchNorm has 3, an LSTM up to 4

# Wire types.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = int | memoryview


class _Corrupt(ValueError):
    """The bytes are not a message."""


def read(data: bytes, path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Return the name of the net, and its blobs as `<layer>_w`, `<layer>_b`, float32.

    Raises:
        ValueError: the file is truncated, inconsistent, or not a caffemodel.
    """
    try:
        name, arrays = _Reader().net(memoryview(data))
    except _Corrupt as error:
        raise ValueError(
            f"{path}: must be a .pth, .safetensors, .npy, .npz or complete .caffemodel file, and "
            f"cannot be read as the last ({error}); name another file, or, if it is one of these, "
            "download it again."
        ) from None
    if not arrays:
        raise ValueError(f"{path}: holds no layer with weights; name a file that does.")
    return name, arrays


def read_mean(data: bytes, path: Path) -> np.ndarray:
    """Return the blob of a .binaryproto file, such as Caffe's mean image, float32 [1, 3, S, S]."""
    try:
        return _Reader().blob(memoryview(data))
    except _Corrupt as error:
        raise ValueError(
            f"{path}: must be a complete .binaryproto file ({error}); download it again."
        ) from None


class _Reader:
    """The messages of one file, whose fields are counted."""

    def __init__(self) -> None:
        self._remaining = MAX_FIELDS

    def net(self, message: memoryview) -> tuple[str, dict[str, np.ndarray]]:
        net, arrays = "", {}
        for number, value in self.fields(message):
            if number == NET_NAME:
                net = _text(value)
            elif number == NET_LAYER:
                arrays |= self.layer(_message(value), LAYER_NAME, LAYER_BLOBS)
            elif number == NET_LAYERS_V1:
                arrays |= self.layer(_message(value), V1_NAME, V1_BLOBS)
        return net, arrays

    def layer(
        self, message: memoryview, name_field: int, blobs_field: int
    ) -> dict[str, np.ndarray]:
        name, blobs = "", []
        for number, value in self.fields(message):
            if number == name_field:
                name = _text(value)
            elif number == blobs_field:
                blobs.append(self.blob(_message(value)))
                if len(blobs) > MAX_BLOBS:
                    raise _Corrupt(f"layer {name} has more than {MAX_BLOBS} blobs")
        parts = ["w", "b", *map(str, range(2, len(blobs)))]
        # Older files have four sides only: a bias is 1 x 1 x 1 x n, a matrix 1 x 1 x n x m.
        for i, blob in enumerate(blobs):
            if blob.ndim == 4 and blob.shape[:2] == (1, 1):
                blobs[i] = blob.reshape(-1) if i else blob[0, 0]
        return {f"{name}_{part}": blob for part, blob in zip(parts, blobs, strict=False)}

    def blob(self, message: memoryview) -> np.ndarray:
        sides, shape = [1, 1, 1, 1], None
        floats, doubles, raw, raw_type = bytearray(), bytearray(), bytearray(), 0
        for number, value in self.fields(message):
            if number in BLOB_SIDES:
                sides[number - 1] = _integer(value)
            elif number == BLOB_SHAPE:
                shape = self.shape(_message(value))
            elif number == BLOB_DATA:
                floats += _message(value)
            elif number == BLOB_DOUBLES:
                doubles += _message(value)
            elif number == BLOB_RAW:
                raw += _message(value)
            elif number == BLOB_RAW_TYPE:
                raw_type = _integer(value)
        shape = sides if shape is None else shape
        if raw and raw_type not in RAW_TYPES:
            raise _Corrupt(f"a blob's raw_data is of type {raw_type}, which is no floating point")
        dtype = np.dtype(RAW_TYPES[raw_type] if raw else "<f8" if doubles else "<f4")
        data = raw or doubles or floats
        if len(data) % dtype.itemsize:
            raise _Corrupt("a number is truncated")
        values = np.frombuffer(data, dtype)
        try:
            return values.astype(np.float32, copy=False).reshape(shape)
        except (ValueError, OverflowError):
            raise _Corrupt(f"a blob of {values.size} numbers has shape {tuple(shape)}") from None

    def shape(self, message: memoryview) -> list[int]:
        shape = []
        for number, value in self.fields(message):
            if number == SHAPE_DIM:
                sides = [value] if isinstance(value, int) else _packed(value)
                shape += itertools.islice(sides, MAX_SIDES + 1)
                if len(shape) > MAX_SIDES:
                    raise _Corrupt(f"a blob has more than {MAX_SIDES} sides")
        return shape

    def fields(self, message: memoryview) -> Iterator[tuple[int, Value]]:
        """Yield the number and value of each field: an int, or bytes for any other type."""
        offset = 0
        while offset < len(message):
            self._remaining -= 1
            if self._remaining < 0:
                raise _Corrupt(f"it has more than {MAX_FIELDS:,} fields")
            tag, offset = _varint(message, offset)
            number, wire = tag >> 3, tag & 7
            if not number or wire not in (VARINT, FIXED64, BYTES, FIXED32):
                raise _Corrupt(f"no field starts with {tag}")
            if wire == VARINT:
                value, offset = _varint(message, offset)
                yield number, value
                continue
            if wire == BYTES:
                size, offset = _varint(message, offset)
            else:
                size = 8 if wire == FIXED64 else 4
            if size > len(message) - offset:
                raise _Corrupt(f"{size - (len(message) - offset)} bytes are missing")
            yield number, message[offset : offset + size]
            offset += size


def _packed(values: memoryview) -> Iterator[int]:
    offset = 0
    while offset < len(values):
        value, offset = _varint(values, offset)
        yield value


def _varint(message: memoryview, offset: int) -> tuple[int, int]:
    """Return an integer of 7 bits a byte, least significant first, and the offset after it."""
    value = 0
    for place, byte in enumerate(message[offset : offset + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, offset + place + 1
    raise _Corrupt("a number is truncated")


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise _Corrupt(f"{value} in place of bytes")
    return value


def _integer(value: Value) -> int:
    if not isinstance(value, int):
        raise _Corrupt("bytes in place of a number")
    return value


def _text(value: Value) -> str:
    message = _message(value)
    if len(message) > MAX_NAME:
        raise _Corrupt(f"a name of {len(message):,} bytes")
    return bytes(message).decode(errors="replace")
