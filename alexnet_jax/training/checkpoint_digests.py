"""Digests of a checkpoint's files: Orbax restores a flipped byte without a word."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

NAME = "manifest.json"
# Orbax completes both after the manifest is written, and restores nothing out of them.
UNREAD = ("_CHECKPOINT_METADATA", "commit_success.txt")
# What a checkpoint consists of; the plain part is one JSON file.
PARTS = ("state", "constants", "meta", "metrics")
META, METRICS = "meta/metadata", "metrics/metrics"


def write(folder: Path) -> None:
    """Write the manifest of a checkpoint into its folder: size and SHA-256 of every file.

    Its form is for good: every later version checks it first, whatever else it changes.
    """
    files = {name: [path.stat().st_size, _digest(path)] for name, path in _files(folder).items()}
    with (folder / NAME).open("w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def find_corruption(folder: Path) -> str:
    """Return what is wrong with a checkpoint, or "" where its files are as they were saved."""
    try:
        listed = _listed(json.loads((folder / NAME).read_bytes()))
    except FileNotFoundError:
        return _fault_without(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return f"{NAME} cannot be read"
    there = _files(folder)
    if missing := sorted({*listed} - {*there}):
        return f"{missing[0]} is missing"
    for name, (size, digest) in listed.items():
        try:
            found = there[name].stat().st_size
            if found != size:
                return f"{name} has {found:,} bytes and had {size:,}"
            if _digest(there[name]) != digest:
                return f"{name} has other bytes than were saved"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def is_there(folder: Path) -> bool:
    """Return whether a checkpoint has a manifest; those of the first version have none."""
    return (folder / NAME).exists()


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of a checkpoint that a manifest lists, by their names below its folder."""
    paths = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path for name, path in paths.items() if name not in (NAME, *UNREAD)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(manifest: Any) -> dict[str, tuple[int, str]]:
    return {
        str(name): (int(size), str(digest)) for name, (size, digest) in manifest["files"].items()
    }


def _fault_without(folder: Path) -> str:
    """Return what is wrong where there is no manifest.

    The first version wrote none, and no format either. A checkpoint that has a format had one: it
    is committed together with its manifest, in one rename.
    """
    for name in PARTS:
        if not (folder / name).is_dir():
            return f"{name} is missing"
    try:
        json.loads((folder / METRICS).read_bytes())
        meta = json.loads((folder / META).read_bytes())
    except (OSError, ValueError):
        return f"{META} or {METRICS} cannot be read"
    return f"{NAME} is missing" if "format" in meta else ""
