"""Print what a network is, and whether it is the paper's: `python -m alexnet_jax.describe`."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.cli.arguments import check_picture, parse_command, peek_option
from alexnet_jax.cli.errors import run_command
from alexnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    Preset,
    ScheduleConfig,
)
from alexnet_jax.data.synthetic import CLASS_NAMES
from alexnet_jax.fidelity import saved_run
from alexnet_jax.fidelity.facts import brief, describe_network
from alexnet_jax.fidelity.text import render
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

PROGRAM = "python -m alexnet_jax.describe"
CLASSES = 1000  # of ILSVRC


@dataclasses.dataclass(frozen=True)
class Command:
    """Print the layer table of a network, what crosses between devices, and whom it follows."""

    # preset whose network is described (--preset means the same); the options below change it
    named: Annotated[Preset, tyro.conf.arg(name="model")]
    # classes; by default those of the run or of the embedded images, else 1,000
    classes: int
    # folder of a run, whose network is described instead of a preset's
    workdir: Path | None
    # of the points only those that differ from the paper
    brief: bool
    # for programs: everything that the text says, numbers as numbers
    json: bool
    # draw the network as it lies on two devices into this file too (Figure 2 of the paper)
    save: Path | None
    # the network
    model: tyro.conf.FlagConversionOff[ModelConfig]
    # the images
    data: tyro.conf.FlagConversionOff[DataConfig]
    # the update rule
    optimizer: tyro.conf.FlagConversionOff[OptimizerConfig]
    # the learning rate over time
    schedule: tyro.conf.FlagConversionOff[ScheduleConfig]


def parse(args: Sequence[str]) -> Command:
    """Return the command for these arguments; raise a ValueError where they are wrong."""
    args = _one_name(args)
    workdir, named = peek_option(args, "--workdir"), peek_option(args, "--model")
    if workdir is not None and named is not None:
        raise ValueError(f"--workdir {workdir} --model {named}: a run has its model; give one.")
    if named is not None and named not in PRESETS:
        raise ValueError(f"--model {named}: it is one of {', '.join(PRESETS)}; use one of them.")
    config, classes = _of_preset(named or "paper") if workdir is None else _of_run(Path(workdir))
    default = Command(
        named=config.preset,
        classes=classes,
        workdir=None,
        brief=False,
        json=False,
        save=None,
        model=config.model,
        data=config.data,
        optimizer=config.optimizer,
        schedule=config.schedule,
    )
    return parse_command(Command, args, PROGRAM, default)


def _of_preset(named: str) -> tuple[Config, int]:
    config = PRESETS[named]
    return config, len(CLASS_NAMES) if config.data.source == "synthetic" else CLASSES


def _of_run(workdir: Path) -> tuple[Config, int]:
    run = saved_run.read_saved_run(workdir)
    return run.config, len(run.class_names)


def _one_name(args: Sequence[str]) -> list[str]:
    """Return the arguments with --model for --preset, as training calls it."""
    preset, model = peek_option(args, "--preset"), peek_option(args, "--model")
    if preset is not None and model is not None:
        raise ValueError(f"--preset {preset} --model {model}: they mean the same; give one.")
    said, meant = "--preset", "--model"
    return [meant + a.removeprefix(said) if a.partition("=")[0] == said else a for a in args]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def show() -> None:
        asked = parse(sys.argv[1:] if args is None else args)
        config = dataclasses.replace(
            PRESETS[asked.named],
            model=asked.model,
            data=asked.data,
            optimizer=asked.optimizer,
            schedule=asked.schedule,
        )
        if asked.save:
            check_picture(asked.save, "--save")
        run = None if asked.workdir is None else saved_run.read_saved_run(asked.workdir)
        facts = describe_network(config, asked.classes, run)
        facts = brief(facts) if asked.brief else facts
        if asked.save:
            from alexnet_jax.plots import network, save

            save(
                network.draw(build_architecture(config.model, asked.classes, config.data.crop)),
                asked.save,
            )
        print(json.dumps(facts, indent=2) if asked.json else render(facts))

    return run_command(show, Command, "interrupted; nothing was written.")


if __name__ == "__main__":
    sys.exit(main())
