"""Commands on files and class folders whose names are not UTF-8, or that a terminal would obey."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import evaluate, figures, main, predict, prepare, retrieve
from tests import untrained

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES = [b"caf\xe9", b"$\\x_^$", "翘\x1b[2J".encode()]
TORN = os.fsdecode(b"t\xe9\x1b[2J\n.png")
SMALL = ["--preset", "photos", "--data.image-size", "40", "--data.crop", "36"]
SMALL += ["--model.width", "0.02", "--optimizer.batch-size", "8", "--schedule.kind", "step"]
SMALL += ["--schedule.epochs", "1", "--mesh.towers", "1", "--mesh.data", "1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / os.fsdecode(b"d\xe9")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        folder = root / os.fsdecode(name)
        folder.mkdir(parents=True)
        for number in range(5):
            picture = Image.fromarray(rng.integers(0, 256, (48, 60, 3), np.uint8))
            with (folder / os.fsdecode(b"\xff$\\q%d.png" % number)).open("wb") as file:
                picture.save(file, "PNG")
    (root / os.fsdecode(CLASSES[0]) / TORN).write_bytes(b"torn")
    return root


@pytest.fixture(scope="module")
def untrained_run(tmp_path_factory) -> Path:
    return untrained.make(tmp_path_factory.mktemp("run"))


def is_text(printed: str) -> None:
    printed.encode()  # no lone surrogate
    assert not {"\x1b", "\x07"} & {*printed}


def test_a_run_trains_evaluates_and_draws(images, tmp_path, capsys):
    workdir = tmp_path / "run"
    train = ["--workdir", str(workdir), "--data.path", str(images), *SMALL]
    assert main.main(train) == 0
    printed = "".join(capsys.readouterr())
    is_text(printed)
    assert r"t\xe9\x1b[2J\n.png: " in printed
    (line,) = (workdir / "unreadable.txt").read_text("utf-8").splitlines()
    assert r"d\xe9/caf\xe9/t\xe9\x1b[2J\n.png: " in line
    assert {path.name for path in (workdir / "figures").iterdir()} >= {"predictions.png"}
    assert main.main(train) == 0  # finished: the files are the same by their real names
    assert "run is finished" in capsys.readouterr().out
    args = ["--workdir", str(workdir), "--mesh.towers", "1", "--mesh.data", "1"]
    picture = tmp_path / os.fsdecode(b"c\xe9.png")
    assert evaluate.main([*args, "--per-class", "--confusion", str(picture)]) == 0
    assert picture.stat().st_size
    printed = "".join(capsys.readouterr())
    is_text(printed)
    assert "\ncaf\\xe9 " in printed
    assert evaluate.main([*args, "--per-class", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {row["class"] for row in scores["per_class"]} == {
        *(r"caf\xe9", r"$\x_^$", "翘\x1b[2J"),
    }


def test_predict_and_retrieve_name_files_as_text_and_open_them(
    images, untrained_run, tmp_path, capsys
):
    workdir = ["--workdir", str(untrained_run)]
    assert predict.main([*workdir, str(images), "--save", str(tmp_path / "p.png")]) == 1
    printed = "".join(capsys.readouterr())
    is_text(printed)
    assert printed.count(r"/\xff$\q") == 15
    assert r"t\xe9\x1b[2J\n.png: " in printed
    file = next((images / os.fsdecode(CLASSES[0])).glob("*q0.png"))
    assert predict.main([*workdir, str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"].endswith(r"d\xe9/caf\xe9/\xff$\q0.png")
    panel = ["--top", "2", "--save", str(tmp_path / "n.png")]
    for form in ([], ["--json"]):
        assert retrieve.main([*workdir, "--images", str(images), str(file), *panel, *form]) == 0
        printed = "".join(capsys.readouterr())
        is_text(printed)
        assert r"\xff$\q0.png" in printed.replace("\\\\", "\\")
    assert figures.main([*workdir, "--maps", str(file), "--out", str(tmp_path / "maps")]) == 0
    is_text(capsys.readouterr().out)


def test_prepare_writes_shards_of_such_classes(images, tmp_path, capsys):
    shards = tmp_path / "shards"
    args = ["--from", str(images), "--image-size", "40", "--processes", "1"]
    assert prepare.main([*args, "--to", str(shards)]) == 0
    is_text("".join(capsys.readouterr()))
    (line,) = (shards / "unreadable.txt").read_text("utf-8").splitlines()
    assert r"t\xe9\x1b[2J\n.png: " in line
    assert os.fsdecode(CLASSES[0]) in json.loads((shards / "classes.json").read_text())


def test_a_folder_of_shards_that_other_libraries_cannot_open_is_refused(images, tmp_path, capsys):
    bad = tmp_path / os.fsdecode(b"caf\xe9") / "a"
    args = ["--from", str(images), "--image-size", "40", "--processes", "1", "--to", str(bad)]
    assert prepare.main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split()[1] == "--to"
    assert "must be UTF-8" in line
    assert r"caf\xe9/a" in line
    assert "rename" in line
