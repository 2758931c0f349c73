"""Checkpoints: everything a run needs to go on exactly, in one atomic save."""

import contextlib
import dataclasses
import logging
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from alexnet_jax.config import Config, flatten
from alexnet_jax.storage import lock
from alexnet_jax.training import checkpoint_digests, processes
from alexnet_jax.training.state import TrainState

# May change when a run is resumed: none of them changes what is computed.
FREE = (
    *("preset", "mesh", "distributed", "log", "profile", "process", "schedule.epochs"),
    *("data.path", "data.threads", "data.prefetch", "data.cache_gib"),
)
FOLDER = "checkpoints"
FORMAT = 2  # of a checkpoint; those of the first version name none, and have no manifest
SUPERSEDED = ".superseded"  # after the step: another checkpoint is about to take its place
UNKNOWN = math.inf  # the error of a checkpoint at which nobody looked: worse than any


@dataclasses.dataclass(frozen=True)
class CheckpointData:
    """What one checkpoint holds."""

    state: TrainState
    constants: Mapping[str, Any]  # float32 arrays: statistics of the training split
    # Plain JSON: config, schedule, sums of metrics, seconds, class names (for whoever reads the
    # checkpoint alone), fingerprints of the data, unreadable records.
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run folder: the latest two, and the one of lowest validation error.

    Saving is asynchronous; a checkpoint exists under its name only once it is whole, together with
    the digests of its files. They are checked when the folder is opened: a damaged checkpoint is
    set aside and an older one takes its place, which is said on stderr.

    To write is for one process at a time. `read_only` leaves the folder as it is, so that a run can
    be looked at while it goes on.

    Raises:
        ValueError: the folder cannot be written to, another process writes to it, or it has
            checkpoints and none is whole.
    """

    def __init__(self, workdir: Path, read_only: bool = False):
        self.workdir, self._folder = workdir, (workdir / FOLDER).absolute()
        self._damaged: frozenset[int] = frozenset()  # steps that a reader passes over
        self._saving = 0  # the step last begun
        with contextlib.ExitStack() as stack:
            if not read_only:
                _make_writable(self._folder, workdir)
                processes.check_shared(workdir)
                processes.broadcast_from_main("lock", lambda: self._enter(stack))
            # First: Orbax reads every error, and would stumble over it.
            damaged = processes.broadcast_from_main("examine", lambda: self._verify(read_only))
            self._damaged = frozenset(damaged)
            options = _options(read_only, self._write_manifest)
            with _unsaid("Given directory is read only"):
                self._manager = ocp.CheckpointManager(self._folder, options=options)
            self._leave = stack.pop_all()

    def _enter(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(lock.hold_lock(self.workdir))
        self._settle_superseded()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # Where something has gone wrong already, that is the news; a failed save is heard of twice.
        with self._leave, contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            try:
                self.wait()
            finally:
                self._manager.close()

    def latest(self) -> int | None:
        """Return the step of the newest checkpoint that is whole, or None."""
        return max(self._whole(), default=None)

    def best(self) -> int | None:
        """Return the step of the checkpoint with the lowest validation error, or None."""
        errors = {step: self.error(step) for step in sorted(self._whole(), reverse=True)}
        known = {step: error for step, error in errors.items() if error is not None}
        return min(known, key=known.__getitem__, default=None)  # of equal ones the newest

    def error(self, step: int) -> float | None:
        """Return the validation error at a checkpoint, a fraction, or None where nobody looked."""
        metrics = self._manager.metrics(step)
        return _error(metrics) if metrics and _error(metrics) < UNKNOWN else None

    def save(self, step: int, saved: CheckpointData, error: float | None) -> None:
        """Begin to save; `error` is the validation error at this step, a fraction, if known.

        It takes the place of a checkpoint of the same step: that of a run which was stopped between
        this step and the evaluation that gives the error.

        Raises:
            ValueError: the save before could not be completed.
        """
        self.wait()  # before `_saving` changes: the manifest of the save before may be under way
        self._saving = step
        if step in self._manager.all_steps():
            if processes.is_main_process():
                (self._folder / str(step)).rename(self._folder / f"{step}{SUPERSEDED}")
            processes.barrier("superseded")
            self._manager.reload()
        with self._writing():
            begun = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(saved.state),
                    constants=ocp.args.StandardSave(dict(saved.constants)),
                    meta=ocp.args.JsonSave({**saved.meta, "format": FORMAT}),
                ),
                metrics={"top1_error": UNKNOWN if error is None else error},
            )
        assert begun, f"step {step} is saved already"

    def check(self) -> None:
        """Raise a ValueError if the save under way has failed; does not wait."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Return when every save begun is on the disk; a ValueError if it could not be written."""
        with self._writing():
            self._manager.wait_until_finished()
        if processes.is_main_process():
            self._settle_superseded()

    def meta(self, step: int) -> dict[str, Any]:
        """Return the plain part of a checkpoint; a ValueError if a newer version wrote it."""
        meta = dict(self._item(step, meta=ocp.args.JsonRestore()))
        found = meta.pop("format", 1)
        if found > FORMAT:
            raise ValueError(
                f"{self.workdir}: the checkpoint of step {step:,} has format {found}, and this "
                f"version of alexnet_jax reads up to {FORMAT}: go on with the newer version that "
                "wrote it."
            )
        return meta

    def constants(self, step: int) -> dict[str, Any]:
        """Return the statistics of the training split."""
        return self._item(step, constants=ocp.args.StandardRestore())

    def state(self, step: int, target: TrainState) -> TrainState:
        """Return the state, placed as `target`'s shardings say, on any mesh."""
        return self._item(step, state=ocp.args.StandardRestore(target))

    def _item(self, step: int, **wanted: ocp.args.CheckpointArgs) -> Any:
        (name,) = wanted
        return self._manager.restore(step, args=ocp.args.Composite(**wanted))[name]

    def _write_manifest(self) -> None:
        """Called by Orbax in its own thread, before the rename that makes the checkpoint exist."""
        (folder,) = self._folder.glob(f"{self._saving}.*tmp*")
        checkpoint_digests.write(folder)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # TensorStore names each of its layers and the file's specification around the cause.
            cause = re.search(r"(?:os_error_code='|\[Errno )(\d+)", str(error))
            reason = os.strerror(int(cause[1])) if cause else str(error).partition("\n")[0]
            raise ValueError(
                f"{self.workdir}: the checkpoint of step {self._saving:,} could not be written "
                f"({reason}); those saved before it are whole: make room on the disk, and the same "
                "command goes on from there."
            ) from error

    def _settle_superseded(self) -> None:
        """Remove what has been replaced; bring back what has not, as the save was cut short."""
        for old in self._folder.glob(f"*{SUPERSEDED}"):
            if old.with_suffix("").exists():
                shutil.rmtree(old)
            else:
                old.rename(old.with_suffix(""))

    def _whole(self) -> list[int]:
        return [step for step in self._manager.all_steps() if step not in self._damaged]

    def _verify(self, read_only: bool) -> list[int]:
        """Set the damaged checkpoints aside, or return them if `read_only`; say so."""
        folders = [path for path in self._folder.iterdir() if path.name.isdigit()]
        with ThreadPoolExecutor() as threads:
            found = zip(
                folders, threads.map(checkpoint_digests.find_corruption, folders), strict=True
            )
            # A reader may see a running process remove its oldest.
            faults = {int(path.name): fault for path, fault in found if path.exists()}
        damaged = sorted(step for step, fault in faults.items() if fault)
        whole = sorted({*faults} - {*damaged})
        if damaged and not whole:
            steps = "; ".join(f"step {step:,}: {faults[step]}" for step in sorted(faults))
            raise ValueError(
                f"{self.workdir}: none of its checkpoints is whole ({steps}); nothing was changed: "
                f"copy {FOLDER} back from where it is whole, or start anew in another --workdir."
            )
        for step in damaged:
            said = f"the checkpoint of step {step:,} is damaged ({faults[step]})"
            said += "" if read_only else f" and set aside as {self._quarantine(step)}"
            self._say(f"{said}; the newest whole one, of step {whole[-1]:,}, is used.")
        if whole and not checkpoint_digests.is_there(self._folder / str(whole[-1])):
            self._say(
                f"the checkpoint of step {whole[-1]:,} is of an older version, which kept no "
                "digests; it looks whole and is used unchecked."
            )
        return damaged if read_only else []

    def _quarantine(self, step: int) -> str:
        """Move a checkpoint to a name that Orbax takes for none of its own; return that name."""
        names = (f"{step}.damaged{end}" for end in ("", *(f".{n}" for n in range(2, 1000))))
        free = next(name for name in names if not (self._folder / name).exists())
        (self._folder / str(step)).rename(self._folder / free)
        return f"{FOLDER}/{free}"

    def _say(self, sentence: str) -> None:
        print(f"{self.workdir}: {sentence}", file=sys.stderr)


def _options(read_only: bool, before_commit: Callable[[], None]) -> ocp.CheckpointManagerOptions:
    # `max_to_keep` with `best_fn` would delete the latest checkpoint in favor of better ones. Two
    # of the latest: were the only one damaged, the best may be of long ago.
    policy = managers.AnyPreservationPolicy(
        [
            managers.LatestN(2),
            managers.BestN(
                get_metric_fn=_error,
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
    )
    return ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        # Without `best_fn` no error would be written, and the next process would drop the best.
        best_fn=_error,
        best_mode="min",
        async_options=ocp.AsyncOptions(post_finalization_callback=before_commit),
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
        # A reader, who sets nothing aside, would read the errors of damaged checkpoints too.
        lightweight_initialize=read_only,
        # With these at their defaults a reader is warned that they are changed for it.
        save_interval_steps=0 if read_only else 1,
        create=not read_only,
    )


@contextlib.contextmanager
def _unsaid(text: str) -> Iterator[None]:
    """Keep Orbax from warning of what was asked of it."""
    logger = logging.getLogger("absl")

    def keep(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(text)

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


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
    # What a run of an earlier version did not choose, it did as the default says.
    before, now = {**flatten(Config()), **saved}, flatten(config)
    differences = [
        f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
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
