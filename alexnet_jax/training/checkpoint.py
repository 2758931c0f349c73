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
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from alexnet_jax.config import invalid
from alexnet_jax.storage import lock
from alexnet_jax.storage.local import check_local
from alexnet_jax.storage.pinned import pinned
from alexnet_jax.training import checkpoint_digests, processes
from alexnet_jax.training.run_config import CHECKPOINTS
from alexnet_jax.training.state import TrainState

FOLDER = CHECKPOINTS
FORMAT = 4  # of a checkpoint; only this one is read
SUPERSEDED = ".superseded"  # after the step: another checkpoint is about to replace this one
# Below the folder, and seen by no reader: checkpoints about to be removed. A checkpoint goes there
# first, whole, so that none is ever seen half removed; a kill leaves the rest to the next process.
REMOVED = ".removed"
UNKNOWN = math.inf  # the error of a checkpoint without an evaluation: worse than any
READS = 10  # of a run that removes, each time, what is being read
PAUSE = 0.2  # seconds between them

T = TypeVar("T")


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
        ValueError: the folder is not local or cannot be written to, another process writes to it,
            or it has checkpoints and none is intact.
    """

    def __init__(self, workdir: Path, read_only: bool = False):
        self.workdir = workdir
        self._lock: lock.Lock | None = None  # of the main process, if it writes
        self._saving = 0  # the step last begun
        with contextlib.ExitStack() as stack:
            if not read_only:
                check_local(workdir, "workdir")
                _make_writable(workdir / FOLDER, workdir)
                processes.check_shared(workdir)
            self._folder = stack.enter_context(pinned(workdir / FOLDER))
            self._opened = self._folder.stat()
            if not read_only:
                processes.broadcast_from_main("lock", lambda: self._hold_lock(stack))
            # First: Orbax reads the error of every checkpoint, damaged ones too.
            intact = processes.broadcast_from_main("verify", lambda: self._verify(read_only))
            # A reader uses no others: neither damaged ones nor those that are written meanwhile.
            self._readable = frozenset(intact) if read_only else None
            options = _options(read_only, self._write_digests)
            with _suppressed("Given directory is read only"):
                self._manager = ocp.CheckpointManager(self._folder, options=options)
            self._unlock = stack.pop_all()

    def _hold_lock(self, stack: contextlib.ExitStack) -> None:
        self._lock = stack.enter_context(lock.hold_lock(self.workdir))
        self._finish_removing()

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
        with self._reading(step):
            metrics = self._manager.metrics(step)
            return _error(metrics) if metrics and _error(metrics) < UNKNOWN else None

    def save(self, step: int, data: CheckpointData, error: float | None) -> None:
        """Begin to save; `error` is the validation error at this step, a fraction, if known.

        It replaces a checkpoint of the same step: that of a run which was stopped between this step
        and the evaluation that gives the error.

        Raises:
            ValueError: the previous save could not be completed, or the folder has gone.
        """
        self.wait()  # before `_saving` changes: digests of the previous save may be under way
        self.check_in_place()
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

    def check_in_place(self) -> None:
        """Raise a ValueError if the run's folder was moved, deleted or replaced.

        Called before everything that is written into it, by all processes: at its path another
        process may be writing by now.
        """
        processes.broadcast_from_main("in place", self._check_in_place)

    def read_back(self, step: int, state: TrainState) -> None:
        """Raise a ValueError unless the state of a checkpoint can be read and is this one."""
        saved = self.state(step, jax.tree.map(_abstract, state))
        if not jax.tree.all(jax.tree.map(_same_shards, saved, state)):
            rule = f"the checkpoint of step {step:,} is not what was saved when it is read back"
            raise invalid("workdir", self.workdir, rule, "use a folder on another file system")

    def check(self) -> None:
        """Raise a ValueError if the save under way has failed; does not wait."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Return when every save is on the disk; a ValueError if one could not be written."""
        with self._writing():
            self._manager.wait_until_finished()
        if self._lock is not None:
            self._finish_removing()

    def meta(self, step: int) -> dict[str, Any]:
        """Return the plain part of a checkpoint; a ValueError if it has another format."""
        with self._reading(step):
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
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**item))[name]
        except Exception as error:  # whatever Orbax and TensorStore make of it
            reason = str(error).partition("\n")[0]
            rule = f"the checkpoint of step {step:,} cannot be read ({name}: {reason})"
            raise invalid("workdir", self.workdir, rule, "restore it from a backup") from error

    def _write_digests(self) -> None:
        """Called by Orbax in its own thread, before the rename that makes the checkpoint exist."""
        (folder,) = self._folder.glob(f"{self._saving}.*tmp*")
        checkpoint_digests.write(folder)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._check_in_place()
            # TensorStore names each of its layers and the file's specification around the cause.
            cause = re.search(r"(?:os_error_code='|\[Errno )(\d+)", str(error))
            reason = os.strerror(int(cause[1])) if cause else str(error).partition("\n")[0]
            rule = f"the checkpoint of step {self._saving:,} could not be written ({reason})"
            remedy = "earlier ones are intact: free disk space and run the same command to resume"
            raise invalid("workdir", self.workdir, rule, remedy) from error

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Name the checkpoint whose JSON is damaged, although its digests are right."""
        try:
            yield
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            rule = f"the checkpoint of step {step:,} cannot be read ({error})"
            remedy = f"restore {FOLDER} from a backup, or use another folder"
            raise invalid("workdir", self.workdir, rule, remedy) from error

    def _check_in_place(self) -> None:
        if self._lock is not None:
            self._lock.check()
            lock.check_in_place(self.workdir, FOLDER, self._opened)

    def _finish_removing(self) -> None:
        """Remove what was to be removed or has been replaced; restore what could not be."""
        for old in self._folder.glob(f"*{SUPERSEDED}"):
            if old.with_suffix("").exists():
                shutil.rmtree(old)
            else:
                old.rename(old.with_suffix(""))
        shutil.rmtree(self._folder / REMOVED, ignore_errors=True)

    def _intact(self) -> list[int]:
        steps = self._manager.all_steps()
        return [step for step in steps if self._readable is None or step in self._readable]

    def _verify(self, read_only: bool) -> list[int]:
        """Return the steps of intact checkpoints; report damaged ones and quarantine them.

        If `read_only` they stay where they are.
        """
        folders = [path for path in self._folder.iterdir() if path.name.isdigit()]
        with ThreadPoolExecutor() as pool:
            found = zip(folders, pool.map(checkpoint_digests.find_corruption, folders), strict=True)
            # While a process trains, a reader may see it remove a checkpoint, or replace one.
            corruption = {
                int(path.name): fault and checkpoint_digests.find_corruption(path)
                for path, fault in found
                if path.exists()
            }
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
        return intact

    def _quarantine(self, step: int) -> str:
        """Move a checkpoint to a name that Orbax ignores; return that name."""
        names = (f"{step}.damaged{end}" for end in ("", *(f".{n}" for n in range(2, 1000))))
        free = next(name for name in names if not (self._folder / name).exists())
        (self._folder / str(step)).rename(self._folder / free)
        return f"{FOLDER}/{free}"


def read_checkpoints(workdir: Path, name: str, read: Callable[[Checkpoints], T]) -> T:
    """Return `read` of the checkpoints of a run, which may be training and removing old ones.

    Args:
        workdir: its folder.
        name: of the argument that named the folder, for messages.
        read: called again if what it reads was removed meanwhile.

    Raises:
        ValueError: no checkpoint is intact, or none stays long enough to be read; what `read` did.
    """
    for _ in range(READS):
        before = _names(workdir)
        try:
            with Checkpoints(workdir, read_only=True) as checkpoints:
                return read(checkpoints)
        except Exception:
            if _names(workdir) == before:
                raise
        time.sleep(PAUSE)
    rule = f"its checkpoints were replaced {READS} times while they were read"
    raise invalid(name, workdir, rule, "repeat this later, or save more rarely")


def _names(workdir: Path) -> set[str]:
    """Return the names in a run's folder of checkpoints, but for saves in progress."""
    try:
        return {path.name for path in (workdir / FOLDER).iterdir() if "tmp" not in path.name}
    except OSError:
        return set()


def _abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def _same_shards(one: jax.Array, other: jax.Array) -> bool:
    """Return whether two arrays have the same bits on the devices of this process."""
    shards = zip(one.addressable_shards, other.addressable_shards, strict=True)
    return all(np.asarray(a.data).tobytes() == np.asarray(b.data).tobytes() for a, b in shards)


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
        todelete_subdir=None if read_only else REMOVED,
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
