"""A network out of a run folder: scored, asked for names and features, and trained further."""

import json
import logging
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax import evaluate, main, predict
from alexnet_jax.config import flatten
from alexnet_jax.data.crops import center_view, resize_center
from alexnet_jax.inference import network as network_loading
from alexnet_jax.model import towers
from alexnet_jax.model.preprocess import preprocess
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.checkpoint import FOLDER

pytestmark = pytest.mark.usefixtures("quick_compilation")

COLORS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (210, 30, 30)}
SMALL = [
    "--data.image-size",
    "72",
    "--data.crop",
    "64",
    "--model.width",
    "0.05",
    "--model.dropout",
    "0.0",
]
SMALL += ["--optimizer.batch-size", "8", "--log.figures", "False", "--mesh.towers", "1"]


def draw(folder, number, color, seed=0):
    """Write photographs of one color under noise, oblong and of several sizes."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for index in range(number):
        noise = rng.normal(0, 25, (80 + 3 * index, 90, 3))
        pixels = np.clip(noise + np.array(color), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    for seed, (name, color) in enumerate(COLORS.items()):
        draw(root / "train" / name, 8, color, seed)
        draw(root / "val" / name, 4, color, seed + 10)
    return root


@pytest.fixture(scope="module")
def workdir(photographs, tmp_path_factory):
    """Return the folder of a run that has learned to tell three colors."""
    workdir = tmp_path_factory.mktemp("runs") / "a"
    data = ["--preset", "photos", "--data.path", str(photographs)]
    schedule = ["--schedule.kind", "step", "--schedule.epochs", "30", "--schedule.milestones", "28"]
    assert main.main(["--workdir", str(workdir), *data, *SMALL, *schedule]) == 0
    return workdir


def load(workdir):
    return network_loading.load_network(workdir, towers.make_mesh(towers=1, data=1, batch=1))


def test_evaluate_gives_the_scores_of_the_run(workdir, capsys):
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["validation"]["top1_error"] < 0.1
    for mesh in (["--mesh.towers", "1"], ["--mesh.towers", "2"]):
        assert evaluate.main(["--workdir", str(workdir), "--json", *mesh]) == 0
        scores = json.loads(capsys.readouterr().out)
        assert scores["step"] == summary["steps"]
        assert scores["count"] == 12
        for name in ("loss", "top1_error", "top5_error"):
            wanted = summary["validation"][name]
            assert scores[name] == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_evaluate_a_folder_numbers_classes_by_name(workdir, photographs, tmp_path, capsys):
    # Class 0 is missing: by order, every label would be wrong.
    for name in ("green", "red"):
        (tmp_path / name).symlink_to(photographs / "val" / name, target_is_directory=True)
    assert evaluate.main(["--workdir", str(workdir), "--images", str(tmp_path), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["count"] == 8
    assert scores["top1_error"] < 0.1


def test_evaluate_leaves_the_folder_as_it_is(workdir):
    def state():
        return sorted((str(p), p.stat().st_mtime_ns) for p in workdir.rglob("*"))

    before = state()
    assert evaluate.main(["--workdir", str(workdir)]) == 0
    assert state() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "test"], "--split test: the data of {workdir} have none; try validation."),
        (["--split", "tset"], "tset"),
        (["--batch", "0"], "--batch 0: it is at least 1 image"),
        (["--weights", "searched"], "there is one network only; name two or more with --workdir."),
        (["--workdir", "{workdir}/."], "each network counts once; name different runs."),
        (["--held-out", "{tmp}"], "it is for weights that are searched; add --weights searched"),
        (["--confusion", "a.jpeg"], "--confusion a.jpeg: it is the name of a picture, in .png"),
        (["--views", "5"], "--views"),
        (["--batch", "7", "--mesh.data", "2"], "and divides into --mesh.data 2 shards; try 8."),
        (["--images", "{tmp}"], "3 class folders (cyan, ochre, rose) bear no name"),
    ],
)
def test_evaluate_refuses_in_a_sentence(arguments, said, workdir, tmp_path, capsys):
    for name in ("cyan", "ochre", "rose"):
        draw(tmp_path / name, 1, (0, 0, 0))
    arguments = [a.format(tmp=tmp_path, workdir=workdir) for a in arguments]
    assert evaluate.main(["--workdir", str(workdir), *arguments]) == 2
    text = capsys.readouterr().err
    assert said.format(workdir=workdir) in text
    assert text.count("\n") == 1


def test_evaluate_refuses_a_folder_in_which_nothing_can_be_read(workdir, tmp_path, capsys):
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "torn.png").write_bytes(b"no image")
    assert evaluate.main(["--workdir", str(workdir), "--images", str(tmp_path)]) == 2
    assert "None of the 1 images can be read; a score needs some" in capsys.readouterr().err


def test_evaluate_says_what_folder_it_wants(workdir, photographs, capsys):
    for folder, wanted in (
        (photographs / "val" / "red", "it holds 4 images and no class folders; scores need"),
        (photographs, f"it holds train, val; name one: {photographs}/train or {photographs}/val."),
    ):
        assert evaluate.main(["--workdir", str(workdir), "--images", str(folder)]) == 2
        assert f"--images {folder}: {wanted}" in capsys.readouterr().err


def readme_python():
    """Return the Python in README."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return code


def test_features_of_photographs_as_in_the_readme(workdir, photographs, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "imported").symlink_to(workdir, target_is_directory=True)
    for name, color in (("a", "red"), ("b", "blue")):
        Image.open(photographs / f"val/{color}/0.png").save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    known = {}
    exec(readme_python(), known)  # noqa: S102
    images, found = known["images"], known["features"]
    assert images.shape == (2, 64, 64, 3)
    assert {name: array.shape for name, array in found.items()} == {
        "conv5": (2, 3, 3, 12),
        "pool5": (2, 1, 1, 12),
        "relu7": (2, 204),
    }
    # What `predict` says of the same files.
    logits = known["network"].features(images, "fc8")["fc8"]
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for shares, wanted in zip(
        jax.nn.softmax(logits), predict.predict(load(workdir), files), strict=True
    ):
        assert wanted.probabilities is not None
        np.testing.assert_allclose(shares, wanted.probabilities, rtol=1e-4)


def test_images_are_prepared_from_files_or_arrays(workdir, photographs, tmp_path):
    network, file = load(workdir), photographs / "val/red/1.png"
    (from_file,), (from_array,) = (
        network.prepare([image]) for image in (str(file), np.asarray(Image.open(file)))
    )
    np.testing.assert_array_equal(from_file, from_array)
    (tmp_path / "torn.png").write_bytes(b"no image")
    for image, words in (
        (np.zeros((9, 9, 3), np.float32), r"an image of float32, \(9, 9, 3\): a picture is uint8"),
        (tmp_path / "none.png", "none.png: No such file or directory; give files"),
        (tmp_path / "torn.png", "torn.png: no image format known to Pillow"),
    ):
        with pytest.raises(ValueError, match=words):
            network.prepare([image])


def test_loading_warns_of_nothing(workdir, caplog):
    with caplog.at_level(logging.WARNING, "absl"):  # which the commands silence
        load(workdir)
    assert caplog.messages == []


@pytest.mark.parametrize("command", [evaluate, predict])
def test_a_folder_without_a_run_is_refused_and_stays_away(command, tmp_path, capsys):
    extra = [str(tmp_path)] if command is predict else []
    draw(tmp_path / "b", 1, (0, 0, 0))
    assert command.main(["--workdir", str(tmp_path / "none"), *extra]) == 2
    assert "it holds no checkpoint; name the folder of a run" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_predict_names_what_it_sees_and_passes_over_what_it_cannot_read(
    workdir, photographs, tmp_path, capsys
):
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"no image")
    files = [str(photographs / "val" / "red"), str(bad), str(photographs / "val/blue/0.png")]
    assert predict.main([*files, "--workdir", str(workdir), "--json", "--top", "3"]) == 1
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["predictions"][0]["class"] for line in lines] == ["red"] * 4 + ["blue"]
    for line in lines:
        shares = [best["probability"] for best in line["predictions"]]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares == sorted(shares, reverse=True)
    assert said.err.startswith(f"{bad}: no image format known to Pillow")


def test_predict_draws_bars(workdir, photographs, capsys):
    file = photographs / "val/green/1.png"
    assert predict.main([str(file), "--workdir", str(workdir)]) == 0
    name, first, *_ = capsys.readouterr().out.splitlines()
    assert name == str(file)
    assert first.endswith("green")
    assert "█" in first
    assert "%" in first


def test_predictions_are_those_of_a_plain_forward_pass(workdir, photographs):
    network = load(workdir)
    file = photographs / "val/green/2.png"
    square = resize_center(np.asarray(Image.open(file)), 72)
    view = center_view(square, 64)
    batch = {name: np.asarray(view[name])[None] for name in ("image", "offset", "mirror")}
    images = jax.jit(preprocess)(towers.put_batch(batch, network.mesh), network.preprocess)
    logits = jax.jit(towers.forward(network.architecture, network.mesh))(network.variables, images)
    (prediction,) = predict.predict(network, [file])
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities, jax.nn.softmax(logits)[0], rtol=1e-5)
    features = network.features(images, ("fc8", "relu7"))
    np.testing.assert_allclose(features["fc8"], logits, rtol=1e-5)


def test_fine_tuning_takes_weights_and_preprocessing_over(workdir, tmp_path, capsys):
    for seed, name in enumerate(("cyan", "ochre", "rose", "white")):
        draw(tmp_path / "others" / name, 4, (60 * seed, 90, 200 - 50 * seed), seed)
    arguments = ["--preset", "photos", "--init-from", str(workdir)]
    arguments += ["--data.path", str(tmp_path / "others"), "--optimizer.batch-size", "8"]
    arguments += ["--schedule.epochs", "1", "--log.figures", "False", "--mesh.towers", "1"]
    b = tmp_path / "b"
    assert main.main(["--workdir", str(b), *arguments]) == 2
    assert "fc8 (204, 3) there, (204, 4) here" in capsys.readouterr().err
    arguments += ["--init.reinit-layers", "fc8", "--optimizer.learning-rate", "1e-12"]
    assert main.main(["--workdir", str(b), *arguments]) == 0
    said = capsys.readouterr().out
    assert f"Weights of {workdir}, step 90: conv1, conv2, conv3" in said
    assert f"Model (two_towers) and preprocessing are those of {workdir}, whatever --p" in said
    assert "top-5" not in said  # of 4 classes
    assert "anew: fc8." in said
    origin, tuned = load(workdir), load(b)
    assert tuned.config.model == origin.config.model
    assert (tuned.config.data.crop, tuned.config.data.image_size) == (64, 72)
    for name, array in origin.statistics.items():
        np.testing.assert_array_equal(tuned.statistics[name], array)
    theirs, ours = (network.variables["params"] for network in (origin, tuned))
    for layer in ("conv1", "conv5", "fc7"):  # but for a step at next to no rate
        np.testing.assert_allclose(ours[layer]["kernel"], theirs[layer]["kernel"], atol=1e-7)
    # The same command goes on, as with every run, and without the folder that it started from.
    away = workdir.rename(tmp_path / "away")
    try:
        assert main.main(["--workdir", str(b), *arguments, "--schedule.epochs", "2"]) == 0
    finally:
        away.rename(workdir)
    assert "Resumed after step 2" in capsys.readouterr().out


def test_fine_tuning_keeps_frozen_layers_to_the_bit(workdir, photographs, tmp_path, capsys):
    b, still = tmp_path / "b", ("conv1", "conv2", "fc6")
    arguments = ["--workdir", str(b), "--preset", "photos", "--init-from", str(workdir)]
    arguments += ["--data.path", str(photographs), *SMALL, "--init.reinit-layers", "fc8"]
    arguments += ["--optimizer.layer-learning-rates", *(f"{name}=0" for name in still), "fc8=10"]
    assert main.main([*arguments, "--schedule.epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert "; anew: fc8.\nFrozen: conv1, conv2, fc6; at 10 times the rate: fc8.\n" in said
    theirs, ours = (load(folder).variables["params"] for folder in (workdir, b))
    for layer in theirs:
        for kind in ("kernel", "bias"):
            before, after = (np.asarray(one[layer][kind]).tobytes() for one in (theirs, ours))
            assert (before == after) == (layer in still), (layer, kind)
    # It goes on as it began, and no otherwise.
    assert main.main([*arguments[:-1], "fc8=5", "--schedule.epochs", "2"]) == 2
    assert "--optimizer.layer-learning-rates was ['conv1=0'," in capsys.readouterr().err


def test_fine_tuning_says_what_it_leaves_behind_and_which_classes_are_others(workdir):
    network = load(workdir)
    params = {n: w for n, w in network.variables["params"].items() if n != "conv5"}
    _, said = network_loading.init_from_pretrained(
        network, params, ("fc7",), ("blue", "ochre", "red")
    )
    assert "fc6, fc8; anew: fc7; left behind: conv5.\n" in said
    assert "for 1 of 3 classes ('green' there is 'ochre' here): unless they mean the same" in said
    _, said = network_loading.init_from_pretrained(
        network, params, ("fc8",), ("blue", "ochre", "red", "white")
    )
    assert "classes" not in said
    _, said = network_loading.init_from_pretrained(network, params, (), network.class_names)
    assert said.endswith("left behind: conv5.")


def test_defaults_come_from_the_run_that_is_taken_over(workdir):
    arguments = ["--workdir", "b", "--preset", "source2012", "--init-from", str(workdir)]
    config = main.parse([*arguments, "--data.mean", "channel"]).config
    data = flatten(config)
    assert data["data.crop"] == 64
    assert data["model.width"] == 0.05
    assert data["data.statistics"] == "init"
    assert data["data.mean"] == "channel"
    assert data["data.images_per_crop"] == PRESETS["source2012"].data.images_per_crop
    # tyro takes underscores in place of dashes.
    assert main.parse(["--init_from" if a == "--init-from" else a for a in arguments]).config == (
        main.parse(arguments).config
    )


@pytest.mark.parametrize("text", ["{torn", "{}", "[]"])
def test_a_config_that_no_run_wrote_is_refused(text, tmp_path, capsys):
    (tmp_path / "config.json").write_text(text)
    assert main.main(["--workdir", str(tmp_path / "b"), "--init-from", str(tmp_path)]) == 2
    assert (
        "its config.json was not written by a run of this version; name" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--init.reinit-layers", "fc9"], "--init.reinit-layers fc9: the layers are conv1, conv2"),
        (["--data.image-size", "80"], "--data.image-size 80: the mean image that came with"),
    ],
)
def test_fine_tuning_refuses_in_a_sentence(arguments, said, workdir, photographs, tmp_path, capsys):
    start = ["--workdir", str(tmp_path / "b"), "--preset", "photos", "--init-from", str(workdir)]
    start += [
        "--data.path",
        str(photographs),
        "--optimizer.batch-size",
        "8",
        "--mesh.towers",
        "1",
    ]
    assert main.main([*start, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_statistics_of_nothing(photographs, tmp_path, capsys):
    arguments = ["--preset", "photos", "--data.path", str(photographs), *SMALL]
    arguments += ["--workdir", str(tmp_path / "b"), "--data.statistics", "init"]
    assert main.main(arguments) == 2
    assert "--data.statistics init: it goes with --init-from" in capsys.readouterr().err


def test_layers_to_reset_of_no_run(tmp_path, capsys):
    assert main.main(["--workdir", str(tmp_path / "b"), "--init.reinit-layers", "fc7", "fc8"]) == 2
    assert (
        "--init.reinit-layers fc7 fc8: it names layers that --init-from" in capsys.readouterr().err
    )


def test_a_reader_leaves_a_save_in_progress_alone(workdir):
    """What a training process is just writing looks like this."""
    saving = workdir / FOLDER / "99.orbax-checkpoint-tmp"
    saving.mkdir()
    try:
        load(workdir)
        assert saving.exists()
    finally:
        saving.rmdir()
