"""What arrays do not show about their network is said, and can be given."""

import numpy as np
import pytest

from alexnet_jax.pretrained import main
from alexnet_jax.weights import convert, files, run_folder
from alexnet_jax.weights.files import RawWeights
from alexnet_jax.weights.import_plan import ImportPlan, plan_import
from alexnet_jax.weights.metadata import export_metadata
from tests.weights.test_checkpoints import CLASSES, TINY, caffe, vision


def plain():
    return {f"{n}_{e}": a for n, pair in caffe().items() for e, a in zip("wb", pair, strict=True)}


def save(path, arrays):
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return path


@pytest.fixture
def imported(monkeypatch, tmp_path):
    """Return a function that runs the command, and returns the plan in place of the run."""

    def run(*args):
        plans: list[ImportPlan] = []
        monkeypatch.setattr(run_folder, "make", lambda plan, *_: plans.append(plan))
        options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
        assert main([*map(str, args), "--workdir", str(tmp_path / "run"), *options]) == 0
        return plans[0]

    return run


def test_theanos_network_in_an_npz_can_be_described(imported, tmp_path, capsys):
    """As theano_alexnet computes it: CaffeNet with its own LRN and dropout, on RGB images."""
    path, arrays = save(tmp_path / "a.npz", plain()), plain()
    options = ["--model.lrn-k", "2", "--model.lrn_alpha_over_n=False", "--data.channels", "rgb"]
    plan = imported("--from", path, "--preset", "caffenet", *options)
    assert (plan.config.model.lrn_k, plan.config.model.lrn_alpha_over_n) == (2.0, False)
    assert plan.config.model.op_order == "pool_first"
    kernel = plan.params["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["conv1_w"].transpose(2, 3, 1, 0))
    said = capsys.readouterr().out
    assert "--model.op-order pool_first" in said
    assert "--data.crop" not in said  # was given
    # Without these options it is the preset's network, and that is said.
    plan = imported("--from", path, "--preset", "caffenet")
    assert plan.config.model.lrn_k == 1
    kernel = plan.params["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["conv1_w"].transpose(2, 3, 1, 0)[:, :, ::-1])
    said = capsys.readouterr().out
    for option in ("--model.lrn-k 1.0", "--data.channels bgr", "--data.statistics caffe"):
        assert option in said
    assert plan.config.data.channels == "rgb"  # of the converted kernel


def test_images_and_mean_can_be_given():
    fields = {**TINY, "data.resize": "stretch", "data.statistics": "imagenet"}
    plan = plan_import(RawWeights("torchvision", vision()), fields=fields)
    assert plan.config.data.resize == "stretch"
    assert plan.statistics.mean_color[0] == pytest.approx(127.3049)
    np.testing.assert_array_equal(plan.statistics.scale, 1)
    mean = np.full((112, 112, 3), 9.0), True
    plan = plan_import(
        RawWeights("torchvision", vision()), fields={**TINY, "data.mean": "image-center"}, mean=mean
    )
    assert plan.config.data.mean == "image-center"


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"data.threads": 3}, "data.threads 3: .*; leave it out"),
        ({"data.path": "a"}, "data.path a: .*; leave it out"),
        ({"data.statistics": "computed"}, "data.statistics computed: .*imagenet.*; use one"),
        ({"data.mean": "image"}, "data.mean image: .*; add mean=FILE"),
    ],
)
def test_options_that_say_nothing_about_weights(fields, pattern):
    with pytest.raises(ValueError, match=pattern):
        plan_import(RawWeights("torchvision", vision()), fields=fields)


def test_options_of_the_network_are_not_for_exports(tmp_path, capsys):
    args = ["--workdir", str(tmp_path), "--to", str(tmp_path / "a.npz"), "--model.lrn-k", "2"]
    assert main(args) == 2
    assert "--model.lrn-k: must be given with --from; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "order", "sure"),
    [
        ("CaffeNet", "pool_first", True),
        ("AlexNet", "relu_first", True),
        ("FlickrStyleCaffeNet", "pool_first", False),
        ("hybridCNN", "relu_first", False),
        ("", "relu_first", False),
    ],
)
def test_nets_of_caffe_under_other_names(name, order, sure):
    plan = plan_import(RawWeights("caffe", plain(), {"name": name}), fields=TINY)
    assert plan.config.model.op_order == order
    other = "bvlc_alexnet" if order == "pool_first" else "caffenet"
    assert (f"preset={other}" in plan.notes[0]) != sure


def test_one_output_is_a_sigmoid_of_two_classes_or_refused():
    raw = RawWeights("torchvision", vision(classes=1))
    with pytest.raises(ValueError, match="class_names are missing: .*sigmoid.*; .*name both"):
        plan_import(raw, fields=TINY)
    with pytest.raises(ValueError, match="class_names of 1 classes: .*name both"):
        plan_import(raw, fields=TINY, class_names=["cat"])
    plan = plan_import(raw, fields=TINY, class_names=["no cat", "cat"])
    fc8 = plan.params["fc8"]
    x = np.random.default_rng(0).normal(size=(5, 122)) / 10
    logits = x @ fc8["kernel"] + fc8["bias"]
    probability = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    z = x @ raw.arrays["classifier.6.weight"][0] + raw.arrays["classifier.6.bias"][0]
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-z)), rtol=1e-5)
    assert any("sigmoid of cat" in note for note in plan.notes)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite(value):
    arrays = {name: array.astype(np.float64) for name, array in vision().items()}
    arrays["classifier.1.weight"][5, 7] = value
    with pytest.raises(ValueError, match=r"^classifier\.1\.weight: must be finite.*; name a file"):
        plan_import(RawWeights("torchvision", arrays), fields=TINY)


def test_integers_are_no_weights():
    arrays = vision() | {"features.0.weight": vision()["features.0.weight"].astype(np.int8)}
    with pytest.raises(ValueError, match=r"int8 .*features\.0\.weight.*; save .*float32"):
        plan_import(RawWeights("torchvision", arrays), fields=TINY)


def test_wider_integers_are_no_weights():
    arrays = vision() | {"features.0.weight": vision()["features.0.weight"].astype(np.int32)}
    with pytest.raises(ValueError, match=r"features\.0\.weight is of int32 and not of floating"):
        plan_import(RawWeights("torchvision", arrays), fields=TINY)


def test_names_that_are_twice_are_said():
    names = ["crane", "b", "crane", *map(str, range(CLASSES - 3))]
    plan = plan_import(RawWeights("torchvision", vision()), fields=TINY, class_names=names)
    assert any("crane (0, 2)" in note for note in plan.notes)


def test_an_export_is_read_with_what_it_says_of_itself(tmp_path):
    """Nothing is assumed then, and a field may still be given."""
    plan = plan_import(RawWeights("plain", plain()), preset="bvlc_alexnet", fields=TINY)
    metadata = export_metadata(plan.config, plan.statistics, plan.class_names)
    raw = convert.from_params(plan.params, plan.architecture, "plain", metadata)
    files.write(tmp_path / "a.npz", raw)
    again = plan_import(files.read(tmp_path / "a.npz"))
    assert again.notes == []
    assert again.config.model == plan.config.model
    changed = plan_import(files.read(tmp_path / "a.npz"), fields={"data.image_size": 120})
    assert changed.statistics.mean_image.shape == (120, 120, 3)
