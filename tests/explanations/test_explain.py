"""The command explain: what it prints and draws, files that it skips, arguments that it refuses."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.explain import main

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = ["--window", "40", "--stride", "40"]


@pytest.fixture(scope="module")
def workdir(run_of, tmp_path_factory):
    """Return a run folder of its own, to which pictures are written."""
    return shutil.copytree(run_of(), tmp_path_factory.mktemp("explain") / "run")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(5)
    for number in range(3):
        pixels = rng.integers(0, 256, (70, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(3)]


def size(path):
    with Image.open(path) as picture:
        return picture.size


def test_a_photograph_alone_is_explained_and_drawn_in_the_run_folder(workdir, photos, capsys):
    assert main(["--workdir", str(workdir), photos[0], *QUICK]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(photos[0])
    for word in ("occlusion, 40 px square", "gradient", "Grad-CAM of relu2", "tower 1"):
        assert word in out
    width, height = size(workdir / "figures/explanation.png")
    assert width > 1500  # photograph, classes, three maps and two towers
    assert height < 500
    assert str(workdir / "figures/explanation.png") in err


def test_pages_json_and_raw_maps(workdir, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("alexnet_jax.plots.explanations.ROWS", 2)
    picture, maps, broken = (tmp_path / name for name in ("a.png", "maps.npz", "broken.png"))
    broken.write_bytes(b"none")
    arguments = ["--workdir", workdir, *photos, broken, tmp_path / "none.png", "--class", "beige"]
    arguments += ["--layer", "relu2", "--save", picture, "--maps", maps, "--json", *QUICK]
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == photos
    assert size(picture)[1] > 1.8 * size(tmp_path / "a-2.png")[1]
    for text in ("broken.png", "none.png: No such file", "2 of 5 are unreadable"):
        assert text in err
    arrays = np.load(maps)
    assert {name: array.shape for name, array in arrays.items()} == {
        **dict(files=(3,), labels=(3,), scores=(3,), occlusion=(3, 64, 64)),
        **dict(gradient=(3, 64, 64, 3), gradcam=(3, 7, 7), gradcam_towers=(3, 2, 7, 7)),
    }
    assert arrays["labels"].tolist() == [1, 1, 1]
    for number, line in enumerate(lines):
        assert line["class"] == "beige"
        assert line["logit"] == pytest.approx(float(arrays["scores"][number]))
        found = line["maps"]["occlusion"]
        assert found["window"] == 40
        drops = arrays["occlusion"][number]
        assert found["max"] == pytest.approx(float(drops.max()))
        if found["peak"]:
            assert drops[tuple(found["peak"])] == drops.max()


def test_a_subset_of_methods_is_drawn(workdir, photos, tmp_path, capsys):
    picture = tmp_path / "a.png"
    arguments = ["--workdir", str(workdir), photos[0], "--save", str(picture)]
    assert main([*arguments, "--methods", "gradient", "--score", "probability"]) == 0
    out = capsys.readouterr().out
    assert "gradient" in out
    assert "(probability " in out
    assert "occlusion" not in out
    assert "Grad-CAM" not in out
    assert size(picture)[0] < 1000


def test_units_are_drawn_with_their_tower(workdir, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"none")
    arguments = ["--workdir", workdir, "--units", "conv2:1", "conv2:9", "--images", tmp_path]
    assert main([*map(str, arguments), "--top", "2"]) == 1
    out, err = capsys.readouterr()
    assert "conv2:1, tower 0\n" in out
    assert "conv2:9, tower 1\n" in out
    assert out.count(".png") == 4
    assert "broken.png" in err
    assert size(workdir / "figures/units.png")[0] > 300
    picture = tmp_path / "both.pdf"
    both = [*map(str, arguments), photos[0], "--save", str(picture), "--methods", "gradient"]
    assert main([*both, "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("unit") for line in lines] == [None, "conv2:1", "conv2:9"]
    assert [line.get("tower") for line in lines[1:]] == [0, 1]
    assert lines[1]["patches"][0]["value"] >= lines[1]["patches"][1]["value"]
    assert picture.exists()
    assert (tmp_path / "both-units.pdf").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "name photographs"),
        ("a.png --class baige", "--class baige: .*3 classes.*; try 'beige'"),
        ("a.png --layer fc6", "--layer fc6: .*have maps; choose .*relu5"),
        ("a.png --layer norm9", "--layer norm9: .*; choose .*relu5"),
        ("a.png --window 64", "--window 64: .*1 to 63.*; try 16"),
        ("a.png --window 5 --stride 6", "--stride 6: .*--window 5.*; try 1"),
        ("a.png --methods gradient --window 8", "--window 8: .*occlusion.*; leave it out"),
        ("a.png --methods gradient --stride 8", "--stride 8: .*occlusion.*; leave it out"),
        ("a.png --methods occlusion --layer relu2", "--layer relu2: .*gradcam.*; leave it out"),
        ("a.png --top 3", "--top 3: .*units.*; leave it out"),
        ("a.png --images .", "--images .*units.*; leave it out"),
        ("a.png --save a.txt", "--save a.txt: must end in .png"),
        ("a.png --maps a.npy", "--maps a.npy: must end in .npz; try a.npz"),
        ("--units conv5:1", "--units conv5:1: .*--images DIR"),
        ("--units conv5:1 --images . --class beige", "--class beige: .*photographs.*; leave"),
        ("--units conv5:1 --images . --maps a.npz", "--maps a.npz: .*photographs.*; leave"),
        ("--units conv5:99 --images .", "--units conv5:99: .*which has 12.*; try conv5:11"),
        ("--units conv5 --images .", "--units conv5: .*; try conv5:3"),
        ("--units conv5:1 --images . --top 0", "--top 0: must be at least 1; try 9"),
        ("--units conv5:1 --images empty", "--images empty: holds no images; name another"),
    ],
)
def test_refusals(workdir, photos, arguments, message, capsys, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copy(photos[0], tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert main(["--workdir", str(workdir), *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if "Grad-CAM" not in line]
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines[0]
    assert not (tmp_path / "a.npz").exists()
