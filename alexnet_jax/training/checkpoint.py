"""Checkpoints: everything a run needs to go on exactly, in one atomic save."""

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from alexnet_jax.config import Config, flatten, option
from alexnet_jax.training.state import TrainState

# May change when a run is resumed: none of them changes what is computed.
FREE = (
    *("preset", "mesh", "log", "profile", "process", "schedule.epochs"),
    *("data.path", "data.threads", "data.prefetch", "data.cache_gib"),
)
FOLDER = "checkpoints"
UNKNOWN = math.inf  # the error of a checkpoint at which nobody looked: worse than any


@dataclasses.dataclass(frozen=True)
class Saved:
    """What one checkpoint holds."""

    state: TrainState
    constants: Mapping[str, Any]  # float32 arrays: statistics of the training split
    # Plain JSON: config, schedule, sums of metrics, seconds, class names (for whoever reads the
    # checkpoint alone), fingerprints of the data, unreadable records.
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run folder: the latest, and the one with the lowest validation error.

    Saving is asynchronous; a checkpoint exists under its name only once it is whole. `read_only`
    leaves the folder as it is, so that a run can be looked at while it goes on.
    """

    def __init__(self, workdir: Path, read_only: bool = False):
        # `max_to_keep` with `best_fn` would delete the latest checkpoint in favour of better ones.
        policy = managers.AnyPreservationPolicy(
            [
                managers.LatestN(1),
                managers.BestN(
                    get_metric_fn=_error,
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        # Without `best_fn` no error would be written, and the next process would drop the best.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=_error,
            best_mode="min",
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            # With these at their defaults a reader is warned that they are changed for it.
            save_interval_steps=0 if read_only else 1,
            create=not read_only,
        )
        self.workdir = workdir
        folder = (workdir / FOLDER).absolute()
        if not read_only:
            _make_writable(folder, workdir)
        self._manager = ocp.CheckpointManager(folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """Return the step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Return the step of the checkpoint with the lowest validation error, or None."""
        step = self._manager.best_step()
        return None if step is None or self.error(step) is None else step

    def error(self, step: int) -> float | None:
        """Return the validation error at a checkpoint, a fraction, or None where nobody looked."""
        metrics = self._manager.metrics(step)
        return _error(metrics) if metrics and _error(metrics) < UNKNOWN else None

    def save(self, step: int, saved: Saved, error: float | None) -> None:
        """Begin to save; `error` is the validation error at this step, a fraction, if known."""
        begun = self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(saved.state),
                constants=ocp.args.StandardSave(dict(saved.constants)),
                meta=ocp.args.JsonSave(saved.meta),
            ),
            metrics={"top1_error": UNKNOWN if error is None else error},
        )
        assert begun, f"step {step} is saved already"

    def wait(self) -> None:
        """Return when every save begun is on the disk."""
        self._manager.wait_until_finished()

    def meta(self, step: int) -> dict[str, Any]:
        """Return the plain part of a checkpoint."""
        return self._item(step, meta=ocp.args.JsonRestore())

    def constants(self, step: int) -> dict[str, Any]:
        """Return the statistics of the training split."""
        return self._item(step, constants=ocp.args.StandardRestore())

    def state(self, step: int, target: TrainState) -> TrainState:
        """Return the state, placed as `target`'s shardings say, on any mesh."""
        return self._item(step, state=ocp.args.StandardRestore(target))

    def _item(self, step: int, **wanted: ocp.args.CheckpointArgs) -> Any:
        (name,) = wanted
        return self._manager.restore(step, args=ocp.args.Composite(**wanted))[name]


def _error(metrics: Mapping[str, float]) -> float:
    return metrics["top1_error"]


def _make_writable(folder: Path, workdir: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # permissions alone do not tell of a disk that is full or mounted to read
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir}: {error.filename or folder}: {error.strerror}; a run writes to "
            "its folder: name one that may be written to."
        ) from error


def _free(name: str) -> bool:
    return name in FREE or name.partition(".")[0] in FREE


def check_same(saved: Mapping[str, Any], config: Config, workdir: Path) -> None:
    """Raise a ValueError that lists, field by field, what may not change when a run is resumed."""
    before, now = dict(saved), flatten(config)
    differences = [
        f"{option(name)} was {before.get(name)!r} and is now {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and not _free(name)
    ]
    if differences:
        raise ValueError(
            f"{workdir} holds a run with other settings: {'; '.join(differences)}; a resumed run "
            "keeps its data, seed, batch, model and update rule: give the old values, or another "
            "--workdir."
        )


def check_not_imported(meta: Mapping[str, Any], workdir: Path) -> None:
    """Raise a ValueError where a folder holds somebody's weights, and no run that could go on."""
    if "imported" in meta:
        raise ValueError(
            f"{workdir} holds the weights of {meta['imported']} and no run; start one from them: "
            f"--init-from {workdir} and another --workdir."
        )


def check_data(saved: Mapping[str, str], now: Mapping[str, str], workdir: Path) -> None:
    """Raise a ValueError unless the fingerprints of the splits are those of the run."""
    changed = sorted(name for name in {*saved, *now} if saved.get(name) != now.get(name))
    if changed:
        raise ValueError(
            f"{workdir} holds a run on other data: images were added, removed, renamed or moved in "
            f"{', '.join(changed)}; a resumed run keeps its data: give the old --data.path, or "
            "another --workdir."
        )
