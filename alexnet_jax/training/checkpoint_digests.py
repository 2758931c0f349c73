"""Digests of a checkpoint's files: Orbax restores a flipped byte without noticing."""

from pathlib import Path
from typing import Any

from alexnet_jax.storage.atomic import write_json
from alexnet_jax.storage.digest import file_sha256
from alexnet_jax.storage.json_objects import read_object

NAME = "manifest.json"
# Without its root an item cannot be opened, whatever else is there. (Orbax once left out the roots
# of arrays without an error, in folders whose path it took for a pattern.)
ROOTS = ("state/manifest.ocdbt", "statistics/manifest.ocdbt", "meta/metadata", "metrics/metrics")
MAX_NAME = 200  # characters of the name of a file in a message
# Orbax completes both after the manifest is written, and restores nothing from them.
UNREAD = ("_CHECKPOINT_METADATA", "commit_success.txt")


def write(folder: Path) -> None:
    """Write the manifest of a checkpoint into its folder: size and SHA-256 of every file.

    Raises:
        ValueError: the checkpoint could not be opened.
    """
    files = {
        name: [path.stat().st_size, file_sha256(path)] for name, path in _files(folder).items()
    }
    if missing := [name for name in ROOTS if name not in files]:
        raise ValueError(f"{missing[0]} was not written")
    write_json(folder / NAME, {"files": files})


def find_corruption(folder: Path) -> str:
    """Return what is wrong with a checkpoint, or "" if its files are as they were saved."""
    try:
        listed, files = _listed(read_object(folder / NAME)), _files(folder)
    except FileNotFoundError:
        return f"{NAME} is missing"
    except Exception:  # noqa: BLE001, a damaged manifest may make json and int raise nearly any
        return f"{NAME} cannot be read"
    if unlisted := [name for name in ROOTS if name not in listed]:
        return f"{unlisted[0]} is missing"
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
