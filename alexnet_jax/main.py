"""Train AlexNet: `python -m alexnet_jax.main --workdir runs/a`; the same command resumes."""

import contextlib
import dataclasses
import difflib
import io
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from alexnet_jax.config import PRESETS, Config, flatten, option

PROGRAM = "python -m alexnet_jax.main"


@dataclasses.dataclass(frozen=True)
class Command:
    """Train AlexNet in two towers, or go on with the run in a folder; the README has examples."""

    workdir: Path  # folder of the run: checkpoints, metrics, figures; made where missing
    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(args: Sequence[str]) -> Command:
    """Return the command for these arguments; raise a ValueError where they are wrong."""
    _check_names(args)
    preset = _preset(args)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,
                prog=PROGRAM,
                args=list(args),
                default=Command(workdir=tyro.MISSING, config=PRESETS[preset]),
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ValueError(_sentence(said.getvalue())) from None


def _preset(args: Sequence[str]) -> str:
    """Return the value of the last --preset; it decides every other default: it is read first."""
    preset = "quickstart"
    for this, following in zip(args, [*args[1:], ""], strict=True) if args else ():
        name, equals, value = this.partition("=")
        if name == "--preset":
            preset = value if equals else following
    if preset not in PRESETS:
        raise ValueError(f"--preset {preset}: it is one of {', '.join(PRESETS)}; use one of them.")
    return preset


def _sentence(box: str) -> str:
    """Return in one line what tyro says in a box: its first paragraph, between title and rule.

    A refusal by `config.py` is a sentence already, and names its option.
    """
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    lines = "\n".join(line.strip("│| ") for line in plain.splitlines()[1:])
    paragraphs = re.split(r"^[─-]{3,}$", lines, flags=re.MULTILINE)
    text = " ".join(next(filter(str.strip, paragraphs), plain).split())
    sentence = re.sub(r"^Error parsing (config\S*: )?", "", text)
    return sentence if "Error parsing config" in text else f"{sentence.rstrip('.')}; see --help."


def _check_names(args: Sequence[str]) -> None:
    """Raise a ValueError that names the nearest option where one is misspelt."""
    known = ["--help", "--workdir", *map(option, flatten(Config()))]
    for argument in args:
        name = argument.partition("=")[0]
        if name.startswith("--") and name.replace("_", "-") not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{name}: there is no such option; the nearest is {near} (see --help for all)."
            )


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        command = parse(sys.argv[1:] if args is None else args)
        emulate_devices(command.config)
        # Orbax logs with its traceback what it then raises, a Ctrl-C while it saves among them.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from alexnet_jax.training.loop import train_and_evaluate  # after the device count

        train_and_evaluate(command.config, command.workdir)
    except (ValueError, OSError) as error:
        print(f"alexnet_jax: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"alexnet_jax: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "alexnet_jax: interrupted; the same command goes on from the last checkpoint.",
            file=sys.stderr,
        )
        return 130
    return 0


def emulate_devices(config: Config) -> None:
    """Have the CPU pose as as many devices as the mesh wants; two where it may choose."""
    import jax

    if jax.config.values["jax_num_cpu_devices"] > 0:
        return  # whoever started this process has chosen (JAX_NUM_CPU_DEVICES)
    towers = 2 if config.mesh.towers == "auto" else config.mesh.towers
    data = 1 if config.mesh.data == "auto" else config.mesh.data
    # Refused once a backend is up, as in a notebook: then its devices are those there are.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", towers * data)


if __name__ == "__main__":
    sys.exit(main())
