"""The record of finished runs (JSON lines), means with confidence intervals, Markdown tables.

Tables and figures are made from the record alone, so they can be had after part of the seeds, and
an experiment that is started again runs only what the record lacks. The line of a run names under
"settings" what it was trained with; a run with other settings is never mistaken for it.
"""

import json
import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.special import stdtrit

NAME = "record.jsonl"


class NoRuns(ValueError):
    """The record lacks the runs of a table or of a number."""


class Estimate(NamedTuple):
    """A mean over seeds; deviation and interval are NaN for a single seed."""

    mean: float
    deviation: float  # sample standard deviation (n - 1)
    half_width: float  # of the 95 % interval of the mean (Student's t)
    number: int

    @property
    def resolved(self) -> bool:
        """Whether the interval is known and excludes 0."""
        return abs(self.mean) > self.half_width

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half_width:.2f}" if self.number > 1 else f"{self.mean:.2f}"


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line to the record at `path` and flush it to disk; creates the folder.

    Raises ValueError for NaN and infinity, which JSON does not have.
    """
    text = json.dumps(dict(line), allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    complete = _complete_lines(path)
    if path.exists() and path.stat().st_size > len(complete):
        os.truncate(path, len(complete))  # a crash left a partial line
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def finished(path: Path, **values: Any) -> list[dict[str, Any]]:
    """Return the lines of the record at `path` that have these `values`; none without the file.

    A last line without a newline is the rest of a crash and is skipped. Raises ValueError for any
    other line that is not a JSON object.
    """
    lines = []
    for number, text in enumerate(_complete_lines(path).splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ValueError(
                f"{path}:{number}: is not JSON ({error}); correct or remove the line."
            ) from error
        if not isinstance(line, dict):
            raise ValueError(f"{path}:{number}: is not a JSON object; correct or remove the line.")
        lines.append(line)
    return [line for line in lines if values.items() <= line.items()]


def has(path: Path, settings: Mapping[str, Any], **key: Any) -> bool:
    """Return whether the record at `path` has a run with this `key`.

    Raises ValueError if that run had other `settings`.
    """
    expected = json.loads(json.dumps(settings))
    for line in finished(path, **key):
        recorded = line.get("settings", {})
        names = sorted(expected | recorded)
        if differing := [k for k in names if expected.get(k) != recorded.get(k)]:
            changes = ", ".join(f"{k} {recorded.get(k)}, not {expected.get(k)}" for k in differing)
            run = ", ".join(f"{k} {v}" for k, v in key.items())
            raise ValueError(
                f"{path}: the run ({run}) has other settings ({changes}); use another --workdir, "
                "or remove that line and the folder of the run."
            )
        return True
    return False


def file_name(setting: str) -> str:
    """Return the name of a setting as a file name."""
    return re.sub("[^a-z0-9.]+", "-", setting.lower())


def _complete_lines(path: Path) -> bytes:
    """Return the content up to the last newline."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of `values`, one per seed, with its 95 % interval."""
    number = len(values)
    if not number:
        raise NoRuns("The record has no finished run to average; run at least one seed.")
    mean = statistics.mean(values)
    if number == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    deviation = statistics.stdev(values)
    half_width = float(stdtrit(number - 1, 0.975)) * deviation / math.sqrt(number)
    return Estimate(mean, deviation, half_width, number)


def paired(without: Mapping[int, float], with_: Mapping[int, float]) -> Estimate:
    """Return the mean of with_[seed] - without[seed] over the seeds in both."""
    return estimate([with_[seed] - without[seed] for seed in sorted(without.keys() & with_.keys())])


def verdict(difference: Estimate) -> str:
    """Return `difference` with its interval, and whether that excludes 0."""
    if difference.number == 1:
        return f"{difference.mean:+.2f} (one seed: no interval)"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    text = f"{difference.mean:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}"
    return text if difference.resolved else f"{text}: not resolved at this scale"


def interval(difference: Estimate, unit: str = "", digits: int = 2) -> str:
    """Return `difference` with its interval for a cell: "+5.7 points (+1.4 to +10.0)"."""
    mean, half_width = difference.mean, difference.half_width
    text = f"{mean:+.{digits}f}{unit and ' '}{unit}"
    if difference.number == 1:
        return f"{text} (one seed)"
    text += f" ({mean - half_width:+.{digits}f} to {mean + half_width:+.{digits}f})"
    return text if difference.resolved else f"{text}, not resolved"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; NoRuns if it would be empty."""
    if not rows:
        raise NoRuns("The record has no finished run to show; give --seeds a number, such as 0.")
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
