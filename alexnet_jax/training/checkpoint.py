"""Checkpoints: everything that a run needs to resume exactly, in one atomic save."""

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

from alexnet_jax.config import invalid
from alexnet_jax.storage import lock
from alexnet_jax.storage.names import check_utf8
from alexnet_jax.training import checkpoint_digests, processes
from alexnet_jax.training.state import TrainState

FOLDER = "checkpoints"
FORMAT = 4  # of a checkpoint; only this one is read
SUPERSEDED = ".superseded"  # after the step: another checkpoint is about to replace this one
UNKNOWN = math.inf  # the error of a checkpoint without an evaluation: worse than any


@dataclasses.dataclass(frozen=True)
class CheckpointData:
    """What one checkpoint holds."""

    state: TrainState
    statistics: Mapping[str, Any]  # float32 arrays, of the training split
    # Plain JSON: config, schedule, sums of metrics, time, class names (for readers of the
    # checkpoint alone), fingerprints of the data, unreadable records.
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run folder: the latest two, and the one of lowest validation error.

    Saving is asynchronous; a checkpoint exists under its name only once it is complete, together
    with the digests of its files. They are verified when the folder is opened: a damaged checkpoint
    is quarantined and an older one is used, which is reported on stderr.

    One process at a time writes. `read_only` leaves the folder as it is, so that a run can be read
    while it trains.

    Raises:
        ValueError: the folder cannot be written to, another process writes to it, or it has
            checkpoints and none is intact.
    """

    def __init__(self, workdir: Path, read_only: bool = False):
        self.workdir, self._folder = workdir, (workdir / FOLDER).absolute()
        check_utf8("workdir", workdir)
        self._damaged: frozenset[int] = frozenset()  # steps that a reader skips
        self._saving = 0  # the step last begun
        with contextlib.ExitStack() as stack:
            if not read_only:
                _make_writable(self._folder, workdir)
                processes.check_shared(workdir)
                processes.broadcast_from_main("lock", lambda: self._lock(stack))
            # First: Orbax reads the error of every checkpoint, damaged ones too.
            damaged = processes.broadcast_from_main("verify", lambda: self._verify(read_only))
            self._damaged = frozenset(damaged)
            options = _options(read_only, self._write_digests)
            with _suppressed("Given directory is read only"):
                self._manager = ocp.CheckpointManager(self._folder, options=options)
            self._unlock = stack.pop_all()

    def _lock(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(lock.hold_lock(self.workdir))
        self._finish_replacing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # After another error that error counts: a failed save would be reported twice.
        with self._unlock, contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            try:
                self.wait()
            finally:
                self._manager.close()

    def latest(self) -> int | None:
        """Return the step of the newest intact checkpoint, or None."""
        return max(self._intact(), default=None)

    def best(self) -> int | None:
        """Return the step of the checkpoint with the lowest validation error, or None."""
        errors = {step: self.error(step) for step in sorted(self._intact(), reverse=True)}
        evaluated = {step: error for step, error in errors.items() if error is not None}
        return min(evaluated, key=evaluated.__getitem__, default=None)  # the newest of equal ones

    def error(self, step: int) -> float | None:
        """Return the validation error at a checkpoint, a fraction, or None without evaluation."""
        metrics = self._manager.metrics(step)
        return _error(metrics) if metrics and _error(metrics) < UNKNOWN else None

    def save(self, step: int, data: CheckpointData, error: float | None) -> None:
        """Begin to save; `error` is the validation error at this step, a fraction, if known.

        It replaces a checkpoint of the same step: that of a run which was stopped between this step
        and the evaluation that gives the error.

        Raises:
            ValueError: the previous save could not be completed.
        """
        self.wait()  # before `_saving` changes: digests of the previous save may be under way
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
                    state=ocp.args.StandardSave(data.state),
                    statistics=ocp.args.StandardSave(dict(data.statistics)),
                    meta=ocp.args.JsonSave({**data.meta, "format": FORMAT}),
                ),
                metrics={"top1_error": UNKNOWN if error is None else error},
            )
        assert begun, f"step {step} is saved already"

    def check(self) -> None:
        """Raise a ValueError if the save under way has failed; does not wait."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Return when every save is on the disk; a ValueError if one could not be written."""
        with self._writing():
            self._manager.wait_until_finished()
        if processes.is_main_process():
            self._finish_replacing()

    def meta(self, step: int) -> dict[str, Any]:
        """Return the plain part of a checkpoint; a ValueError if it has another format."""
        meta = dict(self._item(step, meta=ocp.args.JsonRestore()))
        if (number := meta.pop("format", None)) != FORMAT:
            rule = f"its checkpoints have format {number}, and this version reads {FORMAT}"
            remedy = "use the version of alexnet_jax that wrote them, or another folder"
            raise invalid("workdir", self.workdir, rule, remedy)
        return meta

    def statistics(self, step: int) -> dict[str, Any]:
        """Return the statistics of the training split."""
        return self._item(step, statistics=ocp.args.StandardRestore())

    def state(self, step: int, target: TrainState) -> TrainState:
        """Return the state, placed by `target`'s shardings, on any mesh."""
        return self._item(step, state=ocp.args.StandardRestore(target))

    def _item(self, step: int, **item: ocp.args.CheckpointArgs) -> Any:
        (name,) = item
        return self._manager.restore(step, args=ocp.args.Composite(**item))[name]

    def _write_digests(self) -> None:
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
            rule = f"the checkpoint of step {self._saving:,} could not be written ({reason})"
            remedy = "earlier ones are intact: free disk space and run the same command to resume"
            raise invalid("workdir", self.workdir, rule, remedy) from error

    def _finish_replacing(self) -> None:
        """Remove checkpoints that have been replaced; restore one whose replacement failed."""
        for old in self._folder.glob(f"*{SUPERSEDED}"):
            if old.with_suffix("").exists():
                shutil.rmtree(old)
            else:
                old.rename(old.with_suffix(""))

    def _intact(self) -> list[int]:
        return [step for step in self._manager.all_steps() if step not in self._damaged]

    def _verify(self, read_only: bool) -> list[int]:
        """Quarantine damaged checkpoints, or return their steps if `read_only`; report them."""
        folders = [path for path in self._folder.iterdir() if path.name.isdigit()]
        with ThreadPoolExecutor() as pool:
            found = zip(folders, pool.map(checkpoint_digests.find_corruption, folders), strict=True)
            # While a process trains, a reader may see it remove its oldest checkpoint.
            corruption = {int(path.name): fault for path, fault in found if path.exists()}
        damaged = sorted(step for step, fault in corruption.items() if fault)
        intact = sorted({*corruption} - {*damaged})
        if damaged and not intact:
            steps = "; ".join(f"step {step:,}: {corruption[step]}" for step in sorted(corruption))
            rule = f"no checkpoint is intact ({steps}), and nothing was changed"
            remedy = f"restore {FOLDER} from a backup, or train in another folder"
            raise invalid("workdir", self.workdir, rule, remedy)
        for step in damaged:
            message = f"the checkpoint of step {step:,} is damaged ({corruption[step]})"
            message += "" if read_only else f" and moved to {self._quarantine(step)}"
            print(
                f"{self.workdir}: {message}; the newest intact one, of step {intact[-1]:,}, is "
                "used.",
                file=sys.stderr,
            )
        return damaged if read_only else []

    def _quarantine(self, step: int) -> str:
        """Move a checkpoint to a name that Orbax ignores; return that name."""
        names = (f"{step}.damaged{end}" for end in ("", *(f".{n}" for n in range(2, 1000))))
        free = next(name for name in names if not (self._folder / name).exists())
        (self._folder / str(step)).rename(self._folder / free)
        return f"{FOLDER}/{free}"


def _options(read_only: bool, before_commit: Callable[[], None]) -> ocp.CheckpointManagerOptions:
    # `max_to_keep` with `best_fn` would delete the latest checkpoint in favor of better ones. Two
    # of the latest are kept: if the only one were damaged, the best may be much older.
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
        # A reader, which quarantines nothing, would read the errors of damaged checkpoints too.
        lightweight_initialize=read_only,
        # With these at their defaults a reader is warned that they are changed for it.
        save_interval_steps=0 if read_only else 1,
        create=not read_only,
    )


@contextlib.contextmanager
def _suppressed(text: str) -> Iterator[None]:
    """Keep Orbax from warning of what was requested."""
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
            pass  # permissions alone do not tell whether a disk is full or mounted read-only
    except OSError as error:
        rule = f"cannot be written to ({error.filename or folder}: {error.strerror})"
        raise invalid("workdir", workdir, rule, "use a folder that can be written to") from error
