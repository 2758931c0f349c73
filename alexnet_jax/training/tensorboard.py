"""Metrics for TensorBoard."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

# pyrefly: ignore [missing-module-attribute]  # protobuf makes these classes when imported
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

SECONDS = 10  # between flushes at most


class Events:
    """A file of events, written in the caller's thread.

    tensorboardX's `SummaryWriter` writes in a thread of its own. On a full disk that thread dies,
    and the run then waits forever for room in its queue.
    """

    def __init__(self, folder: Path, step: int):
        """Begin a file after `step`; TensorBoard drops later steps of other files."""
        folder.mkdir(parents=True, exist_ok=True)
        # With nanoseconds a run resumed within the same second does not overwrite the file.
        second, nanosecond = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{second}.{socket.gethostname()}.{nanosecond:09d}"
        self._file = RecordWriter(str(folder / name))
        self._flushed = time.monotonic()
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers at `step` by their tags."""
        for tag, value in values.items():
            self._write(Event(step=step, summary=scalar(tag, value)))
        if time.monotonic() - self._flushed > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Pass what was written to the system, so that it survives this process."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())
