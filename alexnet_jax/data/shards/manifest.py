"""The manifest of prepared shards with their checksums, and the statistics of their images."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from tqdm import tqdm

from alexnet_jax.config import invalid
from alexnet_jax.data.array_record import ArrayRecords, find_shards
from alexnet_jax.data.sources import Source
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.storage import atomic
from alexnet_jax.storage.digest import file_sha256
from alexnet_jax.storage.lock import NAME as LOCK
from alexnet_jax.storage.lock import hold_lock

MANIFEST, STATISTICS = "manifest.json", "statistics.npz"
PROGRESS = ".progress"  # folder of the results of finished shards, until all are finished
MAX_LISTED = 5  # files named in a message


class FileEntry(TypedDict):
    """A file as it was written."""

    bytes: int
    sha256: str


class SplitEntry(TypedDict):
    """A split as it was written."""

    images: int
    left_out: list[str]  # unreadable images, with the reasons
    fingerprint: str  # of its ArrayRecords


class Manifest(TypedDict):
    """The content of a folder of prepared shards."""

    plan: dict[str, Any]  # everything that determines the bytes of the shards
    splits: dict[str, SplitEntry]
    files: dict[str, FileEntry]  # by name: shards, class names, statistics


@contextlib.contextmanager
def hold_progress(root: Path) -> Iterator[None]:
    """Keep other processes from preparing images into a folder.

    The folder is created if it is missing, and removed if nothing was written to it.

    Raises:
        ValueError: another process is preparing images there.
    """
    progress = root / PROGRESS
    created = [path for path in (progress, *progress.parents) if not path.exists()]
    progress.mkdir(parents=True, exist_ok=True)
    with hold_lock(progress, "to"):
        lock = progress / LOCK
        # The holder before may have ended, and removed the file that is locked here.
        if not lock.exists() or not lock.read_text("utf-8").startswith(f"process {os.getpid()} "):
            rule = "another process has just finished there"
            raise invalid("to", root, rule, "rerun the same command")
        try:
            yield
        finally:
            if progress.exists() and [path.name for path in progress.iterdir()] == [LOCK]:
                lock.unlink()
                for path in created:
                    with contextlib.suppress(OSError):  # it holds something else
                        path.rmdir()


def read_manifest(root: Path) -> Manifest | None:
    """Return the manifest of a folder, None if it has none; ValueError if it is damaged."""
    path = Path(root) / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if _is_manifest(manifest):
            return manifest
    except FileNotFoundError:
        return None
    # RecursionError: it is nested deeply.
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ValueError(
        f"{path}: is damaged; remove it to read the shards like any others, or prepare them again."
    )


def _is_manifest(manifest: Any) -> bool:
    """Return whether a JSON value is a Manifest; a TypeError or KeyError also means that not."""
    splits, files = manifest["splits"], manifest["files"]
    return (
        all(isinstance(part, dict) for part in (manifest["plan"], splits, files))
        and all(
            isinstance(entry["images"], int)
            and isinstance(entry["fingerprint"], str)
            and all(isinstance(reason, str) for reason in entry["left_out"])
            for entry in splits.values()
        )
        # Files of the folder itself: a name must not lead out of it.
        and all(
            type(entry["bytes"]) is int
            and isinstance(entry["sha256"], str)
            and name == Path(name).name
            for name, entry in files.items()
        )
    )


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest, which completes the preparation of a folder."""
    atomic.write_json(Path(root) / MANIFEST, manifest)


def describe_file(path: Path) -> FileEntry:
    """Read a file once, for its size and checksum."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def verify(root: Path, threads: int) -> Manifest:
    """Compare every file of a prepared folder with its manifest, and return that.

    Raises:
        ValueError: files are missing, changed or new; it names them.
    """
    manifest = read_manifest(root)
    if manifest is None:
        raise ValueError(
            f"{root}: has no {MANIFEST}, so its shards are not finished; run the command that "
            "prepares them again."
        )
    differences = _differences(Path(root), manifest, threads)
    if differences:
        rest = len(differences) - MAX_LISTED
        more = f" and {rest:,} more" if rest > 0 else ""
        raise ValueError(
            f"{root}: {len(differences):,} of {len(manifest['files']):,} files differ from "
            f"{MANIFEST}: {', '.join(differences[:MAX_LISTED])}{more}; remove them, and rerun the "
            "command that prepared them to write them again."
        )
    for split, entry in manifest["splits"].items():
        records = ArrayRecords(root, split)
        if (len(records), records.fingerprint()) != (entry["images"], entry["fingerprint"]):
            raise ValueError(
                f"{root}: its {split} split has {len(records):,} images, and {MANIFEST} "
                f"lists {entry['images']:,}; prepare it again."
            )
    return manifest


def _differences(root: Path, manifest: Manifest, threads: int) -> list[str]:
    files = manifest["files"]
    shards = {path.name for split in manifest["splits"] for path in find_shards(root, split)}
    new = [f"{name} (not in {MANIFEST})" for name in sorted(shards - set(files))]
    total = sum(entry["bytes"] for entry in files.values())
    with (
        # disable=None: no bar if stderr is not a terminal.
        tqdm(total=total, desc="verifying", unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):

        def check(name: str) -> str:
            difference = _difference(root / name, files[name])
            bar.update(files[name]["bytes"])
            return f"{name} ({difference})" if difference else ""

        return [difference for difference in pool.map(check, files) if difference] + new


def _difference(path: Path, entry: FileEntry) -> str:
    """Return in what a file differs from its entry, "" if in nothing."""
    if not path.exists():
        return "missing"
    if path.stat().st_size != entry["bytes"]:
        return f"{path.stat().st_size:,} bytes instead of {entry['bytes']:,}"
    return "" if describe_file(path) == entry else "other content"


def load_statistics(root: Path, splits: Mapping[str, Source], size: int) -> Statistics | None:
    """Return the prepared statistics of the training split of a run.

    None if the run has to read its images: part of the split is held out, a split was not prepared
    with the others or has changed since, or images are resized to another `size`. Fingerprints and
    the size of each file are compared; checksums are only compared by `verify`.
    """
    manifest = read_manifest(root)
    if manifest is None or not _is_as_prepared(Path(root), manifest, splits):
        return None
    path = Path(root) / STATISTICS
    if STATISTICS not in manifest["files"] or _difference(path, manifest["files"][STATISTICS]):
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if {*arrays.files} != {field.name for field in dataclasses.fields(Statistics)}:
                return None
            statistics = Statistics(**arrays)
    except Exception as error:  # a damaged archive makes zipfile and NumPy raise nearly anything
        raise ValueError(
            f"{path}: is damaged ({error}); remove it, and rerun the command that prepared the "
            "images to write it again."
        ) from error
    return statistics if len(statistics.mean_image) == size else None


def _is_as_prepared(root: Path, manifest: Manifest, splits: Mapping[str, Source]) -> bool:
    # By fingerprint and not by name: the test split may be used for validation.
    prepared = {entry["fingerprint"] for entry in manifest["splits"].values()}
    return all(source.fingerprint() in prepared for source in splits.values()) and all(
        (root / name).exists() and (root / name).stat().st_size == entry["bytes"]
        for name, entry in manifest["files"].items()
    )
