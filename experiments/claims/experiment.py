"""The command line that all experiments on real images share."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import record
import tyro

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.config import invalid
from alexnet_jax.storage import lock


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of every experiment."""

    # folder of the record, the runs and the figure; experiments in one folder share runs
    workdir: Path
    # folder of the images, with train/<class>/* and test/<class>/*; not needed without seeds
    data: Path | None = None
    # seeds of each setting; without a number: only print the table and draw the figure
    seeds: tuple[int, ...] = (0, 1, 2)
    # smoke test: a few steps of at most two settings, in WORKDIR/smoke
    smoke: bool = False

    def __post_init__(self):
        for number, seed in enumerate(self.seeds):
            if not 0 <= seed < 2**31:
                raise invalid("seeds", seed, "must be at least 0 and less than 2^31", "try 0")
            if seed in self.seeds[:number]:
                raise invalid("seeds", seed, "must not be repeated", "give each seed once")

    @property
    def images(self) -> Path:
        """The folder of the images; raises ValueError if none was given."""
        if self.data is None:
            raise ValueError("data is missing: must be the folder of train and test; add data=DIR.")
        return self.data

    @property
    def folder(self) -> Path:
        """The folder of runs and record; a smoke test has its own."""
        return self.workdir / "smoke" if self.smoke else self.workdir

    @property
    def record(self) -> Path:
        """The file that lists finished runs."""
        return self.folder / record.NAME


def cli(main: Callable[[Arguments], None], about: str | None) -> None:
    """Run an experiment's `main` with the command line's arguments, and exit.

    `about` is the docstring of the experiment; --help shows its first line.
    """

    def run() -> None:
        args = parse_command(
            Arguments,
            sys.argv[1:],
            f"python {sys.argv[0]}",
            booleans=tyro.conf.FlagCreatePairsOff,
            description=(about or "").partition("\n")[0],
        )
        if not args.seeds:
            main(args)
            return
        args.folder.mkdir(parents=True, exist_ok=True)
        with lock.hold_lock(args.folder):
            main(args)

    sys.exit(
        run_command(
            run, Arguments, "interrupted; rerun the same command to resume from the last epoch."
        )
    )
