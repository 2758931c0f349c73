"""Features of files: the same as the network's own, in every kind of file, continued if cut off."""

import itertools
import json
import re
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax import features as command
from alexnet_jax import retrieve
from alexnet_jax.inference import network as network_loading
from alexnet_jax.model import towers
from alexnet_jax.retrieval import feature_files, features
from tests import untrained

pytestmark = pytest.mark.usefixtures("quick_compilation")

COUNT = 40  # more than a batch


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of images, one of them torn."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(COUNT):
        pixels = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((90, 80))
        pixels.save(root / f"{number:02}.png")
    (root / "07.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def expected(images, network):
    files = [file for file in sorted(images.iterdir()) if file.name != "07.png"]
    return files, network.features(network.preprocess(files), ["conv5", "relu5", "fc7"])


def run(*arguments):
    return command.main([str(argument) for argument in arguments])


def test_features_do_not_depend_on_the_types_of_the_process(images, network):
    extractor, files = features.Extractor(network), sorted(images.glob("*.png"))
    expected = [batch.rows for batch in extractor(files)]
    assert expected
    with jax.enable_x64(True):
        other = [batch.rows for batch in features.Extractor(network)(files)]
    jax.tree.map(np.testing.assert_array_equal, other, expected)


def test_npz_has_every_layer_and_the_names(images, workdir, expected, tmp_path, capsys):
    file, (files, layers) = tmp_path / "f.npz", expected
    options = ["--workdir", workdir, "--to", file, "--layers", "conv5", "relu5", "fc7"]
    assert run(images, *options) == 1
    printed = capsys.readouterr()
    assert "1 unreadable files: " in printed.err
    assert "07.png" in printed.err
    with np.load(file) as archive:
        assert archive["files"].tolist() == [str(file) for file in files]
        for layer, array in layers.items():
            got = archive[layer]
            assert f"{layer} {list(got.shape)}" in printed.out
            np.testing.assert_allclose(got, array, atol=1e-5 * np.abs(array).max())
        assert (archive["conv5"] < 0).any()
        assert (archive["relu5"] >= 0).all()
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


@pytest.mark.parametrize("reduce", ["flatten", "mean", "max"])
def test_npy_has_one_layer(workdir, expected, reduce, tmp_path):
    file, (files, layers) = tmp_path / "f.npy", expected
    options = ["--workdir", workdir, "--to", file, "--layers", "conv5", "--reduce", reduce]
    assert run(*files, *options) == 0
    maps = np.asarray(layers["conv5"])
    wanted = {
        "flatten": maps.reshape(len(maps), -1),
        "mean": maps.mean((1, 2)),
        "max": maps.max((1, 2)),
    }[reduce]
    np.testing.assert_allclose(np.load(file), wanted, atol=1e-5 * np.abs(maps).max())
    assert json.loads((tmp_path / "f.files.json").read_text()) == [str(file) for file in files]


def test_an_image_that_is_named_twice_has_one_row(images, workdir, tmp_path, capsys):
    options = ["--workdir", workdir, "--to", tmp_path / "f.npy", "--layers", "fc7"]
    assert run(images, images / "07.png", images / "03.png", *options) == 1
    assert len(np.load(tmp_path / "f.npy")) == COUNT - 1
    assert f"fc7 [{COUNT - 1}, " in capsys.readouterr().out


def write(path, files, network, batches=None, seen=None):
    """Write features of fc7; stop after some batches; note which files are read."""
    recipe = features.Recipe(("fc7",))
    extractor = features.Extractor(network, recipe)

    def extract(todo):
        if seen is not None:
            seen.extend(todo)
        yield from itertools.islice(extractor(todo), batches)
        if batches is not None:
            raise KeyboardInterrupt

    log = []
    shapes, digest = features.shapes(network, recipe), features.fingerprint(network, recipe)
    feature_files.write(path, files, extract, shapes, digest, log.append)
    return log


def test_an_interrupted_command_goes_on(images, network, expected, tmp_path):
    path, files, seen = tmp_path / "f.npz", sorted(images.iterdir()), []
    with pytest.raises(KeyboardInterrupt):
        write(path, files, network, batches=1)
    assert not path.exists()
    # A killed process may have written rows that its state does not count.
    with (tmp_path / ".f.npz.rows/fc7.npy").open("ab") as file:
        file.write(b"\x7f" * 1000)
    log = write(path, files, network, seen=seen)
    assert log == [f"{features.BATCH} of {COUNT} images were read before; going on."]
    assert seen == files[features.BATCH :]
    fc7 = np.asarray(expected[1]["fc7"])
    np.testing.assert_allclose(np.load(path)["fc7"], fc7, atol=1e-5 * np.abs(fc7).max())


@pytest.mark.parametrize("change", ["another file", "a damaged state"])
def test_other_files_begin_anew(images, network, change, tmp_path):
    path, files, seen = tmp_path / "f.npz", sorted(images.iterdir()), []
    with pytest.raises(KeyboardInterrupt):
        write(path, files, network, batches=1)
    if change == "another file":
        files = files[1:]
    else:
        (tmp_path / ".f.npz.rows" / feature_files.STATE).write_text("[1")
    log = write(path, files, network, seen=seen)
    assert seen == files
    assert [line.endswith("starting over.") for line in log] == [True] * (change == "another file")


def test_torchvisions_names_are_those_of_its_modules(tmp_path):
    workdir = untrained.make(tmp_path / "run", "torchvision")
    network = network_loading.load_network(workdir, towers.make_mesh(towers=1, data=1, batch=1))
    nodes = features.torchvision_nodes(network.architecture)
    # torchvision/models/alexnet.py, class AlexNet
    assert [nodes[f"features.{n}"] for n in (0, 1, 2, 3, 10, 11, 12)] == [
        *("conv1", "relu1", "pool1", "conv2", "conv5", "relu5", "pool5")
    ]
    assert [nodes[f"classifier.{n}"] for n in range(7)] == [
        *("drop5", "fc6", "relu6", "drop6", "fc7", "relu7", "fc8")
    ]
    assert features.output_names(network, ["features.10", "relu7"]) == ("conv5", "relu7")


def test_every_output_has_its_shape(tmp_path):
    workdir = untrained.make(tmp_path / "run", "source2012")
    network = network_loading.load_network(workdir, towers.make_mesh(towers=1, data=1, batch=1))
    layers = tuple(towers.output_specs(network.architecture, network.mesh))
    side = network.architecture.crop
    outputs = network.features(np.zeros((1, side, side, 3), np.float32), layers)
    shapes = features.shapes(network, features.Recipe(layers))
    assert shapes == {layer: array.shape[1:] for layer, array in outputs.items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "f.mat"], "--to f.mat: .*; try f.npz"),
        (["--to", "f.npy", "--layers", "fc6", "fc7"], "--to f.npy: .*2 .*; try f.npz"),
        (["--to", "taken.npz/f.npz"], "--to taken.npz/f.npz: .*; name a file in another folder"),
        (["--to", "taken.npz"], "--to taken.npz: .*; name another file"),
        (["--to", "f.npz", "--layers", "conv9"], "--layers conv9: .*; choose from conv1,"),
        (["--to", "f.npz", "--layers", "fc7", "fc7"], "--layers fc7, fc7: .*; name different"),
        (["--to", "f.npz", "--layers", "features.10"], "--layers features.10: .*; choose from"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    arguments, message, images, workdir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.npz").write_text("mine")
    assert run(images, "--workdir", workdir, *arguments) == 2
    printed = capsys.readouterr()
    assert re.match("alexnet_jax: " + message, printed.err), printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.npz"]


def test_a_missing_package_is_asked_for(images, workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert run(images, "--workdir", workdir, "--to", tmp_path / "f.h5") == 2
    assert "pip install '.[h5]'" in capsys.readouterr().err


def test_a_folder_of_unreadable_files_alone_is_refused(workdir, tmp_path, capsys):
    (tmp_path / "torn.png").write_bytes(b"no image")
    assert run(tmp_path / "torn.png", "--workdir", workdir, "--to", tmp_path / "f.npz") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'torn.png'}: no image format known to Pillow" in line
    assert line.endswith("of 1 file none is an image; name other paths.")
    assert [path.name for path in tmp_path.iterdir()] == ["torn.png"]


def test_retrieval_by_the_angle_of_another_layer(images, workdir, network, capsys):
    query, *others = [file for file in sorted(images.iterdir()) if file.name != "07.png"]
    options = ["--images", images, "--layer", "pool5", "--distance", "cosine", "--json"]
    arguments = [query, "--workdir", workdir, *options]
    assert retrieve.main([str(argument) for argument in arguments]) == 0
    near = json.loads(capsys.readouterr().out)["neighbors"]
    images_read = network.preprocess([query, *others])
    rows = np.asarray(network.features(images_read, "pool5")["pool5"], np.float64)
    rows = rows.reshape(len(rows), -1)
    lengths = np.linalg.norm(rows, axis=1)
    distances = 1 - rows @ rows[0] / lengths / lengths[0]
    order = np.argsort(distances, kind="stable")[:6]
    assert [entry["file"] for entry in near] == [str([query, *others][n]) for n in order]
    np.testing.assert_allclose(
        [entry["distance"] for entry in near], distances[order], rtol=1e-3, atol=1e-6
    )
