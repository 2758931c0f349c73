"""What a run leaves to look at when it is over: summary.json, figures, and where they are."""

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from alexnet_jax import plots
from alexnet_jax.config import Config, flatten
from alexnet_jax.data.pipeline import evaluation_batches, num_unreadable
from alexnet_jax.data.sources import Source
from alexnet_jax.data.wrappers import Subset
from alexnet_jax.model import towers
from alexnet_jax.training import processes
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.metrics import METRICS, Writer, read_metrics
from alexnet_jax.training.schedule import Progress
from alexnet_jax.training.setup import UNREADABLE, TrainSetup
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.stopping import StopCheck

SUMMARY, CONFIG, FIGURES = "summary.json", "config.json", "figures"
SCORES = ("loss", "top1_error", "top5_error", "count")  # as `evaluation.evaluate` returns them
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
EXAMPLES = 8  # images in the panel of predictions: 2 rows of 4, as in the paper's Figure 4


def write_config(run: TrainSetup, workdir: Path) -> None:
    """Write config.json, statistics.npz and, where there are any, the unreadable files."""
    write_about(run.config, run.data.splits.class_names, run.mesh, run.data.constants, workdir)
    reasons = [reason for bad in run.data.unreadable.values() for reason in bad.values()]
    (workdir / UNREADABLE).unlink(missing_ok=True)
    if reasons:
        (workdir / UNREADABLE).write_text("\n".join(reasons) + "\n")


def write_about(
    config: Config,
    class_names: Sequence[str],
    mesh: Mesh,
    constants: Mapping[str, np.ndarray],
    workdir: Path,
    imported: str = "",
) -> None:
    """Write config.json: every value, the classes, versions and devices; and statistics.npz.

    `imported` is the name of the file that the weights came from; "" where they are trained here.
    """
    about = {
        "config": flatten(config),
        "class_names": class_names,
        "devices": towers.describe_mesh(mesh),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        **({"imported": imported} if imported else {}),
    }
    (workdir / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
    np.savez(workdir / "statistics.npz", allow_pickle=False, **constants)


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """Return summary.json, or None where there is none."""
    path = workdir / SUMMARY
    return json.loads(path.read_text()) if path.exists() else None


def remove_summary(workdir: Path) -> None:
    """Remove summary.json: the run goes on."""
    (workdir / SUMMARY).unlink(missing_ok=True)


def finish(
    run: TrainSetup,
    state: TrainState,
    progress: Progress,
    seconds: float,
    checkpoints: Checkpoints,
    writer: Writer,
    heed: StopCheck,
) -> dict[str, Any]:
    """Score the final parameters, draw the figures, write and return the summary.

    `heed` is called between batches; what it raises leaves the folder without a summary, which the
    same command then writes.
    """
    splits, workdir, step = run.data.splits, checkpoints.workdir, int(state.step)
    writer.flush()
    written = processes.broadcast_from_main("written", lambda: _written(workdir, step))
    scores: dict[str, dict[str, Any]] = {}
    for split, source in (("validation", splits.validation), ("test", splits.test)):
        if line := written.get(split):  # by the last epoch, or a process that ended here
            scores[split] = {name: line[name] for name in SCORES}
        elif source is not None:
            scores[split] = run.evaluate(state.variables, source, heed)
            writer.evaluation(split, step, progress.epoch, **scores[split])
    writer.flush()
    if run.config.log.figures:
        _draw(run, state, workdir)
    speeds = [
        line["images_per_second"] for line in read_metrics(workdir) if "images_per_second" in line
    ]
    best = checkpoints.best()
    sources = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    summary = {
        **scores,
        "best_step": best,
        "best_validation_top1_error": None if best is None else checkpoints.error(best),
        "steps": step,
        "epochs": progress.epoch,
        "ended_on_plateau": progress.ended,
        "seconds": round(seconds, 1),
        "images_per_second": round(float(np.median(speeds)), 1) if speeds else None,
        "source": run.config.data.source,
        "classes": run.architecture.num_classes,
        # In this process; what was so at the start is in unreadable.txt.
        "became_unreadable": {
            name: num_unreadable(s) for name, s in sources.items() if s is not None
        },
        "figures": run.config.log.figures,
        "devices": towers.describe_mesh(run.mesh),
    }
    if processes.is_main_process():
        partial = workdir / f"{SUMMARY}.partial"
        partial.write_text(json.dumps(summary, indent=2) + "\n")
        partial.replace(workdir / SUMMARY)
    return summary


def _written(workdir: Path, step: int) -> dict[str, Any]:
    """Return the lines of metrics.jsonl at this step, by split."""
    return {line["split"]: line for line in read_metrics(workdir) if line["step"] == step}


def _draw(run: TrainSetup, state: TrainState, workdir: Path) -> None:
    """Draw the figures; every process has its part in what they show, the first one draws."""
    kernel = towers.fetch(state.variables["params"]["conv1"]["kernel"])
    source = run.data.splits.test or run.data.splits.validation
    batch = towers.put_batch(next(_examples(run, source)), run.mesh)
    _, probabilities = run.eval_step(state.variables, batch)
    seen = {name: towers.fetch(batch[name]) for name in ("image", "label", "mask")}
    probabilities = towers.fetch(probabilities)
    if not processes.is_main_process():
        return
    folder = workdir / FIGURES
    folder.mkdir(exist_ok=True)
    plots.curves(read_metrics(workdir), folder / "curves.png")
    plots.filters(kernel, folder / "filters.png", run.architecture.has_towers)
    shown = np.flatnonzero(seen["mask"])[:EXAMPLES]
    plots.predictions(
        seen["image"][shown],
        probabilities[shown],
        seen["label"][shown],
        run.data.splits.class_names,
        folder / "predictions.png",
    )


def _examples(run: TrainSetup, source: Source) -> Iterator[Any]:
    """Yield one batch of images drawn from all over the split."""
    spread = np.random.default_rng(run.config.seed).permutation(len(source))
    batch = run.config.optimizer.batch_size
    subset, rows = Subset(source, spread[:batch]), towers.local_rows(run.mesh, batch)
    return evaluation_batches(subset, run.config.data, batch, rows)


def closing_line(summary: dict[str, Any], workdir: Path) -> str:
    """Return where to look, and what to try next."""
    split = "test" if "test" in summary else "validation"
    scores = summary[split]
    shown = FIGURES if summary["figures"] else METRICS
    if summary["source"] == "synthetic":
        following = "your own photographs: --preset photos --data.path DIR in another --workdir"
    elif summary["ended_on_plateau"]:
        following = "another --seed, or a larger --schedule.patience, in another --workdir"
    else:
        following = "more epochs: the same command with --schedule.epochs N"
    epochs = summary["epochs"]
    ended = "at a plateau after the last drop of the rate, " if summary["ended_on_plateau"] else ""
    top5 = f", top-5 error {scores['top5_error']:.1%}" if summary["classes"] > 5 else ""
    return (
        f"{split} top-1 error {scores['top1_error']:.1%}{top5} "
        f"on {scores['count']:,} images, {ended}after {epochs} epoch{'s' * (epochs != 1)} in "
        f"{summary['seconds'] / 60:.1f} minutes. Look at {workdir / shown}; next, try {following}."
    )
