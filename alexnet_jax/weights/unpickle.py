"""Read a pickle that may hold arrays and nothing else.

A pickle is a program: it names functions, which an ordinary reader imports and calls. This one
imports nothing. The few names that it allows stand for functions of this package; any other is
refused before anything is called.

It is built on the Python version of Python's unpickler: the C version has a memo table as long as
the largest index in the pickle, 32 GiB for a file of 20 bytes.

Time and memory are bounded by the size of the file. Each operation takes a byte of it at least, and
must not cost more than a constant beyond what it reads: what a pickle holds once can be used again
by every operation, so that anything copied, compared or hashed again is limited in size.
"""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

Names = Mapping[tuple[str, str], "AllowedCall"]

# A state_dict takes about 30 operations an array. An empty list takes one, and 64 bytes of memory.
MAX_OPERATIONS = 2_000_000
MAX_ARGUMENTS = 16  # PyTorch passes up to 7
MAX_NAME = 1000  # characters of a name; the deepest networks have names of 100
MAX_INTEGER = 2**60  # of a key; larger ones can be made to have one hash
MAX_REASON = 200  # characters of an error message of Python's unpickler


class AllowedCall:
    """What a name in a pickle stands for: a function, which a pickle cannot modify."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self._call(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(f"{name} cannot be set")


class _Refused(ValueError):
    """The pickle names something other than an array."""


_Load = Callable[[Any], None]  # what the unpickler does for an opcode


def _as_list(load_tuple: _Load) -> _Load:
    def load_list(self: Any) -> None:
        load_tuple(self)
        self.stack[-1] = list(self.stack[-1])

    return load_list


def _refuse(_: Any) -> None:
    raise _Refused("an object of another kind")


_DISPATCH: dict[int, _Load] = dict(pickle._Unpickler.dispatch)
# A tuple may be a key. If it holds one tuple twice, that another twice and so on, its hash takes
# forever or overflows the stack; a list cannot be a key.
for _code in (pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _DISPATCH[_code[0]] = _as_list(_DISPATCH[_code[0]])


def _load_newobj(self: Any) -> None:
    """Call what stands for a class: no class is there to be made an instance of."""
    arguments = self.stack.pop()
    self.stack[-1] = self.stack[-1](*arguments)


_DISPATCH[pickle.NEWOBJ[0]] = _load_newobj
# Sets, and other ways of making objects than those of arrays.
for _code in (
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.INST, pickle.OBJ),
    *(pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8),
    *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
):
    _DISPATCH[_code[0]] = _refuse


def check_key(key: Any) -> None:
    """Raise an UnpicklingError for a key whose hash or comparison can be expensive."""
    if isinstance(key, (str, bytes)) and len(key) <= MAX_NAME:
        return
    # Few floats have the same hash, and that of an object may be its identity.
    if key is None or isinstance(key, float) or type(key).__hash__ is object.__hash__:
        return
    if isinstance(key, int) and abs(key) < MAX_INTEGER:
        return
    raise pickle.UnpicklingError("it has a key that is neither a short name nor a small number")


def _check_keys(stack: list[Any]) -> None:
    for key in stack[::2]:  # what follows the mark
        check_key(key)


def _check_arguments(stack: list[Any]) -> None:
    if not isinstance(stack[-1], list) or len(stack[-1]) > MAX_ARGUMENTS:
        raise pickle.UnpicklingError(f"it calls a function with over {MAX_ARGUMENTS} arguments")


def _after(check: Callable[[list[Any]], None], load: _Load) -> _Load:
    def load_checked(self: Any) -> None:
        check(self.stack)
        load(self)

    return load_checked


def _load_put(self: Any) -> None:
    # As text an index of the memo table may be any number, and a key like another.
    index = int(self.readline()[:-1])
    if not 0 <= index < MAX_INTEGER:
        raise pickle.UnpicklingError("it has an index that is too large")
    self.memo[index] = self.stack[-1]


_DISPATCH[pickle.PUT[0]] = _load_put
for _code, _check in (
    (pickle.SETITEM, lambda stack: check_key(stack[-2])),
    (pickle.SETITEMS, _check_keys),
    (pickle.DICT, _check_keys),
    (pickle.REDUCE, _check_arguments),
    (pickle.NEWOBJ, _check_arguments),
):
    _DISPATCH[_code[0]] = _after(_check, _DISPATCH[_code[0]])


class _Counted(dict[int, _Load]):
    """The functions by opcode, which can be looked up a limited number of times."""

    _remaining = MAX_OPERATIONS

    def __getitem__(self, code: int) -> _Load:
        self._remaining -= 1
        if self._remaining < 0:
            raise pickle.UnpicklingError(f"it has more than {MAX_OPERATIONS:,} operations")
        return super().__getitem__(code)


class _Unpickler(pickle._Unpickler):
    def __init__(self, file: IO[bytes], names: Names, persistent: Callable[[Any], Any] | None):
        # Strings of Python 2, such as the bytes of arrays, are latin1: a character for each byte.
        super().__init__(file, encoding="latin1")
        vars(self)["dispatch"] = _Counted(_DISPATCH)
        self._names, self._persistent = names, persistent

    def find_class(self, module: str, name: str) -> Any:
        if len(module) + len(name) > MAX_NAME or (module, name) not in self._names:
            raise _Refused(f"{module}.{name}"[:MAX_REASON])
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("it refers to objects outside itself")
        if not isinstance(pid, list) or len(pid) > MAX_ARGUMENTS:
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        return self._persistent(pid)


def load(
    file: IO[bytes],
    path: Path,
    names: Names,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the content of one pickle in a file, with lists for tuples.

    Args:
        file: read from its current position to the end of the pickle.
        path: for messages.
        names: `(module, name)` of everything that the pickle may name.
        persistent: resolves its references to outside objects.

    Raises:
        ValueError: it names something else, is damaged, or would cost more than its size.
    """
    try:
        return _Unpickler(file, names, persistent).load()
    except _Refused as refused:
        raise ValueError(
            f"{path}: {refused} is not an array, and only arrays are read from a pickle (nothing "
            "in the file was executed); save the arrays alone, as .safetensors or .npz."
        ) from None
    except Exception as error:  # noqa: BLE001, a hostile or truncated pickle may raise any
        reason = (str(error) or type(error).__name__)[:MAX_REASON]
        raise ValueError(
            f"{path}: its pickle cannot be read ({reason}); download the file again."
        ) from None
