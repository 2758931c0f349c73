"""What may change when a run is resumed, and what a run resumes from."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_jax.config import (
    PER_PROCESS,
    RESUMABLE,
    Config,
    fields_marked,
    flatten,
    invalid,
    with_absolute_paths,
)
from alexnet_jax.data.splits import Splits
from alexnet_jax.training import data_files, processes
from alexnet_jax.training.checkpoint import FOLDER, CheckpointData, Checkpoints
from alexnet_jax.training.metrics import METRICS, read_metrics
from alexnet_jax.training.run_data import RunData, fingerprints, restore_data
from alexnet_jax.training.run_meta import read_meta
from alexnet_jax.training.schedule import Progress
from alexnet_jax.training.setup import TrainSetup
from alexnet_jax.training.state import LoopState
from alexnet_jax.training.timing import earlier_time
from alexnet_jax.training.versions import package_versions, warn_of_changes


@dataclasses.dataclass(frozen=True)
class Previous:
    """The checkpoint that a run resumes from."""

    step: int
    meta: Mapping[str, Any]  # as `to_checkpoint` made it

    @property
    def progress(self) -> Progress:
        """Where the schedule stands."""
        return Progress(**self.meta["progress"])


def find_previous(config: Config, checkpoints: Checkpoints) -> Previous | None:
    """Return the latest checkpoint of a run; None if the run is to begin.

    Raises:
        ValueError: the folder holds imported weights, a run with other settings, or one whose
            checkpoints are lost.
    """
    workdir, latest = checkpoints.workdir, checkpoints.latest()
    if latest is None:
        if lines := read_metrics(workdir):
            rule = f"{METRICS} reaches step {lines[-1]['step']:,}, and there is no checkpoint"
            remedy = f"restore {FOLDER} from a backup, or train in another folder"
            raise invalid("workdir", workdir, rule, remedy)
        return None
    meta = read_meta(checkpoints, latest)
    if "imported" in meta:
        rule = f"holds the weights of {meta['imported']} and no run"
        remedy = f"to train from them use init_from={workdir} and another folder"
        raise invalid("workdir", workdir, rule, remedy)
    check_same_config(meta["config"], config, workdir)
    return Previous(latest, meta)


def check_same_config(saved: Mapping[str, Any], config: Config, workdir: Path) -> None:
    """Raise a ValueError that lists, field by field, what may not change when a run is resumed."""
    now, may_change = flatten(with_absolute_paths(config)), fields_marked(RESUMABLE, PER_PROCESS)
    differences = [
        f"{name}={_show(now.get(name))} (was {_show(saved.get(name))})"
        for name in sorted({*saved, *now} - may_change)
        if saved.get(name) != now.get(name)
    ]
    if differences:
        rule = f"holds a run with other settings: {'; '.join(differences)}"
        raise invalid("workdir", workdir, rule, "use the old values, or another folder")


def _show(value: Any) -> str:
    """Return a value as one types it for an option."""
    return " ".join(map(str, value)) if isinstance(value, list) and value else str(value) or "''"


def check_fingerprints(saved: Mapping[str, str], splits: Splits, workdir: Path) -> None:
    """Raise a ValueError unless the splits have the fingerprints of the run."""
    now = fingerprints(splits)
    changed = sorted(name for name in {*saved, *now} if saved.get(name) != now.get(name))
    if changed:
        rule = f"its images were added, removed, renamed or moved in {', '.join(changed)}"
        if files := data_files.describe_differences(splits.inventory(), workdir):
            rule += f": {files}"
        remedy = "restore them, use the old data.path, or use another folder"
        raise invalid("workdir", workdir, rule, remedy)


def resume_data(
    config: Config, splits: Splits, previous: Previous, checkpoints: Checkpoints
) -> RunData:
    """Return the data of the run as it began, from its checkpoint; nothing is read again.

    Raises:
        ValueError: the files are not those of the run.
    """
    workdir, files = checkpoints.workdir, splits.inventory()
    listed = data_files.check(files, workdir)
    check_fingerprints(previous.meta["data"], splits, workdir)
    if not listed and processes.is_main_process():
        data_files.write(files, workdir)  # the fingerprints say that they are the same
    statistics = checkpoints.statistics(previous.step)
    return restore_data(config, splits, previous.meta, statistics)


def restore_state(setup: TrainSetup, previous: Previous, checkpoints: Checkpoints) -> LoopState:
    """Return where the run stands by its checkpoint, on the mesh of `setup`."""
    meta = previous.meta
    if processes.is_main_process():
        warn_of_changes(meta.get("versions"))
    return LoopState(
        train=checkpoints.state(previous.step, setup.target),
        step=previous.step,
        progress=previous.progress,
        line_sums=meta["line_sums"],
        epoch_sums=meta["epoch_sums"],
        time=earlier_time(meta["time"], previous.step, read_metrics(checkpoints.workdir)),
    )


def to_checkpoint(setup: TrainSetup, state: LoopState, time: Mapping[str, float]) -> CheckpointData:
    """Return what a checkpoint holds of a run, for `resume_data` and `restore_state`.

    `time`: seconds spent on the run so far, by part.
    """
    meta = {
        "config": flatten(with_absolute_paths(setup.config)),
        "progress": dataclasses.asdict(state.progress),
        "line_sums": state.line_sums,
        "epoch_sums": state.epoch_sums,
        "time": time,
        "class_names": setup.data.splits.class_names,
        "data": setup.data.fingerprints,
        "unreadable": setup.data.unreadable,
        "versions": package_versions(),
    }
    # Copied by way of JSON: the loop changes these while the save is under way.
    return CheckpointData(state.train, setup.data.statistics, json.loads(json.dumps(meta)))
