"""Files and folders of weights <-> arrays under the names that they have there."""

import dataclasses
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from alexnet_jax.config import invalid
from alexnet_jax.storage import atomic
from alexnet_jax.weights import caffemodel, layer_names, numpy_files, torch_files, unsupported
from alexnet_jax.weights.layer_names import Format
from alexnet_jax.weights.unpickle import MAX_REASON

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
INDEX = ".index.json"  # ends the name of a file that says which shard holds which array
MAX_SAFETENSORS_HEADER = 100_000_000  # bytes, the format's limit
WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors", ".npz", ".npy", ".caffemodel")

MAX_BYTES = 2**33  # of a file, which is read whole; a checkpoint of the paper's network has 2**29
MAX_NAME = 200  # characters of the name of an array, which messages repeat
# Bytes of the header of a .safetensors file: an array takes 100, and in memory a thousand.
MAX_HEADER = 2**24


@dataclasses.dataclass(frozen=True)
class RawWeights:
    """The arrays and the metadata of a file."""

    format: Format
    arrays: dict[str, np.ndarray]  # by the names of the format
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()  # for the user: which arrays of the file were taken


def read(path: Path, key: str = "", head: str = "") -> RawWeights:
    """Read weights in the format that the content shows.

    Args:
        path: a file, one of its shards or their index, or a folder that holds them or the files of
            theano_alexnet.
        key: entry of a checkpoint with the network, if it has several, see `layer_names.select`.
        head: name of the last layer, if it cannot be found, see `layer_names.find_head`.

    Raises:
        ValueError: the file is damaged, of another format, or a pickle of more than arrays.
        OSError: it cannot be read.
    """
    raw = _read(path, key, head)
    if (longest := max(map(len, raw.arrays), default=0)) > MAX_NAME:
        raise ValueError(
            f"{path}: must hold weights, and an array in it has a name of {longest:,} characters; "
            "name another file."
        )
    return raw


def _read(path: Path, key: str, head: str) -> RawWeights:
    _check_file(path)
    path = _find_in_folder(path) if path.is_dir() else path
    if path.is_dir():
        epoch, arrays = numpy_files.read_theano(path)
        return RawWeights("theano", arrays, {"epoch": str(epoch)})
    if shards := _shards(path):
        raw = _merged(shards, key)
    else:
        raw = _read_file(path, lambda paths: layer_names.select(paths, key))
    arrays, note = layer_names.find_head(raw.arrays, _layout(raw), head)
    notes = (*raw.notes, note) if note else raw.notes
    return RawWeights(_layout(raw), arrays, raw.metadata, notes)


def _read_file(path: Path, select: torch_files.Select) -> RawWeights:
    """Read one file; `select` chooses arrays by their paths, in formats whose names may differ."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(path, select)
    if start.startswith(b"\x93NUMPY"):
        return RawWeights("tensorflow", numpy_files.read_dictionary(path.read_bytes(), path))
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_SAFETENSORS_HEADER:
        return _read_safetensors(path, select)
    if start.startswith(b"\x80"):  # a pickle, of PyTorch or not
        selection, arrays = torch_files.read_legacy(path.read_bytes(), path, select)
        return RawWeights(selection.format, arrays, {}, selection.notes)
    unsupported.check(path)
    name, arrays = caffemodel.read(path.read_bytes(), path)
    return RawWeights("caffe", arrays, {"name": name})


def _layout(raw: RawWeights) -> Format:
    """Return the format, where plain names do not say whether kernels are OIHW or HWIO."""
    conv1 = raw.arrays.get("conv1_w", np.zeros(0))
    hwio = conv1.ndim == 4 and conv1.shape[2] == 3 and conv1.shape[1] != 3
    return "tensorflow" if raw.format == "plain" and hwio else raw.format


def _find_in_folder(path: Path) -> Path:
    """Return the one file of weights in a folder, or the folder itself if it is Theano's."""
    unsupported.check_folder(path)
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    if any(numpy_files.is_theano(file) for file in files):
        return path
    indices = [file for file in files if file.name.endswith(INDEX)]
    others = [file for file in files if file.suffix in WEIGHTS and not SHARD.fullmatch(file.name)]
    found = indices or others or [file for file in files if SHARD.fullmatch(file.name)][:1]
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise ValueError(f"{path}: holds several files of weights ({names}); name one of them.")
    return found[0] if found else path


def _shards(path: Path) -> list[Path]:
    """Return the files that hold parts of one network, if `path` is one of them or their index."""
    if path.name.endswith(".json"):
        try:
            by_name = json.loads(path.read_text())["weight_map"]
            names = sorted({*by_name.values()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return []
        if not all(isinstance(name, str) and name == Path(name).name for name in names):
            raise ValueError(f"{path}: must name files next to it; name the shards' own index.")
    elif match := SHARD.fullmatch(path.name):
        count = int(match["count"])
        stem, suffix = match["stem"], match["suffix"]
        names = [f"{stem}-{n:05}-of-{count:05}{suffix}" for n in range(1, min(count, 1000) + 1)]
    else:
        return []
    files = [path.with_name(name) for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        rule = f"is one of {len(files)} parts, of which {shown} is not next to it"
        raise ValueError(f"{path}: {rule}; copy all of them into one folder.")
    return files


def _merged(shards: list[Path], key: str) -> RawWeights:
    """Read all shards as one file."""
    arrays: dict[str, np.ndarray] = {}
    for shard in shards:
        part = _read_file(shard, layer_names.select_all).arrays
        if twice := [name for name in part if name in arrays]:
            raise ValueError(f"{shard}: {twice[0]} is in another part too; download all again.")
        arrays |= part
    selection = layer_names.select([*arrays], key)
    note = f"Read {', '.join(shard.name for shard in shards[:3])}{' ...' * (len(shards) > 3)}."
    chosen = {name: arrays[path] for path, name in selection.names.items()}
    return RawWeights(selection.format, chosen, {}, (note, *selection.notes))


def read_mean(path: Path) -> tuple[np.ndarray, bool]:
    """Return a mean image, float32 [S, S, 3], and whether it is known to be RGB.

    A run's statistics.npz is; in an .npy or .binaryproto file the order is that of the weights.
    """
    _check_file(path)
    with path.open("rb") as file:
        start = file.read(6)
    rgb = start.startswith(b"PK")
    if rgb:
        image = numpy_files.read_npz(path)[0].get("mean_image", np.zeros(0))
    elif start == b"\x93NUMPY":
        image = numpy_files.read_array(path)
    else:
        unsupported.check(path, "a run's statistics.npz, .npy or .binaryproto")
        image = caffemodel.read_mean(path.read_bytes(), path)
    image = image[0] if image.ndim == 4 and len(image) == 1 else image
    if image.ndim == 3 and image.shape[0] == 3:
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] != 3:
        content = f"an array of {image.shape}" if image.size else "no mean_image"
        raise ValueError(
            f"{path}: must hold a mean image of three colors, not {content}; name another file."
        )
    return image.astype(np.float32), rgb


def check_target(path: Path) -> None:
    """Raise a ValueError if `write` cannot write a file of this name in this place."""
    if path.suffix not in (".npz", ".safetensors"):
        rule = "must end in .safetensors or .npz (.pth is a pickle, which can execute code)"
        raise invalid("path", path, rule, f"try {path.with_suffix('.safetensors').name}")
    if path.exists():
        raise invalid("path", path, "exists already", "name another file, or remove it")


def write(path: Path, raw: RawWeights) -> None:
    """Write an .npz or .safetensors file with metadata; see `check_target`."""
    check_target(path)
    atomic.make_parent(path, "path")
    arrays = {name: np.ascontiguousarray(array) for name, array in raw.arrays.items()}
    if path.suffix == ".safetensors":
        # Not save_file, which makes the file readable by its owner alone, whatever the umask.
        atomic.write_bytes(path, safetensors.numpy.save(arrays, raw.metadata))
        return
    metadata = np.array(json.dumps(raw.metadata))
    with atomic.replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays, **{numpy_files.METADATA: metadata})


def _check_file(path: Path) -> None:
    """Raise a ValueError for what could fill the memory: a device or a pipe, or a data set."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: must be a file or a folder; copy it to a file.")
    if path.is_file() and (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(
            f"{path}: must have at most {MAX_BYTES:,} bytes, and has {size:,}, too many for the "
            "weights of an AlexNet; name another file."
        )


def _read_zip(path: Path, select: torch_files.Select) -> RawWeights:
    try:
        with numpy_files.open_zip(path) as archive:
            names = archive.namelist()
            if any(info.flag_bits & 1 for info in archive.infolist()):
                raise ValueError(f"{path}: is an encrypted zip archive; unpack it first.")
            if sum(name.endswith("/data.pkl") for name in names) == 1:
                selection, arrays = torch_files.read_zip(archive, path, select)
                return RawWeights(selection.format, arrays, {}, selection.notes)
    # RuntimeError: it is compressed by an unknown method.
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, UnicodeError) as error:
        raise ValueError(
            f"{path}: must be an intact zip archive ({error}); download it again."
        ) from None
    if not any(name.endswith(".npy") for name in names):
        raise unsupported.describe_zip(path, names)
    arrays, metadata = numpy_files.read_npz(path)
    selection = select([*arrays])
    chosen = {name: arrays[path] for path, name in selection.names.items()}
    return RawWeights(selection.format, chosen, metadata, selection.notes)


def _read_safetensors(path: Path, select: torch_files.Select) -> RawWeights:
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MAX_HEADER:
        raise ValueError(
            f"{path}: must be an intact .safetensors file (a header of {header:,} bytes); download "
            "it again."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            selection = select([*file.keys()])
            arrays = {name: _tensor(file, stored, path) for stored, name in selection.names.items()}
            metadata = file.metadata() or {}
    except (SafetensorError, TypeError) as error:
        raise ValueError(
            f"{path}: must be an intact .safetensors file ({str(error)[:MAX_REASON]}); download it "
            "again."
        ) from None
    return RawWeights(selection.format, arrays, metadata, selection.notes)


def _tensor(file: Any, name: str, path: Path) -> np.ndarray:
    try:
        array = file.get_tensor(name)
    except (AttributeError, TypeError):  # number formats of 8 bits or 4, which NumPy lacks
        dtype = file.get_slice(name).get_dtype()
        raise ValueError(f"{path}: {name} is of {dtype}; save it as float32.") from None
    return array if array.dtype.kind in "fiub" else array.astype(np.float32)  # bfloat16
