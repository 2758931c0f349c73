"""Is every damage to a checkpoint detected, and what do the checks cost?

A bit of each file of a checkpoint is flipped, or the file is cut off, removed, or overwritten with
zeros, one fault at a time. A fault is survived if the run would resume from the checkpoint before
it, and that one restores what was saved, bit for bit.

Expected: every fault is detected and survived, except in the two files that are never read, whose
          loss has no effect.
Cost:     half a minute on two cores; with --cost 20 seconds, 4 GB of memory, 1.3 GB of disk
Run:      python experiments/reliability/damaged_checkpoints.py [--each 5 | --cost]
"""

import argparse
import contextlib
import io
import logging
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.training import checkpoint_digests
from alexnet_jax.training.checkpoint import FOLDER, CheckpointData, Checkpoints
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import TrainState, abstract_state

STEPS = (10, 20)  # the second is damaged
Damage = Callable[[Path, random.Random], None]


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    """Cut off a file by at least one byte."""
    with path.open("rb+") as file:
        file.truncate(rng.randrange(path.stat().st_size))


def remove(path: Path, _: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def blank(path: Path, _: random.Random) -> None:
    """Overwrite a file with zeros, keeping its size."""
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES: dict[str, Damage] = {
    "a flipped bit": flip,
    "cut off": cut,
    "removed": remove,
    "overwritten with zeros": blank,
}


def saved(step: int) -> CheckpointData:
    """Return a small checkpoint in the form of a run's."""
    rng = np.random.default_rng(step)
    params = {
        name: {"kernel": jnp.asarray(rng.normal(size=(5, 5, 3, 8)), jnp.float32)}
        for name in ("conv1", "conv2")
    }
    state = TrainState(jnp.array(step), {"params": params}, jax.tree.map(lambda x: -x, params))
    return CheckpointData(state, {"mean_color": np.full(3, step, np.float32)}, {"step": step})


def same(checkpoints: Checkpoints, step: int) -> bool:
    """Return whether a checkpoint restores what was saved."""
    restored, expected = checkpoints.state(step, saved(step).state), saved(step).state
    equal = jax.tree.map(np.array_equal, restored, expected)
    return all(jax.tree.leaves(equal)) and checkpoints.meta(step) == {"step": step}


def inject(whole: Path, name: str, damage: Damage, rng: random.Random) -> tuple[bool, str]:
    """Damage one file of a copy; return whether the run survives, and what its user sees."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        shutil.copytree(whole, workdir)
        damage(workdir / FOLDER / str(STEPS[1]) / name, rng)
        output = io.StringIO()
        with contextlib.redirect_stderr(output), Checkpoints(workdir) as checkpoints:
            expected = STEPS[name in checkpoint_digests.UNREAD]
            survived = checkpoints.latest() == expected and same(checkpoints, expected)
        return survived, output.getvalue().strip().replace(str(workdir), "runs/a")


def injections(each: int) -> None:
    """Print a table of faults."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder)
        with Checkpoints(whole) as checkpoints:
            for step in STEPS:
                checkpoints.save(step, saved(step), None)
        top = whole / FOLDER / str(STEPS[1])
        names = sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file())
        print("fault | files | injected | detected | survived | message, one example")
        for is_read in (True, False):
            files = [name for name in names if (name in checkpoint_digests.UNREAD) != is_read]
            for fault, damage in DAMAGES.items():
                times = each if damage in (flip, cut) else 1
                results = [inject(whole, name, damage, rng) for name in files for _ in range(times)]
                detected = sum(bool(message) for _, message in results)
                survived = sum(ok for ok, _ in results)
                message = max((message for _, message in results), key=len)
                suffix = "" if is_read else ", files that are not read"
                numbers = f"{len(files)} | {len(results)} | {detected} | {survived}"
                print(f"{fault}{suffix} | {numbers} | {message or '-'}", flush=True)


def cost(times: int) -> None:
    """Print the cost of digests for the full network: 60,965,224 parameters and velocities."""
    config = PRESETS["paper"]
    architecture = build_architecture(config.model, 1000, config.data.crop)
    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    create, target = abstract_state(architecture, paper_sgd(config.optimizer), mesh, 0)
    state = create()
    velocity = jax.tree.map(  # zeros would compress to nothing
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape, x.dtype) if x.ndim else x,
        state.opt_state,
    )
    state = jax.block_until_ready(state.replace(opt_state=velocity))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    print(f"{size / 1e6:.0f} MB of state")
    blocked, whole, digested, checked = [], [], [], []
    write = checkpoint_digests.write

    def timed(folder: Path) -> None:
        began = time.perf_counter()
        write(folder)
        digested.append(time.perf_counter() - began)

    checkpoint_digests.write = timed
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(Path(folder)) as checkpoints:
            for step in range(times):
                began = time.perf_counter()
                checkpoints.save(step, CheckpointData(state, {"mean": np.zeros(3)}, {}), None)
                blocked.append(time.perf_counter() - began)
                checkpoints.wait()
                whole.append(time.perf_counter() - began)
        last = Path(folder) / FOLDER / str(times - 1)
        on_disk = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
        for _ in range(times):
            began = time.perf_counter()
            assert checkpoint_digests.find_corruption(last) == ""
            checked.append(time.perf_counter() - began)
        began = time.perf_counter()
        with Checkpoints(Path(folder)) as checkpoints:
            opened = time.perf_counter() - began
            checkpoints.state(times - 1, target)
            restored = time.perf_counter() - began - opened
    print(f"{on_disk / 1e6:.0f} MB on disk")
    print(f"the first save blocks the loop: {blocked[0] * 1e3:.0f} ms")
    for name, values in (
        ("each later save blocks the loop", blocked[1:]),
        ("a whole save, in the background", whole),
        ("its digests, in the background", digested),
        ("checking one checkpoint", checked),
    ):
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"{name}: {median * 1e3:.0f} ms ({low * 1e3:.0f} to {high * 1e3:.0f})")
    print(f"opening the folder, which checks two: {opened * 1e3:.0f} ms")
    print(f"restoring: {restored * 1e3:.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--each", type=int, default=5, help="flips and cuts of each file")
    parser.add_argument("--cost", action="store_true", help="time saves of the full network")
    args = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # like the commands
    cost(7) if args.cost else injections(args.each)
