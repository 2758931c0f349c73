"""The commands that go on from a run: resume, evaluate, predict, fine-tune."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_jax.cli.arguments import option_name
from alexnet_jax.config import (
    PREPROCESSING,
    Config,
    absolute_path,
    fields_marked,
    flatten,
)
from alexnet_jax.presets import PRESETS
from alexnet_jax.storage.names import printable

# Of one process at one time; a resumed run is given its own.
NOT_REPEATED = ("distributed.", "profile.", "process.")
LINE = 3  # options in a line; more of them are one a line


def commands_of_run(workdir: Path, config: Config, meta: Mapping[str, Any]) -> dict[str, str]:
    """Return commands, by what they do, that a shell in any folder takes.

    Args:
        workdir: folder of the run.
        config: of the run.
        meta: the plain part of its checkpoint.
    """
    folder = quoted(absolute_path(str(workdir)))
    commands = {}
    if "imported" in meta:
        commands["Evaluate on a folder of class folders"] = _of("evaluate", folder, "--images DIR")
    else:
        options = _different_options(config)
        separator = " " if len(options) <= LINE else " \\\n  "
        commands["Resume, or train for more epochs"] = _of("main", folder, separator.join(options))
        split = "test" if "test" in meta.get("data", {}) else "validation"
        rest = f"--split {split} --views 10 --per-class"
        commands["Evaluate ten views of each image, by class"] = _of("evaluate", folder, rest)
    return {
        **commands,
        "Predict the class of photographs": _of("predict", folder, "photo.jpg"),
        "Fine-tune on your own images": (
            f"python -m alexnet_jax.main --workdir NEW --preset photos --data.path DIR "
            f"--init-from {folder}"
        ),
        "Draw this page and the figures again": _of("figures", folder, ""),
    }


def quoted(text: str) -> str:
    """Return a name as bash takes it, also with control characters and bytes not in UTF-8."""
    if printable(text) == text:
        return shlex.quote(text)
    plain = {*range(0x20, 0x7F)} - {*b"'\\"}
    escaped = (chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(text))
    return f"$'{''.join(escaped)}'"


def _of(command: str, folder: str, options: str) -> str:
    return f"python -m alexnet_jax.{command} --workdir {folder} {options}".rstrip()


def _different_options(config: Config) -> list[str]:
    """Return the options that give a run its configuration again."""
    preset, options = flatten(PRESETS[config.preset]), [f"--preset {config.preset}"]
    for name, value in flatten(config).items():
        # From the folder of init_from come other defaults for these.
        inherited = name.startswith("model.") or name in fields_marked(PREPROCESSING)
        given = value != preset[name] or (config.init_from and inherited)
        if given and not name.startswith(NOT_REPEATED) and name != "preset":
            values = value if isinstance(value, list) else [value]
            words = [option_name(name), *(quoted(str(word)) for word in values)]
            options.append(" ".join(words))
    return options
