"""Training on images that a program has: a list of pairs, with or without a validation split."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alexnet_jax as ax
from alexnet_jax import evaluate
from alexnet_jax.data import splits
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.training.stopping import Stopped

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES = ["dark", "light"]


def pairs(number, seed=0):
    """Return images of two brightnesses, of several sizes."""
    rng = np.random.default_rng(seed)
    items = []
    for index in range(number):
        label = index % 2
        noise = rng.integers(0, 60, (40 + index % 3, 44, 3), np.uint8)
        items.append((noise + np.uint8(150 * label), label))
    return ax.Pairs(items, CLASSES)


@pytest.fixture(scope="module")
def config():
    config = ax.PRESETS["photos"]
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, image_size=40, crop=36),
        model=dataclasses.replace(config.model, width=0.05, dropout=0.0),
        optimizer=dataclasses.replace(config.optimizer, batch_size=8),
        schedule=dataclasses.replace(config.schedule, kind="step", epochs=8),
        mesh=dataclasses.replace(config.mesh, towers=1, data=1),
        log=dataclasses.replace(config.log, figures=False),
    )


def test_a_run_learns_its_own_pairs_and_resumes(config, tmp_path, capsys):
    given = {"train": pairs(24), "test": pairs(6, seed=1)}
    with pytest.raises(Stopped):
        ax.train_and_evaluate(
            config, tmp_path, iter([False] * 6 + [True] * 99).__next__, splits=given
        )
    summary = ax.train_and_evaluate(config, tmp_path, splits=given)
    assert summary["test"]["top1_error"] == 0
    assert json.loads((tmp_path / "config.json").read_text())["config"]["data.source"] == "given"
    assert "held out for validation" in capsys.readouterr().out
    network = ax.load(tmp_path)
    assert network.class_names == ("dark", "light")
    images = [given["test"][index]["image"] for index in range(6)]
    assert network.predict(images).argmax(1).tolist() == [0, 1, 0, 1, 0, 1]
    # The commands do not have the images.
    assert evaluate.main(["--workdir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "--data.source given" in message or "data.source given" in message
    assert "--images" in message
    longer = dataclasses.replace(config.schedule, epochs=9)
    config = dataclasses.replace(config, schedule=longer)
    other = {**given, "train": pairs(26)}
    with pytest.raises(ValueError, match="train"):
        ax.train_and_evaluate(config, tmp_path, splits=other)


def test_pairs_are_read_as_they_are(tmp_path):
    class Lazy:
        """Like a random access source of Grain, with a file and a broken one."""

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return tmp_path / f"{index}.png", 1

    from PIL import Image

    Image.new("RGB", (3, 2), (9, 8, 7)).save(tmp_path / "0.png")
    source = ax.Pairs(Lazy(), CLASSES, labels=[1, 0])
    assert source.labels().tolist() == [1, 0]
    record = source[0]
    assert (record["image"].shape, record["label"]) == ((2, 3, 3), 1)
    with pytest.raises(UnreadableImage):
        source[1]
    assert source.fingerprint() == ax.Pairs(Lazy(), CLASSES, labels=[1, 0]).fingerprint()
    assert source.fingerprint() != ax.Pairs(Lazy(), CLASSES).fingerprint()
    with pytest.raises(UnreadableImage, match="uint8"):
        ax.Pairs([(np.zeros((4, 4, 3)), 0)], CLASSES)[0]
    with pytest.raises(UnreadableImage, match="one pixel"):
        ax.Pairs([(np.zeros((0, 4, 3), np.uint8), 0)], CLASSES)[0]


def wrong(value) -> Any:
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ax.Pairs([(0, 2)], CLASSES), "labels 2: must be from 0 to 1.*; correct"),
        (lambda: ax.Pairs([(0, "cat")], CLASSES), "labels .*: must be one whole number.*; use int"),
        (lambda: ax.Pairs([(0, 1)], CLASSES, [1, 0]), "labels .*: must be one .* 1 items"),
        (
            lambda: ax.Pairs([(0, 1)], wrong([np.int64(0), 1])),
            r"names .*0.*: must be text.*'0'",
        ),
        (
            lambda: ax.Pairs([(0, 1)], wrong(["cat", None])),
            "names None: must be text.*'None",
        ),
        (lambda: ax.Pairs([(0, 1)], wrong(None)), "class_names None: must be a list.*; try"),
        (lambda: ax.Pairs([(0, 1)], ["cat", "cat"]), "class_names cat: names two .*; rename"),
        (lambda: ax.Pairs([(0, 1)], "ab"), r"class_names ab: must be a list.*; try \['ab'\]"),
        (
            lambda: splits.given_source(wrong(pairs(2))),
            "splits Pairs: .* a dict.*; use {.train",
        ),
        (
            lambda: splits.given_source(wrong({"train": [1]})),
            "'train'. list: .*; use Pairs",
        ),
        (lambda: splits.given_source({"test": pairs(2)}), "splits test: must have train; add"),
        (lambda: splits.given_source({"train": pairs(2), "dev": pairs(2)}), "splits dev: must be"),
        (
            lambda: splits.given_source(
                {"train": pairs(2), "test": ax.Pairs([(0, 0)], ["a", "b"])}
            ),
            "splits test: must have the class names of train",
        ),
        (
            lambda: splits.given_source({"train": pairs(2), "test": pairs(0)}),
            "splits test: must hold images; add",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_command_line_has_no_images_to_give(tmp_path: Path, capsys):
    from alexnet_jax import main

    assert main.main(["--workdir", str(tmp_path / "a"), "--data.source", "given"]) == 2
    assert "--data.source given: " in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
