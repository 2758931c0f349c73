"""What TensorBoard reads of a run: scalars, pictures of the end, hyperparameters, each once."""

import dataclasses
import io
import os

import numpy as np
import pytest
from PIL import Image

# pyrefly: ignore [missing-module-attribute]  # protobuf makes these classes when imported
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from alexnet_jax import main
from alexnet_jax.config import flatten
from alexnet_jax.presets import PRESETS
from alexnet_jax.training import tensorboard
from alexnet_jax.training.metrics import MetricsWriter, read_metrics
from tests.training.test_metrics import events

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = ["--preset", "photos", "--data.image-size", "36", "--data.crop", "36"]
SMALL += ["--model.width", "0.02", "--optimizer.batch-size", "10", "--schedule.kind", "step"]
SMALL += ["--mesh.towers", "1", "--mesh.data", "1"]


def values(workdir):
    """Return the values of all files by their tags."""
    by_tag = {}
    for event in events(workdir):
        for value in event.summary.value:
            by_tag.setdefault(value.tag, []).append((event.step, value))
    return by_tag


def hyperparameters(workdir):
    """Return the hyperparameters, and the tags of the results that stand beside them."""
    found = values(workdir)
    ((_, start),) = found["_hparams_/session_start_info"]
    ((_, experiment),) = found["_hparams_/experiment"]
    read = HParamsPluginData.FromString
    hparams = read(start.metadata.plugin_data.content).session_start_info.hparams
    metrics = read(experiment.metadata.plugin_data.content).experiment.metric_infos
    plain = {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()}
    return plain, [metric.name.tag for metric in metrics]


@pytest.mark.slow
def test_a_run_that_is_resumed_has_everything_once(photos, tmp_path):
    workdir = tmp_path / "a"
    args = ["--workdir", str(workdir), "--data.path", str(photos), *SMALL]
    assert main.main([*args, "--schedule.epochs", "1", "--log.figures", "False"]) == 0
    assert "figures/filters" not in values(workdir)
    assert main.main([*args, "--schedule.epochs", "2", "--log.figures", "True"]) == 0
    found = values(workdir)
    shown, results = hyperparameters(workdir)
    assert shown["optimizer.batch_size"] == 10
    assert shown["schedule.epochs"] == 2
    assert shown["model.variant"] == "two_towers"
    assert shown["data.horizontal_flip"] is True
    assert not {"data.path", "data.threads", "log.every", "mesh.towers"} & {*shown}
    assert {*results} <= {*found}  # each stands for a curve
    assert not [tag for tag in found if tag.endswith("/count")]
    steps = [step for step, _ in found["validation/loss"]]
    assert steps == [
        line["step"] for line in read_metrics(workdir) if line["split"] == "validation"
    ]
    for name in ("curves", "filters", "predictions"):
        ((step, value),) = found[f"figures/{name}"]
        assert step == 6
        content = value.image.encoded_image_string
        assert content == (workdir / "figures" / f"{name}.png").read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            assert (image.width, image.height) == (value.image.width, value.image.height)
    before = sorted(path.name for path in (workdir / "tensorboard").iterdir())
    assert main.main([*args, "--schedule.epochs", "2"]) == 0  # finished: nothing is added
    assert sorted(path.name for path in (workdir / "tensorboard").iterdir()) == before


@pytest.mark.slow
def test_a_run_without_tensorboard_has_no_such_folder(photos, tmp_path):
    workdir = tmp_path / "a"
    args = ["--workdir", str(workdir), "--data.path", str(photos), *SMALL]
    off = [*args, "--schedule.epochs", "1", "--log.tensorboard", "False"]
    assert main.main(off) == 0
    assert not (workdir / "tensorboard").exists()
    assert (workdir / "index.html").exists()
    # It may be turned on later, and the numbers are the same.
    on = ["--schedule.epochs", "2", "--log.tensorboard", "True", "--log.figures", "False"]
    assert main.main([*args, *on]) == 0
    assert {step for step, _ in values(workdir)["train/loss"]} == {6}


def test_metrics_are_the_same_without_tensorboard(tmp_path):
    for name, on in (("on", True), ("off", False)):
        (tmp_path / name).mkdir()
        with MetricsWriter(tmp_path / name, 0, tensorboard=on) as writer:
            writer.train(5, 0.5, loss=2.5)
            writer.evaluation("validation", 5, 1, loss=2.0, count=9)
            writer.flush()
    lines = [
        [{**record, "time": 0} for record in read_metrics(tmp_path / name)]
        for name in ("on", "off")
    ]
    assert lines[0] == lines[1]
    assert lines[0][1]["count"] == 9  # metrics.jsonl has it
    assert [*values(tmp_path / "on")] == ["train/loss", "validation/loss"]


def test_hyperparameters_of_every_preset_are_those_that_are_computed_with(tmp_path):
    for name, config in PRESETS.items():
        origin = os.fsdecode(b"/runs/caf\xe9")
        tensorboard.write_hparams(tmp_path, dataclasses.replace(config, init_from=origin))
        shown, _ = hyperparameters(tmp_path)
        assert shown["init_from"] == r"/runs/caf\xe9"
        assert shown["preset"] == name
        flat = flatten(config)
        assert all(
            shown[field] == (" ".join(map(str, value)) if isinstance(value, list) else value)
            for field, value in flat.items()
            if field.startswith(("model.", "optimizer."))
        )
        assert len(list((tmp_path / "tensorboard").iterdir())) == 1  # written over


def test_pictures_are_read_back(tmp_path):
    pixels = np.zeros((4, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "filters.png")
    folder = tmp_path / "tensorboard"
    tensorboard.write_pictures(folder, 9, {})
    assert not folder.exists()
    tensorboard.write_pictures(folder, 9, {"filters": tmp_path / "filters.png"})
    (((step, value),),) = values(tmp_path).values()
    image = value.image
    assert (step, image.width, image.height, image.colorspace) == (9, 7, 4, 3)
