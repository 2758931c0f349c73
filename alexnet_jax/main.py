"""Train AlexNet: `python -m alexnet_jax.main --workdir runs/a`, which also resumes the run."""

import sys

from alexnet_jax.cli import signals, streams

if __name__ == "__main__":  # before imports that take seconds, so that Ctrl-C is handled
    streams.open_closed_streams()  # before the first file is opened
    signals.install_handlers()

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.cli import distributed, process
from alexnet_jax.cli.arguments import given_options, option_name, parse_command, peek_option
from alexnet_jax.cli.devices import emulate_devices
from alexnet_jax.cli.errors import option_names, run_command, with_options
from alexnet_jax.cli.published import with_origin_folder
from alexnet_jax.config import (
    Config,
    absolute_path,
    flatten,
    invalid,
    unflatten,
    with_absolute_paths,
)
from alexnet_jax.presets import FITTED, PRESETS, SIDES, both_sides
from alexnet_jax.training.run_config import CONFIG, config_to_resume, has_checkpoint
from alexnet_jax.training.stopping import Stopped

PROGRAM = "python -m alexnet_jax.main"
MOST_USED = ("--workdir", "--preset", "--data.path", "--init-from", "--schedule.epochs")
MOST_USED += ("--optimizer.batch-size", "--optimizer.learning-rate", "--seed")


@dataclasses.dataclass(frozen=True)
class Command:
    """Train AlexNet in two towers, or resume the run in a folder: --workdir alone does.

    In the help of each option, P3.5 is section 3.5 of the paper (Krizhevsky, Sutskever and Hinton,
    2012), and the 2012 code is the authors' own.
    """

    # folder of the run: checkpoints, metrics and figures; created if missing. If it holds a run,
    # its config.json has the defaults of all other options
    workdir: Path
    config: tyro.conf.FlagConversionOff[Annotated[Config, tyro.conf.arg(name="")]]
    # report where a NaN or infinite number first appears: layer, gradient, image; slower
    debug: bool = False


def parse(args: Sequence[str]) -> Command:
    """Return the command for these arguments; raise a ValueError if they are wrong."""
    saved = _run_to_resume(args)
    config = saved or _new_run(args)
    command = _parse(args, config)
    data = command.config.data
    if saved or config.preset not in FITTED:
        return command  # a run in the folder has decided what follows from the images
    if not (data.path or data.name or data.source == "synthetic"):
        return command
    from alexnet_jax.training.fitting import fit_to_data

    given = {name for name in flatten(config) if option_name(name) in given_options(args)}
    return _parse(args, fit_to_data(command.config, given))


def _parse(args: Sequence[str], config: Config) -> Command:
    default = Command(workdir=tyro.MISSING, config=config)
    return parse_command(Command, args, PROGRAM, default, most_used=MOST_USED)


def _run_to_resume(args: Sequence[str]) -> Config | None:
    """Return the settings of the run in the folder, the defaults of its options; None without one.

    Raises:
        ValueError: an option that decides other defaults is given and is not that of the run.
    """
    workdir, preset = peek_option(args, "--workdir"), peek_option(args, "--preset")
    try:
        config = config_to_resume(Path(workdir)) if workdir else None
    except ValueError:
        if preset is None:
            raise
        return None  # all options are given again, and the checkpoint tells whether they are right
    if config is None or (preset is not None and not has_checkpoint(Path(workdir or ""))):
        return None  # also of a run that ended before it began, and is given a preset again
    remedy = "leave it out to resume that run, or use another folder"
    if preset not in (None, config.preset):
        rule = f"the run in {workdir} has the preset {config.preset}"
        raise invalid("preset", preset, rule, remedy)
    origin = peek_option(args, "--init-from")
    if origin is not None and absolute_path(origin) != config.init_from:
        rule = f"the run in {workdir} started from {config.init_from or 'initial weights'}"
        raise invalid("init_from", origin or "''", rule, remedy)
    return config


def _new_run(args: Sequence[str]) -> Config:
    """Return the defaults of a new run: those of a preset, and of the run that it starts from."""
    default = "finetune" if peek_option(args, "--init-from") else "quickstart"
    preset = peek_option(args, "--preset") or default
    if preset not in PRESETS:
        raise invalid("preset", preset, f"must be one of {', '.join(PRESETS)}", "use one of them")
    if origin := peek_option(args, "--init-from"):
        from alexnet_jax.training.finetune import defaults_from

        return defaults_from(Path(origin), PRESETS[preset])
    if preset == "small":
        return _with_both_sides(PRESETS[preset], args)
    return PRESETS[preset]


def _with_both_sides(config: Config, args: Sequence[str]) -> Config:
    """Return `config` with the side of images or crops that follows the other one, given alone."""
    sides = {}
    for name in SIDES:
        with contextlib.suppress(ValueError):  # of parsing the option, which follows
            sides[name] = int(peek_option(args, option_name(name)) or "")
    sides = {name: side for name, side in sides.items() if side > 0}
    return unflatten(flatten(config) | both_sides(sides)) if len(sides) == 1 else config


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    own_process = args is None

    def run() -> None:
        arguments = with_origin_folder(
            sys.argv[1:] if args is None else args, signals.stop_requested
        )
        train(parse(arguments), own_process, resumes=_run_to_resume(arguments) is not None)

    return run_command(
        run,
        Command,
        "interrupted; the same command resumes from the last checkpoint.",
        {"debug=True": "--debug"},
        needs_output=False,  # metrics.jsonl has all of it
    )


def train(args: Command, own_process: bool, resumes: bool) -> None:
    """Train, then draw the figures of the run.

    Args:
        args: the command.
        own_process: this process only trains, so its settings may be changed.
        resumes: options that were not given are those of the run in the folder.
    """
    config = args.config
    if own_process:
        process.check_xla_flags()
        process.restart_with_large_pages(config.process)
        process.enable_compilation_cache(config.process)
        print(process.describe_process())
    emulate_devices(config.mesh, distributed.process_count(config.distributed))
    distributed.initialize(config.distributed, signals.stop_requested)
    from alexnet_jax.training import processes  # after the number of devices is set
    from alexnet_jax.training.loop import train_and_evaluate
    from alexnet_jax.training.summary import closing_line

    if resumes:
        where = args.workdir / CONFIG
        processes.print_from_main(f"Options that are not given are those in {where}.")
    with distributed.exit_on_lost_peer():
        try:
            summary = train_and_evaluate(config, args.workdir, signals.stop_requested, args.debug)
        except Stopped as stopped:
            processes.print_from_main(with_options(str(stopped), option_names(Command)))
            return
        if config.log.figures:
            draw_figures(config, args.workdir)
    message = with_options(closing_line(summary, args.workdir, config), option_names(Command))
    processes.print_from_main(message)


def draw_figures(config: Config, workdir: Path) -> None:
    """Draw figures and page of a finished run, unless all are there and newer than its summary."""
    from alexnet_jax.figures import AFTER_TRAINING, draw_run
    from alexnet_jax.inference.network import load_network
    from alexnet_jax.model import towers
    from alexnet_jax.page.draw import PAGE
    from alexnet_jax.training import processes, tensorboard
    from alexnet_jax.training.summary import SUMMARY

    folder = workdir / "figures"
    pictures = [folder / f"{name}.png" for name in AFTER_TRAINING]

    def all_drawn() -> bool:
        written = (workdir / SUMMARY).stat().st_mtime
        paths = [*pictures, workdir / PAGE]
        return all(path.exists() and path.stat().st_mtime >= written for path in paths)

    if processes.broadcast_from_main("figures", all_drawn):
        return
    mesh = towers.make_mesh(
        towers=config.mesh.towers, data=config.mesh.data, batch=config.optimizer.batch_size
    )
    network = load_network(workdir, mesh)
    # Each process reads the images where it has them.
    own = dataclasses.replace(network.config, data=with_absolute_paths(config).data)
    draw_run(dataclasses.replace(network, config=own), folder, (*AFTER_TRAINING, "page"))
    processes.print_from_main(f"Page of the run: {workdir / PAGE}.")
    if config.log.tensorboard and processes.is_main_process():
        drawn = {path.stem: path for path in pictures if path.exists()}
        tensorboard.write_pictures(workdir / tensorboard.FOLDER, network.step, drawn)


if __name__ == "__main__":
    distributed.shutdown(main())
