"""One process at a time writes to a folder: a run, an index, shards."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

NAME = "lock"


@contextlib.contextmanager
def hold_lock(workdir: Path, option: str = "--workdir") -> Iterator[None]:
    """Keep other processes from writing to a folder, `workdir`, that `option` names.

    The lock is the kernel's and dies with its holder, however that dies; the file stays behind and
    means nothing. (Over NFS it holds between hosts from Linux 2.6.12 on, where the server locks.)

    Raises:
        ValueError: another process holds it, or the file system has no locks.
    """
    with (workdir / NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{option} {workdir}: {file.read().strip() or 'another process'} is writing to "
                f"it; wait until that ends, or give another {option}."
            ) from None
        except OSError as error:  # of some network file systems
            raise ValueError(
                f"{option} {workdir}: it cannot be locked ({error.strerror}), and two processes "
                "that write to it would spoil it; name one on a disk that has locks."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
