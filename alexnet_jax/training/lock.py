"""One process writes to a run's folder."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

NAME = "lock"


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Keep other processes from writing to `workdir`.

    The lock is the kernel's and dies with its holder, however that dies; the file stays behind and
    means nothing. (Over NFS it holds between hosts from Linux 2.6.12 on, where the server locks.)

    Raises:
        ValueError: another process holds it.
    """
    with (workdir / NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"--workdir {workdir}: {file.read().strip() or 'another process'} is writing to "
                "it; wait until that ends, or give another --workdir."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
