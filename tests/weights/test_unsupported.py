"""A file that holds no weights of a kind that is read is named for what it is."""

import gzip
import pickle
import tarfile
import zipfile
from typing import Any

import numpy as np
import pytest

from alexnet_jax.weights import files
from tests import foreign

field = foreign.field
ONNX = field(1, 8) + field(2, "pytorch") + field(3, "2.0") + field(7, field(1, "graph"))
ONNX_WITHOUT_PRODUCER = field(1, 7) + field(7, field(1, field(1, "x") + field(4, "Conv")) * 99)
SAVED_MODEL = field(1, 1) + field(2, field(1, bytes(range(200))) * 9)
NODE = field(1, "input") + field(2, "Placeholder")
SOLVER = field(1, 4500) + field(2, "snapshots/caffe_iter_4500.caffemodel")


@pytest.mark.parametrize(
    ("name", "content", "what", "remedy"),
    [
        ("a.pth", b"", "empty", "again"),
        (
            "a.pth",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
            "LFS",
            "lfs pull",
        ),
        ("a.pth", b"\n<!DOCTYPE html><html>Sign in</html>", "web page", "the file itself"),
        ("a.pth", b'<?xml version="1.0"?><Error>AccessDenied</Error>', "XML", "itself"),
        ("a.mlmodel", field(1, 4) + field(2, "a network") * 9, "Core ML", "coremltools"),
        ("a.t7", b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1" + bytes(99), "Lua", "torchfile"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(2000), "HDF5", "h5py"),
        ("a.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(99), "MATLAB", "loadmat"),
        ("a.mat", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", "MATLAB", "h5py"),
        ("a.onnx", ONNX, "ONNX", "onnx"),
        ("a.bin", ONNX, "ONNX", "onnx"),
        ("a.bin", ONNX_WITHOUT_PRODUCER, "ONNX", "onnx"),
        ("saved_model.pb", SAVED_MODEL, "TensorFlow", "TensorFlow"),
        ("frozen.pb", field(1, NODE) * 9, "TensorFlow", "TensorFlow"),
        ("frozen", field(1, NODE) * 9, "TensorFlow", "TensorFlow"),
        ("a.ckpt.index", bytes(99) + bytes.fromhex("57fb808b247547db"), "checkpoint", "tf.train"),
        ("a.ckpt.data-00000-of-00001", bytes(range(99)), "checkpoint", "tf.train"),
        ("checkpoint", b'model_checkpoint_path: "a.ckpt"', "checkpoint", "tf.train"),
        ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow Lite", "TensorFlow"),
        ("a.solverstate", SOLVER, "solver state", ".caffemodel"),
        ("a", SOLVER, "solver state", ".caffemodel"),
        ("a.prototxt", b'name: "AlexNet"\nlayer {\n  name: "data"\n}\n', "prototxt", ".caffemodel"),
        ("a.gz", gzip.compress(bytes(99), mtime=0), "gzip", "unpack"),
        ("a.params", b"\x12\x01" + bytes(99), "MXNet", "mxnet"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG", "name a file"),
        ("config.json", b'{"architectures": ["AlexNet"]}', "JSON", "name the file of weights"),
        ("model.py", b"import torch\n\nclass AlexNet:\n    pass\n", "text", "the file itself"),
        ("a.pkl", pickle.dumps({"conv1": [1.0, 2.0]}, protocol=0), "pickle", "save its arrays"),
        ("a.pkl", pickle.dumps({"conv1": [1.0, 2.0]}, protocol=2), "pickle", "save its arrays"),
        ("a.pkl", pickle.dumps({"conv1": np.ones(3)}, protocol=4), "pickle", "save its arrays"),
    ],
)
def test_a_file_is_named_for_what_it_is(name, content, what, remedy, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=what) as refusal:
        files.read(tmp_path / name)
    message = str(refusal.value)
    assert str(tmp_path / name) in message
    assert remedy in message.partition(";")[2]
    assert "download it again" not in message


def test_archives_of_other_things(tmp_path):
    for member, what, remedy in [
        ("model.weights.h5", "Keras", "Keras"),
        ("a/Data/a.mlmodel", "Core ML", "coremltools"),
        ("a/saved_model.pb", "SavedModel", "TensorFlow"),
        ("a/models/model.json", "torch.export", "state_dict"),
        ("weights/alexnet.pth", r"alexnet\.pth", "unpack"),
    ]:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(member, "x")
        with pytest.raises(ValueError, match=rf"a\.zip: .*{what}.*; .*{remedy}"):
            files.read(tmp_path / "a.zip")
    (tmp_path / "b").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "b", "b")
    with pytest.raises(ValueError, match=r"a\.tar: .*tar archive.*; unpack it"):
        files.read(tmp_path / "a.tar")


def test_folders_of_other_things(tmp_path):
    for number, (names, what) in enumerate(
        [
            (["saved_model.pb"], "SavedModel"),
            (["checkpoint", "m.ckpt.index", "m.ckpt.data-00000-of-00001"], "TensorFlow checkpoint"),
            (["config.json", "checkpoints"], "is a run.*workdir="),
            (["readme.txt"], "no file of weights"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"")
        with pytest.raises(ValueError, match=what):
            files.read(folder)


def test_a_caffemodel_is_none_of_these(tmp_path):
    """A net's name, of any length, comes first in it."""
    blobs = {"conv1": [np.ones((2, 3, 2, 2), np.float32), np.ones(2, np.float32)]}
    for length in (0, 1, 10, 99):
        data = foreign.caffemodel(blobs, name="a" * length, old=True)
        (tmp_path / "a").write_bytes(data)
        assert files.read(tmp_path / "a").format == "caffe"


def test_a_file_of_an_optimizers_state_is_named(tmp_path):
    names = ("exp_avg", "exp_avg_sq", "step")
    arrays = {f"{n}.{name}": np.ones(2, np.float32) for n in range(16) for name in names}

    def state(tensors):
        nested = {n: {name: tensors[f"{n}.{name}"] for name in names} for n in range(16)}
        return {"state": nested, "param_groups": [{"lr": 0.1}]}

    for wrap in (state, lambda tensors: {"epoch": 1, "optimizer": state(tensors)}):
        foreign.write_torch_zip(tmp_path / "a.pth", arrays, wrap)
        with pytest.raises(
            ValueError, match=r"optimizer and no network .* 38 more.*; name"
        ) as info:
            files.read(tmp_path / "a.pth")
        assert "partial" not in str(info.value)


def test_the_momentum_of_a_network_is_not_taken_for_it(tmp_path):
    arrays: dict[str, Any] = {f"momentum.conv{n}_w": np.ones(3) for n in range(1, 6)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"optimizer and no network .*momentum\.conv1_w"):
        files.read(tmp_path / "a.npz")


def test_torchscript_is_read_and_if_frozen_named(tmp_path):
    """Its code is compressed, unlike its arrays."""
    arrays = {f"features.{n}.weight": np.ones((2, 2, 3, 3), "f4") for n in (0, 3, 6, 8, 10)}
    foreign.write_torch_zip(tmp_path / "a.pt", arrays)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    code = f"{pickled.removesuffix('data.pkl')}code/__torch__.py"
    foreign.write_torch_zip(tmp_path / "b.pt", {}, lambda _: {"training": False})
    for name in ("a.pt", "b.pt"):
        with zipfile.ZipFile(tmp_path / name, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(code, b"def forward(self):\n" * 9999)
    result = files.read(tmp_path / "a.pt").arrays
    np.testing.assert_array_equal(result["features.10.weight"], arrays["features.10.weight"])
    with pytest.raises(ValueError, match=r"b\.pt: is TorchScript .*; save model\.state_dict"):
        files.read(tmp_path / "b.pt")


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    foreign.write_torch_zip(tmp_path / "a.pt", {"features.0.bias": np.ones(2, "f4")})
    with zipfile.ZipFile(tmp_path / "a.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/code/a.py", bytes(2**22))
    with pytest.raises(ValueError, match="too many for its size; save"):
        files.read(tmp_path / "a.pt")
