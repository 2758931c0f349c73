"""The files that a run began with, by name and size: resuming with others is refused by name.

Sizes cost one `stat` a file and detect nearly every change. A file with other contents of the same
size goes unnoticed: reading all of ImageNet at each start would cost more than it is worth.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path

from alexnet_jax.config import invalid
from alexnet_jax.storage.atomic import write_bytes

LOGGER = logging.getLogger(__name__)

NAME = "data-files.jsonl.gz"  # in the workdir: a JSON list [name, bytes] on each line
SHOWN = 3  # names of each kind of difference


def write(files: Mapping[str, int], workdir: Path) -> None:
    """Write what the run reads, for `check`; a run without files gets no list."""
    if files:
        text = "".join(json.dumps([name, size]) + "\n" for name, size in files.items())
        write_bytes(workdir / NAME, gzip.compress(text.encode(), compresslevel=6, mtime=0))


def check(files: Mapping[str, int], workdir: Path) -> bool:
    """Return whether the run's list of files can be read; warn if it is damaged.

    Raises:
        ValueError: files were added, removed, or have other sizes; the message names some.
    """
    try:
        before = _read(workdir / NAME)
    except FileNotFoundError:
        return False  # the fingerprints of the splits remain
    except (OSError, ValueError) as error:
        LOGGER.warning(
            "%s: %s, so the sizes of the files are not compared; it is written again.",
            *(workdir / NAME, getattr(error, "strerror", None) or error),
        )
        return False
    if text := _differences(before, files):
        raise invalid(
            "workdir",
            workdir,
            f"cannot resume on other data: {text}",
            "restore the files, use the old data.path, or use another folder; if files are lost, "
            f"put any in their place and delete {NAME} there",
        )
    return True


def describe_differences(files: Mapping[str, int], workdir: Path) -> str:
    """Return which files are not those of the run's list, "" if none or without a list."""
    try:
        return _differences(_read(workdir / NAME), files)
    except (OSError, ValueError):
        return ""


def _differences(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    changed = [
        f"{name}: {_bytes(size)}, now {_bytes(now[name])}"
        for name, size in before.items()
        if name in now and now[name] != size
    ]
    kinds = {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
        "changed": changed,
    }
    return "; ".join(_some(kind, names) for kind, names in kinds.items() if names)


def _read(path: Path) -> dict[str, int]:
    """Return the sizes of files by their names.

    Raises:
        ValueError: the list is damaged; says in which line.
        OSError: it cannot be read.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    except (EOFError, zlib.error, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise ValueError(f"it is damaged ({error})") from None
    if not lines:
        raise ValueError("it is empty")
    files = {}
    for number, line in enumerate(lines, start=1):
        try:
            name, size = json.loads(line)
            if not isinstance(name, str) or type(size) is not int:
                raise ValueError
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"line {number} is {line[:60]!r} and not [name, bytes]") from None
        files[name] = size
    return files


def _some(kind: str, names: list[str]) -> str:
    more = ["..."] if len(names) > SHOWN else []
    return f"{len(names):,} {kind} ({', '.join([*names[:SHOWN], *more])})"


def _bytes(size: int) -> str:
    return "missing" if size < 0 else f"{size:,} bytes"
