"""Metrics of a run: metrics.jsonl, TensorBoard, a progress bar and printed lines."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, SupportsFloat

from tqdm import tqdm

from alexnet_jax.storage.atomic import write_text
from alexnet_jax.storage.json_objects import is_number, parse_object
from alexnet_jax.storage.lock import check_in_place
from alexnet_jax.storage.names import printable
from alexnet_jax.training.tensorboard import FOLDER, Events, NullEvents

METRICS = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Return the records of `workdir`/metrics.jsonl in order; none if there is no such file.

    A last line without a newline was cut off by a crash and is left out. Raises ValueError for any
    other line that is not a record.
    """
    path = Path(workdir) / METRICS
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = content.split(b"\n")[:-1]
    return [_parse(line, path, number) for number, line in enumerate(lines, start=1)]


class ProgressBar(tqdm):
    """A bar that leaves out, on a narrow terminal, what matters least: error and speed go last."""

    FORMATS = (
        "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, "
        + "{rate_fmt}{postfix}]",
        "{percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        "{percentage:3.0f}%, {remaining} left{postfix}",
        "{percentage:3.0f}%{postfix}",
    )

    def __str__(self) -> str:
        values: dict[str, Any] = dict(self.format_dict)
        width = values["ncols"]
        for bar_format in self.FORMATS:
            values |= {"bar_format": bar_format, "ncols": None}
            if width is None or len(self.format_meter(**values)) <= width:
                break
        return self.format_meter(**{**values, "ncols": width})


class MetricsWriter:
    """Records a run that starts, or resumes, at `step` of `total` steps.

    Opening removes what was recorded after `step`: those steps are about to be repeated. What was
    recorded at `step` stays, and is not recorded twice: a run that was stopped in an evaluation,
    resumed, and was killed before it had saved the result evaluates again.
    """

    def __init__(
        self, workdir: Path, step: int, total: int | None = None, tensorboard: bool = True
    ):
        self._path = Path(workdir) / METRICS
        kept = _cut(self._path, step)
        self._recorded = {(line.get("split"), step) for line in kept if line["step"] == step}
        self._file = self._path.open("a", encoding="utf-8")
        self._events = Events(self._path.parent / FOLDER, step) if tensorboard else NullEvents()
        # disable=None: no bar where stderr is not a terminal, so log files hold only the lines.
        options = {"unit": "step", "disable": None, "dynamic_ncols": True}
        self._bar = ProgressBar(total=total, initial=step, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # On a full disk closing fails as writing did, which has been raised by then.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self.close()

    def train(self, step: int, epoch: float, **values: SupportsFloat | None) -> None:
        """Record running training values at `step`; `epoch` counts passes, with their fraction."""
        self._record("train", step, epoch, values)

    def evaluation(
        self, split: str, step: int, epoch: float, **values: SupportsFloat | None
    ) -> None:
        """Record an evaluation of `split` ("validation" or "test") after `step` steps."""
        self._record(split, step, epoch, values)

    def advance(
        self, step: int, loss: float, error: float, images_per_second: float | None
    ) -> None:
        """Move the bar to `step`; `error` is the top-1 error as a fraction of 1."""
        speed = f", {images_per_second:,.0f} images/s" if images_per_second else ""
        # The least important last, where a narrow terminal cuts.
        self._bar.set_postfix_str(f"error {error:.1%}{speed}, loss {loss:.3f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def print_line(self, text: str) -> None:
        """Print lines on standard output, above the bar."""
        tqdm.write(printable(text, keep="\n"))
        sys.stdout.flush()

    def flush(self) -> None:
        """Force what was recorded onto the disk: every checkpoint needs the metrics before it.

        Raises:
            OSError: the disk is full, as in each method that records; names the file.
            ValueError: the file was moved, deleted or replaced, as in each method that records.
        """
        check_in_place(self._path.parent, METRICS, os.fstat(self._file.fileno()))
        self._flush()

    def _flush(self) -> None:
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()

    def close(self) -> None:
        """Flush and close the files, and leave the bar as it is."""
        if self._file.closed:
            return
        with self._writing(), contextlib.ExitStack() as stack:
            for file in (self._bar, self._events, self._file):
                stack.callback(file.close)
            self._flush()

    def _record(
        self, split: str, step: int, epoch: float, values: dict[str, SupportsFloat | None]
    ) -> None:
        if (split, step) in self._recorded:
            return
        finite = {name: _finite(value) for name, value in values.items()}
        record = {"step": step, "epoch": _finite(epoch), "split": split, **finite}
        check_in_place(self._path.parent, METRICS, os.fstat(self._file.fileno()))
        with self._writing():
            self._file.write(_line({**record, "time": round(time.time(), 3)}))
            self._file.flush()
            scalars = {
                f"{split}/{name}": n
                for name, n in finite.items()
                if n is not None and name != "count"  # of images, the same in every evaluation
            }
            self._events.scalars(step, scalars)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Name the file in an error of writing, which Python does not."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


class NullWriter(MetricsWriter):
    """Replaces the writer in all processes but the main one."""

    def __init__(self) -> None:
        pass

    def advance(
        self, step: int, loss: float, error: float, images_per_second: float | None
    ) -> None:
        """Move no bar."""

    def print_line(self, text: str) -> None:
        """Print nothing."""

    def flush(self) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Close nothing."""

    def _record(
        self, split: str, step: int, epoch: float, values: dict[str, SupportsFloat | None]
    ) -> None:
        pass


def _finite(value: Any) -> float | int | None:
    """Return a plain Python number; None, JSON's null, for nan, inf and None."""
    number = value.item() if hasattr(value, "item") else value
    return None if number is None or not math.isfinite(number) else number


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = parse_object(line)
        if rule := _wrong(record):
            raise ValueError(rule)
    except ValueError as error:
        raise ValueError(
            f"{path} line {number} is {line[:60]!r}, and {error}: must be a JSON object with a "
            "step; remove that line."
        ) from None
    return record


def _wrong(record: dict[str, Any]) -> str:
    """Return why a JSON object is no record, or ""."""
    if type(step := record.get("step")) is not int or step < 0:
        return "its step is no number of steps"
    for name, value in record.items():
        right = isinstance(value, str) if name == "split" else value is None or is_number(value)
        if not right:
            return f"its {name} is no {'text' if name == 'split' else 'number'}"
    return "" if is_number(record.get("seconds", 0)) else "its seconds are no number"


def _cut(path: Path, step: int) -> list[dict[str, Any]]:
    """Remove the records after `step`; return the others."""
    if not path.exists():
        return []
    kept = [record for record in read_metrics(path.parent) if record["step"] <= step]
    write_text(path, "".join(map(_line, kept)))
    return kept
