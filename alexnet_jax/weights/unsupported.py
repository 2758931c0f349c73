"""What a file is that holds no weights of a kind that is read, and what to do with it."""

import re
from pathlib import Path

READ = ".pth, .safetensors, .npz, .npy or .caffemodel"
HEAD = 4096  # bytes that tell what a file is

_ARRAYS = "save its arrays under names such as conv1_w as .npz or .safetensors"
_UNPACK = "unpack it, and name the file in it"
_ANEW = "download the file itself"

# What a file begins with; the offset is where.
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer and not the file", "run `git lfs pull`"),
    (0, b"MATLAB 7.3", "a MATLAB file (HDF5)", f"read it with h5py, and {_ARRAYS}"),
    (0, b"MATLAB", "a MATLAB file", f"read it with scipy.io.loadmat, and {_ARRAYS}"),
    (0, b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (0, b"BZh", "compressed with bzip2", _UNPACK),
    (0, b"\xfd7zXZ\0", "compressed with xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (4, b"TFL3", "a TensorFlow Lite model", f"read it with TensorFlow, and {_ARRAYS}"),
    (0, b"\x12\x01\0\0\0\0\0\0", "an MXNet file", f"read it with mxnet.nd.load, and {_ARRAYS}"),
    (12, b"V 1", "a Lua Torch file", f"read it with the package torchfile, and {_ARRAYS}"),
    (0, b"GGUF", "a GGUF file", f"read it with the package gguf, and {_ARRAYS}"),
    (0, b"\x89PNG", "a PNG image", "name a file of weights"),
    (0, b"\xff\xd8\xff", "a JPEG image", "name a file of weights"),
    (0, b"GIF8", "a GIF image", "name a file of weights"),
    (0, b"%PDF", "a PDF document", "name a file of weights"),
    (0, b"ustar", "a tar archive", _UNPACK),
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_AT = (0, 512, 1024, 2048)
_LEVELDB = bytes.fromhex("57fb808b247547db")  # the last bytes of TensorFlow's .index and V1 .ckpt


def check(path: Path, expected: str = READ) -> None:
    """Raise a ValueError that says what a file is, if it is known and not what is expected."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    if known := _identify(path.name.lower(), head, tail):
        what, remedy = known
        raise ValueError(f"{path}: is {what}, and must be {expected}; {remedy}.")


def check_folder(path: Path) -> None:
    """Raise a ValueError that says what a folder is, if it is known and not one that is read."""
    names = {file.name for file in path.iterdir()}
    if "saved_model.pb" in names:
        remedy = f"read it with TensorFlow, and {_ARRAYS}"
        raise ValueError(f"{path}: is a TensorFlow SavedModel; {remedy}.")
    if any(name.endswith(".ckpt.index") or ".data-00000-of-" in name for name in names):
        what = "holds a TensorFlow checkpoint"
        remedy = f"read it with tf.train.load_checkpoint, and {_ARRAYS}"
        raise ValueError(f"{path}: {what}; {remedy}.")
    if "checkpoints" in names and "config.json" in names:
        raise ValueError(f"{path}: is a run, which every command takes; use workdir={path}.")


def describe_zip(path: Path, names: list[str]) -> ValueError:
    """Return the error for a zip archive of something else."""
    inner = [Path(name).name for name in names]
    if "model.weights.h5" in inner:
        what, remedy = "a Keras archive", f"load it with Keras, and {_ARRAYS}"
    elif any(name.endswith((".mlmodel", ".mlpackage")) for name in inner):
        what, remedy = "a Core ML model", f"read it with coremltools, and {_ARRAYS}"
    elif "saved_model.pb" in inner:
        what, remedy = "a packed TensorFlow SavedModel", f"read it with TensorFlow, and {_ARRAYS}"
    elif any("exported_program" in name or name == "model.json" for name in inner):
        what = "a program that torch.export saved"
        remedy = "save its state_dict with torch.save"
    else:
        shown = ", ".join(names[:3]) or "nothing"
        shown += " ..." if len(names) > 3 else ""
        what = f"a zip archive of {shown}, not of PyTorch or NumPy"
        remedy = "unpack it, and name the file of weights in it, if there is one"
    return ValueError(f"{path}: is {what}; {remedy}.")


def _identify(name: str, head: bytes, tail: bytes) -> tuple[str, str] | None:
    if not head:
        return "empty", f"{_ANEW} again"
    for offset, magic, what, remedy in _MAGIC:
        if head[offset:].startswith(magic):
            return what, remedy
    if any(head[offset:].startswith(_HDF5) for offset in _HDF5_AT):
        what = "an HDF5 file, such as Keras and Caffe's snapshot_format HDF5 write"
        return what, f"read it with h5py, and {_ARRAYS} (or Caffe's net.save as .caffemodel)"
    if tail == _LEVELDB or name == "checkpoint" or re.search(r"\.data-\d+-of-\d+$|\.meta$", name):
        what = "part of a TensorFlow checkpoint"
        return what, f"read it with tf.train.load_checkpoint, and {_ARRAYS}"
    return _protobuf(name, head) or _text(head)


def _protobuf(name: str, head: bytes) -> tuple[str, str] | None:
    """Tell messages apart by their first fields, where a caffemodel has the net's name."""
    onnx = "an ONNX model", f"read it with onnx.numpy_helper.to_array, and {_ARRAYS}"
    tensorflow = "a TensorFlow graph", f"read it with TensorFlow, and {_ARRAYS}"
    if name.endswith(".mlmodel"):
        return "a Core ML model", f"read it with coremltools, and {_ARRAYS}"
    # Field 1 is a number: iter of a SolverState, ir_version of ONNX, the version of a SavedModel.
    if start := re.match(rb"\x08[\x80-\xff]{0,9}[\x00-\x7f](?P<tag>.)(?P<size>.)", head, re.DOTALL):
        text = head[start.end() : start.end() + start["size"][0]]
        if name.endswith(".solverstate") or (start["tag"] == b"\x12" and b".caffemodel" in text):
            remedy = "name the .caffemodel of the same iteration, which has the weights"
            return "Caffe's solver state", remedy
        if start["tag"] == b"\x1a" and not name.endswith(".onnx"):
            return "Caffe's solver state", "name the .caffemodel of the same iteration"
        if name.endswith(".pb") or (start["tag"] == b"\x12" and not text.isascii()):
            return tensorflow
        if name.endswith(".onnx") or start["tag"] in (b"\x12", b"\x3a", b"\x42"):
            return onnx
    # A GraphDef begins with a node, which begins with its name.
    if re.match(rb"\x0a.{1,3}\x0a", head, re.DOTALL) and (
        name.endswith(".pb") or re.search(rb"\x12.(Placeholder|Const|Variable)", head, re.DOTALL)
    ):
        return tensorflow
    return onnx if name.endswith(".onnx") else None


def _text(head: bytes) -> tuple[str, str] | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if re.match(rb"<!doctype html|<html|<head|<!--", start):
        return "a web page, perhaps one that asks for a login or a confirmation", _ANEW
    if start.startswith(b"<?xml"):
        return "an XML document, perhaps a server's error message", _ANEW
    if re.match(rb"\((dp|lp|i)|\x80?c[a-z_.]+\n[a-z_]+\n|\(c[a-z_.]+\n", start):
        what = "a pickle of text, which holds no PyTorch weights"
        return what, f"load it with the program that wrote it, and {_ARRAYS}"
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise a letter was cut
            return None
        text = head[: error.start].decode()
    if not all(letter.isprintable() or letter in "\t\r\n\f" for letter in text):
        return None
    words = r"layers?|input_param|force_backward|net|base_lr"
    if re.search(rf"^\s*({words})\s*[:{{]", text, re.MULTILINE):
        return "text that describes a net or its training (.prototxt)", "name the .caffemodel"
    if text.lstrip()[:1] in ("{", "["):
        return "JSON text", "name the file of weights itself"
    return f"text ({text[:30].splitlines()[0]!r} ...)" if text.strip() else "blank", _ANEW
