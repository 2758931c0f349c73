"""Do memory, open files and threads of a long run stay as they are after 200 steps?

The training command runs in its own process and is sampled twenty times a second: a small network
on the synthetic images, with an evaluation and two or three checkpoints every 100 steps.

Expected: resident memory at the end within 5 % of that after 200 steps; equally many open files
          and threads
Cost:     about 1 minute on two cores for 2,000 steps
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
WINDOW = 100  # steps over which samples are combined
INTERVAL = 0.05  # seconds between samples
# glibc keeps freed memory per group of threads, in up to eight arenas a core. 2,000 steps are too
# few to fill all of them (see experiments/RESULTS.md), but enough for two.
ARENAS = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}


@dataclasses.dataclass(frozen=True)
class Sample:
    """Resources of the process at one moment."""

    step: int
    resident: float  # MiB
    files: int
    threads: int


def train(workdir: Path, steps: int) -> list[Sample]:
    """Train for `steps` steps in a new folder; return the samples.

    Raises:
        RuntimeError: the command failed.
    """
    options = {
        "--workdir": workdir,
        "--model.width": 0.05,
        "--data.image-size": 40,
        "--data.crop": 36,
        "--optimizer.batch-size": 4000 // EPOCH,
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
    samples = []
    while child.poll() is None:
        lines = read_metrics(workdir)
        if lines and (sample := _sample(child.pid, lines[-1]["step"])):
            samples.append(sample)
        time.sleep(INTERVAL)
    output, _ = child.communicate()
    if child.returncode:
        raise RuntimeError(f"The command ended with {child.returncode}: {output}")
    return samples


def _sample(process: int, step: int) -> Sample | None:
    """Return the resources of a process, or None if it has just ended."""
    folder = Path(f"/proc/{process}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        files = sum(1 for _ in (folder / "fd").iterdir())
        return Sample(step, int(status["VmRSS"].split()[0]) / 1024, files, int(status["Threads"]))
    except (OSError, KeyError):
        return None


def summarize(samples: list[Sample], step: int) -> Sample:
    """Return the resources in the `WINDOW` steps from `step` on.

    The median of the memory, and the smallest numbers of files and threads, since evaluations and
    saves temporarily have their own.
    """
    window = [sample for sample in samples if step <= sample.step < step + WINDOW]
    if not window:
        raise ValueError(f"No sample in the {WINDOW} steps from {step} on; train longer.")
    resident = statistics.median(sample.resident for sample in window)
    files = min(sample.files for sample in window)
    threads = min(sample.threads for sample in window)
    return Sample(step, resident, files, threads)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="a new folder")
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    samples = train(args.workdir, args.steps)
    print("| from step | resident, MiB | open files | threads |\n|---|---|---|---|")
    for step in range(2 * EPOCH, args.steps, 3 * EPOCH):
        row = summarize(samples, step)
        print(f"| {step:,} | {row.resident:.1f} | {row.files} | {row.threads} |")
    highest = max(samples, key=lambda sample: sample.resident)
    print(f"\nHighest: {highest.resident:.1f} MiB, after step {highest.step:,}.")
