"""What is written down when a number is no longer finite: which step, and which records it saw."""

import json
from pathlib import Path

import numpy as np

from alexnet_jax.data.sources import Source

BAD_NUMBERS = "bad_numbers.json"


def write(
    workdir: Path,
    step: int,
    reason: str,
    checkpoint: int | None,
    records: np.ndarray,
    source: Source,
) -> Path:
    """Write `workdir`/bad_numbers.json; return its path.

    Args:
        workdir: folder of the run.
        step: the first with a bad number, counted from 1 as everywhere.
        reason: what was found.
        checkpoint: step of the last checkpoint, from which the step can be run again.
        records: int [B], the batch's records: numbers in `source`.
        source: the training split.
    """
    numbers = records.tolist()
    about = {
        "step": step,
        "reason": reason,
        "checkpoint": checkpoint,
        "indices": numbers,
        "records": [source.describe(number) for number in numbers],
    }
    path = workdir / BAD_NUMBERS
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(about, indent=2) + "\n")
    partial.replace(path)
    return path
