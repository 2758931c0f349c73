"""Does a command that is killed leave anything that keeps the same command from succeeding?

Figures, `prepare`, an import and an export of weights are sent SIGKILL while they write, and are
rerun with the same arguments. The result is compared with that of a command that was never killed:
files byte by byte; of an import what its checkpoint holds, and its other files.

Expected: each rerun ends with exit code 0 and the same result.
Cost:     about 10 seconds a kill on two cores
Run:      python experiments/reliability/killed_commands.py --workdir runs/killed --kills 8

"Hit": when the process was killed its result was begun and not complete.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import crash_test
import numpy as np

from alexnet_jax.model.architecture import trace
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

PRESET = "quickstart"  # of the weights that are imported and exported
CLASSES = 10
TRIES = 3  # for each hit: a command may end before it is killed
NOT_COMPARED = ("lock",)


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that makes a folder."""

    arguments: list[str]  # of Python; OUT stands for the folder
    content: Callable[[Path], dict[str, bytes]]  # of the folder, to be compared


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a folder, by name, but for locks."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.name not in NOT_COMPARED
    }


def imported(folder: Path) -> dict[str, bytes]:
    """Return what a run of imported weights holds: arrays of its checkpoint and other files."""
    from alexnet_jax.inference.network import load_network
    from alexnet_jax.model import towers

    if not (folder / "checkpoints" / "0").exists():
        return {}
    network = load_network(folder, towers.make_mesh(towers=1, data=1, batch=1))
    arrays = {
        f"{layer} {kind}": np.asarray(value).tobytes()
        for layer, kinds in network.variables["params"].items()
        for kind, value in kinds.items()
    }
    others = {name: value for name, value in files_of(folder).items() if "checkpoints" not in name}
    return arrays | others


def exported(folder: Path) -> dict[str, bytes]:
    """Return the arrays and the header of exported weights, whose order varies by process."""
    path = folder / "weights.safetensors"
    if not path.exists():
        return {}
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True)
    return {"header": header.encode(), "arrays": content[start:]}


def write_weights(path: Path) -> None:
    """Write random weights of a preset's network."""
    config = PRESETS[PRESET]
    rng = np.random.default_rng(0)
    arrays = {}
    for row in trace(build_architecture(config.model, CLASSES, config.data.crop)):
        if row.kernel_shape:
            *window, inputs, outputs = row.kernel_shape
            shape = (outputs, inputs, *window)  # PyTorch's order
            arrays[f"{row.name}_w"] = rng.normal(0, 0.05, shape).astype(np.float32)
            arrays[f"{row.name}_b"] = np.zeros(outputs, np.float32)
    np.savez(path, allow_pickle=False, **arrays)


def run(arguments: list[str], out: Path) -> subprocess.Popen[str]:
    """Start a command that writes `out`."""
    command = [sys.executable, *(part.replace("OUT", str(out)) for part in arguments)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(arguments: list[str], out: Path) -> None:
    """Run a command to its end; RuntimeError if it fails."""
    process = run(arguments, out)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{arguments}: exit code {process.returncode}: {output}")


def wait_for_files(process: subprocess.Popen[str], out: Path) -> float:
    """Wait until there is a file in a folder, or the process ended; return the time."""
    while process.poll() is None and not any(
        path.is_file() and path.name not in NOT_COMPARED for path in out.rglob("*")
    ):
        time.sleep(crash_test.PAUSE)
    return time.monotonic()


def baseline(job: Job, out: Path) -> tuple[dict[str, bytes], float]:
    """Return the result of a command that is not killed, and how long it writes, in seconds."""
    process = run(job.arguments, out)
    begun = wait_for_files(process, out)
    while process.poll() is None:
        time.sleep(crash_test.PAUSE)
    if process.returncode:
        raise RuntimeError(f"{job.arguments}: {process.communicate()[0]}")
    last = max(path.stat().st_mtime for path in out.rglob("*"))
    return job.content(out), max(0.01, last - time.time() + time.monotonic() - begun)


def kill_once(job: Job, out: Path, whole: dict[str, bytes], delay: float) -> bool:
    """Kill a command while it writes, and rerun it; return whether the kill hit.

    Raises:
        RuntimeError: the rerun failed, or its result is not that of a command never killed.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    process = run(job.arguments, out)
    wait_for_files(process, out)
    time.sleep(delay)
    running = process.poll() is None
    process.kill()
    process.communicate()
    left = job.content(out) if running else whole
    hit = {name: left.get(name) for name in whole} != whole
    finish(job.arguments, out)
    now = job.content(out)
    different = [name for name in {*whole, *now} if whole.get(name) != now.get(name)]
    if different := [name for name in different if not name.endswith(".partial")]:
        raise RuntimeError(f"{out}: {sorted(different)} differ after a kill.")
    return hit


def jobs_of(root: Path) -> dict[str, Job]:
    """Return the jobs, having made what they start from."""
    images, weights, origin = root / "images", root / "weights.npz", root / "imported"
    if not images.exists():
        crash_test.draw_images(images)
    if not weights.exists():
        write_weights(weights)
    pretrained = ["-m", "alexnet_jax.pretrained"]
    import_weights = [*pretrained, "--from", str(weights), "--preset", PRESET, "--workdir"]
    if not origin.exists():
        finish([*import_weights, "OUT"], origin)
    trained = root / "trained"
    if not (trained / "summary.json").exists():
        changes = {"--schedule.epochs": 1, "--log.checkpoint-every": 100}
        finish(["-m", "alexnet_jax.main", *crash_test.arguments(images, trained, changes)], trained)
    prepare = ["-m", "alexnet_jax.prepare", "--from", str(images), "--image-size", "40"]
    return {
        "figures": Job(
            ["-m", "alexnet_jax.figures", "--workdir", str(trained), "--out", "OUT"], files_of
        ),
        "prepare": Job([*prepare, "--processes", "1", "--to", "OUT"], files_of),
        "import": Job([*import_weights, "OUT"], imported),
        "export": Job(
            [*pretrained, "--workdir", str(origin), "--to", "OUT/weights.safetensors"], exported
        ),
    }


def kill_all(root: Path, number: int, seed: int) -> list[str]:
    """Kill each command until `number` kills hit; return the lines of a table.

    Raises:
        RuntimeError: a command did not survive.
    """
    root.mkdir(parents=True, exist_ok=True)
    lines = ["| command | kills | hit | survived |", "|---|---|---|---|"]
    for name, job in jobs_of(root).items():
        out = root / f"never {name}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        whole, seconds = baseline(job, out)
        rng, hits, kills = random.Random(f"{seed} {name}"), 0, 0
        while hits < number and kills < TRIES * number:
            kills += 1
            hits += kill_once(job, root / f"killed {name}", whole, rng.uniform(0, seconds))
        lines.append(f"| {name} | {kills} | {hits} | {kills} |")
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="folder of all results")
    parser.add_argument("--kills", type=int, default=8, help="hits for each command")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("\n".join(kill_all(args.workdir, args.kills, args.seed)))
