"""Metrics, hyperparameters and pictures for TensorBoard."""

import io
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

# pyrefly: ignore [missing-module-attribute]  # protobuf makes these classes when imported
from tensorboardX.proto.event_pb2 import Event, SessionLog

# pyrefly: ignore [missing-module-attribute]
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import hparams, scalar

from alexnet_jax.config import PER_PROCESS, RESUMABLE, Config, fields_marked, flatten
from alexnet_jax.storage.atomic import replacing
from alexnet_jax.storage.names import as_utf8

FOLDER = "tensorboard"  # in the folder of a run
SECONDS = 10  # between flushes at most
# One name for all starts of a run, the first in the order in which TensorBoard reads files.
HPARAMS = "events.out.tfevents.0.hparams"
RESULTS = ("validation/top1_error", "validation/loss", "test/top1_error", "test/loss")
CHANGING = ("preset", "schedule.epochs")  # may change on resume and are shown all the same


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

    def picture(self, step: int, tag: str, content: bytes) -> None:
        """Write a PNG at `step`."""
        with Image.open(io.BytesIO(content)) as image:
            width, height, channels = *image.size, len(image.getbands())
        shown = Summary.Image(
            width=width, height=height, colorspace=channels, encoded_image_string=content
        )
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=shown)])))

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


class NullEvents(Events):
    """Replaces the file of events in a run that has none."""

    def __init__(self) -> None:
        pass

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Close nothing."""


def write_pictures(folder: Path, step: int, paths: Mapping[str, Path]) -> None:
    """Write pictures of a run at `step` into a new file of events.

    Args:
        folder: of the events.
        step: of the weights that the pictures are of.
        paths: PNG files by their tags.
    """
    if not paths:
        return
    events = Events(folder, step)
    try:
        for tag, path in paths.items():
            events.picture(step, f"figures/{tag}", path.read_bytes())
    finally:
        events.close()


def write_hparams(workdir: Path, config: Config) -> None:
    """Write the options of a run for TensorBoard's table of hyperparameters.

    Into one file, which every start of the run writes again: they are never there twice. Those of
    one process are left out, and most of those that change nothing that is computed.
    """
    hidden = fields_marked(RESUMABLE, PER_PROCESS) - {*CHANGING}
    values = {
        name: " ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in flatten(config).items()
        if name not in hidden
    }
    values = {
        name: as_utf8(value) if isinstance(value, str) else value for name, value in values.items()
    }
    experiment, start, _ = hparams(values, dict.fromkeys(RESULTS))
    (workdir / FOLDER).mkdir(parents=True, exist_ok=True)
    with replacing(workdir / FOLDER / HPARAMS) as partial:
        file = RecordWriter(str(partial))
        for event in (
            Event(file_version="brain.Event:2"),
            *(Event(step=0, summary=summary) for summary in (experiment, start)),
        ):
            event.wall_time = time.time()
            file.write(event.SerializeToString())
        file.close()
