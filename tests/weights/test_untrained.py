"""Layers that no training has changed are named: at import, by every command, and not exported."""

import json

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from alexnet_jax import describe, evaluate, figures, predict, pretrained, retrieve
from alexnet_jax import main as training
from alexnet_jax.weights.untrained import describe_untrained, looks_untrained
from tests.weights.test_checkpoints import vision

pytestmark = pytest.mark.usefixtures("quick_compilation")

TINY = ["--model.width", "0.03", "--data.image-size", "112", "--data.crop", "99"]
UNTRAINED = ["conv4", "fc8"]


def drawn(rng, how, shape):
    bound = np.prod(shape[:-1]) ** -0.5
    if how == "uniform":  # PyTorch's default, of the bias too
        return rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, shape[-1])
    kernel = rng.normal(0, 0.01, shape)
    if how == "truncated":
        kernel = rng.permutation(kernel[np.abs(kernel) < 0.02])
        kernel = np.resize(kernel, shape)
    return kernel, np.full(shape[-1], 0.1)


@pytest.mark.parametrize("shape", [(11, 11, 3, 64), (3, 3, 64, 96), (400, 300)])
@pytest.mark.parametrize("how", ["normal", "uniform", "truncated"])
def test_weights_as_they_are_drawn(how, shape):
    kernel, bias = drawn(np.random.default_rng(0), how, shape)
    assert looks_untrained(kernel.astype("f4"), bias.astype("f4"))
    # Trained: a bias has moved, and a few weights have grown.
    moved = kernel * np.random.default_rng(1).gamma(2, 1, shape)
    assert not looks_untrained(moved, bias)
    assert how == "uniform" or not looks_untrained(kernel, bias + 1e-3 * np.arange(shape[-1]))


def test_weights_that_are_constant():
    assert looks_untrained(np.zeros((3, 3, 2, 8)), np.zeros(8))
    text = describe_untrained({"conv1": {"kernel": np.zeros((9, 4)), "bias": np.zeros(4)}})
    assert "untrained" in text


def test_caffes_own_weights_look_trained(real_data):
    with np.load(real_data / "golden-caffenet" / "caffenet_cat_golden.npz") as arrays:
        for layer in ("conv1", "conv2"):
            kernel = arrays[f"{layer}_w"].transpose(2, 3, 1, 0)
            assert not looks_untrained(kernel, arrays[f"{layer}_b"])


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """Return a run without the weights of two layers, and a folder of images in its classes."""
    root = tmp_path_factory.mktemp("partly")
    arrays = {
        n: a for n, a in vision(3).items() if not n.startswith(("features.8", "classifier.6"))
    }
    safetensors.numpy.save_file(arrays, root / "a.safetensors")
    (root / "names.txt").write_text("amber\nbeige\ncoral\n")
    rng = np.random.default_rng(0)
    for name in ("amber", "beige", "coral"):
        (root / "images" / name).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (112, 112, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{number}.png")
    options = ["--class-names", str(root / "names.txt"), "--partial", *TINY]
    workdir = root / "run"
    source = str(root / "a.safetensors")
    assert pretrained.main(["--from", source, "--workdir", str(workdir), *options]) == 0
    return root


def run(command, capsys, *args):
    assert command.main([*map(str, args)]) == 0
    return capsys.readouterr()


def test_every_command_says_so(partly, capsys):
    workdir, images = partly / "run", partly / "images"
    for command, args in [
        (predict, [images]),
        (evaluate, ["--images", images]),
        (retrieve, ["--images", images, images / "amber" / "0.png"]),
    ]:
        captured = run(command, capsys, "--workdir", workdir, *args)
        assert "conv4, fc8 still at initial random values" in captured.err
        assert "--init-from" in captured.err or "init_from" in captured.err
        captured = run(command, capsys, "--workdir", workdir, *args, "--json")
        assert "conv4, fc8" in captured.err
        for line in captured.out.splitlines():
            assert json.loads(line)["untrained"] == UNTRAINED
    captured = run(figures, capsys, "--workdir", workdir, "--only", "filters")
    assert "conv4, fc8" in captured.err
    assert "random values: conv4, fc8" in run(describe, capsys, "--workdir", workdir).out
    facts = json.loads(run(describe, capsys, "--workdir", workdir, "--json").out)
    assert facts["untrained"] == UNTRAINED


def test_random_layers_are_not_exported(partly, capsys):
    target = partly / "b.safetensors"
    assert pretrained.main(["--workdir", str(partly / "run"), "--to", str(target)]) == 2
    assert "conv4, fc8" in capsys.readouterr().err
    assert not target.exists()


def test_training_trains_them_or_is_refused(partly, capsys):
    options = ["--preset", "photos", "--init-from", str(partly / "run")]
    options += ["--data.path", str(partly / "images"), "--optimizer.batch-size", "2"]
    options += ["--schedule.epochs", "1", "--mesh.towers", "1", "--log.figures", "False"]
    frozen = ["--optimizer.layer-learning-rates", "conv1=0", "conv4=0"]
    assert training.main(["--workdir", str(partly / "frozen"), *options, *frozen]) == 2
    captured = capsys.readouterr()
    assert "--optimizer.layer-learning-rates conv4: " in captured.err
    workdir = partly / "tuned"
    options += [
        "--optimizer.learning-rate",
        "0.001",
    ]  # 0.01 diverges on noise
    assert training.main(["--workdir", str(workdir), *options]) == 0
    assert "at random values there, too: conv4, fc8" in capsys.readouterr().out
    captured = run(predict, capsys, "--workdir", workdir, partly / "images", "--json")
    assert "random" not in captured.err
    assert "untrained" not in captured.out
