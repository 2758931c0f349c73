"""What the commands share: one sentence for each mistake, exit codes, devices posed by a CPU."""

import contextlib
import dataclasses
import difflib
import errno
import io
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from alexnet_jax.config import (
    MeshConfig,
    option,
)
from alexnet_jax.training.stopping import Stopped

T = TypeVar("T")

PICTURES = (".png", ".pdf", ".svg")
STDOUT = 1  # number of the standard output

_unraisable = sys.unraisablehook

# What people type for an option, from other programs or from another command of these: the first
# that the command has is named.
_OFTEN = {
    "--model": ("--preset",),
    "--preset": ("--model",),
    "--lr": ("--optimizer.rate",),
    "--learning-rate": ("--optimizer.rate",),
    "--rate": ("--optimizer.rate",),
    "--batch-size": ("--optimizer.batch", "--batch"),
    "--batch": ("--optimizer.batch",),
    "--epochs": ("--schedule.epochs",),
    "--momentum": ("--optimizer.momentum",),
    "--weight-decay": ("--optimizer.weight-decay",),
    "--data": ("--data.path", "--images"),
}


def parse(
    kind: type[T],
    args: Sequence[str],
    program: str,
    default: T | None = None,
    booleans: Any = tyro.conf.FlagConversionOff,
    about: str | None = None,
) -> T:
    """Return the command, a dataclass, for these arguments.

    Args:
        kind: the dataclass; a field is an option, as tyro makes one.
        args: without the program.
        program: what --help calls it.
        default: stands for what the arguments leave out.
        booleans: how a bool is written: `--mirror False`, or tyro's marker for other ways.
        about: what --help says in place of the dataclass's docstring.

    Raises:
        ValueError: an option is unknown, missing or wrong; one sentence.
    """
    _check_names(args, ["--help", *_options(kind)])
    said = io.StringIO()
    known: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                prog=program,
                description=about,
                args=list(args),
                config=(booleans,),
                **known,
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ValueError(_sentence(said.getvalue())) from None


def given(args: Sequence[str], name: str) -> str | None:
    """Return the last value of an option that decides the defaults of others: it is read first."""
    value = None
    for this, following in zip(args, [*args[1:], ""], strict=True) if args else ():
        key, equals, after = this.partition("=")
        if key.replace("_", "-") == name:  # tyro takes both
            value = after if equals else following
    return value


def run(command: Callable[[], object], interrupted: str) -> int:
    """Run a command; return its exit code, having said on stderr why it is not 0.

    Args:
        command: bad input is its ValueError or OSError (2), a run gone wrong its
            FloatingPointError (1); Stopped is as good an end as any (0). Output that nobody reads
            any more ends it without a word (141).
        interrupted: what to say after Ctrl-C (130).
    """
    # Orbax logs with its traceback what it then raises, a Ctrl-C while it saves among them; and of
    # several writes that fail at once it raises the first, and leaves asyncio to log the others.
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    sys.unraisablehook = _show_unraisable
    try:
        with _warnings_said():
            command()
        sys.stdout.flush()
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)  # for what is flushed at exit
            return 128 + signal.SIGPIPE
        said = str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"{error.filename or 'the disk'}: {error.strerror}; make room, and give the "
            said += "same command again."
        elif isinstance(error, OSError) and error.filename and error.strerror:
            said = f"{error.filename}: {error.strerror}; correct the path, or the permissions."
        print(f"alexnet_jax: {said}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"alexnet_jax: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(stopped)
    except KeyboardInterrupt:
        print(f"alexnet_jax: {interrupted}", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _warnings_said() -> Iterator[None]:
    """Print what the package warns of as the command prints everything else it has to say."""
    logger, handler = logging.getLogger("alexnet_jax"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("alexnet_jax: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


def _nobody_reads() -> bool:
    """Return whether whoever read the output, as `head` does, has had enough of it."""
    watched = select.poll()
    watched.register(STDOUT, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


def _show_unraisable(unraisable: Any) -> None:
    """Show what was raised where nobody could catch it, but for what a failed save leaves behind.

    TensorStore then goes on to report to an event loop that Orbax has closed.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        _unraisable(unraisable)


def check_picture(path: Path, named_by: str) -> None:
    """Make the folder of a picture that is to be drawn.

    Raises a ValueError, which says the option that it was `named_by`, for the name of no picture.
    """
    if path.suffix.lower() not in PICTURES:
        better = path / "picture.png" if path.is_dir() else path.with_suffix(".png")
        raise ValueError(
            f"{named_by} {path}: it is the name of a picture, in {', '.join(PICTURES)}; try "
            f"{better}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)


def emulate_devices(mesh: MeshConfig, processes: int = 1) -> None:
    """Have the CPU pose as as many devices as the mesh wants; two where it may choose.

    Several processes have equal shares of them.
    """
    import jax

    if jax.config.values["jax_num_cpu_devices"] > 0:
        return  # whoever started this process has chosen (JAX_NUM_CPU_DEVICES)
    towers = 2 if mesh.towers == "auto" else mesh.towers
    data = processes if mesh.data == "auto" else mesh.data
    # Refused once a backend is up, as in a notebook: then its devices are those there are.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", -(-towers * data // processes))


def provide_devices(count: int) -> str:
    """Have JAX see at least so many devices, and return a sentence about them; for notebooks.

    An accelerator with as many is taken as it is; else the CPU poses as `count` devices, and arrays
    that were made before are lost.
    """
    import jax
    from jax.extend.backend import clear_backends

    if jax.device_count() < count:
        clear_backends()  # only without any can their number and kind be changed
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"The CPU poses as {len(devices)} devices."
    return f"There are {len(devices)} devices: {devices[0].device_kind}."


def _options(kind: Any, prefix: str = "") -> list[str]:
    """Return the options of a dataclass, under the names that tyro gives them."""
    names = []
    for field in dataclasses.fields(kind):
        bare = getattr(field.type, "__origin__", field.type)
        notes = getattr(field.type, "__metadata__", ())
        named = [note.name for note in notes if getattr(note, "name", None) is not None]
        name = named[0] if named else field.name
        if dataclasses.is_dataclass(bare):
            names += _options(bare, f"{prefix}{name}." if name else prefix)
        else:
            names.append(option(prefix + name))
    return names


def _check_names(args: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError that names the nearest option where one is misspelled."""
    for argument in args:
        name = argument.partition("=")[0]
        if name.startswith("--") and name.replace("_", "-") not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            meant = [option for option in _OFTEN.get(name.replace("_", "-"), ()) if option in known]
            near = [*meant, *close][0]
            raise ValueError(
                f"{name}: there is no such option; the nearest is {near} (see --help for all)."
            )


def _sentence(box: str) -> str:
    """Return in one line what tyro says in a box: its first paragraph, between title and rule.

    A refusal by `config.py` is a sentence already, and names its option.
    """
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    lines = "\n".join(line.strip("│| ") for line in plain.splitlines()[1:])
    paragraphs = re.split(r"^[─-]{3,}$", lines, flags=re.MULTILINE)
    text = " ".join(next(filter(str.strip, paragraphs), plain).split())
    if refused := re.fullmatch(r"Error parsing [A-Za-z]\S*: (--.*)", text):
        return refused[1]
    if missing := re.findall(r"(--\S+) [A-Z]\S* ([^()]*?) \(required\)", text):
        wanted = ", ".join(f"{name} ({help})" for name, help in missing)
        return f"Needed as well: {wanted}; see --help."
    return f"{text.removeprefix('Error parsing ').rstrip('.')}; see --help."
