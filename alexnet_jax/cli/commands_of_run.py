"""The commands that go on from a run: resume, evaluate, predict, fine-tune."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_jax.config import absolute_path
from alexnet_jax.storage.names import printable


def commands_of_run(workdir: Path, meta: Mapping[str, Any]) -> dict[str, str]:
    """Return commands, by what they do, that a shell in any folder takes.

    Args:
        workdir: folder of the run.
        meta: the plain part of its checkpoint.
    """
    folder = quoted(absolute_path(str(workdir)))
    commands = {}
    if "imported" in meta:
        commands["Evaluate on a folder of class folders"] = _of("evaluate", folder, "--images DIR")
    else:
        commands["Resume"] = _of("main", folder)
        split = "test" if "test" in meta.get("data", {}) else "validation"
        rest = f"--split {split} --views 10 --per-class"
        commands["Evaluate ten views of each image, by class"] = _of("evaluate", folder, rest)
    return {
        **commands,
        "Predict the class of photographs": _of("predict", folder, "photo.jpg"),
        "Explain predictions": _of("explain", folder, "photo.jpg"),
        "Fine-tune on your own images": _of("main", "NEW", f"--data.path DIR --init-from {folder}"),
        "Draw this page and the figures again": _of("figures", folder),
    }


def quoted(text: str) -> str:
    """Return a name as bash takes it, also with control characters and bytes not in UTF-8."""
    if printable(text) == text:
        return shlex.quote(text)
    plain = {*range(0x20, 0x7F)} - {*b"'\\"}
    escaped = (chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(text))
    return f"$'{''.join(escaped)}'"


def _of(command: str, folder: str, options: str = "") -> str:
    return f"python -m alexnet_jax.{command} --workdir {folder} {options}".rstrip()
