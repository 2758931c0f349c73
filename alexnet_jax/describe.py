"""Print a network's layers and how it differs from the paper's: `python -m alexnet_jax.describe`.

"P3.3" is section 3.3 of Krizhevsky, Sutskever and Hinton (2012); "2012 code" is the authors' own.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from alexnet_jax.cli.arguments import check_picture, option_name, parse_command, peek_option
from alexnet_jax.cli.devices import use_cpu_only
from alexnet_jax.cli.errors import run_command
from alexnet_jax.cli.published import check_one
from alexnet_jax.cli.streams import notes
from alexnet_jax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    Preset,
    PublishedName,
    ScheduleConfig,
    invalid,
)
from alexnet_jax.data.synthetic import CLASS_NAMES
from alexnet_jax.fidelity.facts import brief, describe_network
from alexnet_jax.fidelity.saved_run import read_saved_run
from alexnet_jax.fidelity.text import render
from alexnet_jax.model.variants import build_architecture, check_layers
from alexnet_jax.presets import PRESETS
from alexnet_jax.storage.names import as_json, printable
from alexnet_jax.weights import published

PROGRAM = "python -m alexnet_jax.describe"
CLASSES = 1000  # of ILSVRC


@dataclasses.dataclass(frozen=True)
class Command:
    """Print a network's layers, what crosses between two devices, and the sources it follows.

    P3.3 is section 3.3 of Krizhevsky, Sutskever and Hinton (2012), 2012 code the authors' own.
    """

    # preset to describe; the options below change it
    preset: Preset
    # number of classes; by default that of the run or of the synthetic images, otherwise 1000
    classes: int
    # folder of a run to describe instead of a preset
    workdir: Path | None
    # published weights to describe instead of a preset; downloaded and imported once
    weights: PublishedName | None
    # of the comparison print only the points that differ from the paper
    brief: bool
    # print JSON
    json: bool
    # also draw the network on two devices (Figure 2 of the paper) into this file
    save: Path | None
    # also compile the training step for this hardware, which need not be there, and estimate what
    # it needs: v5e-8, h100-2, cpu-2 (chips: cpu, v4, v5e, v5p, v6e, t4, l4, a100, h100, h200)
    target: str | None
    # the network
    model: tyro.conf.FlagConversionOff[ModelConfig]
    # the images
    data: tyro.conf.FlagConversionOff[DataConfig]
    # the update rule
    optimizer: tyro.conf.FlagConversionOff[OptimizerConfig]
    # the learning rate over time
    schedule: tyro.conf.FlagConversionOff[ScheduleConfig]
    # devices of the target: shards of the batch times towers of the network
    mesh: tyro.conf.FlagConversionOff[MeshConfig]

    @property
    def config(self) -> Config:
        """The network and its training."""
        return dataclasses.replace(
            PRESETS[self.preset],
            model=self.model,
            data=self.data,
            optimizer=self.optimizer,
            schedule=self.schedule,
            mesh=self.mesh,
        )


def parse(args: Sequence[str]) -> Command:
    """Return the command for these arguments; raise a ValueError where they are wrong."""
    workdir, preset = peek_option(args, "--workdir"), peek_option(args, "--preset")
    weights = peek_option(args, "--weights")
    for name, value in (("workdir", workdir), ("weights", weights)):
        if value is not None and preset is not None:
            raise invalid(name, value, "cannot be given together with --preset", "give one")
    folder = None if workdir is None else Path(workdir)
    if weights is not None:
        check_one(folder, weights)
        # In a process of its own: the devices of this one may be others, see `_estimate`.
        folder = published.run_folder(weights, own_process=True)
    config, classes = _preset(preset or "paper") if folder is None else _run(folder)
    default = Command(
        preset=config.preset,
        classes=classes,
        workdir=folder,
        weights=None,
        brief=False,
        json=False,
        save=None,
        target=None,
        model=config.model,
        data=config.data,
        optimizer=config.optimizer,
        schedule=config.schedule,
        mesh=MeshConfig(),
    )
    return parse_command(Command, args, PROGRAM, default)


def _preset(name: str) -> tuple[Config, int]:
    """Return the configuration and the number of classes of a preset."""
    if name not in PRESETS:
        raise invalid("preset", name, f"must be one of {', '.join(PRESETS)}", "use one of them")
    config = PRESETS[name]
    return config, len(CLASS_NAMES) if config.data.source == "synthetic" else CLASSES


def _run(workdir: Path) -> tuple[Config, int]:
    """Return the configuration and the number of classes of a run."""
    run = read_saved_run(workdir)
    return run.config, len(run.class_names)


def describe(args: Command) -> None:
    """Print the description, and draw the network if a file is named for it."""
    config = args.config
    check_layers(config)
    if args.save:
        check_picture(args.save, "--save")
    run = None if args.workdir is None else read_saved_run(args.workdir)
    facts = describe_network(config, args.classes, run)
    if args.save:
        _draw(config, args.classes, args.save)
    facts = brief(facts) if args.brief else facts
    text = "" if args.json else render(facts, option_name)
    if args.target is not None:
        estimated, estimated_text = _estimate(config, args.classes, args.target)
        facts, text = facts | {"target": estimated}, f"{text}\n\n{estimated_text}"
    print(as_json(facts, indent=2) if args.json else printable(text, keep="\n"))


def _estimate(config: Config, classes: int, name: str) -> tuple[dict[str, Any], str]:
    """Compile the training step for hardware that need not be there; return facts and text."""
    # Not above: importing JAX takes longer than all else that this command does without a target.
    from alexnet_jax.analysis import estimate
    from alexnet_jax.analysis.targets import parse_target

    target = parse_target(name)
    use_cpu_only(target.devices if target.chip.platform == "cpu" else 1)
    result = estimate.estimate(config, classes, target)
    return dataclasses.asdict(result), estimate.render(result)


def _draw(config: Config, classes: int, path: Path) -> None:
    from alexnet_jax.plots import network
    from alexnet_jax.plots.tiles import save

    save(network.draw(build_architecture(config.model, classes, config.data.crop)), path)
    print(f"Saved {printable(path)}.", file=notes())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        describe(parse(sys.argv[1:] if args is None else args))

    return run_command(run, Command, "interrupted; nothing was written.")


if __name__ == "__main__":
    sys.exit(main())
