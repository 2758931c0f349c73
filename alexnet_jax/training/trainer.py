"""The loop over steps and epochs: train, look, save, and stop where it is asked to."""

import contextlib
import dataclasses
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax import Array

from alexnet_jax.config import flatten
from alexnet_jax.data.pipeline import Batch, num_unreadable, training_batches
from alexnet_jax.model import towers
from alexnet_jax.training import nonfinite, processes, schedule
from alexnet_jax.training.checkpoint import CheckpointData, Checkpoints
from alexnet_jax.training.metrics import Writer
from alexnet_jax.training.optimizer import set_learning_rates
from alexnet_jax.training.setup import TrainSetup
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.stopping import Stopped

Sums = dict[str, float]


@dataclasses.dataclass
class LoopState:
    """Where a run stands; every checkpoint holds all of it."""

    state: TrainState
    step: int = 0
    progress: schedule.Progress = dataclasses.field(default_factory=schedule.Progress)
    line_sums: Sums = dataclasses.field(default_factory=dict)  # since the last line of metrics
    epoch_sums: Sums = dataclasses.field(default_factory=dict)  # since the epoch began
    seconds: float = 0.0  # spent on this run by earlier processes


@dataclasses.dataclass(frozen=True)
class InFlight:
    """A step that the devices may still be at."""

    step: int
    records: Array  # int [B]: what it was shown, for when its numbers are bad
    metrics: Mapping[str, Array]
    # with --debug: the state before, and the batch
    start: tuple[TrainState, Mapping[str, Array]] | None


class Trainer:
    """The loop, and the little that it remembers from one step to the next."""

    def __init__(
        self,
        run: TrainSetup,
        position: LoopState,
        writer: Writer,
        checkpoints: Checkpoints,
        began: float,
        stop_asked: Callable[[], bool],
        debug: bool,
    ):
        self._run, self._at = run, position
        self._writer, self._checkpoints = writer, checkpoints
        self._began, self._tracing = began, False
        self._stop_asked, self._debug = stop_asked, debug
        self._saved = checkpoints.latest()
        self._pending: InFlight | None = None
        # What this process loads of each batch, and a checksum of which images those were.
        self._rows, self._shown = towers.local_rows(run.mesh, run.config.optimizer.batch_size), 0
        self._line_time, self._line_count, self._line_wait = time.monotonic(), 0.0, 0.0

    def seconds(self) -> float:
        """Return how long the run has taken, over all its processes."""
        return self._at.seconds + time.monotonic() - self._began

    def train(self) -> None:
        """Train until the schedule ends."""
        config, at = self._run.config, self._at
        if self._saved is None:
            self._save(None)  # from here on the folder knows its data, and what it was made with
            self._checkpoints.wait()  # no line of metrics without a checkpoint: `loop` relies on it
        batch = config.optimizer.batch_size
        source = self._run.data.splits.train
        batches = training_batches(source, config.data, config.seed, batch, at.step, self._rows)
        with contextlib.closing(batches):
            while not schedule.finished(config.schedule, at.progress):
                self._train_epoch(batches)
                self._end_epoch()
        self._trace(ended=True)
        self._checkpoints.wait()

    def check_stop(self) -> None:
        """Stop here if that was asked for, with everything saved: here alone it is decided.

        Called before every step and every batch of an evaluation. A run that is stopped during an
        evaluation stands before it, and looks again when it goes on.

        Raises:
            Stopped: it was; says where the run stands.
        """
        if not self._stop_asked():
            return
        self._trace(ended=True)
        if self._saved != self._at.step:
            self._save(None)
        self._checkpoints.wait()
        raise Stopped(
            f"Stopped after step {self._at.step:,} of "
            f"{self._run.epoch_end(self._run.config.schedule.epochs):,}, which is saved in "
            f"{self._checkpoints.workdir}; the same command goes on."
        )

    def _train_epoch(self, batches: Iterator[Batch]) -> None:
        run, at, log = self._run, self._at, self._run.config.log
        end = run.epoch_end(at.progress.epoch + 1)
        while at.step < end:
            self.check_stop()
            self._trace()
            batch = self._wait_for(batches)
            # A copy: the step takes over the memory of the state.
            start = (jax.tree.map(jnp.copy, at.state), batch) if self._debug else None
            at.state, metrics = run.train_step(at.state, batch)
            self.flush_metrics()  # the step before, while this one runs
            at.step += 1
            self._pending = InFlight(at.step, batch["index"], metrics, start)
            if at.step % log.every == 0 or at.step == end:
                self.flush_metrics()
                self._write_line()
                self._checkpoints.check()  # rather now than at the next save
            if at.step % log.checkpoint_every == 0 and at.step < end:
                self._save(None)

    def _wait_for(self, batches: Iterator[Batch]) -> dict[str, Array]:
        """Return the next batch, on its way to the devices."""
        began = time.monotonic()
        taken = next(batches)
        self._shown = zlib.crc32(taken["index"].tobytes(), self._shown)
        batch = towers.put_batch(taken, self._run.mesh)
        if self._pending is None or _ready(self._pending.metrics["loss"]):
            # Or else the devices are still at the step before, and it is they who are waited for.
            self._line_wait += time.monotonic() - began
        return batch

    def _trace(self, ended: bool = False) -> None:
        """Start the profiler before the first step to trace, stop it after the last."""
        first, last = self._run.config.profile.span or (0, 0)
        if self._at.step + 1 == first and not ended:
            self.flush_metrics()
            jax.profiler.start_trace(self._checkpoints.workdir / "profile")
            self._tracing = True
        elif self._tracing and (self._at.step >= last or ended):
            self.flush_metrics()
            jax.profiler.stop_trace()
            self._tracing = False

    def flush_metrics(self) -> None:
        """Wait for the pending step's metrics and add them up."""
        if self._pending is None:
            return
        at, (pending, self._pending) = self._at, (self._pending, None)
        values = jax.device_get(dict(pending.metrics))
        finite = values.pop("finite")
        if not math.isfinite(values["loss"]):
            self._stop(pending, f"the loss is {values['loss']}")
        if not finite:
            self._stop(pending, "a parameter is no longer finite")
        for sums in (at.line_sums, at.epoch_sums):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        self._line_count += values["count"].item()
        mean = _mean(at.line_sums)
        self._writer.advance(pending.step, mean["loss"], mean["top1_error"], self.throughput())

    def _stop(self, bad: InFlight, reason: str) -> NoReturn:
        self._checkpoints.wait()
        saved = self._checkpoints.latest()
        workdir, source = self._checkpoints.workdir, self._run.data.splits.train
        if bad.start:
            born = nonfinite.find(self._run, *bad.start)
            reason += f", and the first bad numbers are in {born}"
        records = towers.fetch(bad.records)
        path = nonfinite.write(workdir, bad.step, reason, saved, records, source)
        again = "" if bad.start else "; the same command with --debug finds where they are born"
        raise FloatingPointError(
            f"step {bad.step}: {reason}; training needs finite numbers: the last checkpoint (step "
            f"{saved}) is good, and {path} names the images of step {bad.step}{again}; or start "
            "anew in another --workdir with a lower --optimizer.learning-rate."
        )

    def throughput(self) -> float:
        return self._line_count / max(1e-9, time.monotonic() - self._line_time)

    def _write_line(self) -> None:
        at = self._at
        self._writer.train(
            at.step,
            # The last step of an epoch may reach some images into the next.
            min(self._run.epochs(at.step), at.progress.epoch + 1),
            **_mean(at.line_sums),
            rate=self._learning_rate(),
            images_per_second=self.throughput(),
            waiting_for_data=self._line_wait / max(1e-9, time.monotonic() - self._line_time),
        )
        at.line_sums.clear()
        self._line_time, self._line_count, self._line_wait = time.monotonic(), 0.0, 0.0

    def _learning_rate(self) -> float:
        config = self._run.config
        return schedule.learning_rate(
            config.schedule, self._at.progress, config.optimizer.learning_rate
        )

    def _end_epoch(self) -> None:
        run, at = self._run, self._at
        config = run.config.schedule
        epoch = at.progress.epoch + 1
        trained = _mean(at.epoch_sums)
        line = f"epoch {epoch:3d}  rate {self._learning_rate():g}"
        line += f"  training: loss {trained['loss']:.3f}, error {trained['top1_error']:.1%}"
        error, due = None, epoch % config.eval_every == 0
        if due or epoch == config.epochs:
            values = run.evaluate(at.state.variables, run.data.splits.validation, self.check_stop)
            error = values["top1_error"]
            self._writer.evaluation("validation", at.step, epoch, **values)
            line += f"  validation: loss {values['loss']:.3f}, error {error:.1%}"
            if run.architecture.num_classes > 5:
                line += f", top-5 error {values['top5_error']:.1%}"
        if gone := num_unreadable(run.data.splits.train):
            line += f"  ({gone:,} training images have become unreadable)"
        # A look out of turn, at the very end, is not the schedule's: a run that goes on to more
        # epochs would otherwise drop its rate where a run of as many in one go does not.
        at.progress = schedule.advance(config, at.progress, error if due else None)
        at.epoch_sums = {}
        layers = [layer.name for layer in run.architecture.layers]
        rates = schedule.learning_rates(config, run.config.optimizer, at.progress, layers)
        at.state = at.state.replace(opt_state=set_learning_rates(at.state.opt_state, rates))
        self._save(error)
        self._writer.say(line)  # a run stopped from here on finishes this save, and so the epoch
        self._line_time, self._line_count, self._line_wait = time.monotonic(), 0.0, 0.0

    def _save(self, error: float | None) -> None:
        """Save where the run stands; a step whose numbers are bad ends the run before."""
        self.flush_metrics()
        processes.check_images(self._rows, self._shown)
        at = self._at
        self._writer.flush()
        meta = {
            "config": flatten(self._run.config),
            "progress": dataclasses.asdict(at.progress),
            "line_sums": at.line_sums,
            "epoch_sums": at.epoch_sums,
            "seconds": self.seconds(),
            "class_names": self._run.data.splits.class_names,
            "data": self._run.data.fingerprints,
            "unreadable": self._run.data.unreadable,
        }
        # Copied by way of text: the loop goes on to change these while the save is under way.
        meta = json.loads(json.dumps(meta))
        self._checkpoints.save(
            at.step, CheckpointData(at.state, self._run.data.constants, meta), error
        )
        self._saved = at.step


def _ready(array: Any) -> bool:
    return array.is_ready()  # which the type jax.Array does not tell of


def _mean(sums: Sums) -> Sums:
    return {name: value / sums["count"] for name, value in sums.items() if name != "count"}
