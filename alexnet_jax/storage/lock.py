"""One process at a time writes to a folder: a run, an index, shards."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from alexnet_jax.config import invalid

NAME = "lock"


@contextlib.contextmanager
def hold_lock(folder: Path, name: str = "workdir") -> Iterator[None]:
    """Keep other processes from writing to a folder.

    The lock is the kernel's and dies with its holder, however that dies; the file stays behind and
    means nothing. (Over NFS it holds between hosts from Linux 2.6.12 on, if the server locks.)

    Args:
        folder: must exist.
        name: of the argument that named the folder, for messages.

    Raises:
        ValueError: another process holds the lock, or the file system has no locks.
    """
    with (folder / NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            rule = f"{holder} is writing to this folder"
            raise invalid(name, folder, rule, "wait until it ends, or use another folder") from None
        except OSError as error:  # of some network file systems
            rule = f"cannot be locked ({error.strerror}), and two writers would damage it"
            raise invalid(name, folder, rule, "use a file system that has locks") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
