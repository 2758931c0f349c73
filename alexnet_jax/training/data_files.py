"""The files that a run began with, by name and size: resuming with others is refused by name.

Sizes cost one `stat` a file and detect nearly every change. A file with other contents of the same
size goes unnoticed: reading all of ImageNet at each start would cost more than it is worth.
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from alexnet_jax.config import invalid
from alexnet_jax.storage.atomic import write_bytes

NAME = "data-files.jsonl.gz"  # in the workdir: a JSON list [name, bytes] on each line
SHOWN = 3  # names of each kind of difference


def write(files: Mapping[str, int], workdir: Path) -> None:
    """Write what the run reads, for `check`; a run without files gets no list."""
    if files:
        text = "".join(json.dumps([name, size]) + "\n" for name, size in files.items())
        write_bytes(workdir / NAME, gzip.compress(text.encode(), compresslevel=6, mtime=0))


def check(files: Mapping[str, int], workdir: Path) -> bool:
    """Return whether the run's list of files can be read.

    Raises:
        ValueError: files were added, removed, or have other sizes; the message names some.
    """
    try:
        lines = gzip.decompress((workdir / NAME).read_bytes()).decode().splitlines()
        before = dict(json.loads(line) for line in lines)
    except (OSError, EOFError, zlib.error, TypeError, ValueError):
        return False  # lost or damaged: the fingerprints of the splits remain
    changed = [
        f"{name}: {_bytes(size)}, now {_bytes(files[name])}"
        for name, size in before.items()
        if name in files and files[name] != size
    ]
    kinds = {
        "added": [name for name in files if name not in before],
        "removed": [name for name in before if name not in files],
        "changed": changed,
    }
    differences = [_some(kind, names) for kind, names in kinds.items() if names]
    if differences:
        raise invalid(
            "workdir",
            workdir,
            f"cannot resume on other data: {'; '.join(differences)}",
            "restore the files, use the old data.path, or use another folder; if files are lost, "
            f"put any in their place and delete {NAME} there",
        )
    return True


def _some(kind: str, names: list[str]) -> str:
    more = ["..."] if len(names) > SHOWN else []
    return f"{len(names):,} {kind} ({', '.join([*names[:SHOWN], *more])})"


def _bytes(size: int) -> str:
    return "missing" if size < 0 else f"{size:,} bytes"
