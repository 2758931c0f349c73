"""The command `figures`, and the figures that are drawn after training."""

import dataclasses
import json
import re

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from alexnet_jax import figures, main
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.inference import datasets
from alexnet_jax.inference.network import load_network
from alexnet_jax.model import towers
from tests import untrained

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def two_towers(tmp_path_factory):
    return untrained.make(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture
def photograph(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(*args):
    return figures.main([str(arg) for arg in args])


def test_available_figures_are_drawn_and_the_others_named(two_towers, tmp_path, capsys):
    assert run("--workdir", two_towers, "--out", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("No curves: metrics.jsonl has no records")
    assert lines[1] == str(tmp_path / "filters.png")
    assert lines[2].startswith("No predictions: the weights were imported")
    assert lines[3].startswith("In color the towers do not differ: 0.6")
    assert lines[4] == str(tmp_path / "specialization.png")
    assert lines[5] == str(tmp_path / "index.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "filters.png",
        "index.html",
        "specialization.json",
        "specialization.png",
    ]
    saved = json.loads((tmp_path / "specialization.json").read_text())
    assert saved["statement"] == lines[3]


def test_figures_that_are_not_available_are_warned_of(two_towers, tmp_path, caplog):
    network = load_network(two_towers, towers.make_mesh(towers=1, data=1, batch=1))
    figures.draw_run(network, tmp_path)
    warnings = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in warnings] == ["No curves", "No predictions"]
    assert [path.name for path in tmp_path.iterdir()] == ["filters.png"]


def test_feature_maps_are_drawn(two_towers, photograph, tmp_path, capsys):
    args = ["--workdir", two_towers, "--out", tmp_path / "new", "--maps", photograph]
    assert run(*args, photograph) == 0
    assert run(*args, "--layer", "pool5") == 0
    paths = capsys.readouterr().out.splitlines()
    names = ("conv1-photo", "conv1-photo-2", "pool5-photo")
    assert paths == [str(tmp_path / f"new/maps-{name}.png") for name in names]
    assert all(len(np.unique(matplotlib.image.imread(path))) > 20 for path in paths)


def test_maps_of_folders_are_drawn_and_unreadable_files_skipped(two_towers, tmp_path, capsys):
    folder = tmp_path / "photos"
    for number, name in enumerate(("a/1.png", "b/1.png", "b/torn.png", "b/notes.txt")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("1.png"):
            Image.new("RGB", (80, 90), (number, 99, 0)).save(path)
        else:
            path.write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    names = [folder, tmp_path / "empty", tmp_path / "none.jpg"]
    assert run("--workdir", two_towers, "--out", tmp_path / "out", "--maps", *names) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        str(tmp_path / f"out/maps-conv1-{name}.png") for name in ("1", "1-2")
    ]
    lines = printed.err.splitlines()
    assert any(line.startswith(str(folder)) and "1 .txt" in line for line in lines)
    assert [line.split(": ")[0] for line in lines if line.endswith("; skipped")] == [
        str(folder / "b/torn.png"),
        *map(str, names[1:]),
    ]
    assert lines[-1].startswith("3 of 5 ")
    assert run("--workdir", two_towers, "--out", tmp_path / "out", "--maps", folder / "a") == 0


def test_contrast_by_filter_changes_filters_and_maps(two_towers, photograph, tmp_path):
    args = ["--workdir", two_towers, "--only", "filters", "--maps", photograph]
    for contrast in ("layer", "filter"):
        assert run(*args, "--contrast", contrast, "--out", tmp_path / contrast) == 0
    for name in ("filters.png", "maps-conv1-photo.png"):
        by_layer, by_filter = (
            (tmp_path / contrast / name).read_bytes() for contrast in ("layer", "filter")
        )
        assert by_layer != by_filter


class Split:
    """A source of images of three classes, one image of which cannot be read."""

    class_names = tuple(untrained.CLASSES)

    def __len__(self):
        return 90

    def __getitem__(self, index):
        if index == 7:
            raise UnreadableImage("torn")
        return {"image": np.full((72, 72, 3), index, np.uint8), "label": int(index >= 80)}

    def describe(self, index):
        return f"folder/{index}.png"

    def fingerprint(self):
        return ""


def test_examples_are_of_all_classes_with_mistakes_and_files(two_towers, monkeypatch):
    network = load_network(two_towers, towers.make_mesh(towers=1, data=1, batch=1))
    meta = {**network.meta, "data": {"test": {}}}
    network = dataclasses.replace(network, meta=meta)
    monkeypatch.setattr(datasets, "open_split", lambda *_: Split())

    def predict(batch):  # takes the brightest two images for class 1 and the others for class 0
        best = (batch["image"][:, 0, 0, 0] >= 88).astype(int)
        return np.eye(3)[best]

    monkeypatch.setattr(figures, "_make_predict", lambda _: predict)
    examples, caption = figures._choose_examples(network)
    labels = [label for _, _, label, _ in examples]
    wrong = [int(row.argmax()) != label for _, row, label, _ in examples]
    assert {*labels} == {0, 1}
    assert wrong == [False] * 4 + [True] * 4
    for image, _, label, file in examples:
        number = int(image[0, 0, 0])
        assert (label, file) == (int(number >= 80), f"{number}.png")
    (total,) = re.findall(r"of (\d+) test images", caption)
    assert int(total) <= 89  # without the one that is unreadable


@pytest.mark.slow
def test_a_trained_run_has_all_figures_and_the_same_ones_on_any_mesh(photos, tmp_path, capsys):
    workdir = tmp_path / "a"
    args = ["--preset", "photos", "--data.path", photos, "--mesh.towers", 1, "--log.figures", False]
    args += ["--data.image-size", 36, "--data.crop", 36, "--model.width", 0.02]
    args += ["--optimizer.batch-size", 10, "--schedule.epochs", 1]
    assert main.main([str(arg) for arg in ["--workdir", workdir, *args]]) == 0
    capsys.readouterr()
    assert run("--workdir", workdir) == 0
    printed = capsys.readouterr().out
    for name in ("curves", "filters", "predictions", "specialization"):
        assert str(workdir / f"figures/{name}.png") in printed
    # 3 shards do not divide 8 images.
    for number, data in ((1, 3), (2, 2)):
        mesh = towers.make_mesh(towers=number, data=data, batch=6)
        folder = tmp_path / f"{number}x{data}"
        figures.draw_run(load_network(workdir, mesh), folder)
        assert sorted(path.stem for path in folder.iterdir()) == [
            "curves",
            "filters",
            "predictions",
        ]
        for path in folder.iterdir():
            assert path.read_bytes() == (workdir / "figures" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--only", "curves"], "--only curves: metrics.jsonl has no records"),
        (["--only", "predictions"], "--only predictions: the weights were imported"),
        (["--contrast", "filter", "--only", "curves"], "--contrast filter: "),
        (["--layer", "pool5", "--only", "curves"], "--layer pool5: applies to maps, and curves is"),
        (["--data.path", ".", "--only", "curves"], "--data.path .: applies to page and pred"),
        (["--only", "curves", "--only", "filters"], "--only: must be given once, with all its"),
        (["--workdir", "b"], "--workdir: must be given once; leave"),
        (["--maps", "{photo}", "--layer", "conv9"], "--layer conv9: "),
        (
            ["--maps", "{photo}", "--layer", "fc6"],
            "--layer fc6: must have maps, and has 204 units;",
        ),
        (["--only", "neighbors"], "neighbors"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(args, message, two_towers, photograph, capsys):
    args = [arg.format(photo=photograph) for arg in args]
    assert run("--workdir", two_towers, *args) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_specialization_needs_towers(photograph, tmp_path, capsys):
    workdir = untrained.make(tmp_path / "a", "torchvision")
    assert run("--workdir", workdir, "--only", "specialization") == 2
    assert "--only specialization: the network has no towers to compare" in capsys.readouterr().err
    assert run("--workdir", workdir, "--only", "filters", "--maps", photograph) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
