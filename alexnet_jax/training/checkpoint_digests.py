"""Digests of a checkpoint's files: Orbax restores a flipped byte without noticing."""

import json
from pathlib import Path
from typing import Any

from alexnet_jax.storage.atomic import write_json
from alexnet_jax.storage.digest import file_sha256

NAME = "manifest.json"
MAX_NAME = 200  # characters of the name of a file in a message
# Orbax completes both after the manifest is written, and restores nothing from them.
UNREAD = ("_CHECKPOINT_METADATA", "commit_success.txt")


def write(folder: Path) -> None:
    """Write the manifest of a checkpoint into its folder: size and SHA-256 of every file."""
    files = {
        name: [path.stat().st_size, file_sha256(path)] for name, path in _files(folder).items()
    }
    write_json(folder / NAME, {"files": files})


def find_corruption(folder: Path) -> str:
    """Return what is wrong with a checkpoint, or "" if its files are as they were saved."""
    try:
        listed = _listed(json.loads((folder / NAME).read_bytes()))
    except FileNotFoundError:
        return f"{NAME} is missing"
    except Exception:  # noqa: BLE001, a damaged manifest may make json and int raise nearly any
        return f"{NAME} cannot be read"
    files = _files(folder)
    if missing := sorted({*listed} - {*files}):
        return f"{missing[0][:MAX_NAME]} is missing"
    for name, (size, sha256) in listed.items():
        try:
            if (now := files[name].stat().st_size) != size:
                return f"{name} has {now:,} bytes and had {size:,}"
            if file_sha256(files[name]) != sha256:
                return f"{name} has changed since it was saved"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def _files(folder: Path) -> dict[str, Path]:
    """Return the files that a manifest lists, by their names below the checkpoint's folder."""
    paths = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path for name, path in paths.items() if name not in (NAME, *UNREAD)}


def _listed(manifest: Any) -> dict[str, tuple[int, str]]:
    return {
        str(name): (int(size), str(sha256)) for name, (size, sha256) in manifest["files"].items()
    }
