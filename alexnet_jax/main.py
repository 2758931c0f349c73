"""Train AlexNet: `python -m alexnet_jax.main --workdir runs/a`; the same command resumes."""

import sys

from alexnet_jax.cli import signals, streams

if __name__ == "__main__":  # before imports that take seconds, so that Ctrl-C is handled
    streams.open_closed_streams()  # before the first file is opened
    signals.install_handlers()

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.cli import distributed, process
from alexnet_jax.cli.arguments import parse_command, peek_option
from alexnet_jax.cli.devices import emulate_devices
from alexnet_jax.cli.errors import option_names, run_command, with_options
from alexnet_jax.config import Config, invalid, with_absolute_paths
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.stopping import Stopped

PROGRAM = "python -m alexnet_jax.main"


@dataclasses.dataclass(frozen=True)
class Command:
    """Train AlexNet in two towers, or resume the run in a folder.

    In the help of each option, P3.5 is section 3.5 of the paper (Krizhevsky, Sutskever and Hinton,
    2012), and the 2012 code is the authors' own.
    """

    # folder of the run: checkpoints, metrics and figures; created if missing
    workdir: Path
    config: tyro.conf.FlagConversionOff[Annotated[Config, tyro.conf.arg(name="")]]
    # report where a NaN or infinite number first appears: layer, gradient, image; slower
    debug: bool = False


def parse(args: Sequence[str]) -> Command:
    """Return the command for these arguments; raise a ValueError if they are wrong."""
    config = PRESETS[_preset(args)]
    if origin := peek_option(args, "--init-from"):
        from alexnet_jax.training.finetune import defaults_from

        config = defaults_from(Path(origin), config, Path(peek_option(args, "--workdir") or ""))
    return parse_command(Command, args, PROGRAM, Command(workdir=tyro.MISSING, config=config))


def _preset(args: Sequence[str]) -> str:
    """Return the preset, which decides every other default."""
    preset = peek_option(args, "--preset") or "quickstart"
    if preset not in PRESETS:
        raise invalid("preset", preset, f"must be one of {', '.join(PRESETS)}", "use one of them")
    return preset


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    own_process = args is None

    def run() -> None:
        train(parse(sys.argv[1:] if args is None else args), own_process)

    return run_command(
        run,
        Command,
        "interrupted; the same command resumes from the last checkpoint.",
        {"debug=True": "--debug"},
        needs_output=False,  # metrics.jsonl has all of it
    )


def train(args: Command, own_process: bool) -> None:
    """Train, then draw the figures of the run.

    `own_process`: this process only trains, so its settings may be changed.
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

    with distributed.exit_on_lost_peer():
        try:
            summary = train_and_evaluate(config, args.workdir, signals.stop_requested, args.debug)
        except Stopped as stopped:
            processes.print_from_main(str(stopped))
            return
        if config.log.figures:
            draw_figures(config, args.workdir)
    message = with_options(closing_line(summary, args.workdir), option_names(Command))
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
    if config.log.tensorboard and processes.is_main_process():
        drawn = {path.stem: path for path in pictures if path.exists()}
        tensorboard.write_pictures(workdir / tensorboard.FOLDER, network.step, drawn)


if __name__ == "__main__":
    distributed.shutdown(main())
