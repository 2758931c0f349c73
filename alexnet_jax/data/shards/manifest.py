"""What lies beside prepared shards: a manifest with their checksums, and their statistics."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from tqdm import tqdm

from alexnet_jax.data.array_record import ArrayRecords, find_shards
from alexnet_jax.data.sources import Source
from alexnet_jax.data.statistics import Statistics

MANIFEST, STATISTICS = "manifest.json", "statistics.npz"
PROGRESS = ".progress"  # folder of what is known of the shards that are finished, until all are
SHOWN = 5  # faults named in a sentence


class File(TypedDict):
    """What a file was when it was written."""

    bytes: int
    sha256: str


class Split(TypedDict):
    """What a split was when it was written."""

    images: int
    left_out: list[str]  # images that could not be read, with the reasons
    fingerprint: str  # of its ArrayRecords


class Manifest(TypedDict):
    """What a folder of prepared shards holds."""

    plan: dict[str, Any]  # what the shards were made of, and how
    splits: dict[str, Split]
    files: dict[str, File]  # by name: shards, class names, statistics


def read_manifest(root: Path) -> Manifest | None:
    """Return the manifest of a folder; None where there is none. ValueError where it is damaged."""
    path = Path(root) / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if {"plan", "splits", "files"} <= set(manifest):
            return manifest
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        pass
    raise ValueError(
        f"{path}: it is not as it was written; remove it, and the shards are read like any others, "
        "or prepare them anew."
    )


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all: from then on the folder counts as prepared."""
    write_whole(Path(root) / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def describe(path: Path) -> File:
    """Read a file once, for its size and checksum."""
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": checksum}


def verify(root: Path, threads: int) -> Manifest:
    """Compare every file of a prepared folder with its manifest, which is returned.

    Raises ValueError that names the files that are gone, changed or new, where there are any.
    """
    manifest = read_manifest(root)
    if manifest is None:
        raise ValueError(
            f"{root}: it holds no {MANIFEST}, which is written last of all; prepare the shards, or "
            "give the command that began to once more."
        )
    faults = _faults(Path(root), manifest, threads)
    if faults:
        more = f" and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
        raise ValueError(
            f"{root}: {len(faults):,} of {len(manifest['files']):,} files are not as they were "
            f"written: {', '.join(faults[:SHOWN])}{more}; remove them, and give the command that "
            "prepared them again, which writes anew what is missing."
        )
    for split, known in manifest["splits"].items():
        records = ArrayRecords(root, split)
        if (len(records), records.fingerprint()) != (known["images"], known["fingerprint"]):
            raise ValueError(
                f"{root}: its {split} split holds {len(records):,} images, {MANIFEST} says "
                f"{known['images']:,}; prepare it anew."
            )
    return manifest


def _faults(root: Path, manifest: Manifest, threads: int) -> list[str]:
    files = manifest["files"]
    shards = {path.name for split in manifest["splits"] for path in find_shards(root, split)}
    new = [f"{name} (not of this preparation)" for name in sorted(shards - set(files))]
    total = sum(file["bytes"] for file in files.values())
    with (
        # disable=None: no bar where stderr is no terminal.
        tqdm(total=total, desc="verifying", unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):

        def check(name: str) -> str:
            fault = _fault(root / name, files[name])
            bar.update(files[name]["bytes"])
            return f"{name} ({fault})" if fault else ""

        return [fault for fault in pool.map(check, files) if fault] + new


def _fault(path: Path, known: File) -> str:
    if not path.exists():
        return "gone"
    if path.stat().st_size != known["bytes"]:
        return f"{path.stat().st_size:,} bytes, not {known['bytes']:,}"
    return "" if describe(path) == known else "other contents"


def load_statistics(root: Path, splits: Mapping[str, Source], size: int) -> Statistics | None:
    """Return the statistics that were prepared for the training split of a run.

    None where the run has to read its images all the same: part of the split is held out, a split
    was not prepared with the others or has changed since, or images are resized to another `size`.
    Fingerprints and the bytes of each file tell; checksums are for `verify`.
    """
    manifest = read_manifest(root)
    if manifest is None or not _as_prepared(Path(root), manifest, splits):
        return None
    path = Path(root) / STATISTICS
    if _fault(path, manifest["files"][STATISTICS]):
        return None
    with np.load(path, allow_pickle=False) as arrays:
        statistics = Statistics(**arrays)
    return statistics if len(statistics.mean_image) == size else None


def _as_prepared(root: Path, manifest: Manifest, splits: Mapping[str, Source]) -> bool:
    # By the fingerprint alone: training may look at the test split in place of another.
    known = {split["fingerprint"] for split in manifest["splits"].values()}
    return all(source.fingerprint() in known for source in splits.values()) and all(
        (root / name).exists() and (root / name).stat().st_size == file["bytes"]
        for name, file in manifest["files"].items()
    )
