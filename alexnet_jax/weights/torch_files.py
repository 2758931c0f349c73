"""PyTorch's files without PyTorch: both containers that torch/serialization.py writes.

A tensor in them is a view: a storage, an offset, a shape and strides. The pickle holds the views;
the storages are next to it in a zip archive, or follow it one after the other.
"""

import dataclasses
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.weights.layer_names import Selection, is_layer
from alexnet_jax.weights.numpy_files import MAX_UNPACKED
from alexnet_jax.weights.unpickle import MAX_ARGUMENTS, MAX_NAME, AllowedCall, check_key, load

MAGIC = 0x1950A86A20F9469CFC6C  # the old container's
PROTOCOL = 1001
MAX_SIDES = 64  # NumPy's
MAX_LISTED = 20  # damaged tensors named in a message

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
    # Of arrays that are no weights, whose sizes are needed to find the next one.
    "UInt16": "<u2",
    "UInt32": "<u4",
    "UInt64": "<u8",
    "QInt8": "i1",
    "QUInt8": "u1",
    "QInt32": "<i4",
    "ComplexFloat": "<c8",
    "ComplexDouble": "<c16",
}

MAX_LIST = 64  # entries; a longer list holds no networks
MAX_PATH = 200  # characters of the keys that lead to a tensor

_Read = Callable[[str], memoryview]  # returns the bytes of a storage by its key
Select = Callable[[list[str]], Selection]  # chooses a network's arrays by their paths


class _StateDict(dict):
    """An OrderedDict that ignores the attributes that a pickle sets: some would hide methods."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _state_dict(pairs: Any = None) -> _StateDict:
    """Return the dictionary of `[[key, value], ...]`, as Python 2 writes an OrderedDict."""
    pairs = [] if pairs is None else pairs
    # Not a dictionary, which would be copied as often as it is passed.
    if not isinstance(pairs, list):
        raise TypeError("an OrderedDict of something that is not a list of pairs")
    state_dict = _StateDict()
    for pair in pairs:
        key, value = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if not isinstance(key, (str, int)):
            raise TypeError("an OrderedDict of something that is not a list of pairs")
        check_key(key)
        state_dict[key] = value
    pairs.clear()  # a list that is passed many times would be copied as often
    return state_dict


@dataclasses.dataclass(slots=True)
class _Storage:
    key: str
    dtype: str
    start: Any = 0  # stored elements to skip


# Not hashable, so that no key in a pickle can nest them.
@dataclasses.dataclass(slots=True)
class _Tensor:
    storage: Any
    offset: Any
    shape: Any
    strides: Any


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _from_type(make: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """Return the tensor of a subclass of Tensor: the call that makes one, without the class."""
    # One long list may be the arguments of many calls.
    if not isinstance(arguments, list) or len(arguments) > MAX_ARGUMENTS:
        raise TypeError("a tensor of a subclass without arguments")
    return make(*arguments)


class _Other:
    """Anything that is no array: a pickle's call or object, which was not made.

    It keeps what the pickle sets in it, as the arrays of a pickled module are there.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str):
        self.name = name
        self.state: dict[Any, Any] | None = None

    def __call__(self, *_: Any) -> "_Other":
        return self

    def __setstate__(self, state: Any) -> None:
        # Python's default for slots: a pair, with the dictionary first.
        state = state[0] if isinstance(state, list) and len(state) == 2 else state
        self.state = state if isinstance(state, dict) else None

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Forget an entry of what would be a list."""

    def extend(self, values: Any) -> None:
        """Forget entries of what would be a list."""

    def add(self, value: Any) -> None:
        """Forget an entry of what would be a set."""


class _Names(dict):
    """What the names in a pickle stand for; one that is not known stands for nothing.

    Nothing is imported or called for it. Names that only an attack has in weights are refused.
    """

    def __contains__(self, key: object) -> bool:
        module, name = key if isinstance(key, tuple) else ("", "")
        hostile = module.partition(".")[0] in _HOSTILE and (module, name) not in _HARMLESS
        return super().__contains__(key) or not (hostile or "." in name)

    def __missing__(self, key: tuple[str, str]) -> AllowedCall:
        return AllowedCall(lambda *_: _Other(".".join(key)))


# Modules that reach the file system, the network, other processes or the interpreter.
_HOSTILE = {
    *("builtins", "__builtin__", "os", "posix", "nt", "io", "_io", "sys", "subprocess", "pty"),
    *("shutil", "socket", "ctypes", "importlib", "runpy", "code", "codeop", "commands", "pdb"),
    *("pickle", "_pickle", "marshal", "webbrowser", "urllib", "http", "requests", "pip", "timeit"),
}
_HARMLESS = {
    (module, name)
    for module in ("builtins", "__builtin__")
    for name in (
        *("set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bool", "str"),
        *("bytes", "bytearray", "slice", "range", "xrange", "object", "unicode", "long", "getattr"),
    )
}

_NAMES = {
    ("collections", "OrderedDict"): AllowedCall(_state_dict),
    ("torch._utils", "_rebuild_tensor"): AllowedCall(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): AllowedCall(_tensor),
    ("torch._utils", "_rebuild_parameter"): AllowedCall(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): AllowedCall(lambda tensor, *_: tensor),
    ("torch._tensor", "_rebuild_from_type_v2"): AllowedCall(_from_type),
    # Named by references to storages, and called only here.
    **{
        ("torch", f"{name}Storage"): AllowedCall(lambda *_, dtype=dtype: dtype)
        for name, dtype in _DTYPES.items()
    },
}
_NAMES = _Names(_NAMES)


def _storage(pid: Any) -> Any:
    """Return the storage that ("storage", type, key, device, elements[, view]) refers to.

    Early versions refer to the classes of a pickled module too: ("module", class, file, source).
    """
    kind, make_dtype, key, *rest = pid
    if kind == "module":
        return make_dtype
    if kind != "storage" or not isinstance(make_dtype, AllowedCall) or not isinstance(key, str):
        raise TypeError("it refers to something that is not a storage")
    if len(key) > MAX_NAME:
        raise ValueError("it refers to a storage by a name that is too long")
    view = rest[2] if len(rest) > 2 else None  # (key, first element, elements), in old files
    return _Storage(key, make_dtype(), 0 if view is None else view[1])


def read_zip(
    archive: zipfile.ZipFile, path: Path, select: Select
) -> tuple[Selection, dict[str, np.ndarray]]:
    """Return the selected tensors of a zip container (PyTorch 1.6 and later); see `_arrays`."""
    members, size = archive.infolist(), path.stat().st_size
    # Many names in the directory of an archive can share the same bytes.
    if (packed := sum(info.compress_size for info in members)) > size:
        raise ValueError(
            f"{path}: its members would be {packed:,} bytes, more than the file; download it again."
        )
    # Only the code of TorchScript is compressed.
    if (unpacked := sum(info.file_size for info in members)) > MAX_UNPACKED * size + 2**20:
        raise ValueError(
            f"{path}: unpacked it is {unpacked:,} bytes, too many for its size; save "
            "model.state_dict() with torch.save."
        )
    (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")

    def member(name: str) -> bytes:
        info = archive.getinfo(folder + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"{path}: {folder}{name} is compressed; PyTorch writes it uncompressed."
            )
        return archive.read(info)

    if f"{folder}byteorder" in archive.namelist() and member("byteorder") != b"little":
        raise ValueError(f"{path}: must be little-endian; save it on a little-endian machine.")
    content = load(io.BytesIO(member("data.pkl")), path, _NAMES, _storage)
    scripted = any(name.startswith(f"{folder}code/") for name in archive.namelist())
    if scripted and not any(isinstance(value, _Tensor) for _, value in _walk(content)):
        raise ValueError(
            f"{path}: is TorchScript without parameters, as torch.jit.freeze writes it; save "
            "model.state_dict() of the model before that."
        )
    return _arrays(content, lambda key: memoryview(member(f"data/{key}")), path, select)


def read_legacy(data: bytes, path: Path, select: Select) -> tuple[Selection, dict[str, np.ndarray]]:
    """Return the selected tensors of the container before the zip; see `_arrays`."""
    file = io.BytesIO(data)
    magic = load(file, path, _NAMES)
    if magic != MAGIC or load(file, path, _NAMES) != PROTOCOL:
        raise ValueError(
            f"{path}: is a pickle, but not of PyTorch; load it with the program that wrote it and "
            "save its arrays as .safetensors or .npz."
        )
    system = load(file, path, _NAMES)
    if isinstance(system, Mapping) and not system.get("little_endian", True):
        raise ValueError(f"{path}: must be little-endian; save it on a little-endian machine.")
    widths: dict[str, int] = {}

    def reference(pid: Any) -> Any:
        storage = _storage(pid)
        if isinstance(storage, _Storage):
            widths[storage.key] = _dtype(storage.dtype).itemsize
        return storage

    content = load(file, path, _NAMES, reference)
    keys, whole, offset = load(file, path, _NAMES), memoryview(data), file.tell()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"{path}: its list of storages is missing; download the file again.")
    storages: dict[str, memoryview] = {}
    for key in keys:
        size = int.from_bytes(whole[offset : offset + 8], "little") * widths.get(key, 1)
        storages[key] = whole[offset + 8 : offset + 8 + size]
        offset += 8 + size
    return _arrays(content, lambda key: storages[key], path, select)


def _dtype(name: str) -> np.dtype:
    return np.dtype("<u2" if name == "bfloat16" else name)


def _arrays(
    content: Any, read: _Read, path: Path, select: Select
) -> tuple[Selection, dict[str, np.ndarray]]:
    """Return what `select` chooses of the tensors in a state_dict, a checkpoint or a module.

    The storages of the others, such as an optimizer's, are not read.

    Raises:
        ValueError: there are no tensors, or one that is chosen is none or exceeds its storage.
    """
    found: dict[str, Any] = {}
    for name, value in _walk(content):
        if name in found:
            raise ValueError(f"{path}: two entries are called {name}; rename one of them.")
        found[name] = value
    # What is no tensor, such as an epoch, is passed over unless it is in the place of one.
    paths = [name for name, value in found.items() if isinstance(value, _Tensor) or is_layer(name)]
    if not paths or isinstance(content, _Tensor):
        raise ValueError(f"{path}: holds no state_dict; save model.state_dict() alone.")
    selection = select(paths)
    for name in selection.names:
        if isinstance(other := found[name], _Other):
            quantized = "qtensor" in other.name or "quantize" in other.name
            remedy = "save it as one" + quantized * " of float32, from before it was quantized"
            raise ValueError(f"{path}: {name} is of {other.name} and no plain tensor; {remedy}.")
    arrays, damaged, storages = {}, [], {}
    for name, bare in selection.names.items():
        tensor = found[name]
        try:
            key = tensor.storage.key, tensor.storage.dtype
            if key not in storages:
                storages[key] = _numbers(read(key[0]), key[1])
            arrays[bare] = _view(tensor, storages[key])
        except (AttributeError, KeyError, TypeError, ValueError):
            damaged.append(name)
    if damaged:
        more = f" and {len(damaged) - MAX_LISTED:,} more" if len(damaged) > MAX_LISTED else ""
        raise ValueError(
            f"{path}: {', '.join(damaged[:MAX_LISTED])}{more}: must be complete tensors, as in a "
            "state_dict; download the file again."
        )
    return selection, arrays


def _walk(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield tensors, and objects that are none, in nested containers and modules, with their paths.

    Each container is entered once: a pickle may hold one a million times.
    """
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", content)]
    while stack:
        path, value = stack.pop()
        inner = value.state if isinstance(value, _Other) else value
        if isinstance(inner, dict) or (isinstance(inner, list) and len(inner) <= MAX_LIST):
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            items = inner.items() if isinstance(inner, dict) else enumerate(inner)
            named = [
                (f"{path}.{key}" if path else str(key), item) for key, item in items if _is_key(key)
            ]
            stack += [(path, item) for path, item in reversed(named) if len(path) <= MAX_PATH]
        elif isinstance(value, (_Tensor, _Other)):
            yield path, value


def _is_key(key: Any) -> bool:
    return (type(key) is int and 0 <= key < MAX_LIST) or (
        isinstance(key, str) and len(key) <= MAX_PATH
    )


def _numbers(data: memoryview, dtype: str) -> np.ndarray:
    numbers = np.frombuffer(data, _dtype(dtype))
    # A bfloat16 is the upper half of a float32.
    return (numbers.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else numbers


def _view(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """Return the tensor, not copied; raise a ValueError if it exceeds its storage."""
    shape, strides = tensor.shape, tensor.strides
    if not isinstance(shape, list) or not isinstance(strides, list):
        raise TypeError("it has no shape")
    values = (tensor.storage.start, tensor.offset, *shape[: MAX_SIDES + 1], *strides[:MAX_SIDES])
    # The product of numbers without limit would take more than a constant time.
    if len(shape) > MAX_SIDES or not all(type(v) is int and 0 <= v < 2**63 for v in values):
        raise ValueError("its shape is invalid")
    start, size = sum(values[:2]), math.prod(shape)
    # NumPy's own check accepts an empty buffer, and sums that overflow 64 bits.
    last = start + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    # With strides of 0 a few bytes could be an array of any size.
    if size > numbers.size or (size and last >= numbers.size):
        raise ValueError("it exceeds its storage")
    width = numbers.itemsize
    return np.ndarray(
        shape, numbers.dtype, numbers, start * width, [stride * width for stride in strides]
    )
