"""An index: the features of a folder's images, computed once, kept in a file and memory-mapped.

Its folder holds `features-N.npy` and `index.json`, which lists the files of the rows. index.json is
replaced last and names the other, so that an interrupted build leaves an index that is valid, if
incomplete; the next build continues from it.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from alexnet_jax.config import invalid
from alexnet_jax.data.folders import list_images
from alexnet_jax.inference.network import Network
from alexnet_jax.retrieval.features import (
    Features,
    Recipe,
    fingerprint,
    retrieval_recipe,
    width,
)
from alexnet_jax.retrieval.rows import FLOAT, appending, num_bytes, write_header
from alexnet_jax.storage import atomic, lock
from alexnet_jax.storage.digest import digest

TABLE = "index.json"
FORMAT = 1
SAVE_EVERY = 30  # seconds, which an interrupted build may lose
COPY_ROWS = 4096  # copied at a time

Extract = Callable[[Sequence[Path]], Iterator[Features]]  # such as `features.Extractor`
Stamp = tuple[int, int]  # size of a file in bytes, and its modification time in nanoseconds


@dataclasses.dataclass(frozen=True)
class Index:
    """The images of a folder and their features."""

    root: Path
    names: list[str]  # files below the root, one a row
    features: np.ndarray  # float32 [n, units], memory-mapped
    unreadable: dict[str, str]  # files without an image, and the reasons

    def find(self, files: Sequence[Path]) -> list[int | str | None]:
        """Return for each file its row, or why it is unreadable; None if it is not in the index.

        A file is found by any path that leads to its folder.
        """
        folder = functools.lru_cache(maxsize=None)(os.path.realpath)

        def key(path: Path) -> tuple[str, str]:
            return folder(path.parent), path.name

        known: dict[tuple[str, str], int | str] = {
            key(self.root / name): row for row, name in enumerate(self.names)
        }
        known |= {key(self.root / name): reason for name, reason in self.unreadable.items()}
        return [known.get(key(file)) for file in files]


@dataclasses.dataclass
class _Table:
    """The content of index.json."""

    folder: Path
    units: int  # features of an image
    network: str  # fingerprint of the network that computes the features
    generation: int  # number of the file of features
    rows: dict[str, Stamp]  # files whose features it has, in order
    unreadable: dict[str, tuple[Stamp, str]]

    @property
    def path(self) -> Path:
        return self.folder / f"features-{self.generation}.npy"

    def features(self) -> np.ndarray:
        if not self.rows:
            return np.empty((0, self.units), FLOAT)
        # Not np.load, which also opens other kinds of files.
        return np.lib.format.open_memmap(self.path, mode="r")

    def save(self, file: IO[bytes]) -> None:
        """Complete the file of features, then write index.json, which makes its rows valid."""
        write_header(file, len(self.rows), (self.units,))
        file.seek(0, 2)
        file.flush()
        os.fsync(file.fileno())
        content = {
            "format": FORMAT,
            "network": self.network,
            "generation": self.generation,
            "rows": [[name, *stamp] for name, stamp in self.rows.items()],
            "unreadable": [[name, *stamp, why] for name, (stamp, why) in self.unreadable.items()],
        }
        atomic.write_text(self.folder / TABLE, json.dumps(content))


def folder_for(workdir: Path, checkpoint: str, root: Path, recipe: Recipe) -> Path:
    """Return where the index of an image folder, by one checkpoint of a run, is kept."""
    resolved = root.resolve()
    kind = "-".join([*recipe.layers, *(["unit"] if recipe.unit_length else [])])
    name = f"{resolved.name}-{checkpoint}-{kind}-{digest(str(resolved))}"
    return workdir / "retrieval" / name


def build(
    network: Network,
    extractor: Extract,
    root: Path,
    folder: Path,
    log: Callable[[str], object],
    recipe: Recipe | None = None,
) -> Index:
    """Return the index of the images below `root` as they are now, and keep it in `folder`.

    `recipe` says what the features of `extractor` are; None: the layer of the paper, as in it.

    Features are computed for images whose size or modification time has changed, and for all images
    if the network has. `log` is called with a line about it.

    Raises:
        ValueError: there are no images, another process is building this index, or a feature is
            not finite.
        OSError: the disk is full; what has been computed is kept.
    """
    files = _scan(root, log)
    recipe = recipe or retrieval_recipe(network)
    network_digest, units = fingerprint(network, recipe), width(network, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    with lock.hold_lock(folder, "index"):
        table, reason = _load(folder, network_digest, units)
        table = _without_stale(table, files)
        todo = [name for name in files if name not in table.rows and name not in table.unreadable]
        log(_describe(folder, len(files), len(todo), reason))
        if todo:
            _check_room(table, len(todo))
            _extend(table, files, todo, extractor, root)
        _remove_other_generations(table)
    if not table.rows:
        rule = f"holds {len(files):,} files, none of which is an image"
        raise invalid("images", root, rule, "name the folder to search")
    # A killed build may have left rows that index.json does not list.
    features = table.features()[: len(table.rows)]
    reasons = {name: reason for name, (_, reason) in table.unreadable.items()}
    return Index(root, list(table.rows), features, reasons)


def _scan(root: Path, log: Callable[[str], object]) -> dict[str, Stamp]:
    remedy = "name the folder to search"
    if not root.is_dir():
        rule = "is a file" if root.is_file() else "does not exist"
        raise invalid("images", root, rule, remedy)
    files = {}
    start = len((root / "_").as_posix()) - 1  # "." is not part of the paths below it
    listing = list_images(root)
    for path in listing.files:
        with contextlib.suppress(OSError):  # a broken link
            status = path.stat()
            files[path.as_posix()[start:]] = (status.st_size, status.st_mtime_ns)
    if not files:
        raise invalid("images", root, "holds no images", remedy)
    for note in listing.notes:
        log(note)
    return files


def _describe(folder: Path, total: int, todo: int, reason: str) -> str:
    if todo == total:
        return f"Index {folder}: {total:,} files to read{reason}."
    return f"Index {folder}: {total - todo:,} files are up to date, {todo:,} to read."


def _load(folder: Path, network: str, units: int) -> tuple[_Table, str]:
    """Return the table in a folder, or an empty one and the reason why that is of no use."""
    empty = _Table(folder, units, network, 0, {}, {})
    try:
        content = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty, ""
    # RecursionError: it is nested deeply.
    except (OSError, ValueError, RecursionError):
        return empty, f" ({TABLE} is damaged)"
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return empty, " (another version of alexnet_jax wrote the index)"
    try:
        table = _parse(content, empty)
    except (KeyError, TypeError, ValueError):
        return empty, f" ({TABLE} is damaged)"
    # Not the file that the old index.json names, which is valid until it is replaced.
    empty.generation = table.generation + 1
    if table.network != network:
        return empty, " (the index is of another network)"
    with contextlib.suppress(Exception):  # a damaged header makes NumPy raise nearly anything
        features = table.features()
        shape = features.shape[1:], features.dtype, features.flags.c_contiguous
        if shape == ((units,), FLOAT, True) and len(features) >= len(table.rows):
            return table, ""
    return empty, f" ({table.path.name} is damaged)"


def _parse(content: dict[str, Any], empty: _Table) -> _Table:
    """Return the table in index.json; a KeyError, TypeError or ValueError if it is damaged."""
    generation = content["generation"]
    rows = {name: (size, changed) for name, size, changed in content["rows"]}
    unreadable = {
        name: ((size, changed), str(why)) for name, size, changed, why in content["unreadable"]
    }
    if type(generation) is not int or not 0 <= generation < 2**53:
        raise ValueError("generation is not the number of a file")
    # A name twice would shift the rows after it.
    if len(rows) != len(content["rows"]) or not all(
        isinstance(n, str) for n in {*rows, *unreadable}
    ):
        raise ValueError("the rows do not have a name each")
    return dataclasses.replace(
        empty,
        network=content["network"],
        generation=generation,
        rows=rows,
        unreadable=unreadable,
    )


def _without_stale(table: _Table, files: dict[str, Stamp]) -> _Table:
    """Return the table less the files that have changed, with a new file of features if needed."""
    bad = {name: note for name, note in table.unreadable.items() if files.get(name) == note[0]}
    good = [row for row, (name, stamp) in enumerate(table.rows.items()) if files.get(name) == stamp]
    if len(good) == len(table.rows):
        return dataclasses.replace(table, unreadable=bad)
    rows = {name: stamp for name, stamp in table.rows.items() if files.get(name) == stamp}
    generation = table.generation + 1
    new = dataclasses.replace(table, generation=generation, rows=rows, unreadable=bad)
    _check_room(new, len(good))
    features = table.features()
    with appending(new.path, 0, (new.units,)) as file:
        for start in range(0, len(good), COPY_ROWS):
            file.write(features[good[start : start + COPY_ROWS]].tobytes())
        new.save(file)
    return new


def _extend(
    table: _Table, files: dict[str, Stamp], todo: list[str], extractor: Extract, root: Path
) -> None:
    """Compute and write the features of `todo`; if interrupted, keep what has been computed."""
    bar = tqdm(total=len(todo), unit="image", disable=None, dynamic_ncols=True)
    with bar, appending(table.path, len(table.rows), (table.units,)) as file:
        saved = time.monotonic()
        try:
            for batch in extractor([root / name for name in todo]):
                (rows,) = batch.rows.values()
                file.write(rows.astype(FLOAT).tobytes())
                for number in batch.numbers:
                    table.rows[todo[number]] = files[todo[number]]
                for number, reason in batch.reasons.items():
                    table.unreadable[todo[number]] = (files[todo[number]], reason)
                bar.update(len(batch.numbers) + len(batch.reasons))
                if time.monotonic() - saved > SAVE_EVERY:
                    table.save(file)
                    saved = time.monotonic()
        finally:
            table.save(file)


def _check_room(table: _Table, rows: int) -> None:
    needed, free = num_bytes(rows, (table.units,)), shutil.disk_usage(table.folder).free
    if needed > free:
        rule = f"needs {needed / 2**20:,.0f} MiB, and {free / 2**20:,.0f} are free"
        raise invalid("index", table.folder, rule, "free some space, or name another folder")


def _remove_other_generations(table: _Table) -> None:
    for path in table.folder.glob("features-*.npy"):
        if path != table.path:
            path.unlink()
