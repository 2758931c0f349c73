"""What an experiment has finished, one JSON line a run; means with intervals; Markdown tables.

Tables and pictures are made from the record alone, so they can be had after part of the seeds, and
an experiment that is started again does only what the record lacks. A run's line tells in "made" by
which settings, so that a run by others is not taken for it.
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


class Estimate(NamedTuple):
    """A mean over seeds; what takes two seeds is NaN where there is one."""

    mean: float
    deviation: float  # of the sample (n - 1)
    half_width: float  # of the 95 % interval of the mean (Student's t)
    number: int

    @property
    def resolved(self) -> bool:
        """Whether the interval is known and leaves out 0."""
        return abs(self.mean) > self.half_width

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half_width:.2f}" if self.number > 1 else f"{self.mean:.2f}"


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the record at `path` and force it onto the disk; makes the folder.

    Raises ValueError for NaN and infinity, which JSON does not have.
    """
    text = json.dumps(dict(line), allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = _whole(path)
    if path.exists() and path.stat().st_size > len(whole):
        os.truncate(path, len(whole))  # or this line would be glued to the torn one
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def finished(path: Path, **values: Any) -> list[dict[str, Any]]:
    """Return the lines of the record at `path` that have these `values`; none where it is not.

    A last line without its newline was torn by a crash and is left out. Raises ValueError for any
    other line that is not JSON.
    """
    lines = []
    for number, text in enumerate(_whole(path).splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}:{number} is no JSON ({error}); mend or remove it.") from error
        if not isinstance(line, dict):
            raise ValueError(f"{path}:{number} is no JSON object; mend or remove it.")
        lines.append(line)
    return [line for line in lines if values.items() <= line.items()]


def has(path: Path, made: Mapping[str, Any], **key: Any) -> bool:
    """Return whether the record at `path` has a run by this `key`.

    Raises ValueError where it was `made` otherwise.
    """
    wanted = json.loads(json.dumps(made))
    for line in finished(path, **key):
        found = line.get("made", {})
        if differ := sorted(k for k in wanted | found if wanted.get(k) != found.get(k)):
            others = ", ".join(f"{k} {found.get(k)}, not {wanted.get(k)}" for k in differ)
            run = ", ".join(f"{k} {v}" for k, v in key.items())
            raise ValueError(
                f"{path}: its run ({run}) was made otherwise ({others}); give another --workdir, "
                "or remove that line and its run."
            )
        return True
    return False


def file_name(setting: str) -> str:
    """Return a name for a folder or file of a setting."""
    return re.sub("[^a-z0-9.]+", "-", setting.lower())


def _whole(path: Path) -> bytes:
    """Return the lines that end in a newline."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of `values`, one a seed, with its 95 % interval."""
    number = len(values)
    if not number:
        raise ValueError("There is no finished run to take a mean of; run one seed at least.")
    mean = statistics.mean(values)
    if number == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    deviation = statistics.stdev(values)
    half_width = float(stdtrit(number - 1, 0.975)) * deviation / math.sqrt(number)
    return Estimate(mean, deviation, half_width, number)


def paired(without: Mapping[int, float], with_: Mapping[int, float]) -> Estimate:
    """Return the mean of with_[seed] - without[seed] over the seeds that both have."""
    return estimate([with_[seed] - without[seed] for seed in sorted(without.keys() & with_.keys())])


def verdict(difference: Estimate) -> str:
    """Return `difference` with its interval, and whether it shows at all."""
    if difference.number == 1:
        return f"{difference.mean:+.2f} (one seed: no interval)"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    text = f"{difference.mean:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}"
    return text if difference.resolved else f"{text}: not resolved at this scale"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; ValueError where it would be empty."""
    if not rows:
        raise ValueError("There is no finished run to show; give --seeds a number, such as 0.")
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
