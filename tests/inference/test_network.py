"""A network from a run folder: evaluated, used for predictions and features, and fine-tuned."""

import dataclasses
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
from alexnet_jax.training.finetune import describe_origin, init_from_pretrained, load_origin

pytestmark = pytest.mark.usefixtures("quick_compilation")

COLORS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (210, 30, 30)}
SMALL = ["--data.image-size", "72", "--data.crop", "64", "--model.width", "0.05"]
SMALL += ["--model.dropout", "0.0", "--optimizer.batch-size", "8", "--log.figures", "False"]
SMALL += ["--mesh.towers", "1"]


def draw(folder, number, color, seed=0):
    """Write images of one color with noise, rectangular and of several sizes."""
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
    """Return the folder of a run that has learned to distinguish three colors."""
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
            expected = summary["validation"][name]
            assert scores[name] == pytest.approx(expected, rel=1e-4, abs=1e-6)


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
    ("arguments", "message"),
    [
        (["--split", "test"], "--split test: .*{workdir} .*; use --split validation"),
        (["--split", "tset"], ".*tset"),
        (["--batch-size", "0"], "--batch-size 0: .*; try 1"),
        (
            ["--ensemble-weights", "searched"],
            "--ensemble-weights searched: .*; name two .*--workdir",
        ),
        (["--workdir", "{workdir}/."], "--workdir {workdir} {workdir}: .*; leave one out"),
        (["--held-out", "{tmp}"], "--held-out {tmp}: .*--ensemble-weights searched; give both"),
        (["--confusion", "a.jpeg"], "--confusion a.jpeg: .*; try a.png"),
        (["--views", "5"], ".*--views"),
        (["--batch-size", "7", "--mesh.data", "2"], "--batch-size 7: .*--mesh.data 2; try 128"),
        (["--images", "{tmp}"], r"--images {tmp}: 3 .*\(cyan, ochre, rose\) .*; rename them"),
    ],
)
def test_evaluate_refuses_in_a_sentence(arguments, message, workdir, tmp_path, capsys):
    for name in ("cyan", "ochre", "rose"):
        draw(tmp_path / name, 1, (0, 0, 0))
    arguments = [a.format(tmp=tmp_path, workdir=workdir) for a in arguments]
    assert evaluate.main(["--workdir", str(workdir), *arguments]) == 2
    text = capsys.readouterr().err
    assert re.match("alexnet_jax: " + message.format(tmp=tmp_path, workdir=workdir), text), text
    assert text.count("\n") == 1


def test_evaluate_refuses_a_folder_in_which_nothing_can_be_read(workdir, tmp_path, capsys):
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "torn.png").write_bytes(b"no image")
    assert evaluate.main(["--workdir", str(workdir), "--images", str(tmp_path)]) == 2
    assert "None of the 1 images can be read; check the files." in capsys.readouterr().err


def test_evaluate_needs_a_folder_of_class_folders(workdir, photographs, capsys):
    for folder, message in (
        (
            photographs / "val" / "red",
            ".* 4 images .*; name the folder that holds the class folders",
        ),
        (photographs, f".*train, val; name {photographs}/train or {photographs}/val"),
    ):
        assert evaluate.main(["--workdir", str(workdir), "--images", str(folder)]) == 2
        assert re.search(f"--images {folder}: {message}", capsys.readouterr().err)


def readme_python():
    """Return the Python in the README of inference: features, explanations."""
    text = (Path(network_loading.__file__).parent / "README.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_features_of_photographs_as_in_the_readme(workdir, photographs, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(workdir, target_is_directory=True)
    for name, color in (("a", "red"), ("b", "blue")):
        Image.open(photographs / f"val/{color}/0.png").save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    of_features, of_explanations = readme_python()
    exec(of_features, names)  # noqa: S102
    images, features = names["images"], names["features"]
    assert images.shape == (2, 64, 64, 3)
    assert {name: array.shape for name, array in features.items()} == {
        "conv5": (2, 3, 3, 12),
        "pool5": (2, 1, 1, 12),
        "relu7": (2, 204),
    }
    # The probabilities of `predict` for the same files.
    logits = names["network"].features(images, "fc8")["fc8"]
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for probabilities, prediction in zip(
        jax.nn.softmax(logits), predict.predict(load(workdir), files), strict=True
    ):
        assert prediction.probabilities is not None
        np.testing.assert_allclose(probabilities, prediction.probabilities, rtol=1e-4)
    exec(of_explanations, names)  # noqa: S102
    assert names["towers"].shape == (2, 2, 3, 3)
    for maps in ("pixels", "on_image", "drops"):
        assert names[maps].shape == (2, 64, 64)
    assert [len(patches) for patches in names["found"].patches.values()] == [1, 1]


def test_images_are_prepared_from_files_or_arrays(workdir, photographs, tmp_path):
    network, file = load(workdir), photographs / "val/red/1.png"
    (from_file,), (from_array,) = (
        network.preprocess([image]) for image in (str(file), np.asarray(Image.open(file)))
    )
    np.testing.assert_array_equal(from_file, from_array)
    (tmp_path / "torn.png").write_bytes(b"no image")
    for image, words in (
        (np.zeros((9, 9, 3), np.float32), r"float32 \(9, 9, 3\): .*uint8"),
        (tmp_path / "none.png", "none.png: No such file or directory; "),
        (tmp_path / "torn.png", "torn.png: no image format known to Pillow"),
    ):
        with pytest.raises(ValueError, match=words):
            network.preprocess([image])


def test_loading_warns_of_nothing(workdir, caplog):
    with caplog.at_level(logging.WARNING, "absl"):  # which the commands silence
        load(workdir)
    assert caplog.messages == []


@pytest.mark.parametrize("command", [evaluate, predict])
def test_a_folder_without_a_run_is_refused_and_not_created(command, tmp_path, capsys):
    extra = [str(tmp_path)] if command is predict else []
    draw(tmp_path / "b", 1, (0, 0, 0))
    assert command.main(["--workdir", str(tmp_path / "none"), *extra]) == 2
    line = capsys.readouterr().err
    assert re.search("--workdir .*/none: holds no checkpoint; name the folder of a run", line)
    assert not (tmp_path / "none").exists()


def test_predict_prints_classes_and_skips_unreadable_files(workdir, photographs, tmp_path, capsys):
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"no image")
    files = [str(photographs / "val" / "red"), str(bad), str(photographs / "val/blue/0.png")]
    assert predict.main([*files, "--workdir", str(workdir), "--json", "--top", "3"]) == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["predictions"][0]["class"] for line in lines] == ["red"] * 4 + ["blue"]
    for line in lines:
        shares = [best["probability"] for best in line["predictions"]]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares == sorted(shares, reverse=True)
    assert printed.err.startswith(f"{bad}: no image format known to Pillow")


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
    images = jax.jit(preprocess)(towers.put_batch(batch, network.mesh), network.constants)
    logits = jax.jit(towers.forward(network.architecture, network.mesh))(network.variables, images)
    (prediction,) = predict.predict(network, [file])
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities, jax.nn.softmax(logits)[0], rtol=1e-5)
    features = network.features(images, ("fc8", "relu7"))
    np.testing.assert_allclose(features["fc8"], logits, rtol=1e-5)


def test_fine_tuning_starts_from_weights_and_preprocessing(workdir, tmp_path, capsys):
    for seed, name in enumerate(("cyan", "ochre", "rose", "white")):
        draw(tmp_path / "others" / name, 4, (60 * seed, 90, 200 - 50 * seed), seed)
    arguments = ["--preset", "photos", "--init-from", str(workdir)]
    arguments += ["--data.path", str(tmp_path / "others"), "--optimizer.batch-size", "8"]
    arguments += ["--schedule.epochs", "1", "--log.figures", "False", "--mesh.towers", "1"]
    b = tmp_path / "b"
    assert main.main(["--workdir", str(b), *arguments]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"alexnet_jax: --init-from {workdir}: ")
    remedy = "use --preset finetune, or add --init.reinit-layers fc8."
    assert f"fc8 ((204, 3) and not (204, 4)); {remedy}" in line
    arguments += ["--init.reinit-layers", "fc8", "--optimizer.learning-rate", "1e-12"]
    assert main.main(["--workdir", str(b), *arguments]) == 0
    printed = capsys.readouterr().out
    assert f"Weights of {workdir}, step 90: conv1, conv2, conv3" in printed
    assert f"Model (two_towers) and preprocessing are those of {workdir}." in printed
    assert "top-5" not in printed  # of 4 classes
    assert "initialized at random: fc8." in printed
    origin, tuned = load(workdir), load(b)
    assert tuned.config.model == origin.config.model
    assert (tuned.config.data.crop, tuned.config.data.image_size) == (64, 72)
    data = dataclasses.replace(tuned.config.data, statistics="imagenet", crop=63)
    changed = dataclasses.replace(tuned.config, data=data)
    said = describe_origin(origin.config, changed)
    assert said.endswith(f"of {workdir}, except data.crop=63, data.statistics=imagenet.")
    for name, array in origin.statistics.items():
        np.testing.assert_array_equal(tuned.statistics[name], array)
    origin_params, tuned_params = (network.variables["params"] for network in (origin, tuned))
    for layer in ("conv1", "conv5", "fc7"):  # but for a step at next to no rate
        np.testing.assert_allclose(
            tuned_params[layer]["kernel"], origin_params[layer]["kernel"], atol=1e-7
        )
    # The same command resumes, as with every run, and without the folder that it started from.
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
    printed = capsys.readouterr().out
    assert "initialized at random: fc8.\n" in printed
    assert re.search(r"Frozen: conv1, conv2, fc6;.* 10 .*fc8", printed)
    origin_params, tuned_params = (load(folder).variables["params"] for folder in (workdir, b))
    for layer in origin_params:
        for kind in ("kernel", "bias"):
            before, after = (
                np.asarray(params[layer][kind]).tobytes()
                for params in (origin_params, tuned_params)
            )
            assert (before == after) == (layer in still), (layer, kind)
    # It goes on as it began, and no otherwise.
    assert main.main([*arguments[:-1], "fc8=5", "--schedule.epochs", "2"]) == 2
    assert "--optimizer.layer-learning-rates conv1=0 " in capsys.readouterr().err


def test_fine_tuning_reports_unused_layers_and_other_class_names(workdir, caplog):
    origin = load_origin(workdir, towers.make_mesh(towers=1, data=1, batch=1))
    params = {n: w for n, w in origin.params.items() if n != "conv5"}

    def message(reinit_layers, class_names):
        caplog.clear()
        return init_from_pretrained(origin, params, reinit_layers, class_names)[1]

    text = message(("fc7",), ("blue", "ochre", "red"))
    assert text.endswith("fc6, fc8; initialized at random: fc7; not used: conv5.")
    assert re.search("1 of 3 .*'green' .* 'ochre'.*; if .* init.reinit_layers=fc8", caplog.text)
    assert message(("fc8",), ("blue", "ochre", "red", "white"))
    assert message((), origin.class_names).endswith("not used: conv5.")
    assert caplog.text == ""


def test_defaults_come_from_the_run_that_is_fine_tuned(workdir):
    arguments = ["--workdir", "b", "--preset", "source2012", "--init-from", str(workdir)]
    config = main.parse([*arguments, "--data.mean", "channel"]).config
    data = flatten(config)
    assert data["data.crop"] == 64
    assert data["model.width"] == 0.05
    assert data["data.statistics"] == "init"
    assert data["data.mean"] == "channel"
    assert data["model.precision"] == "default"
    assert data["data.images_per_crop"] == PRESETS["source2012"].data.images_per_crop
    # tyro takes underscores in place of dashes.
    assert main.parse(["--init_from" if a == "--init-from" else a for a in arguments]).config == (
        main.parse(arguments).config
    )


@pytest.mark.parametrize("text", ["{torn", "{}", "[]"])
def test_a_config_that_is_not_of_a_run_is_refused(text, tmp_path, capsys):
    (tmp_path / "config.json").write_text(text)
    assert main.main(["--workdir", str(tmp_path / "b"), "--init-from", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert re.search(f"--init-from {tmp_path}: config.json .*; name the folder of a run", line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init.reinit-layers", "fc9"], "--init.reinit-layers fc9: .*conv1, conv2.*; name some"),
        (["--data.image-size", "80"], "--data.image-size 80: .*72.*; use 72, or add --data.mean"),
    ],
)
def test_fine_tuning_refuses_in_a_sentence(
    arguments, message, workdir, photographs, tmp_path, capsys
):
    start = ["--workdir", str(tmp_path / "b"), "--preset", "photos", "--init-from", str(workdir)]
    start += ["--data.path", str(photographs), "--optimizer.batch-size", "8", "--mesh.towers", "1"]
    assert main.main([*start, *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_statistics_of_nothing(photographs, tmp_path, capsys):
    arguments = ["--preset", "photos", "--data.path", str(photographs), *SMALL]
    arguments += ["--workdir", str(tmp_path / "b"), "--data.statistics", "init"]
    assert main.main(arguments) == 2
    assert re.search("--data.statistics init: .*; use computed", capsys.readouterr().err)


def test_layers_to_reinitialize_without_a_run(tmp_path, capsys):
    assert main.main(["--workdir", str(tmp_path / "b"), "--init.reinit-layers", "fc7", "fc8"]) == 2
    line = capsys.readouterr().err
    assert re.search("--init.reinit-layers fc7 fc8: .*--init-from FOLDER; give both", line)


def test_a_reader_leaves_a_save_in_progress_alone(workdir):
    """A checkpoint that a training process is writing looks like this."""
    saving = workdir / FOLDER / "99.orbax-checkpoint-tmp"
    saving.mkdir()
    try:
        load(workdir)
        assert saving.exists()
    finally:
        saving.rmdir()
