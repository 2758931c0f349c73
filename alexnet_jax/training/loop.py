"""A run from start to end; the same call on the same folder goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.splits import Splits
from alexnet_jax.inference import network as network_loading
from alexnet_jax.model import towers
from alexnet_jax.training import data_files, optimizer, processes, schedule
from alexnet_jax.training import summary as run_summary
from alexnet_jax.training.checkpoint import (
    FOLDER,
    Checkpoints,
    check_data,
    check_not_imported,
    check_same,
)
from alexnet_jax.training.metrics import METRICS, NullWriter, Writer, read_metrics
from alexnet_jax.training.setup import (
    TrainSetup,
    build_setup,
    describe_setup,
    fingerprints,
    open_data,
    open_splits,
)
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.stopping import StopCheck, Stopped
from alexnet_jax.training.trainer import LoopState, Trainer


def _never() -> bool:
    return False


def train_and_evaluate(
    config: Config,
    workdir: Path,
    stop_asked: Callable[[], bool] = _never,
    debug: bool = False,
) -> dict[str, Any]:
    """Train as `config` says, or go on with the run in `workdir`; return what summary.json holds.

    `stop_asked` says whether the run is to stop as soon as it can with everything saved; it is
    called before every step and costs next to nothing. With `debug` each step keeps the state
    before it, and the FloatingPointError says where its number was born.

    Raises:
        Stopped: it was asked to; the same call goes on.
        ValueError: the configuration does not fit the devices, the data, or the run in `workdir`.
        FloatingPointError: the loss or a parameter stopped being finite; the last
            checkpoint is good.
    """
    began = time.monotonic()

    def heed() -> None:
        if stop_asked():
            raise Stopped(f"Stopped before a step was made in {workdir}; the same command goes on.")

    processes.broadcast_from_main("start", heed)
    processes.check_settings(config)
    mesh = towers.make_mesh(
        towers=config.mesh.towers, data=config.mesh.data, batch=config.optimizer.batch_size
    )
    # For a new run the data comes first: a source that will not do leaves no folder behind.
    splits = None if (workdir / FOLDER).exists() else open_splits(config)
    with Checkpoints(workdir) as checkpoints:
        if summary := _finished(config, workdir, checkpoints):
            print(f"{workdir} is finished: {run_summary.closing_line(summary, workdir)}")
            return summary
        splits = splits or open_splits(config)
        processes.check_same(fingerprints(splits), "they train on the same images: give them those")
        run, position = _begin(config, mesh, splits, workdir, checkpoints, heed)
        if said := optimizer.describe_learning_rates(config.optimizer, config.init.reinit_layers):
            print(said)
        if processes.is_main_process():
            run_summary.write_config(run, workdir)
            run_summary.remove_summary(workdir)
        total = run.epoch_end(config.schedule.epochs)
        stop_agreed = processes.any_process_requests_stop(stop_asked, mesh)
        with (
            Writer(workdir, position.step, total)
            if processes.is_main_process()
            else NullWriter() as writer
        ):
            trainer = Trainer(run, position, writer, checkpoints, began, stop_agreed, debug)
            trainer.train()
            summary = run_summary.finish(
                run,
                position.state,
                position.progress,
                trainer.seconds(),
                checkpoints,
                writer,
                trainer.check_stop,
            )
    print(run_summary.closing_line(summary, workdir))
    return summary


def _finished(config: Config, workdir: Path, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """Return the summary of a run that is over, None of one that is to begin or to go on.

    Raises:
        ValueError: the folder holds another run, or one whose checkpoints are lost.
    """
    latest = checkpoints.latest()
    if latest is None:
        if lines := read_metrics(workdir):
            raise ValueError(
                f"{workdir}: its {METRICS} reaches step {lines[-1]['step']:,} and it holds no "
                f"checkpoint: copy {FOLDER} back from where it is whole, or start anew in another "
                "--workdir."
            )
        return None
    meta = checkpoints.meta(latest)
    check_not_imported(meta, workdir)
    check_same(meta["config"], config, workdir)
    over = schedule.finished(config.schedule, schedule.Progress(**meta["progress"]))
    summary = processes.broadcast_from_main("summary", lambda: run_summary.read_summary(workdir))
    return summary if over else None


def _begin(
    config: Config,
    mesh: Mesh,
    splits: Splits,
    workdir: Path,
    checkpoints: Checkpoints,
    heed: StopCheck,
) -> tuple[TrainSetup, LoopState]:
    latest = checkpoints.latest()
    if latest is None:
        origin = (
            network_loading.load_network(Path(config.init_from), mesh) if config.init_from else None
        )
        inherited = origin.statistics if origin else None
        data = open_data(config, splits, print, inherited=inherited, heed=heed)
        run = build_setup(config, mesh, data)
        if processes.is_main_process():
            data_files.keep(splits.inventory(), workdir)
        print(describe_setup(run))
        if origin:
            print(
                f"Model ({origin.config.model.variant}) and preprocessing are those of "
                f"{config.init_from}, whatever --preset says; options of their own change them."
            )
        return run, LoopState(_initial(run, origin))
    meta = checkpoints.meta(latest)
    files = splits.inventory()
    listed = data_files.check(files, workdir)
    check_data(meta["data"], fingerprints(splits), workdir)
    if not listed and processes.is_main_process():
        data_files.keep(files, workdir)  # as good as those that the fingerprints tell from others
    saved = {**meta, "constants": checkpoints.constants(latest)}
    run = build_setup(config, mesh, open_data(config, splits, print, saved))
    state = checkpoints.state(latest, run.target)
    progress = schedule.Progress(**meta["progress"])
    print(describe_setup(run))
    print(f"Resumed after step {latest:,}, epoch {progress.epoch}, from {workdir}.")
    rest = {name: meta[name] for name in ("line_sums", "epoch_sums", "seconds")}
    return run, LoopState(state, latest, progress, **rest)


def _initial(run: TrainSetup, origin: network_loading.Network | None) -> TrainState:
    state = run.create()
    if origin is None:
        return state
    reset, class_names = run.config.init.reinit_layers, run.data.splits.class_names
    params, said = network_loading.init_from_pretrained(
        origin, state.variables["params"], reset, class_names
    )
    print(said)
    return state.replace(variables={"params": params})
