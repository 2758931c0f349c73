"""What every experiment on real images is asked for, and how it answers the command line."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import record
import tyro

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.storage import lock


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What every experiment takes."""

    # folder of the record, the runs and the picture; best the same for all that share a network
    workdir: Path
    # folder of the images: train and test with a folder a class; a report needs none
    data: Path | None = None
    # of each setting; without a number: table and picture of what is there
    seeds: tuple[int, ...] = (0, 1, 2)
    # a few steps for two settings at most, in WORKDIR/smoke: does it run? No claim
    smoke: bool = False

    def __post_init__(self):
        for number, seed in enumerate(self.seeds):
            if not 0 <= seed < 2**31:
                raise ValueError(f"--seeds {seed}: a seed is at least 0 and below 2^31; try 0.")
            if seed in self.seeds[:number]:
                raise ValueError(f"--seeds {seed}: it is there twice; give each seed once.")

    @property
    def images(self) -> Path:
        """The folder of the images; raises ValueError where none was given."""
        if self.data is None:
            raise ValueError("--data is missing: it names the folder of train and test; add it.")
        return self.data

    @property
    def folder(self) -> Path:
        """Where runs and record lie; a smoke test's are kept apart."""
        return self.workdir / "smoke" if self.smoke else self.workdir

    @property
    def record(self) -> Path:
        """The file of finished runs."""
        return self.folder / record.NAME


def cli(main: Callable[[Arguments], None], about: str | None) -> None:
    """Run an experiment's `main` on the command line's arguments, and exit.

    `about` is its docstring, whose first line is what --help says.
    """

    def run() -> None:
        asked = parse_command(
            Arguments,
            sys.argv[1:],
            f"python {sys.argv[0]}",
            booleans=tyro.conf.FlagCreatePairsOff,
            description=(about or "").partition("\n")[0],
        )
        if not asked.seeds:
            main(asked)
            return
        asked.folder.mkdir(parents=True, exist_ok=True)
        with lock.hold_lock(asked.folder):
            main(asked)

    sys.exit(
        run_command(run, Arguments, "interrupted; the same command goes on from the last epoch.")
    )
