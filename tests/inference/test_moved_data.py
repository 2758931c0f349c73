"""Runs whose images, or whose working directory, have moved."""

import json
import re
from pathlib import Path

import pytest

from alexnet_jax import evaluate, figures, main
from alexnet_jax.config import (
    Config,
    DataConfig,
    absolute_path,
    with_absolute_paths,
)
from tests import untrained
from tests.data.test_folders import make

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = ["--preset", "photos", "--data.image-size", "40", "--data.crop", "36", "--mesh.towers", "1"]
SMALL += ["--model.width", "0.02", "--optimizer.batch-size", "4", "--log.figures", "False"]
SMALL += ["--schedule.kind", "step", "--schedule.epochs"]


def refused(capsys, command, *arguments) -> str:
    assert command.main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("alexnet_jax: ")


def test_a_run_goes_on_where_its_images_are_now(tmp_path, monkeypatch, capsys):
    make(tmp_path / "d", {"cat": 8, "dog": 8})
    make(tmp_path / "others", {"cat": 8, "dog": 7})
    monkeypatch.chdir(tmp_path)
    assert main.main(["--workdir", "run", "--data.path", "d", *SMALL, "1"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("d: its folders are taken for 2")
    saved = json.loads(Path("run/config.json").read_text())["config"]
    assert saved["data.path"] == str(tmp_path / "d")

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    common = ["--mesh.towers", "1", "--mesh.data", "1", "--json", "--batch-size", "4"]
    assert evaluate.main(["--workdir", "../run", *common]) == 0
    before = json.loads(capsys.readouterr().out)

    (tmp_path / "d").rename(tmp_path / "photos")
    message = refused(capsys, evaluate, "--workdir", "../run", *common)
    assert str(tmp_path / "d") in message
    assert message.endswith("with --data.path FOLDER.")
    figure = ["--workdir", "../run", "--only", "predictions"]
    assert "--data.path FOLDER" in refused(capsys, figures, *figure)
    message = refused(capsys, evaluate, "--workdir", "../run", *common, "--data.path", "../others")
    assert re.search(r"in train, validation: 1 removed \(\S*dog/7\.png\); restore", message), (
        message
    )
    message = refused(
        capsys, evaluate, "--workdir", "../run", "--images", "x", "--data.path", "../photos"
    )
    assert message.startswith("--data.path ../photos: ")
    message = refused(
        capsys, evaluate, "--workdir", "../run", "--images", "../photos", "--split", "train"
    )
    assert message.startswith("--split train: is not used together with --images; ")

    moved = ["--data.path", "../photos"]
    assert evaluate.main(["--workdir", "../run", *common, *moved]) == 0
    after = json.loads(capsys.readouterr().out)
    assert after == before
    assert figures.main([*figure, *moved]) == 0
    assert Path("../run/figures/predictions.png").exists()

    assert main.main(["--workdir", "../run", *moved, *SMALL, "2"]) == 0
    assert "Resumed after step 4" in capsys.readouterr().out
    saved = json.loads(Path("../run/config.json").read_text())["config"]
    assert saved["data.path"] == str(tmp_path / "photos")


def test_images_of_a_run_that_draws_its_own_cannot_have_moved(tmp_path, capsys):
    workdir = untrained.make(tmp_path / "run", "quickstart")
    message = refused(capsys, evaluate, "--workdir", workdir, "--data.path", "x")
    assert message.startswith("--data.path x: ")
    assert message.endswith("leave it out.")


def test_paths_are_absolute_but_for_buckets_and_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(init_from="a/../b", data=DataConfig(path="d"))
    paths = with_absolute_paths(config)
    assert (paths.init_from, paths.data.path) == (f"{tmp_path}/b", f"{tmp_path}/d")
    assert with_absolute_paths(paths) == paths
    assert absolute_path("") == ""
    assert absolute_path("gs://bucket/data") == "gs://bucket/data"
    assert absolute_path("~/d") == str(Path.home() / "d")
