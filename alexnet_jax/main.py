"""Train AlexNet: `python -m alexnet_jax.main --workdir runs/a`; the same command resumes."""

import sys

from alexnet_jax.cli import signals
from alexnet_jax.cli.arguments import parse_command, peek_option
from alexnet_jax.cli.devices import emulate_devices
from alexnet_jax.cli.errors import run_command

if __name__ == "__main__":  # a process of its own; before imports that take their time
    signals.install_handlers()

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.cli import distributed, process
from alexnet_jax.config import Config
from alexnet_jax.presets import PRESETS

PROGRAM = "python -m alexnet_jax.main"


@dataclasses.dataclass(frozen=True)
class Command:
    """Train AlexNet in two towers, or go on with the run in a folder; the README has examples."""

    workdir: Path  # folder of the run: checkpoints, metrics, figures; made where missing
    config: tyro.conf.FlagConversionOff[Annotated[Config, tyro.conf.arg(name="")]]
    # say of a number that is not finite where it was born: layer, gradient, image; keeps the state
    # before each step
    debug: bool = False


def parse(args: Sequence[str]) -> Command:
    """Return the command for these arguments; raise a ValueError where they are wrong."""
    config = PRESETS[_preset(args)]
    if origin := peek_option(args, "--init-from"):
        from alexnet_jax.inference.network import defaults_from

        config = defaults_from(Path(origin), config, Path(peek_option(args, "--workdir") or ""))
    default = Command(workdir=tyro.MISSING, config=config)
    return parse_command(Command, args, PROGRAM, default)


def _preset(args: Sequence[str]) -> str:
    """Return the preset, which decides every other default."""
    preset = peek_option(args, "--preset") or "quickstart"
    if preset not in PRESETS:
        raise ValueError(f"--preset {preset}: it is one of {', '.join(PRESETS)}; use one of them.")
    return preset


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def train() -> None:
        asked = parse(sys.argv[1:] if args is None else args)
        if args is None:  # a process of its own
            process.restart_with_large_pages(asked.config.process)
            process.enable_compilation_cache(asked.config.process)
            print(process.describe_process())
        emulate_devices(asked.config.mesh, distributed.process_count(asked.config.distributed))
        distributed.initialize(asked.config.distributed)
        from alexnet_jax.training.loop import train_and_evaluate

        with distributed.exit_on_lost_peer():
            train_and_evaluate(asked.config, asked.workdir, signals.stop_requested, asked.debug)

    return run_command(
        train, Command, "interrupted; the same command goes on from the last checkpoint."
    )


if __name__ == "__main__":
    distributed.shutdown(main())
