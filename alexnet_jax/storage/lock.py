"""One process at a time writes to a folder: a run, an index, shards."""

import contextlib
import dataclasses
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from alexnet_jax.config import invalid

NAME = "lock"
PAUSE = 0.2  # seconds between attempts of a process that waits


@dataclasses.dataclass(frozen=True)
class Lock:
    """A lock that this process holds."""

    folder: Path
    descriptor: int  # of the open lock file
    name: str  # of the argument that named the folder

    def check(self) -> None:
        """Raise a ValueError if another process may have locked what is now at the path."""
        check_in_place(self.folder, NAME, os.fstat(self.descriptor), self.name)


def check_in_place(folder: Path, entry: str, opened: os.stat_result, name: str = "workdir") -> None:
    """Raise a ValueError unless an entry of a folder is the one that this process has open.

    It is not if the folder was moved, deleted or replaced: what is written by path would then make
    it again, or go into another folder, where another process may be writing.

    Args:
        folder: as it was named.
        entry: name of a file or folder in it.
        opened: of the file or folder that was opened under that name.
        name: of the argument that named the folder, for messages.
    """
    try:
        if os.path.samestat((folder / entry).stat(), opened):
            return
        reason = f"{entry} there is another"
    except OSError as error:
        reason = f"{entry}: {error.strerror}"
    rule = f"was moved, deleted or replaced while this process wrote to it ({reason})"
    remedy = "put it back, or name where it is now, and run the same command to resume"
    raise invalid(name, folder, rule, remedy)


@contextlib.contextmanager
def hold_lock(
    folder: Path, name: str = "workdir", waiting: Callable[[str], None] | None = None
) -> Iterator[Lock]:
    """Keep other processes from writing to a folder.

    The lock is the kernel's and dies with its holder, however that dies; the file stays behind and
    means nothing. (Over NFS it holds between hosts from Linux 2.6.12 on, if the server locks.)

    Args:
        folder: must exist.
        name: of the argument that named the folder, for messages.
        waiting: wait while another process holds the lock, and call this again and again meanwhile
            with a clause that says which one does; None: raise an error instead.

    Raises:
        ValueError: another process holds the lock, or the file system has no locks.
    """
    with (folder / NAME).open("a+", encoding="utf-8") as file:
        try:
            while not _try_lock(file):
                file.seek(0)
                holder = file.read().strip() or "another process"
                rule = f"{holder} is writing to this folder"
                if waiting is None:
                    raise invalid(name, folder, rule, "wait until it ends, or use another folder")
                waiting(rule)
                time.sleep(PAUSE)
        except OSError as error:  # of some network file systems
            rule = f"cannot be locked ({error.strerror}), and two writers would damage it"
            raise invalid(name, folder, rule, "use a file system that has locks") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield Lock(folder, file.fileno(), name)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
