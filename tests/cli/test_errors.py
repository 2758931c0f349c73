"""Messages of the library as a command prints them: options in place of fields and arguments."""

import dataclasses
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from alexnet_jax.cli.errors import option_names, run_command, with_options
from alexnet_jax.config import Config, DataConfig, flatten
from alexnet_jax.main import Command

NAMES = option_names(Command)


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        (
            "data.crop 300: must be at most data.image_size=256; try 224.",
            "--data.crop 300: must be at most --data.image-size 256; try 224.",
        ),
        (
            "workdir runs/a: holds no run; to train from it use init_from=runs/a.",
            "--workdir runs/a: holds no run; to train from it use --init-from runs/a.",
        ),
        ("the old data.path, or another", "the old --data.path, or another"),
        ("seed was 0", "--seed was 0"),
        ("it comes with init_from; add", "it comes with --init-from; add"),
        ("use the old data.path.", "use the old --data.path."),
        # Ordinary words, paths and options stay as they are.
        ("its seed and workdir are kept", "its seed and workdir are kept"),
        ("runs/data.path/x: missing", "runs/data.path/x: missing"),
        ("--data.crop 3: is an option already", "--data.crop 3: is an option already"),
        ("other.field=3", "other.field=3"),
    ],
)
def test_fields_become_options(message, printed):
    assert with_options(message, NAMES) == printed


def test_every_field_of_the_configuration_has_an_option():
    assert flatten(Config()).keys() <= NAMES.keys()


@dataclasses.dataclass(frozen=True)
class Small:
    """A command with an option that the library calls otherwise."""

    source: Annotated[Path, tyro.conf.arg(name="from")]
    image_size: int = 256
    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()  # no option


def test_a_command_may_call_a_field_otherwise(capsys):
    def run():
        DataConfig(image_size=0, crop=0)

    names = {"data.image_size": "--image-size"}
    assert run_command(run, Small, "", names) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("alexnet_jax: --image-size 0: ")
    assert option_names(Small) == {"from": "--from", "image_size": "--image-size"}
