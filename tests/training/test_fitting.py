"""Presets that follow the images, patience, and the warning of few steps."""

import dataclasses
import json
import re
import shutil

import pytest

from alexnet_jax import main
from alexnet_jax.cli.errors import option_names, with_options
from alexnet_jax.config import Config, flatten, unflatten
from alexnet_jax.presets import FITTED, PRESETS, fit_to_images, recipe
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.finetune import check_preset
from alexnet_jax.training.schedule import (
    FEW_STEPS,
    Progress,
    advance,
    describe,
    num_steps,
    patience,
    warn_of_few_steps,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = option_names(main.Command)
SMALL = PRESETS["small"]
TINY = ["--model.width", "0.03", "--data.image-size", "40", "--data.crop", "36"]
QUICK = ["--log.figures", "False", "--mesh.towers", "1", "--mesh.data", "1"]


def schedule_of(config):
    plan = config.schedule
    return config.optimizer.batch_size, plan.epochs, plan.milestones, plan.eval_every


@pytest.mark.parametrize("preset", FITTED)
@pytest.mark.parametrize(
    "images", [2, 3, 20, 31, 32, 135, 324, 599, 600, 900, 2727, 50_000, 1_281_167]
)
def test_there_are_enough_steps_for_any_number_of_images(preset, images):
    config, chosen = fit_to_images(PRESETS[preset], images), recipe(preset, images)
    batch_size, epochs, (milestone,), eval_every = schedule_of(config)
    assert batch_size <= min(chosen.batch_size, images)
    epoch = images / batch_size
    assert num_steps(config, images) >= chosen.at_least
    if chosen.epochs * epoch >= chosen.at_least:
        assert epochs == chosen.epochs
    else:
        assert num_steps(config, images) <= chosen.at_least + epoch + 1
    assert 0.7 * epochs <= milestone < epochs
    assert 10 <= epochs / eval_every < 41
    assert warn_of_few_steps(config, images) == ""


def size_of(config):
    return config.data.image_size, config.data.crop, config.model.width


@pytest.mark.parametrize(
    ("images", "size", "batch_size", "epochs"),
    [
        (135, (72, 64, 0.5), 32, 356),
        (599, (72, 64, 0.5), 32, 100),
        (600, (144, 128, 1.0), 128, 54),
        (2727, (144, 128, 1.0), 128, 36),
    ],
)
def test_more_images_are_seen_larger_and_by_more_units(images, size, batch_size, epochs):
    config = fit_to_images(SMALL, images)
    assert size_of(config) == size
    assert schedule_of(config)[:2] == (batch_size, epochs)
    tuned = fit_to_images(PRESETS["finetune"], images)
    assert size_of(tuned) == size_of(PRESETS["finetune"])  # that of the other run


def test_what_is_given_stays_and_the_rest_follows_it():
    given = unflatten(flatten(SMALL) | {"schedule.epochs": 50, "optimizer.batch_size": 8})
    assert schedule_of(fit_to_images(given, 324, {"schedule.epochs"})) == (32, 50, (40,), 2)
    (batch_size, epochs, _, _) = schedule_of(fit_to_images(given, 324, {"optimizer.batch_size"}))
    assert batch_size == 8
    assert epochs == 100
    small = unflatten(flatten(SMALL) | {"data.image_size": 90, "data.crop": 88})
    assert size_of(fit_to_images(small, 324, {"data.crop"})) == (99, 88, 0.5)
    assert size_of(fit_to_images(small, 324, {"data.image_size"})) == (90, 80, 0.5)
    assert size_of(fit_to_images(small, 324, {"data.image_size", "data.crop"})) == (90, 88, 0.5)
    assert size_of(fit_to_images(small, 324, {"model.width"})) == (72, 64, 1.0)
    both = {"schedule.milestones", "schedule.eval_every"}
    fitted = fit_to_images(SMALL, 324, both)
    assert fitted.schedule.milestones == SMALL.schedule.milestones
    assert fitted.schedule.eval_every == SMALL.schedule.eval_every
    assert fitted.schedule.epochs != SMALL.schedule.epochs


def test_the_command_counts_the_training_images(photos):
    arguments = ["--workdir", "a", "--preset", "small"]
    assert main.parse(arguments).config == SMALL  # without data: as for a typical number
    arguments += ["--data.path", str(photos)]
    config = main.parse(arguments).config
    expected = fit_to_images(SMALL, 30)
    assert flatten(config) == flatten(expected) | {"data.path": str(photos)}
    given = main.parse([*arguments, "--schedule.epochs=10", "--optimizer.batch_size", "4"])
    assert schedule_of(given.config) == (4, 10, (8,), 1)
    for options, size in (
        (["--data.crop", "224"], (252, 224, 0.5)),
        (["--data.image-size", "72", "--model.width", "0.25"], (72, 64, 0.25)),
        (["--data.image-size", "072", "--model.width", "0.25"], (72, 64, 0.25)),
        (["--data.image-size", "256", "--data.crop", "64"], (256, 64, 0.5)),
    ):
        assert size_of(main.parse([*arguments, *options]).config) == size
    drops = main.parse([*arguments, "--schedule.milestones", "3", "5"]).config.schedule
    assert (drops.milestones, drops.epochs) == ((3, 5), expected.schedule.epochs)
    # With a tenth held out there are fewer.
    only_train = main.parse([*arguments[:-1], str(photos / "train")]).config
    assert only_train.schedule.epochs == fit_to_images(SMALL, 27).schedule.epochs


def origin(folder, class_names, **fields):
    """Make a folder with the config.json of a run."""
    folder.mkdir()
    config = flatten(PRESETS["torchvision"]) | fields
    about = {"config": config, "class_names": class_names}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize(
    ("class_names", "layers"),
    [
        (["amber", "beige", "coral"], ()),
        (["amber", "beige", "other"], ("fc8",)),
        ([f"class {i}" for i in range(1000)], ("fc8",)),
    ],
)
def test_fine_tuning_needs_no_other_option(class_names, layers, photos, tmp_path):
    folder = origin(tmp_path / "origin", class_names, **{"optimizer.batch_size": 256})
    arguments = ["--workdir", str(tmp_path / "b"), "--data.path", str(photos)]
    arguments += ["--init-from", str(folder)]
    config = main.parse(arguments).config
    assert config.preset == "finetune"
    assert config.model.variant == "torchvision"
    assert config.data.mean == "channel"
    assert config.data.statistics == "init"
    assert config.init.reinit_layers == layers
    assert config.optimizer.layer_learning_rates == tuple(f"{layer}=10" for layer in layers)
    assert config.optimizer.learning_rate == 0.001
    assert config.optimizer.batch_size == 16
    assert num_steps(config, 30) >= 1000
    # What is given wins, and the new layers' rate follows it.
    given = main.parse([*arguments, "--init.reinit-layers", "fc7", "fc8"]).config
    assert given.optimizer.layer_learning_rates == ("fc7=10", "fc8=10")
    given = main.parse([*arguments, "--optimizer.layer-learning-rates", "conv1=0"]).config
    assert given.optimizer.layer_learning_rates == ("conv1=0",)
    assert given.init.reinit_layers == layers
    other = main.parse([*arguments, "--preset", "photos"]).config
    assert other.optimizer == PRESETS["photos"].optimizer


def test_a_preset_that_does_not_fit_is_refused_with_the_one_that_does():
    for config, remedy in (
        (PRESETS["finetune"], r"--preset finetune: .*--init-from FOLDER.*--preset small"),
        (dataclasses.replace(SMALL, init_from="a"), r"--preset small: .*--preset finetune"),
    ):
        with pytest.raises(ValueError, match="^preset ") as error:
            check_preset(config)
        assert re.search(remedy, with_options(str(error.value), NAMES))
    check_preset(SMALL)
    check_preset(dataclasses.replace(PRESETS["finetune"], init_from="a"))


@pytest.mark.parametrize(
    ("preset", "changes", "images", "remedy"),
    [
        ("photos", {"schedule.epochs": 20}, 162, r"--preset small.*--schedule.epochs 396\."),
        ("photos", {"schedule.epochs": 20, "init_from": "a"}, 162, r"--preset finetune.* 396\."),
        ("small", {"schedule.epochs": 20}, 324, r"; use --schedule.epochs 593\."),
        ("quickstart", {"schedule.epochs": 1}, 4000, r"; use --schedule.epochs 16\."),
    ],
)
def test_few_steps_are_warned_of_with_what_helps(preset, changes, images, remedy):
    config = unflatten(flatten(PRESETS[preset]) | changes)
    message = with_options(warn_of_few_steps(config, images), NAMES)
    steps = num_steps(config, images)
    assert message.startswith(f"--schedule.epochs {config.schedule.epochs}: makes {steps} steps")
    assert re.search(remedy, message), message
    assert steps < FEW_STEPS


def test_no_preset_is_warned_of_on_its_own_images():
    for name, config in PRESETS.items():
        images = 4000 if name == "quickstart" else 3030
        assert warn_of_few_steps(config, images) == "", name


@pytest.mark.parametrize(
    ("images", "evaluations"),
    [(1, 250), (36, 42), (278, 15), (303, 15), (2500, 5), (2501, 5), (50_000, 5)],
)
def test_patience_grows_with_the_standard_error(images, evaluations):
    plan = Config().schedule
    assert patience(plan, images) == evaluations
    assert patience(dataclasses.replace(plan, patience=7), images) == 7  # as given
    progress, drops = Progress(), []
    for _ in range(evaluations + 1):  # the first one is an improvement
        progress = advance(plan, progress, 0.5, images)
        drops.append(progress.drops)
    assert drops[-2:] == [0, 1]
    config = dataclasses.replace(Config(), schedule=plan)
    assert f"after {evaluations} evaluations" in describe(config, 1000, images)


@pytest.mark.parametrize(
    ("epochs", "eval_every", "never"), [(7, 1, ""), (6, 1, "as there are 6"), (20, 3, "are 6")]
)
def test_a_drop_that_cannot_happen_is_told(epochs, eval_every, never):
    plan = dataclasses.replace(Config().schedule, epochs=epochs, eval_every=eval_every, patience=6)
    text = describe(dataclasses.replace(Config(), schedule=plan), 1000, 100)
    assert text.endswith(f"{never}.")
    assert ("cannot happen" in text) == bool(never)


def test_a_run_and_its_fine_tuning(photos, tmp_path, capsys, monkeypatch):
    saved_steps, save = [], Checkpoints.save
    monkeypatch.setattr(
        *(Checkpoints, "save"),
        lambda self, step, *rest: (saved_steps.append(step), save(self, step, *rest)),
    )
    images = shutil.copytree(photos, tmp_path / "images")
    a, b = tmp_path / "a", tmp_path / "b"
    arguments = ["--workdir", str(a), "--preset", "small", "--data.path", str(images)]
    arguments += [*TINY, *QUICK, "--schedule.eval-every", "2", "--schedule.epochs", "3"]
    assert main.main(arguments) == 0
    printed = capsys.readouterr()
    assert "Preset small, 30 training images: 3 epochs, 6 steps of 16 images" in printed.out
    assert re.search("--schedule.epochs 3: makes 6 steps .*; use --schedule.epochs ", printed.err)
    saved = json.loads((a / "config.json").read_text())["config"]
    assert (saved["optimizer.batch_size"], saved["schedule.milestones"]) == (16, [2])
    # An epoch of two steps is shorter than a save: only epochs with an evaluation are saved.
    assert saved_steps == [0, 4, 6]
    # With other images it is refused for these, and not for what would follow from them.
    more = images / "train/amber/more.png"
    shutil.copy(images / "train/amber/0.png", more)
    for i in range(3):
        shutil.copy(more, images / f"train/amber/more{i}.png")
    assert main.parse(arguments).config.optimizer.batch_size == 16
    assert main.main([*arguments[:-1], "4"]) == 2
    assert "more.png" in capsys.readouterr().err

    (images / "train/coral").rename(images / "train/crimson")
    (images / "val/coral").rename(images / "val/crimson")
    (images / "test/coral").rename(images / "test/crimson")
    tuned = ["--workdir", str(b), "--data.path", str(images), "--init-from", str(a), *QUICK]
    assert main.main([*tuned, "--schedule.epochs", "1"]) == 0
    printed = capsys.readouterr()
    assert "initialized at random: fc8 (other classes: 'coral' is now 'crimson')" in printed.out
    assert "10 times the learning rate: fc8." in printed.out
    assert "Preset finetune, 34 training images: 1 epoch, 2 steps" in printed.out
    assert "--schedule.epochs 1: makes 2 steps" in printed.err
    # Without the run that it started from, the same command resumes.
    a.rename(tmp_path / "away")
    assert main.main([*tuned, "--schedule.epochs", "2"]) == 0
    printed = capsys.readouterr()
    assert "Resumed after step 2" in printed.out
    assert "makes" not in printed.err
