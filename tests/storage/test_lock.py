"""One process at a time writes to a folder, and its end, whatever it is, is the lock's."""

import errno
import signal
import subprocess
import sys

import pytest

from alexnet_jax.storage import lock


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    match = rf"to {tmp_path}: .*\(No locks available\).*; use a file system"
    with pytest.raises(ValueError, match=match), lock.hold_lock(tmp_path, "to"):
        pass


HOLD = """
import sys, time
from pathlib import Path
from alexnet_jax.storage import lock
with lock.hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_dies_with_its_holder(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(ValueError, match=rf"process {holder.pid} on "),
            lock.hold_lock(tmp_path),
        ):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with lock.hold_lock(tmp_path):
        pass


def move(folder):
    folder.rename(folder.with_name("moved"))


def delete(folder):
    (folder / lock.NAME).unlink()
    folder.rmdir()


def replace(folder):
    move(folder)
    folder.mkdir()
    (folder / lock.NAME).touch()


@pytest.mark.parametrize("change", [move, delete, replace])
def test_a_lock_of_a_folder_that_has_gone_is_noticed(tmp_path, change):
    folder = tmp_path / "run"
    folder.mkdir()
    with lock.hold_lock(folder) as held:
        held.check()
        change(folder)
        match = rf"workdir {folder}: was moved, deleted or replaced .*{lock.NAME}.*; put it back"
        with pytest.raises(ValueError, match=match):
            held.check()
