"""Weights of other networks are refused in one sentence that says what they look like."""

import numpy as np
import pytest

from alexnet_jax.pretrained import main
from alexnet_jax.weights.files import RawWeights
from alexnet_jax.weights.import_plan import plan_import

VGG11 = {0: (64, 3), 3: (128, 64), 6: (256, 128), 8: (256, 256)}
VGG11 |= {11: (512, 256), 13: (512, 512), 16: (512, 512), 18: (512, 512)}


def zeros(*shape):
    """Return an array that takes no memory."""
    return np.broadcast_to(np.float32(0), shape)


def vgg11():
    arrays = {f"features.{n}.weight": zeros(*shape, 3, 3) for n, shape in VGG11.items()}
    arrays |= {f"features.{n}.bias": zeros(shape[0]) for n, shape in VGG11.items()}
    for n, shape in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        arrays |= {f"classifier.{n}.weight": zeros(*shape), f"classifier.{n}.bias": zeros(shape[0])}
    return arrays


def lenet():
    shapes = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5)}
    shapes |= {"fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
    return {
        f"{name}.{kind}": np.zeros(shape if kind == "weight" else shape[:1], np.float32)
        for name, shape in shapes.items()
        for kind in ("weight", "bias")
    }


def refusal(arrays, format, **options):
    with pytest.raises(ValueError, match="no AlexNet") as refused:
        plan_import(RawWeights(format, arrays, {}), **options)
    message = str(refused.value)
    assert len(message) < 250
    assert message.endswith("; name the weights of an AlexNet.")
    return message


def test_vgg_is_named():
    message = refusal(vgg11(), "torchvision")
    assert "VGG11" in message
    assert "features.0.weight, are 3 x 3" in message
    longer = {**vgg11(), **{f"features.2{n}.weight": zeros(512, 512, 3, 3) for n in range(5)}}
    assert "VGG16" in refusal(longer, "torchvision", preset="torchvision", partial=True)


@pytest.mark.parametrize(
    ("format", "name", "shape"),
    [
        ("caffe", "conv1_w", (96, 3, 7, 7)),
        ("tensorflow", "conv1_w", (7, 7, 3, 96)),
        ("theano", "W_0", (3, 7, 7, 96)),
    ],
)
def test_the_window_is_found_in_every_layout(format, name, shape):
    message = refusal({name: zeros(*shape)}, format)
    assert f"{name}, are 7 x 7" in message


@pytest.mark.parametrize("options", [[], ["--preset", "caffenet"], ["--partial"]])
def test_the_command_names_lenet(tmp_path, capsys, options):
    np.savez(tmp_path / "lenet.npz", allow_pickle=False, **lenet())
    files = ["--from", str(tmp_path / "lenet.npz"), "--workdir", str(tmp_path / "run")]
    assert main([*files, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "LeNet" in line
    assert "5 x 5" in line
    assert not (tmp_path / "run").exists()
