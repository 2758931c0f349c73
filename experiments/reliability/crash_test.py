"""Does a run that is killed repeatedly end like one that was never killed?

Training processes are sent SIGKILL: in their first second, in a step, in a save, in the very first
save, in the removal of a checkpoint, in an evaluation, and right after a restart. Each is restarted
with the same command until the run ends; then parameters and velocity are compared bit for bit with
those of an uninterrupted run, and so are the images of every step, and metrics.jsonl and
summary.json without times and speeds. After each kill the next process must resume from the newest
intact checkpoint.

Expected: every run ends like the uninterrupted one; no kill loses more steps than lie between two
          checkpoints plus those trained while a checkpoint is written.
Cost:     about 7 seconds a kill on two cores, most of it the restart
Run:      python experiments/reliability/crash_test.py --workdir runs/crash --kills 30

Rerun the same command with more --kills to continue; --seed determines the moments, of which
--moments names some. `killed_commands.py` kills the other commands.
"""

import argparse
import dataclasses
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax import main
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.metrics import read_metrics

CHILD = Path(__file__).with_name("recorded_training.py")
IMAGES = {"train": 60, "val": 60, "test": 20}  # of each of 3 classes
BATCH, EPOCHS, EVERY = 9, 9, 7  # images, epochs of 20 steps, steps between checkpoints
EPOCH = 3 * IMAGES["train"] // BATCH
VARYING = (
    *("time", "seconds", "images_per_second", "tflop_per_second", "peak_share"),
    "waiting_for_data",
)
PAUSE = 0.001  # seconds between checks of the folder


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill, and how the run resumed."""

    run: str
    moment: str
    hit: bool  # whether the files left behind show that it was the intended moment
    step: int  # the last one recorded before the kill
    saved: int  # step of the newest intact checkpoint at that time; 0: none
    resumed: int  # step from which the next process resumed


def draw_images(folder: Path) -> None:
    """Write a small folder of noise images."""
    rng = np.random.default_rng(0)
    for split, number in IMAGES.items():
        for name in ("amber", "beige", "coral"):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")


def arguments(images: Path, workdir: Path, changes: Mapping[str, object] = {}) -> list[str]:
    """Return the command line of a tiny run with these changes."""
    options: dict[str, object] = {
        "--workdir": workdir,
        "--data.source": "folder",
        "--data.path": images,
        "--data.image-size": 40,
        "--data.crop": 36,
        "--model.width": 0.05,
        "--optimizer.batch-size": BATCH,
        "--schedule.epochs": EPOCHS,
        "--schedule.milestones": 4,
        "--log.every": 1,
        "--log.checkpoint-every": EVERY,
        "--log.figures": False,
        "--process.large-pages": False,
        **changes,
    }
    return [str(part) for pair in options.items() for part in pair]


class Process:
    """A running training command, observed from outside."""

    def __init__(self, root: Path, name: str):
        self.workdir = root / name
        self._output = root / f"{name}.output"
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_NUM_CPU_DEVICES": "2",
        }
        command = [sys.executable, str(CHILD), str(root / f"{name}.order")]
        with self._output.open("w") as output:
            self._child = subprocess.Popen(
                [*command, *arguments(root / "images", self.workdir)],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def running(self) -> bool:
        """Return whether it still runs; raise a RuntimeError if it failed."""
        code = self._child.poll()
        if code:
            raise RuntimeError(
                f"The command ended with exit code {code}: {self._output.read_text()}"
            )
        return code is None

    def kill(self) -> None:
        """Send SIGKILL and wait for the process to end."""
        self._child.kill()
        self._child.wait()

    def output(self) -> str:
        """Return its output so far."""
        return self._output.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """Return the metrics so far; none while the file is being truncated."""
        return read_metrics(self.workdir)

    def step(self) -> int:
        """Return the last recorded step."""
        return max((line["step"] for line in self.lines()), default=0)

    def saved(self) -> list[int]:
        """Return the steps of the complete checkpoints."""
        return sorted(int(path.name) for path in self._checkpoints() if path.name.isdigit())

    def saving(self) -> set[str]:
        """Return the names of the saves in progress."""
        return {path.name for path in self._checkpoints() if "tmp" in path.name}

    def removing(self) -> bool:
        """Return whether a checkpoint is being removed."""
        removed = self.workdir / "checkpoints" / ".removed"
        return any(files for _, _, files in os.walk(removed))  # of what is left meanwhile

    def _checkpoints(self) -> list[Path]:
        folder = self.workdir / "checkpoints"
        return [*folder.iterdir()] if folder.exists() else []


def resumed(process: Process) -> int:
    """Return the step from which a process reports to resume, or 0."""
    match = re.search(r"Resumed after step ([\d,]+),", process.output())
    return int(match[1].replace(",", "")) if match else 0


# Each waits for its moment, and returns a check whether the kill hit it, judged by the files left
# behind; None if the process ended before.
Aim = Callable[[Process, random.Random], Callable[[], bool] | None]


def wait_until(process: Process, condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds; return False if the process ended before."""
    while process.running():
        if condition():
            return True
        time.sleep(PAUSE)
    return False


def in_a_step(process: Process, rng: random.Random) -> Callable[[], bool] | None:
    """Some steps later, at any point between two steps."""
    if not wait_until(process, lambda: resumed(process) > 0 or process.step() > 0):
        return None
    target = process.step() + rng.randint(1, 2 * EPOCH // 3)
    if not wait_until(process, lambda: process.step() >= target):
        return None
    time.sleep(rng.uniform(0, 0.02))
    return lambda: process.step() >= target


def in_a_save(process: Process, rng: random.Random) -> Callable[[], bool] | None:
    """While a new checkpoint is being written."""
    old, skipped = set(process.saving()), rng.randint(0, 2)
    for _ in range(skipped + 1):
        if not wait_until(process, lambda: bool(process.saving() - old)):
            return None
        name = next(iter(process.saving() - old), "")
        old.add(name)
    time.sleep(rng.uniform(0, 0.03))
    return lambda: bool(process.saving())


def in_the_first_save(process: Process, rng: random.Random) -> Callable[[], bool] | None:
    """While the first checkpoint of a run is being written."""
    if not wait_until(process, lambda: bool(process.saving())):
        return None
    time.sleep(rng.uniform(0, 0.03))
    return lambda: bool(process.saving()) and not process.saved()


def in_the_first_second(process: Process, rng: random.Random) -> Callable[[], bool] | None:
    """Within a second of the start: while Python and the packages are imported."""
    before = process.step()
    time.sleep(rng.uniform(0, 1))
    return lambda: process.step() == before


def in_a_removal(process: Process, rng: random.Random) -> Callable[[], bool] | None:
    """While a checkpoint that is no longer kept is being removed."""
    for _ in range(rng.randint(1, 3)):
        if not wait_until(process, lambda: not process.removing()):
            return None
        if not wait_until(process, process.removing):
            return None
    time.sleep(rng.uniform(0, 0.08))
    return process.removing


def in_an_evaluation(process: Process, rng: random.Random) -> Callable[[], bool] | None:
    """After the last step of an epoch is recorded, before the epoch's checkpoint exists."""
    if not wait_until(process, lambda: resumed(process) > 0 or process.step() > 0):
        return None
    end = (process.step() // EPOCH + 1) * EPOCH
    if not wait_until(process, lambda: process.step() >= end):
        return None
    time.sleep(rng.uniform(0, 0.02))
    return lambda: process.step() == end and process.lines()[-1]["split"] == "train"


def after_a_restart(process: Process, rng: random.Random) -> Callable[[], bool] | None:
    """From the first moment of the process to its first new step."""
    until = time.monotonic() + rng.uniform(0, 5)
    before = process.step()
    wait_until(process, lambda: time.monotonic() > until or process.step() > before)
    return lambda: process.step() <= before


MOMENTS: dict[str, Aim] = {
    "in the first second": in_the_first_second,
    "in a step": in_a_step,
    "in a save": in_a_save,
    "in the very first save": in_the_first_save,
    "in a removal": in_a_removal,
    "in an evaluation": in_an_evaluation,
    "right after a restart": after_a_restart,
}


def run_until_over(root: Path, name: str, moments: list[str], rng: random.Random) -> list[Kill]:
    """Start the command, kill it at each of the moments in turn, let it end; return the kills.

    Raises:
        RuntimeError: it did not resume from its newest checkpoint, or it failed.
    """
    kills: list[Kill] = []
    pending: tuple[str, bool, int, int] | None = None
    for moment in [*moments, None]:
        process = Process(root, name)
        hit = MOMENTS[moment](process, rng) if moment else None
        if hit is None:
            while process.running():
                time.sleep(0.05)
        else:
            process.kill()
        # A process that was killed before it reported to resume has not resumed.
        if pending and (hit is None or "Resumed after" in process.output() or process.step() == 0):
            kills.append(_checked(Kill(name, *pending, resumed(process))))
            pending = None
        if hit is None:
            break
        if pending:  # killed twice before it resumed
            kills.append(Kill(name, *pending, pending[-1]))
        saved = process.saved()
        pending = (str(moment), hit(), process.step(), saved[-1] if saved else 0)
    return kills


def _checked(kill: Kill) -> Kill:
    if kill.resumed != kill.saved:
        raise RuntimeError(f"{kill}: must resume from the newest checkpoint.")
    return kill


def read_order(path: Path) -> dict[int, list[int]]:
    """Return the images of each step; RuntimeError if a step had two different batches."""
    batches: dict[int, list[int]] = {}
    for line in path.read_text().splitlines():
        step, indices = json.loads(line).values()
        if batches.setdefault(step, indices) != indices:
            raise RuntimeError(f"{path}: step {step} had other images the second time.")
    return batches


def check_same_end(root: Path, name: str) -> None:
    """Raise a RuntimeError unless a run ended like the uninterrupted one."""
    never, killed = root / "never", root / name
    _same("the images of the steps", *(read_order(root / f"{n}.order") for n in ("never", name)))
    without = [[_reproducible(line) for line in read_metrics(folder)] for folder in (never, killed)]
    _same("metrics.jsonl", *without)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (never, killed)]
    _same("summary.json", *map(_reproducible, summaries))
    images = root / "images"
    states = [final_state(arguments(images, folder)) for folder in (never, killed)]
    _same("the number of parameters and velocities", *map(len, states))
    for path, value in states[0].items():
        _same(path, value.tobytes(), states[1][path].tobytes())


def _reproducible(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in VARYING}


def _same(what: str, never: Any, killed: Any) -> None:
    if never != killed:
        raise RuntimeError(f"{what}: never killed {never!r:.300}, killed {killed!r:.300}.")


def final_state(command: list[str]) -> dict[str, np.ndarray]:
    """Return step, parameters and velocity of the latest checkpoint, by name."""
    import jax

    from alexnet_jax.model import towers
    from alexnet_jax.training.checkpoint import Checkpoints
    from alexnet_jax.training.optimizer import paper_sgd
    from alexnet_jax.training.state import abstract_state

    args = main.parse(command)
    architecture = build_architecture(args.config.model, 3, args.config.data.crop)
    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    _, target = abstract_state(
        architecture, paper_sgd(args.config.optimizer), mesh, args.config.seed
    )
    with Checkpoints(args.workdir, read_only=True) as checkpoints:
        latest = checkpoints.latest()
        assert latest is not None
        state = jax.device_get(checkpoints.state(latest, target))
    leaves, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def table_of(kills: list[Kill]) -> str:
    """Return a Markdown table of the kills by moment."""
    lines = ["| moment | kills | hit | survived | steps lost at most |", "|---|---|---|---|---|"]
    for moment in dict.fromkeys(kill.moment for kill in kills):
        of_this = [kill for kill in kills if kill.moment == moment]
        lost = max((kill.step - kill.resumed for kill in of_this), default=0)
        hits = sum(kill.hit for kill in of_this)
        lines.append(f"| {moment} | {len(of_this)} | {hits} | {len(of_this)} | {lost} |")
    lost = max((kill.step - kill.resumed for kill in kills), default=0)
    hits = sum(kill.hit for kill in kills)
    lines.append(f"| all | {len(kills)} | {hits} | {len(kills)} | {lost} |")
    return "\n".join(lines)


def crash(
    root: Path, number: int, seed: int, in_a_run: int = 10, moments: Sequence[str] = tuple(MOMENTS)
) -> list[Kill]:
    """Kill runs until there were `number` kills; return all, including those of earlier calls.

    Raises:
        RuntimeError: a run did not survive.
    """
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "images").exists():
        draw_images(root / "images")
    if not (root / "never" / "summary.json").exists():
        run_until_over(root, "never", [], random.Random(0))
    record = root / "kills.json"
    past = json.loads(record.read_text()) if record.exists() else []
    kills = [Kill(**kill) for kill in past]
    while len(kills) < number:
        name = f"seed{seed}_{sum(path.is_dir() for path in root.glob(f'seed{seed}_*'))}"
        rng = random.Random(f"{seed} {name}")
        first = [moment for moment in moments if moment == "in the very first save"]
        others = [moment for moment in moments if moment not in first]
        plan = [*first]
        while len(plan) < min(in_a_run, number - len(kills)):
            plan += rng.sample(others, len(others))
        kills += run_until_over(root, name, plan[: number - len(kills)], rng)
        check_same_end(root, name)
        record.write_text(json.dumps([dataclasses.asdict(kill) for kill in kills], indent=1) + "\n")
    return kills


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="folder of all the runs")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=[*MOMENTS])
    args = parser.parse_args()
    print(table_of(crash(args.workdir, args.kills, args.seed, moments=args.moments)))
