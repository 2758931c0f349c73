"""Does a long run keep to the memory, open files and threads that it has after 200 steps?

The training command in a process of its own, looked at from outside twenty times a second: a small
network on the embedded images, with an evaluation and two checkpoints or three every 100 steps.

Expected: resident memory at the end within 5 % of that after 200 steps; as many files and threads
Cost:     about 1 minute on 2 CPU cores for 2,000 steps
Run:      python experiments/reliability/steady_memory.py --workdir runs/steady --steps 2000
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from alexnet_jax.training.metrics import read_metrics

EPOCH = 100  # steps: 4,000 images in batches of 40
WINDOW = 100  # steps over which looks are put together
LOOKS = 0.05  # seconds between them
# glibc keeps freed memory apart for groups of threads, in up to eight arenas a core. 2,000 steps
# are too few to have filled all of them once (3,500 do, with 5 % more memory), enough for two.
ARENAS = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}


@dataclasses.dataclass(frozen=True)
class Look:
    """The process at one moment."""

    step: int
    resident: float  # MiB
    files: int
    threads: int


def train(workdir: Path, steps: int) -> list[Look]:
    """Train for `steps` steps in a new folder; return what was seen.

    Raises:
        RuntimeError: the command failed.
    """
    options = {
        "--workdir": workdir,
        "--model.width": 0.05,
        "--data.image-size": 40,
        "--data.crop": 36,
        "--optimizer.batch_size-size": 4000 // EPOCH,
        "--schedule.epochs": steps // EPOCH,
        "--log.every": 10,
        "--log.checkpoint-every": 75,
        "--log.figures": False,
    }
    arguments = [str(part) for pair in options.items() for part in pair]
    child = subprocess.Popen(
        [sys.executable, "-m", "alexnet_jax.main", *arguments],
        env=os.environ | ARENAS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    looks = []
    while child.poll() is None:
        lines = read_metrics(workdir)
        if lines and (look := _look(child.pid, lines[-1]["step"])):
            looks.append(look)
        time.sleep(LOOKS)
    said, _ = child.communicate()
    if child.returncode:
        raise RuntimeError(f"The command ended with {child.returncode}: {said}")
    return looks


def _look(process: int, step: int) -> Look | None:
    """Return what Linux says of a process, or None where it has just ended."""
    folder = Path(f"/proc/{process}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        files = sum(1 for _ in (folder / "fd").iterdir())
        return Look(step, int(status["VmRSS"].split()[0]) / 1024, files, int(status["Threads"]))
    except (OSError, KeyError):
        return None


def around(looks: list[Look], step: int) -> Look:
    """Return what was seen in the `WINDOW` steps from `step` on.

    The median of the memory, and the fewest files and threads: evaluations and saves have theirs
    for as long as they last.
    """
    seen = [look for look in looks if step <= look.step < step + WINDOW]
    if not seen:
        raise ValueError(f"Nobody looked in the {WINDOW} steps from {step} on; train longer.")
    resident = statistics.median(look.resident for look in seen)
    files, threads = min(look.files for look in seen), min(look.threads for look in seen)
    return Look(step, resident, files, threads)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="a new folder")
    parser.add_argument("--steps", type=int, default=2000)
    asked = parser.parse_args()
    looks = train(asked.workdir, asked.steps)
    print("| from step | resident, MiB | open files | threads |\n|---|---|---|---|")
    for step in range(2 * EPOCH, asked.steps, 3 * EPOCH):
        seen = around(looks, step)
        print(f"| {step:,} | {seen.resident:.1f} | {seen.files} | {seen.threads} |")
    highest = max(looks, key=lambda look: look.resident)
    print(f"\nHighest: {highest.resident:.1f} MiB, after step {highest.step:,}.")
