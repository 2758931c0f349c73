"""What a run leaves in its folder beside checkpoints and metrics: config.json and summary.json."""

import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import Config, flatten, with_absolute_paths
from alexnet_jax.data.pipeline import num_unreadable
from alexnet_jax.model import towers
from alexnet_jax.presets import FITTED
from alexnet_jax.storage.atomic import write_bytes, write_json, write_text
from alexnet_jax.storage.json_objects import is_number, read_object
from alexnet_jax.training import processes, schedule
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.metrics import MetricsWriter, read_metrics
from alexnet_jax.training.run_config import CONFIG
from alexnet_jax.training.run_data import UNREADABLE, list_reasons
from alexnet_jax.training.setup import TrainSetup
from alexnet_jax.training.state import LoopState
from alexnet_jax.training.stopping import StopCheck
from alexnet_jax.training.timing import TimeBudget
from alexnet_jax.training.versions import package_versions

SUMMARY, STATISTICS = "summary.json", "statistics.npz"
SCORES = ("loss", "top1_error", "top5_error", "count")  # as `evaluation.evaluate` returns them
# What `closing_line` needs of a summary, beside the scores.
KINDS = {
    "source": str,
    "classes": int,
    "training_images": int,
    "epochs": int,
    "steps": int,
    "seconds": int | float,
}


def write_config(setup: TrainSetup, workdir: Path) -> None:
    """Write config.json, statistics.npz and, if there are any, the names of unreadable files."""
    data = setup.data
    write_run_config(setup.config, data.splits.class_names, setup.mesh, data.statistics, workdir)
    reasons = list_reasons(data.unreadable)
    (workdir / UNREADABLE).unlink(missing_ok=True)
    if reasons:
        write_text(workdir / UNREADABLE, "\n".join(reasons) + "\n")


def write_run_config(
    config: Config,
    class_names: Sequence[str],
    mesh: Mesh,
    statistics: Mapping[str, np.ndarray],
    workdir: Path,
    imported: str = "",
    untrained: Sequence[str] = (),
) -> None:
    """Write config.json (every value, the classes, versions and devices) and statistics.npz.

    `imported` is the name of the file that the weights came from; "" if they are trained here.
    `untrained` are the layers at their initial random values.
    """
    about = {
        "config": flatten(with_absolute_paths(config)),
        "class_names": class_names,
        "devices": towers.describe_mesh(mesh),
        "versions": package_versions(),
        "python": platform.python_version(),
        **({"imported": imported} if imported else {}),
        **({"untrained": list(untrained)} if untrained else {}),
    }
    write_json(workdir / CONFIG, about)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **statistics)
    write_bytes(workdir / STATISTICS, content.getvalue())


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """Return summary.json, or None if there is none that can be read: it is then written again."""
    try:
        summary = read_object(workdir / SUMMARY)
    except (OSError, ValueError):
        return None
    complete = (
        all(isinstance(summary.get(name), kind) for name, kind in KINDS.items())
        and isinstance(summary.get("ended_on_plateau"), bool)
        and _has_scores(summary.get("validation"))
        and ("test" not in summary or _has_scores(summary["test"]))
    )
    return summary if complete else None


def _has_scores(line: object) -> bool:
    return isinstance(line, dict) and all(is_number(line.get(name)) for name in SCORES)


def remove_summary(workdir: Path) -> None:
    """Remove summary.json: the run is not finished."""
    (workdir / SUMMARY).unlink(missing_ok=True)


def finish(
    setup: TrainSetup,
    state: LoopState,
    checkpoints: Checkpoints,
    writer: MetricsWriter,
    budget: TimeBudget,
    check_stop: StopCheck,
) -> dict[str, Any]:
    """Evaluate the final parameters, write the summary and return it.

    `check_stop` is called between batches; what it raises leaves the folder without a summary,
    which the same command then writes.
    """
    splits, workdir = setup.data.splits, checkpoints.workdir
    with budget.during("evaluation"):
        scores = _final_scores(setup, state, workdir, writer, budget, check_stop)
    lines = read_metrics(workdir)
    speeds = [line["images_per_second"] for line in lines if line.get("images_per_second")]
    speed = setup.speed(float(np.median(speeds)) if speeds else None)
    time = {part: round(seconds, 3) for part, seconds in budget.spent().items()}
    best = checkpoints.best()
    summary = {
        **scores,
        "best_step": best,
        "best_validation_top1_error": None if best is None else checkpoints.error(best),
        "steps": state.step,
        "epochs": state.progress.epoch,
        "ended_on_plateau": state.progress.ended,
        "seconds": round(sum(time.values()), 3),
        "time": time,
        **{name: value and round(value, 4) for name, value in speed.items()},
        "source": setup.config.data.source,
        "classes": setup.architecture.num_classes,
        "training_images": len(splits.train),
        # In this process; files that were unreadable at the start are in unreadable.txt.
        "became_unreadable": {
            name: num_unreadable(source) for name, source in splits.by_name().items()
        },
        "devices": towers.describe_mesh(setup.mesh),
    }
    checkpoints.check_in_place()
    if processes.is_main_process():
        write_json(workdir / SUMMARY, summary)
    return summary


def _final_scores(
    setup: TrainSetup,
    state: LoopState,
    workdir: Path,
    writer: MetricsWriter,
    budget: TimeBudget,
    check_stop: StopCheck,
) -> dict[str, dict[str, Any]]:
    """Return the scores on validation and test, evaluated unless metrics.jsonl has them."""
    writer.flush()
    lines = processes.broadcast_from_main("lines", lambda: _lines_at(workdir, state.step))
    scores: dict[str, dict[str, Any]] = {}
    for split, source in setup.data.splits.by_name().items():
        if split == "train":
            continue
        if line := lines.get(split):  # of the last epoch, or of a process that ended here
            scores[split] = {name: line[name] for name in SCORES}
        else:
            scores[split] = setup.evaluate(state.train.variables, source, check_stop)
            line = {**scores[split], "seconds": budget.seconds()}
            writer.evaluation(split, state.step, state.progress.epoch, **line)
    writer.flush()
    return scores


def _lines_at(workdir: Path, step: int) -> dict[str, Any]:
    """Return the lines of metrics.jsonl at this step, by split."""
    lines = (line for line in read_metrics(workdir) if line["step"] == step)
    return {line["split"]: line for line in lines if "split" in line and _has_scores(line)}


def closing_line(summary: dict[str, Any], workdir: Path, config: Config) -> str:
    """Return the result in one line, and what to try next."""
    split = "test" if "test" in summary else "validation"
    scores, epochs = summary[split], summary["epochs"]
    ended = "at a plateau after the last drop of the learning rate, "
    top5 = f", top-5 error {scores['top5_error']:.1%}" if summary["classes"] > 5 else ""
    return (
        f"{split} top-1 error {scores['top1_error']:.1%}{top5} on {scores['count']:,} images, "
        f"{ended if summary['ended_on_plateau'] else ''}after {epochs} "
        f"epoch{'s' * (epochs != 1)} in {summary['seconds'] / 60:.1f} minutes. "
        f"Results are in {workdir}. Next, try {_next_step(summary, workdir, config)}."
    )


def _next_step(summary: dict[str, Any], workdir: Path, config: Config) -> str:
    plan, has_few_steps = config.schedule, summary["steps"] < schedule.FEW_STEPS
    more = 2 * summary["epochs"]
    if has_few_steps:  # the warning at the start named as many
        more = max(more, schedule.enough_epochs(config, summary["training_images"]))
    if summary["source"] == "synthetic":
        return "your own photographs: workdir=NEW preset=small data.path=FOLDER"
    if summary["source"] == "given":
        return f"more epochs: schedule.epochs={more}, in the program that gives the images"
    if config.preset in FITTED and not has_few_steps:
        origins = ", or published weights: the same images with workdir=NEW init_from=torchvision"
        return f"more photographs{'' if config.init_from else origins}"
    if summary["ended_on_plateau"]:
        return "another seed=N, or a larger schedule.patience, with the same options, workdir=NEW"
    if plan.kind == "step" and any(epoch < plan.epochs for epoch in plan.milestones):
        # This run would go on at the rate after the last drop.
        rest = f"the same options with workdir=NEW schedule.epochs={more}"
        return f"more epochs from the start: {rest}"
    return f"more epochs: workdir={workdir} schedule.epochs={more}"
