"""An index: the features of a folder's images, computed once, kept in a file and mapped from it.

Its folder holds `index.json`, which says what the rows are, and `features-N.npy`. index.json is
replaced last and names the other, so that a build that is cut short anywhere leaves an index that
is true, if not whole; the next build goes on from it.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from alexnet_jax.data.sources import image_files
from alexnet_jax.inference.network import Network
from alexnet_jax.retrieval.features import Features, fingerprint, width
from alexnet_jax.storage import lock
from alexnet_jax.storage.digest import digest

TABLE = "index.json"
FORMAT = 1
SAVED_EVERY = 30  # seconds: what a build that is cut short loses
COPIED = 4096  # rows at a time
FLOAT = np.dtype("<f4")

Extract = Callable[[Sequence[Path]], Iterator[Features]]  # as `features.Extractor` does
Stamp = tuple[int, int]  # bytes of a file, and when it was changed: nanoseconds


@dataclasses.dataclass(frozen=True)
class Index:
    """The images of a folder and their features."""

    root: Path
    names: list[str]  # of the files below the root, one a row
    features: np.ndarray  # float32 [n, units], mapped
    unreadable: dict[str, str]  # files that hold no image, and why


@dataclasses.dataclass
class _Kept:
    """What index.json says."""

    network: str  # fingerprint of what the features are computed by
    generation: int  # of the file of features
    rows: dict[str, Stamp]  # the files whose features are in it, in order
    unreadable: dict[str, tuple[Stamp, str]]

    def path(self, folder: Path) -> Path:
        return folder / f"features-{self.generation}.npy"


def folder_for(workdir: Path, checkpoint: str, root: Path) -> Path:
    """Return where in a run's folder the index of a folder of images by a checkpoint is kept."""
    whole = root.resolve()
    return workdir / "retrieval" / f"{whole.name}-{checkpoint}-{digest(str(whole))}"


def build(
    network: Network, extractor: Extract, root: Path, folder: Path, say: Callable[[str], object]
) -> Index:
    """Return the index of the images in `root`, at any depth, as they are now; it is kept.

    An image is seen again when its size or its time of change is another, all of them when the
    network is. `say` is told what is done.

    Raises:
        ValueError: there are no images, another process is building this index, or the network
            gives numbers that are not finite.
        OSError: the disk is full; what was computed is kept.
    """
    found = _scan(root)
    mine, units = fingerprint(network), width(network)
    folder.mkdir(parents=True, exist_ok=True)
    with lock.hold_lock(folder, "index"):
        kept, why = _load(folder, mine, units)
        kept = _without_stale(kept, found, folder, units)
        todo = [name for name in found if name not in kept.rows and name not in kept.unreadable]
        say(_plan(folder, len(found), len(todo), why))
        if todo:
            _check_room(folder, len(todo) * units * FLOAT.itemsize)
            _extend(kept, found, todo, extractor, root, folder, units)
        _remove_others(kept, folder)
    if not kept.rows:
        raise ValueError(f"--images {root}: of {len(found):,} files none holds an image.")
    # A build that was killed may have left rows that index.json does not know of.
    features = np.load(kept.path(folder), mmap_mode="r")[: len(kept.rows)]
    reasons = {name: reason for name, (_, reason) in kept.unreadable.items()}
    return Index(root, list(kept.rows), features, reasons)


def _scan(root: Path) -> dict[str, Stamp]:
    if root.is_file():
        raise ValueError(f"--images {root}: it is a file; name the folder to search in.")
    found = {}
    start = len((root / "_").as_posix()) - 1  # "." is no part of the paths below it
    for path in image_files(root) if root.is_dir() else []:
        with contextlib.suppress(OSError):  # a link to nothing: no file to search in
            status = path.stat()
            found[path.as_posix()[start:]] = (status.st_size, status.st_mtime_ns)
    if not found:
        missing = "it holds no images" if root.is_dir() else "there is no such folder"
        raise ValueError(f"--images {root}: {missing}; name the folder to search in.")
    return found


def _plan(folder: Path, found: int, todo: int, why: str) -> str:
    if not todo:
        return f"Index {folder}: all {found:,} files are in it."
    if todo == found:
        return f"Index {folder}: {found:,} files are to be seen{why}."
    return f"Index {folder}: {found - todo:,} files are in it, {todo:,} are to be seen."


def _load(folder: Path, network: str, units: int) -> tuple[_Kept, str]:
    """Return what is kept, and why it is to be built anew where it is of no use."""
    fresh = _Kept(network, 0, {}, {})
    try:
        said = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return fresh, ""
    except (OSError, ValueError):
        return fresh, f": {TABLE} cannot be read"
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        return fresh, ": another version wrote it"
    # Never the name of a file that the old index.json, if all is lost here, still speaks of.
    fresh.generation = said["generation"] + 1
    if said["network"] != network:
        return fresh, ": the network is another one than the index was made with"
    rows = {name: (size, changed) for name, size, changed in said["rows"]}
    bad = {name: ((size, changed), why) for name, size, changed, why in said["unreadable"]}
    kept = _Kept(network, said["generation"], rows, bad)
    try:
        features = np.load(kept.path(folder), mmap_mode="r") if rows else np.empty((0, units))
    except (OSError, ValueError):
        return fresh, f": {kept.path(folder).name} is damaged"
    if features.shape[1:] != (units,) or len(features) < len(rows):
        return fresh, f": {kept.path(folder).name} is damaged"
    return kept, ""


def _without_stale(kept: _Kept, found: dict[str, Stamp], folder: Path, units: int) -> _Kept:
    """Return what is kept of files that are there unchanged, in a file of its own if need be."""
    bad = {name: note for name, note in kept.unreadable.items() if found.get(name) == note[0]}
    good = [place for place, (n, s) in enumerate(kept.rows.items()) if found.get(n) == s]
    if len(good) == len(kept.rows):
        kept.unreadable = bad
        return kept
    rows = {name: stamp for name, stamp in kept.rows.items() if found.get(name) == stamp}
    new = _Kept(kept.network, kept.generation + 1, rows, bad)
    _check_room(folder, len(good) * units * FLOAT.itemsize)
    features = np.load(kept.path(folder), mmap_mode="r")
    with _appending(new.path(folder), 0, units) as file:
        for start in range(0, len(good), COPIED):
            file.write(features[good[start : start + COPIED]].tobytes())
        _save(new, file, folder, units)
    return new


def _extend(
    kept: _Kept,
    found: dict[str, Stamp],
    todo: list[str],
    extractor: Extract,
    root: Path,
    folder: Path,
    units: int,
) -> None:
    """Compute and write the features of `todo`; whatever ends it, what was computed is kept."""
    bar = tqdm(total=len(todo), unit="image", disable=None, dynamic_ncols=True)
    with bar, _appending(kept.path(folder), len(kept.rows), units) as file:
        saved = time.monotonic()
        try:
            for batch in extractor([root / name for name in todo]):
                file.write(batch.rows.astype(FLOAT).tobytes())
                for number in batch.numbers:
                    kept.rows[todo[number]] = found[todo[number]]
                for number, reason in batch.reasons.items():
                    kept.unreadable[todo[number]] = (found[todo[number]], reason)
                bar.update(len(batch.numbers) + len(batch.reasons))
                if time.monotonic() - saved > SAVED_EVERY:
                    _save(kept, file, folder, units)
                    saved = time.monotonic()
        finally:
            _save(kept, file, folder, units)


@contextlib.contextmanager
def _appending(path: Path, rows: int, units: int) -> Iterator[IO[bytes]]:
    """Open a .npy file behind its first `rows` rows, which are all that stays of it.

    Written, not mapped: on a full disk that is an error, where a mapped file ends the process.
    """
    with path.open("r+b" if rows else "w+b") as file:
        _write_header(file, rows, units)
        file.truncate(file.tell() + rows * units * FLOAT.itemsize)
        file.seek(0, 2)
        yield file


def _write_header(file: IO[bytes], rows: int, units: int) -> None:
    """Write the header, which has as many bytes for any number of rows: numpy leaves room."""
    about: dict[str, Any] = {"descr": FLOAT.str, "fortran_order": False, "shape": (rows, units)}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, about)


def _save(kept: _Kept, file: IO[bytes], folder: Path, units: int) -> None:
    """Write what the file holds into its header, then index.json, which makes it count."""
    _write_header(file, len(kept.rows), units)
    file.seek(0, 2)
    file.flush()
    os.fsync(file.fileno())
    said = {
        "format": FORMAT,
        "network": kept.network,
        "generation": kept.generation,
        "rows": [[name, *stamp] for name, stamp in kept.rows.items()],
        "unreadable": [[name, *stamp, why] for name, (stamp, why) in kept.unreadable.items()],
    }
    partial = folder / f"{TABLE}.partial"
    partial.write_text(json.dumps(said), encoding="utf-8")
    partial.replace(folder / TABLE)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"--index {folder}: {needed / 2**20:,.0f} MiB are needed there and {free / 2**20:,.0f} "
            "are free; make room, or name another folder."
        )


def _remove_others(kept: _Kept, folder: Path) -> None:
    for path in folder.glob("features-*.npy"):
        if path != kept.path(folder):
            path.unlink()
