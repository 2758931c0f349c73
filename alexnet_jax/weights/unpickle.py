"""Read a pickle that may hold arrays and nothing else.

A pickle is a program: it names functions, which an ordinary reader imports and calls. This one
imports nothing. The few names that it allows stand for functions of this package; any other is
refused before anything is called.

It is built on the Python version of Python's unpickler: the C version has a memo table as long as
the largest index in the pickle, 32 GiB for a file of 20 bytes.
"""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

Names = Mapping[tuple[str, str], "AllowedCall"]


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


class _Unpickler(pickle._Unpickler):
    dispatch = _DISPATCH

    def __init__(self, file: IO[bytes], names: Names, persistent: Callable[[Any], Any] | None):
        # Strings of Python 2, such as the bytes of arrays, are latin1: a character for each byte.
        super().__init__(file, encoding="latin1")
        self._names, self._persistent = names, persistent

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise _Refused(f"{module}.{name}")
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("it refers to objects outside itself")
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
        ValueError: it names something else, or is damaged.
    """
    try:
        return _Unpickler(file, names, persistent).load()
    except _Refused as refused:
        raise ValueError(
            f"{path}: {refused} is not an array, and only arrays are read from a pickle (nothing "
            "in the file was executed); save the arrays alone, as .safetensors or .npz."
        ) from None
    except Exception as error:  # noqa: BLE001, a hostile or truncated pickle may raise any
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path}: its pickle cannot be read ({reason}); download the file again."
        ) from None
