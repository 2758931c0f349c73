"""A run from start to end; the same call on the same folder resumes it."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.pipeline import num_unreadable
from alexnet_jax.data.sources import Source
from alexnet_jax.data.splits import Splits
from alexnet_jax.model import settings, towers
from alexnet_jax.model.variants import check_layers
from alexnet_jax.training import data_files, finetune, nonfinite, processes, schedule
from alexnet_jax.training.checkpoint import FOLDER, Checkpoints
from alexnet_jax.training.feed import BatchFeed
from alexnet_jax.training.metrics import MetricsWriter, NullWriter
from alexnet_jax.training.optimizer import describe_learning_rates, set_learning_rates
from alexnet_jax.training.profiler import Profiler
from alexnet_jax.training.resume import (
    Previous,
    find_previous,
    restore_state,
    resume_data,
    to_checkpoint,
)
from alexnet_jax.training.run_data import fingerprints, open_splits, read_data
from alexnet_jax.training.run_folder import check_entries
from alexnet_jax.training.setup import (
    TrainSetup,
    build_setup,
    describe_products,
    describe_setup,
)
from alexnet_jax.training.state import LoopState, TrainState
from alexnet_jax.training.step import Batch
from alexnet_jax.training.stopping import StopCheck, Stopped, never
from alexnet_jax.training.summary import (
    finish,
    read_summary,
    remove_summary,
    write_config,
)
from alexnet_jax.training.tensorboard import write_hparams
from alexnet_jax.training.timing import Meter, TimeBudget

LOGGER = logging.getLogger(__name__)


@settings.fixed_settings()
def train_and_evaluate(
    config: Config,
    workdir: Path | str,
    should_stop: Callable[[], bool] = never,
    debug: bool = False,
    splits: Mapping[str, Source] | None = None,
) -> dict[str, Any]:
    """Train as `config` says, or resume the run in `workdir`; return what summary.json holds.

    Args:
        config: of the run.
        workdir: its folder; made if missing.
        should_stop: returns whether to stop as soon as possible with everything saved; called
            before every step, so it has to be fast.
        debug: keep the state before each step, so that a FloatingPointError says where its value
            first appeared.
        splits: images of the program's own, such as {"train": `data.pairs.Pairs`}, perhaps with
            "validation" and "test"; None: those that `config.data` names.

    Raises:
        Stopped: `should_stop` returned True; the same call resumes.
        ValueError: the configuration does not fit the devices, the data, or the run in `workdir`.
        FloatingPointError: the loss or a parameter is not finite; the last checkpoint is good.
    """
    budget, workdir = TimeBudget(), Path(workdir)
    if splits is not None:
        data = dataclasses.replace(config.data, source="given", path="", name="")
        config = dataclasses.replace(config, data=data)

    def check_stop() -> None:
        if should_stop():
            message = f"Stopped before the first step in {workdir}; the same command starts again."
            raise Stopped(message)

    processes.broadcast_from_main("entries", lambda: check_entries(workdir, config.data.path))
    settings.available_devices()  # refuses what is not there, which the next line would not
    processes.broadcast_from_main("start", check_stop)
    processes.check_same_config(config)
    check_layers(config)
    finetune.check_preset(config)
    mesh = towers.make_mesh(
        towers=config.mesh.towers, data=config.mesh.data, batch=config.optimizer.batch_size
    )
    # For a new run the data comes first: a source that is refused leaves no folder behind.
    opened = None if (workdir / FOLDER).exists() else open_splits(config, splits)
    with Checkpoints(workdir) as checkpoints:
        previous = find_previous(config, checkpoints)
        if previous and (summary := _finished(config, previous, workdir)):
            processes.print_from_main(f"{workdir} is finished.")
            return summary
        opened = opened or open_splits(config, splits)
        processes.check_same(fingerprints(opened), "give all of them the same images")
        if previous:
            setup, state = resume(config, mesh, opened, previous, checkpoints)
        else:
            setup, state = begin(config, mesh, opened, checkpoints, check_stop)
        processes.print_from_main(describe_products(setup))
        num_train, num_validation = len(setup.data.splits.train), len(setup.data.splits.validation)
        processes.print_from_main(schedule.describe(config, num_train, num_validation))
        warning = "" if previous else schedule.warn_of_few_steps(config, num_train)
        if warning and processes.is_main_process():
            LOGGER.warning("%s", warning)
        if message := describe_learning_rates(config.optimizer, config.init.reinit_layers):
            processes.print_from_main(message)
        checkpoints.check_in_place()
        if processes.is_main_process():
            write_config(setup, workdir)
            remove_summary(workdir)
        stop_agreed = processes.any_process_requests_stop(should_stop, mesh)
        with _open_writer(setup, state, workdir) as writer:
            loop = Loop(setup, state, checkpoints, writer, stop_agreed, debug, budget)
            loop.train()
            summary = finish(setup, state, checkpoints, writer, budget, loop.check_stop)
    return summary


def _finished(config: Config, previous: Previous, workdir: Path) -> dict[str, Any] | None:
    """Return the summary of a run that is finished; None of any other."""
    summary = processes.broadcast_from_main("summary", lambda: read_summary(workdir))
    return summary if schedule.finished(config.schedule, previous.progress) else None


def _open_writer(setup: TrainSetup, state: LoopState, workdir: Path) -> MetricsWriter:
    if not processes.is_main_process():
        return NullWriter()
    tensorboard = setup.config.log.tensorboard
    if tensorboard:
        write_hparams(workdir, setup.config)
    total = setup.epoch_end(setup.config.schedule.epochs)
    return MetricsWriter(workdir, state.step, total, tensorboard)


def resume(
    config: Config, mesh: Mesh, splits: Splits, previous: Previous, checkpoints: Checkpoints
) -> tuple[TrainSetup, LoopState]:
    """Return the run as its latest checkpoint has it."""
    data = resume_data(config, splits, previous, checkpoints)
    setup = build_setup(config, mesh, data)
    state = restore_state(setup, previous, checkpoints)
    processes.print_from_main(describe_setup(setup))
    where = f"step {state.step:,}, epoch {state.progress.epoch}"
    processes.print_from_main(f"Resumed after {where}, from {checkpoints.workdir}.")
    return setup, state


def begin(
    config: Config, mesh: Mesh, splits: Splits, checkpoints: Checkpoints, check_stop: StopCheck
) -> tuple[TrainSetup, LoopState]:
    """Return a new run, with initial weights or those of the run named by init_from."""
    origin = finetune.load_origin(Path(config.init_from), mesh) if config.init_from else None
    data = read_data(config, splits, origin.statistics if origin else None, check_stop)
    setup = build_setup(config, mesh, data)
    checkpoints.check_in_place()  # reading all images may have taken an hour
    if processes.is_main_process():
        data_files.write(splits.inventory(), checkpoints.workdir)
    processes.print_from_main(describe_setup(setup))
    state = setup.init()
    if origin:
        processes.print_from_main(finetune.describe_origin(origin.config, config))
        params, message = finetune.init_from_pretrained(
            origin,
            state.variables["params"],
            config.init.reinit_layers,
            splits.class_names,
            config.optimizer.frozen,
        )
        state = state.replace(variables={"params": params})
        processes.print_from_main(message)
    return setup, LoopState(state)


@dataclasses.dataclass(frozen=True)
class InFlight:
    """A step that the devices may still be computing."""

    step: int
    index: Array  # int [B]: records of the batch
    metrics: Mapping[str, Array]
    before: tuple[TrainState, Batch] | None  # with debug: the state before it, and its batch


class Loop:
    """Steps, evaluations, checkpoints and stops, until the schedule ends.

    Metrics of a step are read while the next one runs, so the devices never wait for the host.
    """

    def __init__(
        self,
        setup: TrainSetup,
        state: LoopState,
        checkpoints: Checkpoints,
        writer: MetricsWriter,
        should_stop: Callable[[], bool],
        debug: bool,
        budget: TimeBudget,
    ):
        self._setup, self._state = setup, state
        self._checkpoints, self._writer = checkpoints, writer
        self._should_stop, self._debug = should_stop, debug
        self._saved_step = checkpoints.latest()
        self._budget = budget
        budget.add(state.time)
        self._line_meter, self._epoch_meter = Meter(budget), Meter(budget)
        self._feed = BatchFeed(setup, state.step, budget)
        self._profiler = Profiler(setup.config.profile, checkpoints.workdir / "profile")
        self._in_flight: InFlight | None = None

    def train(self) -> None:
        """Train until the schedule ends."""
        if self._saved_step is None:
            self.save(None)  # a folder with metrics but without a checkpoint is a damaged run
            self.wait_for_save()
            # Once, before hours are spent: nothing else shows that this folder keeps what it gets.
            self._checkpoints.read_back(self._state.step, self._state.train)
        with self._feed, self._profiler:
            while not schedule.finished(self._setup.config.schedule, self._state.progress):
                self.train_epoch()
                self.end_epoch()
        self.wait_for_save()

    def train_epoch(self) -> None:
        """Make the steps up to the end of the epoch."""
        log, state = self._setup.config.log, self._state
        end = self._setup.epoch_end(state.progress.epoch + 1)
        while state.step < end:
            self.check_stop()
            self.train_step()
            if state.step % log.every == 0 or state.step == end:
                self.write_line()
                self._checkpoints.check()  # report a failed save now, not at the next save
            if state.step % log.checkpoint_every == 0 and state.step < end:
                self.save(None)

    def train_step(self) -> None:
        """Start a step, then read the metrics of the step before while this one runs."""
        state = self._state
        if self._profiler.starts_or_stops(state.step + 1):
            self.flush_metrics()
            self._checkpoints.check_in_place()
        self._profiler.before_step(state.step + 1)
        running = self._in_flight.metrics["loss"] if self._in_flight else None
        batch = self._feed.next(running)
        # A copy: the step reuses the memory of the state.
        before = (jax.tree.map(jnp.copy, state.train), batch) if self._debug else None
        state.train, metrics = self._setup.train_step(state.train, batch)
        self.flush_metrics()
        state.step += 1
        self._in_flight = InFlight(state.step, batch["index"], metrics, before)

    def end_epoch(self) -> None:
        """Evaluate if it is time, adjust the learning rates, and save."""
        setup, state = self._setup, self._state
        config, epoch = setup.config.schedule, state.progress.epoch + 1
        means = _means(state.epoch_sums)
        line = f"epoch {epoch:3d}  learning rate {self.learning_rate():g}"
        line += f"  training: loss {means['loss']:.3f}, error {means['top1_error']:.1%}"
        error, due = None, epoch % config.eval_every == 0
        if due or epoch == config.epochs:
            with self._budget.during("evaluation"):
                scores = setup.evaluate(
                    state.train.variables, setup.data.splits.validation, self.check_stop
                )
            error = scores["top1_error"]
            seconds = self._budget.seconds()
            self._writer.evaluation("validation", state.step, epoch, **scores, seconds=seconds)
            line += f"  validation: loss {scores['loss']:.3f}, error {error:.1%}"
            if setup.architecture.num_classes > 5:
                line += f", top-5 error {scores['top5_error']:.1%}"
        if speed := self._epoch_meter.images_per_second():
            line += f"  {speed:,.0f} images/s"
        if unreadable := num_unreadable(setup.data.splits.train):
            line += f"  ({unreadable:,} training images have become unreadable)"
        # An extra evaluation after the last epoch does not count for the schedule: a run that is
        # resumed with more epochs would otherwise differ from one that had them from the start.
        state.progress = schedule.advance(
            config, state.progress, error if due else None, len(setup.data.splits.validation)
        )
        state.epoch_sums = {}
        layers = [layer.name for layer in setup.architecture.layers]
        rates = schedule.learning_rates(config, setup.config.optimizer, state.progress, layers)
        opt_state = set_learning_rates(state.train.opt_state, rates)
        state.train = state.train.replace(opt_state=opt_state)
        # With a few hundred images an epoch is a few steps, which take less than a save, and one
        # line of a thousand is as good as another. What is printed is kept if the run is killed.
        unsaved = state.step - (self._saved_step or 0)
        if error is not None or unsaved >= setup.config.log.checkpoint_every:
            self.save(error)
            self._writer.print_line(line)
        self._epoch_meter.reset()

    def check_stop(self) -> None:
        """Stop here if a stop was requested, with everything saved.

        Called before every step and every batch of an evaluation. A run that is stopped during an
        evaluation is saved as it was before it, and evaluates again when it is resumed.

        Raises:
            Stopped: a stop was requested; says where the run stands.
        """
        if not self._should_stop():
            return
        if self._saved_step != self._state.step:
            self.save(None)
        self.wait_for_save()
        steps = self._setup.epoch_end(self._setup.config.schedule.epochs)
        raise Stopped(
            f"Stopped after step {self._state.step:,} of {steps:,}, which is saved; "
            f"workdir={self._checkpoints.workdir} resumes the run."
        )

    def save(self, error: float | None) -> None:
        """Start saving a checkpoint, with the validation error at this step if it is known.

        Metrics come first: a step that is not finite ends the run before it is saved.
        """
        self.flush_metrics()
        with self._budget.during("saving"):
            processes.check_same_images(self._feed.rows, self._feed.checksum)
            self._writer.flush()
            data = to_checkpoint(self._setup, self._state, self._budget.spent())
            self._checkpoints.save(self._state.step, data, error)
        self._saved_step = self._state.step

    def wait_for_save(self) -> None:
        """Return when the save under way is on the disk."""
        with self._budget.during("saving"):
            self._checkpoints.wait()

    def flush_metrics(self) -> None:
        """Wait for the step in flight, check its numbers and add its metrics up."""
        if self._in_flight is None:
            return
        step, self._in_flight = self._in_flight, None
        values = jax.device_get(dict(step.metrics))
        finite = values.pop("finite")
        if not math.isfinite(values["loss"]):
            self._diverged(step, f"the loss is {values['loss']}")
        if not finite:
            self._diverged(step, "a parameter is no longer finite")
        for sums in (self._state.line_sums, self._state.epoch_sums):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        self._measure(values["count"].item())
        means, speed = _means(self._state.line_sums), self._line_meter.images_per_second()
        self._writer.advance(step.step, means["loss"], means["top1_error"], speed)

    def _measure(self, images: int) -> None:
        """Count the images of a step for the speed; the first step belongs to the start."""
        meters = (self._line_meter, self._epoch_meter)
        if self._budget.part == "start":
            self._budget.begin("steps")
            for meter in meters:
                meter.reset()
        else:
            for meter in meters:
                meter.images += images

    def _diverged(self, step: InFlight, reason: str) -> None:
        self._checkpoints.wait()
        self._checkpoints.check_in_place()
        saved, workdir = self._checkpoints.latest(), self._checkpoints.workdir
        nonfinite.stop_training(
            self._setup, workdir, step.step, reason, step.index, saved, step.before
        )

    def learning_rate(self) -> float:
        """Return the learning rate of this epoch."""
        config = self._setup.config
        rate = config.optimizer.learning_rate
        return schedule.learning_rate(config.schedule, self._state.progress, rate)

    def write_line(self) -> None:
        """Record the means of the metrics since the last line."""
        self.flush_metrics()
        state = self._state
        self._writer.train(
            state.step,
            # The last step of an epoch may include some images of the next.
            min(self._setup.epochs(state.step), state.progress.epoch + 1),
            **_means(state.line_sums),
            learning_rate=self.learning_rate(),
            **self._setup.speed(self._line_meter.images_per_second()),
            waiting_for_data=self._line_meter.waiting_for_data(),
            seconds=self._budget.seconds(),
        )
        state.line_sums.clear()
        self._line_meter.reset()


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: value / sums["count"] for name, value in sums.items() if name != "count"}
