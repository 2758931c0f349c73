"""Files that exist whole or not at all, even after a crash or on a full disk."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_jax.config import invalid
from alexnet_jax.storage.names import as_utf8


def make_parent(path: Path, name: str) -> None:
    """Make the folder of a file that is to be written, and those above it, if they are missing.

    Called before the work whose result goes there, so that hours are not spent for nothing.

    Args:
        path: of the file.
        name: of the field or argument that has the path, for messages.

    Raises:
        ValueError: it cannot be made, or what is there is no folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"its folder cannot be made ({error.filename}: {error.strerror})"
        raise invalid(name, path, rule, "name a file in another folder") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write, which replaces `path` at the end.

    It is on the disk before it is renamed. If anything fails it is removed, and `path` stays as it
    was. Its name begins with a dot: readers that look for files of a pattern do not see it.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        put_in_place(partial, path)
    except OSError as error:
        # A write to an open file on a full disk names none.
        if error.filename == str(partial) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone
            partial.unlink(missing_ok=True)


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a complete file, which is on the disk before, and its new name after."""
    _fsync(partial)
    partial.replace(path)
    with contextlib.suppress(OSError):  # of file systems that know it of files alone
        _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all; names in it that are not UTF-8 are escaped."""
    write_bytes(path, as_utf8(text).encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people to read, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
