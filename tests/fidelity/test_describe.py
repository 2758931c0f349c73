"""`describe` prints the counts of 2012, and compares a configuration with its sources."""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_jax import describe
from alexnet_jax.config import Config, ModelConfig, flatten
from alexnet_jax.data.statistics import published
from alexnet_jax.fidelity import facts, text
from alexnet_jax.fidelity.comparison import NETWORKS
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import TOWERS, trace
from alexnet_jax.model.partition import partition_layers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.training import summary as run_summary
from alexnet_jax.weights import run_folder
from alexnet_jax.weights.import_plan import ImportPlan

PAPER = PRESETS["paper"]


def changed(config: Config, field: str, value: Any) -> Config:
    section, _, name = field.partition(".")
    part = dataclasses.replace(getattr(config, section), **{name: value})
    return dataclasses.replace(config, **{section: part})


def words(config: Config, classes: int = 1000) -> str:
    """Return the text with single spaces, as if it had no lines."""
    return " ".join(text.render(facts.describe_network(config, classes)).split())


def followed(config: Config) -> dict[str, list[str]]:
    points = facts.describe_network(config, 1000)["comparison"]
    return {point["point"]: point["follows"] for point in points if point["applies"]}


def choices(config: Config) -> dict[str, Any]:
    """Return each point without the values of its fields."""
    points = facts.describe_network(config, 1000)["comparison"]
    return {point["point"]: {**point, "fields": None} for point in points}


LINES = [
    "conv1 stride 4, pad 0+3, ReLU 55x55x96 11 11x11x3x96 34,944 105.42 290,400",
    "pool1 max 3x3, stride 2 27x27x96 19",
    "conv2 stride 1, pad 2, ReLU 27x27x256 51 2 x 5x5x48x128 307,456 223.95 186,624",
    "pool2 max 3x3, stride 2 13x13x256 67",
    "conv3 stride 1, pad 1, ReLU 13x13x384 99 3x3x256x384 885,120 149.52 64,896",
    "conv4 stride 1, pad 1, ReLU 13x13x384 131 2 x 3x3x192x192 663,936 112.14 64,896",
    "conv5 stride 1, pad 1, ReLU 13x13x256 163 2 x 3x3x192x128 442,624 74.76 43,264",
    "pool5 max 3x3, stride 2 6x6x256 195",
    "fc6 fully connected, ReLU 4096 all 9216x4096 37,752,832 37.75 4,096",
    "fc7 fully connected, ReLU 4096 all 4096x4096 16,781,312 16.78 4,096",
    "fc8 fully connected 1000 all 4096x1000 4,097,000 4.10 1,000",
    "60,965,224 parameters (weights 60,954,656 + biases 10,568), 232.6 MiB",
    "724,406,816 multiply-adds per image, forward; 659,272 neurons.",
    "conv2 own tower 128 of 256 maps 153,728 conv3",  # nothing crosses
    "conv3 both towers 192 of 384 maps 442,560 21,632 all-gather of pool2",
    "fc6 both towers 2,048 of 4,096 units 18,876,416 4,608 all-gather of pool5",
    "fc7 both towers 2,048 of 4,096 units 8,390,656 2,048 all-gather of drop6",
    "fc8 own half 2,048 of 4,096 inputs 2,049,000 1,000 all-reduce of logits",
    # 60,965,224 / 2, but for the biases of fc8, which both devices hold: + 1,000 / 2.
    "A device holds 30,483,112 parameters, 116.3 MiB",
]


@pytest.mark.parametrize("line", LINES)
def test_the_counts_shapes_and_crossings_of_2012_are_printed(line):
    assert line in words(PAPER)


def test_source2012_normalizes_conv1_before_its_relu_and_conv2_twice():
    printed = words(PRESETS["source2012"])
    assert "conv1 stride 4, pad 0+3 55x55x96" in printed
    assert "pool1 max 3x3, stride 2, ReLU 27x27x96" in printed
    assert "cnorm2 LRN, 5x5 pixels 27x27x256" in printed


def test_outermost_maps_cross_if_lrn_covers_all_maps():
    # Two maps of 55 x 55 and of 27 x 27.
    printed = words(PRESETS["bvlc_alexnet"])
    assert "norm1 own and border 48 of 96 maps 6,050 halo exchange of maps" in printed
    assert "norm2 own and border 128 of 256 maps 1,458 halo exchange of maps" in printed


def test_each_device_holds_half_of_the_inputs_of_all_classes_after_a_bottleneck():
    # 1,024 inputs and a bias for each of 21,843 classes.
    printed = words(changed(PAPER, "model.bottleneck", 2048), 21_843)
    assert "fc8 own half 1,024 of 2,048 inputs 22,389,075 21,843 all-reduce" in printed
    assert "both see all of the bottleneck (layers-146-2011.cfg:358-371)" in printed
    assert "all of fc8 on one GPU" not in printed
    assert "all of fc8 on one GPU" in words(PAPER)
    assert "all of fc8 on one GPU" not in words(PRESETS["merged"])


def test_the_half_network_is_one_tower_unless_it_is_halved_again():
    half = PRESETS["half"]
    assert "2012 code" in followed(half)["LRN scope"]
    assert followed(changed(half, "model.lrn_scope", "tower"))["LRN scope"] == []


@pytest.mark.parametrize("lrn_scope", ["tower", "all"])
@pytest.mark.parametrize("bottleneck", [0, 2048])
@pytest.mark.parametrize("preset", PRESETS)
def test_no_line_is_longer_than_100_columns(preset, bottleneck, lrn_scope):
    config = changed(PRESETS[preset], "model.bottleneck", bottleneck)
    config = changed(config, "model.lrn_scope", lrn_scope)
    printed = text.render(facts.describe_network(config, 21_843))
    assert max(map(len, printed.splitlines())) <= 100
    assert not [line for line in printed.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("preset", PRESETS)
def test_json_has_the_numbers_of_the_layer_table(preset, capsys):
    assert describe.main(["--preset", preset, "--classes", "77", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    config = PRESETS[preset]
    architecture = build_architecture(config.model, 77, config.data.crop)
    rows = trace(architecture)
    assert described["totals"]["parameters"] == sum(row.parameters for row in rows)
    assert described["totals"]["multiply_adds"] == sum(row.multiply_adds for row in rows)
    assert described["totals"]["neurons"] == sum(row.neurons for row in rows)
    crossings = [c for part in partition_layers(architecture, TOWERS) for c in part.crossings]
    assert described["device_totals"]["crossing"] == sum(crossing.values for crossing in crossings)
    assert [(row["name"], tuple(row["shape"])) for row in described["layers"]] == [
        (row.name, row.shape) for row in rows
    ]


@pytest.mark.parametrize(
    ("preset", "network", "of"),
    [
        ("paper", "paper", 38),
        ("source2012", "2012 code", 42),
        ("bvlc_alexnet", "bvlc_alexnet", 40),
        ("caffenet", "CaffeNet", 40),
    ],
)
def test_a_preset_follows_its_source_on_every_point_that_it_states(preset, network, of):
    counts = facts.describe_network(PRESETS[preset], 1000)["agreement"][network]
    assert counts == {"same": of, "of": of, "different": []}


# PyTorch's initial values; references/classification/README.md: 8 GPUs x 32 images, weight decay
# 1e-4, / 10 every 30 epochs; random sizes and shapes of crops, which nothing here makes.
NOT_TORCHVISION = [
    *("initial std of conv1-2 and fc8", "initial std of conv3-5", "initial std of fc6 and fc7"),
    *("initial bias", "batch size", "learning rate and weight decay", "schedule", "crop offsets"),
]


def test_torchvision_follows_torchvision_except_in_training():
    counts = facts.describe_network(PRESETS["torchvision"], 1000)["agreement"]["torchvision"]
    assert counts == {"same": 25, "of": 33, "different": NOT_TORCHVISION}


def test_torchvision_with_its_batch_and_schedule_differs_in_what_no_option_says():
    config = changed(PRESETS["torchvision"], "optimizer.batch_size", 256)
    for name, value in {"kind": "step", "milestones": (30, 60), "epochs": 90}.items():
        config = changed(config, f"schedule.{name}", value)
    config = changed(config, "optimizer.weight_decay", 1e-4)  # torchvision decays biases too
    different = facts.describe_network(config, 1000)["agreement"]["torchvision"]["different"]
    assert {*NOT_TORCHVISION} - {*different} == {"batch size", "schedule"}


def test_points_that_the_paper_does_not_state_are_marked():
    silent = {
        p["point"]
        for p in facts.describe_network(PAPER, 1000)["comparison"]
        if "paper" in p["silent"]
    }
    assert silent == {
        *("padding of conv1", "pooling ties", "LRN scope", "resize filter", "shuffling"),
    }


# The text and net 145 differ in 12; on pooling ties and shuffling the text is silent.
DIFFERENCES = {
    *("order after conv1", "LRN alpha", "spatial norm", "initial std of conv3-5"),
    *("bias learning rate", "schedule", "conv1 in late epochs", "crop offsets", "images per crop"),
    *("mean", "training divisor", "PCA lighting epochs", "shuffling", "pooling ties"),
}


def test_paper_and_source2012_differ_in_14_points():
    paper, source = choices(PAPER), choices(PRESETS["source2012"])
    assert {name for name in paper if paper[name] != source[name]} == DIFFERENCES


@pytest.mark.parametrize(
    ("field", "value", "points", "follows"),
    [
        ("model.lrn_k", 1.0, {"LRN k"}, ["Caffe"]),
        ("model.lrn_k", 1.5, {"LRN k"}, []),
        ("model.lrn_alpha_over_n", True, {"LRN alpha"}, ["2012 code", "Caffe"]),
        ("model.lrn_alpha", 2e-5, {"LRN alpha"}, ["2012 code", "Caffe"]),
        ("model.lrn_scope", "all", {"LRN scope"}, ["Caffe"]),
        ("model.conv345_init_std", 0.03, {"initial std of conv3-5"}, ["2012 code"]),
        ("model.variant", "torchvision", {"widths", "towers"}, ["torchvision"]),
        ("model.variant", "six_conv", {"widths"}, ["net 146"]),
        # The towers meet in conv4 instead.
        ("model.drop_layer", "conv3", {"widths", "towers"}, []),
        ("model.conv1_padding", "both", {"padding of conv1"}, ["torchvision"]),
        # At 227 pixels no window hangs over: nothing is padded, as in Caffe.
        ("data.crop", 227, {"input size", "padding of conv1"}, ["Caffe"]),
        ("data.pca_scale", "eigenvalue", {"PCA lighting scale"}, ["text, literally"]),
        ("data.images_per_crop", 32, {"images per crop"}, ["2012 code"]),
        ("optimizer.bias_lr_multiplier", 2.0, {"bias learning rate"}, ["Caffe"]),
        ("schedule.freeze_conv1", 72, {"conv1 in late epochs"}, []),
        ("schedule.milestones", (1, 2), set(), []),  # milestones have no effect with plateaus
    ],
)
def test_an_option_changes_its_own_points_and_no_others(field, value, points, follows):
    before, after = choices(PAPER), choices(changed(PAPER, field, value))
    assert {name for name in before if before[name] != after[name]} == points
    for name in points:
        assert followed(changed(PAPER, field, value))[name][: len(follows)] == follows
        assert bool(after[name]["follows"]) == bool(follows)


def test_points_of_what_is_off_do_not_apply():
    without = {*followed(PAPER)} - {*followed(changed(PAPER, "model.lrn", False))}
    assert without == {"order after conv1", "LRN n and beta", "LRN alpha", "LRN k", "LRN scope"}


def test_every_field_that_a_source_sets_belongs_to_a_point():
    points = list(itertools.chain(*facts.PARTS.values()))
    compared = {field for point in points for field in point.fields}
    not_compared = {
        *("data.source", "data.path", "data.name", "data.validation_fraction", "data.unreadable"),
        *("data.cache_gib", "data.threads", "data.prefetch"),
        *("model.dtype", "model.precision"),
        *("schedule.patience", "schedule.min_delta", "schedule.eval_every"),
    }
    sections = ("data", "model", "optimizer", "schedule")
    every = {field for field in flatten(PAPER) if field.partition(".")[0] in sections}
    assert compared == every - not_compared


def test_no_two_choices_of_a_point_are_the_same_and_every_source_is_cited():
    for point in itertools.chain(*facts.PARTS.values()):
        sources = [source for choice in point.choices for source in choice.citations]
        assert len(sources) == len(set(sources)), point.name
        assert len({str(choice.value) for choice in point.choices}) == len(point.choices)
        assert all(
            citation for choice in point.choices for citation in choice.citations.values()
        ), point.name
        assert {*sources} <= {*itertools.chain(*NETWORKS.values())} | {
            *("net 145-half", "net 146", "cuda-convnet2", "text, literally")
        }


@pytest.mark.parametrize(
    ("preset", "begins", "names"),
    [
        (
            "paper",
            "Yes, as the paper's text describes it. ",
            "in 12 points: order after conv1",
        ),
        ("paper", "Yes, ", "; also in pooling ties, shuffling, on which the text is silent."),
        ("source2012", "It is net 145 of the released 2012 code", "in 12 points: "),
        (
            "source2012",
            "It is net 145",
            "; the text is silent on padding of conv1, pooling ties, LRN scope, shuffling.",
        ),
        ("photos", "The network is the paper's; ", "initial std of conv3-5, bias learning rate"),
        ("torchvision", "No: it is the network of torchvision, which", "widths, towers"),
        (
            "torchvision",
            "No: it is the network of torchvision, which",
            "As in torchvision: images (except crop offsets). As in the paper: initialization, ",
        ),
        ("bvlc_alexnet", "No: it is the network of bvlc_alexnet, which", "LRN k"),
        ("bvlc_alexnet", "No: ", "As in bvlc_alexnet: initialization, update rule, images."),
        ("six_conv", "No: it differs", "Layers that the paper lacks: conv6."),
        ("caffenet", "No: it is the network of CaffeNet, which", "order after conv1"),
        ("merged", "No: it differs", "in towers."),
    ],
)
def test_it_answers_whether_this_is_the_network_of_the_paper(preset, begins, names):
    answer = facts.describe_network(PRESETS[preset], 1000)["is_the_paper"]
    assert answer.startswith(begins)
    assert names in answer


def test_one_switch_makes_it_another_network():
    answer = facts.describe_network(changed(PAPER, "model.lrn_k", 1.0), 1000)["is_the_paper"]
    assert answer == "No: it differs from the paper's in LRN k."


def test_a_layer_that_is_left_out_is_named():
    answer = facts.describe_network(changed(PAPER, "model.drop_layer", "conv3"), 1000)[
        "is_the_paper"
    ]
    assert answer.endswith(" in widths, towers. Layers of the paper that it lacks: conv3.")
    assert "Layer" not in facts.describe_network(PRESETS["merged"], 1000)["is_the_paper"]


def test_where_nothing_sees_one_tower_neighbors_are_of_a_half():
    assert "norm1 LRN, 5 maps of a tower" in words(PAPER)
    assert "norm1 LRN, 5 maps of a half" in words(changed(PAPER, "model.variant", "torchvision"))
    assert "norm1 LRN, 5 of all maps" in words(PRESETS["merged"])


def test_the_command_describes_the_paper_and_what_is_changed_of_it(capsys):
    assert describe.main([]) == 0
    assert capsys.readouterr().out.startswith("paper: 224 x 224 pixels, 1,000 classes\n")
    assert (
        describe.main(
            ["--preset", "caffenet", "--model.lrn-k", "2", "--data.horizontal-flip", "False"]
        )
        == 0
    )
    printed = capsys.readouterr().out.splitlines()[0]
    assert printed.startswith(
        "caffenet with --data.horizontal-flip False --model.lrn-k 2.0: 227 x 227"
    )


def test_the_classes_are_those_of_the_synthetic_images_unless_given(capsys):
    assert describe.main(["--preset", "quickstart"]) == 0
    assert capsys.readouterr().out.startswith("quickstart: 64 x 64 pixels, 20 classes\n")
    assert describe.main(["--preset=quickstart", "--classes", "7"]) == 0
    assert capsys.readouterr().out.startswith("quickstart: 64 x 64 pixels, 7 classes\n")


def test_a_folder_of_a_run_has_its_network_and_classes(tmp_path, capsys):
    config = changed(changed(PAPER, "model.width", 0.5), "schedule.milestones", (3, 4))
    about = {"config": flatten(config), "class_names": ["cat", "dog", "owl"]}
    (tmp_path / "config.json").write_text(json.dumps(about))
    assert describe.main(["--workdir", str(tmp_path), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described == json.loads(json.dumps(facts.describe_network(config, 3)))
    assert described["layers"][0]["shape"] == [55, 55, 48]


def folder(workdir: Path, config: Config, constants: dict[str, Any] | None, **about: str) -> Path:
    """Write what a run has beside its checkpoints."""
    workdir.mkdir(exist_ok=True)
    whole = {"config": flatten(config), "class_names": ["cat", "dog"], **about}
    (workdir / "config.json").write_text(json.dumps(whole))
    if constants is not None:
        np.savez(workdir / "statistics.npz", allow_pickle=False, **constants)
    return workdir


def constants(color: tuple[float, ...], scale: tuple[float, ...], one: bool) -> dict[str, Any]:
    image = np.zeros((8, 8, 3), np.float32) + np.array(color, np.float32)
    image[0, 0] += 0 if one else 1
    return {
        "mean_image": image,
        "mean_color": np.array(color, np.float32),
        "scale": np.array(scale, np.float32),
    }


def of_folder(workdir: Path, capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert describe.main(["--workdir", str(workdir), "--json", *args]) == 0
    return json.loads(capsys.readouterr().out)


GRAY, NORMALIZED = (1.0, 1.0, 1.0), tuple(1 / (255 * s) for s in (0.229, 0.224, 0.225))
TORCHVISION_MEAN = (123.675, 116.28, 103.53)


@pytest.mark.parametrize(
    ("color", "scale", "one", "follows", "mean", "origin"),
    [
        (TORCHVISION_MEAN, NORMALIZED, True, ["torchvision"], "mean color", "torchvision's"),
        ((9.0, 8.0, 7.0), NORMALIZED, True, ["torchvision"], "mean color", "which came with"),
        ((9.0, 8.0, 7.0), GRAY, True, ["paper", "2012 code", "Caffe"], "mean color", "which came"),
        (
            *((9.0, 8.0, 7.0), GRAY, False),
            *(["paper", "2012 code", "Caffe"], "mean image, aligned with the crop", "which came"),
        ),
        ((122.67891, 116.66877, 104.00699), GRAY, True, ["paper"], "mean color", "Caffe's"),
        ((9.0, 8.0, 7.0), (0.5, 0.5, 0.25), True, [], "mean color", "which came with"),
    ],
)
def test_images_are_judged_by_what_was_saved_with_a_run(
    color, scale, one, follows, mean, origin, tmp_path, capsys
):
    config = changed(PAPER, "data.statistics", "init")
    workdir = folder(tmp_path / "a", config, constants(color, scale, one))
    described = of_folder(workdir, capsys)
    points = {point["point"]: point for point in described["comparison"]}
    assert points["image scale"]["follows"][: len(follows) or 1] == follows
    assert [c["text"] for c in points["mean"]["choices"] if c["chosen"]] == [mean]
    assert described["statistics"]["origin"].startswith(origin)
    assert describe.main(["--workdir", str(workdir)]) == 0
    printed = capsys.readouterr().out
    assert "init" not in printed.split("Is this")[0]
    assert "--data.statistics init" not in printed
    assert f"({', '.join(f'{value:.1f}' for value in color)})" in printed
    assert ("x (0.5, 0.5, 0.25)" in printed) == (not follows)
    assert max(map(len, printed.splitlines())) <= 100


def test_a_run_on_its_own_images_says_so(tmp_path, capsys):
    workdir = folder(tmp_path / "a", PAPER, constants((9.0, 8.0, 7.0), GRAY, False))
    assert describe.main(["--workdir", str(workdir)]) == 0
    assert capsys.readouterr().out.startswith(
        "paper: 224 x 224 pixels, 2 classes\n"
        "images as saved with the run: 0 to 255, minus the mean image, on average (9.0, 8.0, 7.0), "
        "of its\ntraining images\n\nIs this"
    )


def test_published_means_are_of_one_color():
    assert followed(changed(PAPER, "data.statistics", "imagenet"))["mean"] == ["torchvision"]


TRAINING = {
    *("crop offsets", "horizontal flip", "images per crop", "PCA lighting", "PCA lighting scale"),
    *("training divisor", "PCA lighting epochs", "shuffling", "pooling ties"),
}


def test_of_imported_weights_their_file_is_named_and_no_training(tmp_path, capsys):
    config = changed(PRESETS["torchvision"], "schedule.milestones", (1, 2))
    known = constants(TORCHVISION_MEAN, NORMALIZED, True)
    workdir = folder(tmp_path / "a", config, known, imported="alexnet-owt.pth")
    described = of_folder(workdir, capsys)
    assert described["imported"] == "alexnet-owt.pth"
    points = {point["point"] for point in described["comparison"]}
    every = {p["point"]: p["part"] for p in facts.describe_network(PAPER, 1000)["comparison"]}
    assert {*every} - points == TRAINING | {
        n for n, p in every.items() if p in ("initialization", "update")
    }
    assert described["agreement"]["torchvision"]["different"] == []
    assert described["is_the_paper"].endswith("As in torchvision: images.")
    assert describe.main(["--workdir", str(workdir)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "torchvision: 224 x 224 pixels, 2 classes\nweights imported from alexnet-owt.pth; "
    )
    assert "Initialization" not in printed
    assert "Update rule" not in printed


def test_an_import_writes_the_name_of_its_file(tmp_path, capsys):
    config = changed(PRESETS["torchvision"], "model.width", 1 / 128)
    architecture = build_architecture(config.model, 2, config.data.crop)
    params = {
        row.name: {"kernel": np.zeros(row.kernel_shape, np.float32), "bias": np.zeros(row.channels)}
        for row in trace(architecture)
        if row.kernel_shape
    }
    statistics = published("torchvision", config.data.image_size)
    imported = ImportPlan(config, architecture, params, statistics, ["cat", "dog"], [])
    run_folder.make(imported, tmp_path / "weights.npz", tmp_path / "a")
    described = of_folder(tmp_path / "a", capsys)
    assert described["imported"] == "weights.npz"
    assert described["statistics"]["origin"] == "torchvision's"


def test_a_run_that_trains_was_imported_from_nowhere(tmp_path, capsys):
    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    known = constants((9.0, 8.0, 7.0), GRAY, True)
    run_summary.write_run_config(PAPER, ["cat", "dog"], mesh, known, tmp_path)
    assert "imported" not in json.loads((tmp_path / "config.json").read_text())
    assert of_folder(tmp_path, capsys)["imported"] == ""


@pytest.mark.parametrize("wrong", [b"", b"no zip", "shape", "lacks"])
def test_unreadable_statistics_are_refused_in_one_line(wrong, tmp_path, capsys):
    known = constants((9.0, 8.0, 7.0), GRAY, True)
    if wrong == "shape":
        known["scale"] = np.ones(4)
    elif wrong == "lacks":
        del known["scale"]
    workdir = folder(tmp_path / "a", PAPER, known)
    if isinstance(wrong, bytes):
        (workdir / "statistics.npz").write_bytes(wrong)
    assert describe.main(["--workdir", str(workdir)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"alexnet_jax: --workdir {workdir}: statistics.npz cannot be read (")
    assert message.count("\n") == 1


def test_a_preset_is_named_with_either_form_of_an_option(capsys):
    for args in (["--preset", "caffenet"], ["--preset=caffenet"]):
        assert describe.main(args) == 0
        assert capsys.readouterr().out.startswith("caffenet: 227 x 227 pixels")


@pytest.mark.parametrize("preset", PRESETS)
def test_brief_prints_only_what_differs_from_the_paper(preset, capsys):
    assert describe.main(["--preset", preset, "--classes", "1000", "--brief"]) == 0
    brief = capsys.readouterr().out
    whole = text.render(facts.describe_network(PRESETS[preset], 1000))
    kept, _, points = whole.partition("\n\nThe sources it follows\n")
    assert brief.startswith(f"{kept}\n\n")
    differs = facts.describe_network(PRESETS[preset], 1000)["comparison"]
    differs = [p["point"] for p in differs if p["differs_from_paper"]]
    lines = brief.removeprefix(kept).splitlines()
    names = [line for line in lines if line.startswith("  ") and line[2] not in " >-"]
    assert [line.strip().partition(": ")[0] for line in names] == differs
    assert ("Nothing differs from the paper's text" in brief) == (preset == "paper")
    assert "Errors in the paper" in points
    assert "Errors in the paper" not in brief


@pytest.mark.parametrize("written", [None, "{", "[]", "{}", '{"config": 1, "class_names": []}'])
def test_a_folder_without_a_run_is_refused_in_one_line(written, tmp_path, capsys):
    if written is not None:
        (tmp_path / "config.json").write_text(written)
    assert describe.main(["--workdir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"alexnet_jax: --workdir {tmp_path}: config.json cannot be read")
    assert message.endswith("name the folder of a run.\n")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--preset", "alexnet"], "--preset alexnet: must be one of quickstart, photos, small, "),
        (["--model", "paper"], "--model: no such option; try --preset "),
        (["--presett", "paper"], "--presett: no such option; try --preset "),
        (["--classes", "0"], "--classes 0: must be at least 1; try 1000."),
        (["--model.lrn-k", "-1"], "--model.lrn-k -1.0: must be greater than 0; try 2.0.\n"),
        (["--data.crop", "10"], "--data.crop 10: "),
        (
            ["--optimizer.layer-learning-rates", "conv9=0"],
            "--optimizer.layer-learning-rates conv9=0: must name a layer of the network (conv1, ",
        ),
        (["--workdir", "runs/a", "--preset", "half"], "--workdir runs/a: cannot be given together"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_with_code_2(args, message, capsys):
    assert describe.main(args) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"alexnet_jax: {message}")
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_a_closed_pipe_ends_the_command():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "alexnet_jax.describe"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_network_is_compared_with_the_paper_in_a_table():
    lines = text.compare_with_paper(
        facts.brief(facts.describe_network(PRESETS["source2012"], 1000))
    ).splitlines()
    assert lines[0].split() == ["paper", "source2012"]
    assert len(lines) == 13
    assert re.split(r"  +", lines[4]) == ["initial std of conv3-5", "0.01", "0.03"]
    config = dataclasses.replace(PRESETS["paper"], model=ModelConfig(conv345_init_std=0.02))
    (line,) = text.compare_with_paper(
        facts.brief(facts.describe_network(config, 1000))
    ).splitlines()[1:]
    assert re.split(r"  +", line) == ["initial std of conv3-5", "0.01", "0.02"]
