"""Features of many images in one .npy, .npz or .h5 file, written image by image and resumable.

Until the file is whole, rows are kept in a folder beside it, one .npy file a layer, with
`state.json`, which says how many images they are of. It is replaced after the rows are on the disk,
so that whatever a killed process leaves, the next one goes on from the images that it names.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from alexnet_jax.config import invalid
from alexnet_jax.retrieval.features import Features
from alexnet_jax.retrieval.rows import appending, num_bytes, write_header
from alexnet_jax.storage import atomic, lock
from alexnet_jax.storage.digest import digest

SUFFIXES = (".npy", ".npz", ".h5")
FILES = "files"  # the array with the names of the images, in .npz and .h5 files
STATE = "state.json"
SAVE_EVERY = 30  # seconds, which a killed process may lose
COPY_ROWS = 256  # copied at a time

Shapes = Mapping[str, tuple[int, ...]]  # of one image's features, by layer


@dataclasses.dataclass
class _State:
    """The content of state.json."""

    digest: str  # of the network, the layers and the files
    done: int = 0  # files that were read
    names: list[str] = dataclasses.field(default_factory=list)  # those that were readable
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)  # the others, and why

    def save(self, folder: Path) -> None:
        atomic.write_text(folder / STATE, json.dumps(dataclasses.asdict(self)))


def check_target(path: Path, layers: Sequence[str]) -> None:
    """Raise a ValueError if features of these layers cannot be written to a file of this name."""
    if path.suffix not in SUFFIXES:
        rule = f"must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise invalid("to", path, rule, f"try {path.stem}.npz")
    if path.suffix == ".npy" and len(layers) > 1:
        rule = f"holds one layer, and {len(layers)} are named"
        raise invalid("to", path, rule, f"try {path.stem}.npz")
    written = [path]
    if path.suffix == ".npy" and not _folder(path).exists():  # else a killed call may have left it
        written.append(names_file(path))
    for file in written:
        if file.exists():
            raise invalid("to", path, f"{file} exists already", "name another file, or remove it")
    if path.suffix == ".h5":
        try:
            import h5py  # noqa: F401
        except ImportError:
            rule = "needs the package h5py"
            raise invalid("to", path, rule, "run pip install '.[h5]', or use .npz") from None


def names_file(path: Path) -> Path:
    """Return where the names of the images of an .npy file are."""
    return path.with_suffix(".files.json")


def write(
    path: Path,
    files: Sequence[Path],
    extract: Callable[[Sequence[Path]], Iterator[Features]],
    shapes: Shapes,
    network: str,
    log: Callable[[str], object],
) -> dict[str, str]:
    """Write the features of all readable files; return the unreadable ones, and why they are.

    An .npz file has an array [N, ...] a layer, and the names of its N images in `files`; an .h5
    file the same as data sets; an .npy file has one layer, and the names are in a .json file beside
    it. If interrupted, the same call goes on.

    Args:
        path: the file; see `check_target`.
        files: images, each once; the rows are in their order.
        extract: such as `features.Extractor`.
        shapes: of one image's features, by layer.
        network: digest of all that determines the features of an image.
        log: called with a line about what an interrupted call had done.

    Raises:
        ValueError: another process writes this file, no file is readable, the disk is too small.
        OSError: the disk is full; what has been computed is kept.
    """
    atomic.make_parent(path, "to")
    folder = _folder(path)
    folder.mkdir(exist_ok=True)
    with lock.hold_lock(folder, "to"):
        expected = digest(network, [_stamp(file) for file in files])
        state = _load(folder)
        if state.digest != expected:
            if state.done:
                log("Images or network have changed since the interrupted call; starting over.")
            state = _State(expected)
        if state.done:
            log(f"{state.done:,} of {len(files):,} images were read before; going on.")
        _check_room(path, folder, len(files), shapes)
        _extend(folder, state, files, extract, shapes)
        if state.names:
            _FINISH[path.suffix](path, folder, state.names, list(shapes))
    shutil.rmtree(folder)
    if not state.names:
        name, reason = next(iter(state.unreadable.items()))
        rule = f"{reason}, and of {len(files):,} file{'s' * (len(files) != 1)} none is an image"
        raise invalid("files", name, rule, "name other paths")
    return state.unreadable


def _folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.rows")


def _stamp(file: Path) -> tuple[str, int, int]:
    with contextlib.suppress(OSError):  # a broken link
        status = file.stat()
        return str(file.absolute()), status.st_size, status.st_mtime_ns
    return str(file.absolute()), 0, 0


def _load(folder: Path) -> _State:
    """Return what is left of an interrupted call, or nothing."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        state = _State(**json.loads((folder / STATE).read_text()))
        if len(state.names) + len(state.unreadable) == state.done:
            return state
    return _State("")


def _extend(
    folder: Path,
    state: _State,
    files: Sequence[Path],
    extract: Callable[[Sequence[Path]], Iterator[Features]],
    shapes: Shapes,
) -> None:
    """Append the rows of the files that are not done; if interrupted, keep what is computed."""
    todo = files[state.done :]
    bar = tqdm(total=len(files), initial=state.done, unit="image", disable=None, dynamic_ncols=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(bar)
        outputs = {
            layer: stack.enter_context(appending(_rows(folder, layer), len(state.names), shape))
            for layer, shape in shapes.items()
        }
        saved = time.monotonic()
        try:
            for batch in extract(todo):
                for layer, output in outputs.items():
                    output.write(batch.rows[layer].tobytes())
                state.names += [str(todo[number]) for number in batch.numbers]
                state.unreadable |= {str(todo[n]): reason for n, reason in batch.reasons.items()}
                count = len(batch.numbers) + len(batch.reasons)
                state.done += count
                bar.update(count)
                if time.monotonic() - saved > SAVE_EVERY:
                    _save(folder, state, outputs, shapes)
                    saved = time.monotonic()
        finally:
            _save(folder, state, outputs, shapes)


def _save(folder: Path, state: _State, outputs: Mapping[str, IO[bytes]], shapes: Shapes) -> None:
    for layer, output in outputs.items():
        write_header(output, len(state.names), shapes[layer])
        output.seek(0, 2)
        output.flush()
        os.fsync(output.fileno())
    state.save(folder)


def _rows(folder: Path, layer: str) -> Path:
    return folder / f"{layer}.npy"


def _check_room(path: Path, folder: Path, count: int, shapes: Shapes) -> None:
    total = sum(num_bytes(count, shape) for shape in shapes.values())
    present = sum(
        _rows(folder, layer).stat().st_size for layer in shapes if _rows(folder, layer).exists()
    )
    needed = total * (1 if path.suffix == ".npy" else 2) - present
    free = shutil.disk_usage(folder).free
    if needed > free:
        rule = f"needs {needed / 2**20:,.0f} MiB, and {free / 2**20:,.0f} are free"
        remedy = "free some space, name fewer layers, or use reduce=mean"
        raise invalid("to", path, rule, remedy)


def _finish_npy(path: Path, folder: Path, names: Sequence[str], layers: Sequence[str]) -> None:
    (layer,) = layers
    atomic.write_json(names_file(path), list(names))
    _rows(folder, layer).replace(path)


def _finish_npz(path: Path, folder: Path, names: Sequence[str], layers: Sequence[str]) -> None:
    with (
        atomic.replacing(path) as partial,
        zipfile.ZipFile(partial, "w", allowZip64=True) as archive,
    ):
        for layer in layers:
            archive.write(_rows(folder, layer), f"{layer}.npy")
        with archive.open(f"{FILES}.npy", "w") as member:
            np.lib.format.write_array(member, np.array(names), allow_pickle=False)


def _finish_h5(path: Path, folder: Path, names: Sequence[str], layers: Sequence[str]) -> None:
    import h5py

    with atomic.replacing(path) as partial, h5py.File(partial, "w") as file:
        for layer in layers:
            rows = np.load(_rows(folder, layer), mmap_mode="r")
            target = file.create_dataset(layer, rows.shape, rows.dtype)
            for start in range(0, len(rows), COPY_ROWS):
                target[start : start + COPY_ROWS] = rows[start : start + COPY_ROWS]
        encoded = [os.fsencode(name) for name in names]
        file.create_dataset(FILES, data=encoded, dtype=h5py.string_dtype())


_FINISH: dict[str, Callable[[Path, Path, Sequence[str], Sequence[str]], None]] = {
    ".npy": _finish_npy,
    ".npz": _finish_npz,
    ".h5": _finish_h5,
}
