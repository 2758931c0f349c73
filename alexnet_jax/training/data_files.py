"""The files that a run was begun on, by name and size: a resumption on others is refused by name.

The sizes cost a `stat` a file and catch nearly every change; a file with other contents of the same
size goes unnoticed: reading all of ImageNet again at each start would cost more than it is worth.
"""

import gzip
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

FILE = "data-files.jsonl.gz"  # in the workdir: a JSON list [name, bytes] on each line
SHOWN = 3  # names of each kind of difference


def keep(files: Mapping[str, int], workdir: Path) -> None:
    """Write down what the run reads, for `check`; a run without files leaves no list."""
    if not files:
        return
    text = "".join(json.dumps([name, size]) + "\n" for name, size in files.items())
    partial = workdir / (FILE + ".partial")
    with partial.open("wb") as file:
        file.write(gzip.compress(text.encode(), compresslevel=6, mtime=0))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(workdir / FILE)


def check(files: Mapping[str, int], workdir: Path) -> bool:
    """Return whether the list of the run is there; it names the files of before.

    Raises:
        ValueError: files were added, removed, or have other sizes; the message names some.
    """
    try:
        lines = gzip.decompress((workdir / FILE).read_bytes()).decode().splitlines()
        before = dict(json.loads(line) for line in lines)
    except (OSError, EOFError, zlib.error, TypeError, ValueError):
        return False  # of an earlier version, or damaged; fingerprints of the names are left
    added = [name for name in files if name not in before]
    removed = [name for name in before if name not in files]
    changed = [
        f"{name}: {_bytes(before[name])}, now {_bytes(files[name])}"
        for name in before
        if name in files and files[name] != before[name]
    ]
    kinds = {"added": added, "removed": removed, "changed": changed}
    differences = [_some(kind, names) for kind, names in kinds.items() if names]
    if differences:
        raise ValueError(
            f"{workdir} holds a run on other data: {'; '.join(differences)}; a resumed run keeps "
            "its data: restore them, give the old --data.path, or another --workdir. In the place "
            f"of files that are lost for good put any, and delete {FILE} in the --workdir."
        )
    return True


def _some(kind: str, names: list[str]) -> str:
    more = ["..."] if len(names) > SHOWN else []
    return f"{len(names):,} {kind} ({', '.join([*names[:SHOWN], *more])})"


def _bytes(size: int) -> str:
    return "gone" if size < 0 else f"{size:,} bytes"
