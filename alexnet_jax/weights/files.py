"""Files and folders of weights <-> arrays under the names that they have there."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from alexnet_jax.config import invalid
from alexnet_jax.storage import atomic
from alexnet_jax.weights import caffemodel, numpy_files, torch_files

# torchvision: features.0.weight, OIHW; plain: conv1_w, OIHW; caffe: the same, of a caffemodel;
# tensorflow: conv1_w, HWIO, of caffe-tensorflow; theano: W_0 and W0_1, IHWO.
Format = Literal["torchvision", "plain", "caffe", "tensorflow", "theano"]

MAX_BYTES = 2**33  # of a file, which is read whole; a checkpoint of the paper's network has 2**29
MAX_NAME = 200  # characters of the name of an array, which messages repeat
# Bytes of the header of a .safetensors file: an array takes 100, and in memory a thousand.
MAX_HEADER = 2**24


@dataclasses.dataclass(frozen=True)
class RawWeights:
    """The arrays and the metadata of a file."""

    format: Format
    arrays: dict[str, np.ndarray]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)


def read(path: Path) -> RawWeights:
    """Read weights in the format that the content shows.

    Raises:
        ValueError: the file is damaged, of another format, or a pickle of more than arrays.
        OSError: it cannot be read.
    """
    raw = _read(path)
    if (longest := max(map(len, raw.arrays), default=0)) > MAX_NAME:
        raise ValueError(
            f"{path}: must hold weights, and an array in it has a name of {longest:,} characters; "
            "name another file."
        )
    return raw


def _read(path: Path) -> RawWeights:
    if path.is_dir():
        epoch, arrays = numpy_files.read_theano(path)
        return RawWeights("theano", arrays, {"epoch": str(epoch)})
    _check_file(path)
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(path)
    if start.startswith(b"\x93NUMPY"):
        return RawWeights("tensorflow", numpy_files.read_dictionary(path.read_bytes(), path))
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith(b"\x80"):  # a pickle, of PyTorch or not
        return _named(torch_files.read_legacy(path.read_bytes(), path))
    name, arrays = caffemodel.read(path.read_bytes(), path)
    return RawWeights("caffe", arrays, {"name": name})


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
    if not path.parent.is_dir():
        rule = f"the folder {path.parent} does not exist"
        raise invalid("path", path, rule, "create it, or name another")
    if path.exists():
        raise invalid("path", path, "exists already", "name another file, or remove it")


def write(path: Path, raw: RawWeights) -> None:
    """Write an .npz or .safetensors file with metadata; see `check_target`."""
    check_target(path)
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


def _read_zip(path: Path) -> RawWeights:
    try:
        with numpy_files.open_zip(path) as archive:
            names = archive.namelist()
            if sum(name.endswith("/data.pkl") for name in names) == 1:
                return _named(torch_files.read_zip(archive, path))
    # RuntimeError: it is encrypted, or compressed by an unknown method.
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, UnicodeError) as error:
        raise ValueError(
            f"{path}: must be an intact zip archive ({error}); download it again."
        ) from None
    if not any(name.endswith(".npy") for name in names):
        raise ValueError(
            f"{path}: is a zip archive, but not of PyTorch or NumPy; name another file."
        )
    return _named(*numpy_files.read_npz(path))


def _read_safetensors(path: Path) -> RawWeights:
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MAX_HEADER:
        raise ValueError(
            f"{path}: must be an intact .safetensors file (a header of {header:,} bytes); download "
            "it again."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    # AttributeError: number formats that NumPy lacks, of 8 bits or 4.
    except (SafetensorError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: must be an intact .safetensors file ({error}); download it again."
        ) from None
    return _named({name: array.astype(np.float32) for name, array in arrays.items()}, metadata)


def _named(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> RawWeights:
    """Return arrays with their format: torchvision's names or plain ones."""
    plain = any(name.endswith(("_w", "_b")) for name in arrays)
    return RawWeights("plain" if plain else "torchvision", arrays, metadata or {})
