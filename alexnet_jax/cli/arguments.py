"""Command-line arguments: parsed by tyro, with one sentence for each mistake."""

import contextlib
import dataclasses
import difflib
import io
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from alexnet_jax.cli.help import most_used_first
from alexnet_jax.storage.atomic import make_parent
from alexnet_jax.storage.local import check_local

T = TypeVar("T")

PICTURE_FORMATS = (".png", ".pdf", ".svg")

# Options that people type, from other programs or from another of these commands: the first that
# the command has is suggested.
OPTION_HINTS = {
    "--model": ("--preset",),
    "--lr": ("--optimizer.learning-rate",),
    "--learning-rate": ("--optimizer.learning-rate",),
    "--rate": ("--optimizer.learning-rate",),
    "--optimizer.lr": ("--optimizer.learning-rate",),
    "--optimizer.rate": ("--optimizer.learning-rate",),
    "--batch": ("--batch-size", "--optimizer.batch-size"),
    "--batch-size": ("--optimizer.batch-size",),
    "--optimizer.batch": ("--optimizer.batch-size",),
    "--epochs": ("--schedule.epochs",),
    "--momentum": ("--optimizer.momentum",),
    "--wd": ("--optimizer.weight-decay",),
    "--weight-decay": ("--optimizer.weight-decay",),
    "--gamma": ("--schedule.factor",),
    "--milestones": ("--schedule.milestones",),
    "--patience": ("--schedule.patience",),
    "--data": ("--data.path", "--images"),
    "--data-dir": ("--data.path", "--images"),
    "--num-workers": ("--data.threads",),
    "--workers": ("--data.threads",),
    "--output": ("--workdir",),
    "--output-dir": ("--workdir",),
    "--checkpoint-dir": ("--workdir",),
    "--resume": ("--workdir",),
    "--pretrained": ("--init-from",),
    "--finetune": ("--init-from",),
    "--freeze": ("--optimizer.layer-learning-rates",),
    "--dtype": ("--model.dtype",),
    "--dropout": ("--model.dropout",),
    "--topk": ("--top",),
    "--top-k": ("--top",),
}


def parse_command(
    command: type[T],
    args: Sequence[str],
    program: str,
    default: T | None = None,
    booleans: Any = tyro.conf.FlagCreatePairsOff,
    description: str | None = None,
    most_used: Sequence[str] = (),
) -> T:
    """Return the command, a dataclass, for these arguments.

    Args:
        command: the dataclass; each of its fields is an option.
        args: without the program.
        program: its name in --help.
        default: where options that are not given come from.
        booleans: how a bool is written: a flag, or tyro's marker for other ways.
        description: replaces the dataclass's docstring in --help.
        most_used: options that --help shows first.

    Raises:
        ValueError: an option is unknown, missing or wrong; one sentence.
    """
    _check_names(args, ["--help", *options(command)])
    _check_repeated(args, command)
    _check_local(args)
    printed = io.StringIO()
    defaults: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(printed), most_used_first(most_used):
            return tyro.cli(
                command,
                prog=program,
                description=description,
                args=list(args),
                config=(booleans,),
                **defaults,
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ValueError(_sentence(printed.getvalue())) from None


def peek_option(args: Sequence[str], name: str) -> str | None:
    """Return the last value of an option that decides the defaults of others, before parsing."""
    value = None
    for this, following in zip(args, [*args[1:], ""], strict=True) if args else ():
        key, equals, after = this.partition("=")
        if key.replace("_", "-") == name:  # tyro takes both
            value = after if equals else following
            check_local(value, name)
    return value


def given_options(args: Sequence[str]) -> set[str]:
    """Return the options among the arguments, as `option_name` spells them."""
    return {argument.partition("=")[0].replace("_", "-") for argument in args}


def option_name(field: str) -> str:
    """Return the option of a field: data.image_size -> --data.image-size."""
    return "--" + field.replace("_", "-")


def options(command: Any, prefix: str = "") -> list[str]:
    """Return the options of a dataclass, without positional ones, under the names tyro gives."""
    return [name for name, _ in _fields(command, prefix)]


def _fields(command: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the options of a dataclass with the annotations of their fields."""
    for field in dataclasses.fields(command):
        marks = getattr(field.type, "__metadata__", ())
        if tyro.conf.Positional in marks:
            continue
        kind = field.type
        while hasattr(kind, "__origin__") and dataclasses.is_dataclass(kind.__origin__):
            kind = kind.__origin__
        given = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
        name = given[0] if given else field.name
        if dataclasses.is_dataclass(kind):
            yield from _fields(kind, f"{prefix}{name}." if name else prefix)
        else:
            yield option_name(prefix + name), field.type


def check_picture(path: Path, option: str) -> None:
    """Make the folder of a picture that is to be drawn.

    Raises:
        ValueError: the file name given by `option` is not that of a picture.
    """
    if path.suffix.lower() not in PICTURE_FORMATS:
        better = path / "picture.png" if path.is_dir() else path.with_suffix(".png")
        raise ValueError(
            f"{option} {path}: must end in {', '.join(PICTURE_FORMATS)}; try {better}."
        )
    make_parent(path, option)


def _check_names(args: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError that names the nearest option if one is misspelled."""
    for argument in args:
        name = argument.partition("=")[0]
        if re.match(r"--|-[a-z]{2}", name) and name.replace("_", "-") not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hints = [hint for hint in OPTION_HINTS.get(name.replace("_", "-"), ()) if hint in known]
            nearest = [*hints, *close][0]
            raise ValueError(f"{name}: no such option; try {nearest} (--help lists all).")


def _check_repeated(args: Sequence[str], command: type) -> None:
    """Raise a ValueError if an option that is given twice probably means both: tyro takes the last.

    Those are options of several values, and the network that a command uses, as `evaluate` takes
    several. Of others the last one counts: scripts add an option to those they have.
    """
    networks = ("--workdir", "--weights") if "--weights" in options(command) else ()
    given = [argument.partition("=")[0].replace("_", "-") for argument in args]
    for name, kind in _fields(command):
        appends = tyro.conf.UseAppendAction in getattr(kind, "__metadata__", ())
        plain = getattr(kind, "__origin__", kind)
        if appends or given.count(name) < 2:
            continue
        if tuple in (plain, typing.get_origin(plain)):
            rule, remedy = "must be given once, with all its values", f"write {name} A B"
            raise ValueError(f"{name}: {rule}; {remedy}.")
        if name in networks:
            raise ValueError(
                f"{name}: must be given once; leave one out, or run the command for each."
            )


def _check_local(args: Sequence[str]) -> None:
    """Raise a ValueError if a value is an address: no option takes one."""
    name = "argument"
    for argument in args:
        key, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            check_local(argument, name)
        elif equals:
            check_local(value, key)
        else:
            name = key


def _sentence(box: str) -> str:
    """Return in one line what tyro says in a box: its first paragraph, between title and rule.

    A refusal by `config.py` is a sentence already.
    """
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    lines = "\n".join(line.strip("│| ") for line in plain.splitlines()[1:])
    paragraphs = re.split(r"^[─-]{3,}$", lines, flags=re.MULTILINE)
    text = " ".join(next(filter(str.strip, paragraphs), plain).split())
    text = re.sub(r"(Expected one of \(.*?)(?:'None', |, 'None')", r"\1", text)  # the default
    if refused := re.fullmatch(r"Error parsing [A-Za-z]\S*: ([a-z].*)", text):
        return refused[1]
    if missing := re.findall(r"(--\S+) [A-Z]\S* ([^()]*?) \(required\)", text):
        named = ", ".join(f"{name} ({help})" for name, help in missing)
        return f"Missing: {named}; see --help."
    for pattern, sentence in _TYRO.items():
        if match := re.search(pattern, text):
            return re.sub(r"'", "", sentence.format(*match.groups()))
    return f"{text.removeprefix('Error parsing ').rstrip('.')}; see --help."


# What tyro says, and how it reads here: the option, its value, the rule, a remedy.
_TYRO = {
    r"(--\S+): could not convert string to float: (.+?)\.?$": (
        "{0} {1}: must be a number; see --help."
    ),
    r"(--\S+): invalid literal for int\(\) with base 10: (.+?)\.?$": (
        "{0} {1}: must be an integer; see --help."
    ),
    r"invalid choice (.+) for argument '(--\S+)'\. Expected one of \((.+)\)": (
        "{1} {0}: must be one of {2}; use one of them."
    ),
    r"Missing value for argument '(--[\w.-]+)'": "{0}: its value is missing; see --help.",
    r"Unrecognized options: ([^-].*?)\.?$": (
        "{0}: must come after an option such as --workdir; see --help."
    ),
}
