"""A path that stays with its folder, and that no library takes for a pattern or an address."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from alexnet_jax.config import invalid

DESCRIPTORS = Path("/proc/self/fd")  # of Linux: links to what this process has open
# What Orbax, etils and TensorStore read in a path: patterns, escapes, addresses, and UTF-8.
READ_OTHERWISE = re.compile(r"[\[\]*?\\\ud800-\udfff]|(^|/)\w[\w+.-]*:/")


@contextlib.contextmanager
def pinned(folder: Path, name: str = "workdir") -> Iterator[Path]:
    r"""Yield a path to a folder by way of its descriptor.

    What is written below it goes into this folder even after it was moved, and nowhere after it was
    deleted: libraries would make the old path again. Nor does it hold any character of the folder's
    own path, in which Orbax would take `[1]` for a pattern, `\` for an escape and `gs:/` for an
    address, and then write checkpoints that cannot be read. Where the system has no such paths it
    is the folder's own.

    Args:
        folder: must exist.
        name: of the argument that named the folder, for messages.

    Raises:
        ValueError: the system has no such paths, and the folder's own would be read as a pattern.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        path = DESCRIPTORS / str(descriptor)
        if not _is_folder(path, descriptor):
            path = folder.absolute()
            if found := READ_OTHERWISE.search(str(path)):
                rule = f"its absolute path must not hold {found[0]!r} on this system"
                raise invalid(name, folder, rule, "use a folder without it")
        yield path
    finally:
        os.close(descriptor)


def _is_folder(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
