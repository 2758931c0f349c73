"""Imported weights compute the same as in their framework, and are exported bit for bit."""

import dataclasses
import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from PIL import Image

from alexnet_jax import evaluate, predict
from alexnet_jax import main as training
from alexnet_jax.config import ModelConfig, flatten, unflatten
from alexnet_jax.data.statistics import Statistics, published
from alexnet_jax.inference import network as network_loading
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Conv, weighted_rows
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.pretrained import main
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.weights import convert, files, import_plan
from alexnet_jax.weights.files import RawWeights
from alexnet_jax.weights.import_plan import plan_import
from alexnet_jax.weights.merge import merge, split
from alexnet_jax.weights.metadata import export_metadata
from tests import foreign

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES = 7
SIDE = 2  # of pool5 for crops of 99 pixels
FORMATS = ["torchvision", "caffe", "plain", "tensorflow", "theano"]
PRESET_OF = {
    "torchvision": "torchvision",
    "caffe": "bvlc_alexnet",
    "plain": "caffenet",
    "tensorflow": "bvlc_alexnet",
    "theano": "caffenet",
}


def tiny(config):
    """Return a preset with few maps and an image of 112 pixels, cropped to 99."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, image_size=112, crop=99),
        model=dataclasses.replace(config.model, width=0.03),
    )


def table_of(preset, **model):
    config = tiny(PRESETS[preset])
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **model))
    return build_architecture(config.model, CLASSES, 99)


def read(workdir):
    """Return the network in a run folder, its parameters as numpy arrays."""
    run = network_loading.load_network(workdir, towers.make_mesh(towers=1, data=1, batch=1))
    return SimpleNamespace(
        config=run.config,
        architecture=run.architecture,
        params=jax.device_get(run.variables["params"]),
        statistics=Statistics(**run.statistics),
        class_names=list(run.class_names),
    )


def random_params(architecture, seed=0):
    rng = np.random.default_rng(seed)
    return {
        row.name: {
            "kernel": rng.normal(size=row.kernel_shape).astype(np.float32),
            "bias": rng.normal(size=row.kernel_shape[-1:]).astype(np.float32),
        }
        for row in weighted_rows(architecture)
    }


def random_set(format):
    """Return arrays as a file of that format has them; shapes by hand, for `table_of` its preset.

    conv1 to conv5 have 2, 8, 12, 12, 8 maps (torchvision: 2, 6, 12, 8, 8), fc6 and fc7 122 units.
    """
    rng = np.random.default_rng(3)

    def numbers(*shape):
        return rng.normal(size=shape).astype(np.float32)

    if format == "torchvision":
        sizes = {0: (2, 3, 11), 3: (6, 2, 5), 6: (12, 6, 3), 8: (8, 12, 3), 10: (8, 8, 3)}
        shapes = {f"features.{i}": (o, n, k, k) for i, (o, n, k) in sizes.items()}
        shapes |= {"classifier.1": (122, 8 * SIDE**2), "classifier.4": (122, 122)}
        shapes |= {"classifier.6": (CLASSES, 122)}
        return {
            f"{name}.{kind}": numbers(*(shape if kind == "weight" else shape[:1]))
            for name, shape in shapes.items()
            for kind in ("weight", "bias")
        }
    convs = {"conv1": (2, 3, 11), "conv2": (8, 1, 5), "conv3": (12, 8, 3)}
    convs |= {"conv4": (12, 6, 3), "conv5": (8, 6, 3)}
    dense = {"fc6": (122, 8 * SIDE**2), "fc7": (122, 122), "fc8": (CLASSES, 122)}
    arrays = {}
    if format == "theano":
        for number, (outs, ins, size) in enumerate(convs.values()):
            towers = ("0", "1") if number in (1, 3, 4) else ("",)
            for tower in towers:
                arrays[f"W{tower}_{number}"] = numbers(ins, size, size, outs // len(towers))
                arrays[f"b{tower}_{number}"] = numbers(outs // len(towers))
        for number, (outs, ins) in enumerate(dense.values(), start=5):
            arrays |= {f"W_{number}": numbers(ins, outs), f"b_{number}": numbers(outs)}
        return arrays
    for name, (outs, ins, size) in convs.items():
        oihw = format != "tensorflow"
        shape = (outs, ins, size, size) if oihw else (size, size, ins, outs)
        arrays |= {f"{name}_w": numbers(*shape), f"{name}_b": numbers(outs)}
    for name, (outs, ins) in dense.items():
        shape = (outs, ins) if format != "tensorflow" else (ins, outs)
        arrays |= {f"{name}_w": numbers(*shape), f"{name}_b": numbers(outs)}
    return arrays


def name_of(format, layer, tower=None):
    """Return the array of a layer's weights, of one tower where the format has one for each."""
    if format == "torchvision":
        places = dict(conv1="features.0", conv2="features.3", conv5="features.10")
        return f"{places.get(layer, 'classifier.1')}.weight"
    if format == "theano":
        return f"W{'' if tower is None else tower}_{dict(conv1=0, conv2=1, conv5=4, fc6=5)[layer]}"
    return f"{layer}_w"


def their_window(format, weights, patch, output):
    """Return the output of a file's kernel on one window, float [map, row, column], in loops."""
    maps, height, width = patch.shape
    total = 0.0
    for i in range(maps):
        for y in range(height):
            for x in range(width):
                if format == "theano":  # a true convolution flips the kernel
                    weight = weights[i, height - 1 - y, width - 1 - x, output]
                elif format == "tensorflow":
                    weight = weights[y, x, i, output]
                else:
                    weight = weights[output, i, y, x]
                total += float(weight) * float(patch[i, y, x])
    return total


@pytest.mark.parametrize("format", FORMATS)
def test_kernels_compute_the_same(format):
    architecture, arrays = table_of(PRESET_OF[format]), random_set(format)
    bgr = format in ("caffe", "tensorflow", "plain")
    params = convert.to_params(RawWeights(format, arrays), architecture, bgr=bgr)
    rng = np.random.default_rng(1)
    image = rng.normal(size=(3, 11, 11))
    weights = arrays[name_of(format, "conv1")]
    seen = image[::-1] if bgr else image  # the file's kernel sees blue first
    for output in (0, 1):
        result = (params["conv1"]["kernel"][..., output] * image.transpose(1, 2, 0)).sum()
        assert result == pytest.approx(their_window(format, weights, seen, output), rel=1e-5)
    if format == "torchvision":
        return
    # conv2: each half of the outputs sees half of the maps of both towers.
    maps = rng.normal(size=(2, 5, 5))
    grouped = params["conv2"]["kernel"]
    assert grouped.shape == (5, 5, 1, 8)
    for output in (0, 3, 4, 7):
        tower = output // 4
        weights = arrays[name_of(format, "conv2", tower)]
        within = output % 4 if format == "theano" else output
        expected = their_window(format, weights, maps[tower : tower + 1], within)
        result = (grouped[..., output] * maps[tower : tower + 1].transpose(1, 2, 0)).sum()
        assert result == pytest.approx(expected, rel=1e-5)


def test_kernels_of_cuda_convnet_are_not_flipped():
    arrays = random_set("theano")
    params = convert.to_params(
        RawWeights("theano", arrays), table_of("caffenet"), kernel_flip=False
    )
    np.testing.assert_array_equal(params["conv1"]["kernel"], arrays["W_0"].transpose(1, 2, 0, 3))


@pytest.mark.parametrize("format", FORMATS)
def test_fc6_reads_the_pooled_maps_in_their_order(format):
    arrays = random_set(format)
    architecture = table_of(PRESET_OF[format])
    kernel = convert.to_params(RawWeights(format, arrays), architecture)["fc6"]["kernel"]
    weights = arrays[name_of(format, "fc6")]
    relu5 = np.random.default_rng(2).normal(size=(8, 5, 5))
    pooled = np.array(  # [map, row, column], 3 x 3 / 2
        [
            [[m[y : y + 3, x : x + 3].max() for x in (0, 2)] for y in (0, 2)]
            for m in relu5
        ]
    )  # fmt: skip
    if format == "tensorflow":
        expected = pooled.transpose(1, 2, 0).reshape(-1) @ weights
    elif format == "theano":
        expected = pooled.reshape(-1) @ weights
    else:
        expected = weights @ pooled.reshape(-1)
    result = pooled.transpose(1, 2, 0).reshape(1, -1) @ kernel
    np.testing.assert_allclose(result[0], expected, rtol=1e-5, atol=1e-5)
    assert kernel.dtype == np.float32


@pytest.mark.parametrize("format", FORMATS)
def test_there_and_back_bit_for_bit(format):
    architecture, arrays = table_of(PRESET_OF[format]), random_set(format)
    params = convert.to_params(RawWeights(format, arrays), architecture)
    back = convert.from_params(params, architecture, format)
    assert back.format == format
    assert sorted(back.arrays) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array, strict=True)
    again = convert.to_params(back, architecture)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, params))


def test_one_error_names_all_that_is_wrong():
    arrays = random_set("torchvision")
    arrays["features.3.weight"] = arrays["features.3.weight"][:, :1]
    arrays["classifier.6.bias"] = np.array(["a"] * CLASSES)
    del arrays["classifier.1.bias"], arrays["features.8.weight"]
    arrays["features.1.running_mean"] = np.zeros(3)
    with pytest.raises(ValueError, match="; name their network with preset=") as refusal:
        convert.to_params(RawWeights("torchvision", arrays), table_of("torchvision"))
    for words in (
        "features.3.weight is (6, 1, 5, 5) and not (6, 2, 5, 5)",
        "classifier.6.bias is of <U1 and not of floating-point numbers",
        "features.8.weight is missing",
        "classifier.1.bias is missing",
        "features.1.running_mean is not of this network",
    ):
        assert words in str(refusal.value)
    assert str(refusal.value).count(";") == 1


def test_a_set_with_nothing_in_common_is_refused_briefly():
    arrays = {f"layer{i}.0.weight": np.zeros(3) for i in range(20)}
    with pytest.raises(
        ValueError, match="no AlexNet.*layer9.* and 10 more.*; name the weights"
    ) as refusal:
        convert.to_params(RawWeights("torchvision", arrays), table_of("torchvision"))
    assert str(refusal.value).count(";") == 1


def test_torchvision_cannot_represent_towers():
    raw = RawWeights("torchvision", random_set("torchvision"))
    for preset in ("bvlc_alexnet", "six_conv"):
        with pytest.raises(
            ValueError,
            match="conv2: .*; use .npz, or towers=merge|conv6: .*; use .npz, or towers=merge",
        ):
            convert.to_params(raw, table_of(preset))


def test_a_part_of_a_set():
    arrays = {n: a for n, a in random_set("plain").items() if n.startswith("conv")}
    arrays["relu1"] = np.zeros(4)
    raw, architecture = RawWeights("plain", arrays), table_of("caffenet")
    with pytest.raises(ValueError, match="fc6_w is missing, fc6_b is missing, .*relu1 is not of"):
        convert.to_params(raw, architecture)
    params = convert.to_params(raw, architecture, partial=True)
    assert sorted(params) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert convert.unmatched(raw, architecture) == (
        ["fc6_w", "fc6_b", "fc7_w", "fc7_b", "fc8_w", "fc8_b"],
        ["relu1"],
    )
    arrays["conv5_w"] = arrays["conv5_w"][1:]
    with pytest.raises(ValueError, match=r"conv5_w is \(7, 6, 3, 3\)"):
        convert.to_params(raw, architecture, partial=True)
    with pytest.raises(ValueError, match="no AlexNet.*relu1.*; name the weights"):
        convert.to_params(RawWeights("plain", {"relu1": np.zeros(4)}), architecture, partial=True)
    half = {n: a for n, a in random_set("theano").items() if n != "W1_1"}
    with pytest.raises(ValueError, match="one of W0_1 and W1_1 is missing"):
        convert.to_params(RawWeights("theano", half), architecture, partial=True)


def test_merged_towers_compute_the_same():
    architecture = table_of("bvlc_alexnet")
    params = random_params(architecture)
    merged = merge(params, architecture)
    own = [row for row in architecture.layers if isinstance(row, Conv) and row.sees == "own"]
    assert [row.name for row in own] == ["conv2", "conv4", "conv5"]

    def convolve(x, kernel, groups):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )  # fmt: skip

    for row in own:
        grouped, whole = params[row.name]["kernel"], merged[row.name]["kernel"]
        assert whole.shape[2] == 2 * grouped.shape[2]
        x = jax.random.normal(jax.random.key(0), (2, 5, 5, whole.shape[2]))
        expected = convolve(x, jnp.asarray(grouped), 2)
        np.testing.assert_allclose(convolve(x, jnp.asarray(whole), 1), expected, atol=1e-4)
    shapes = {row.name: row.kernel_shape for row in weighted_rows(table_of("merged"))}
    assert {name: kinds["kernel"].shape for name, kinds in merged.items()} == shapes
    again = split(merged, architecture)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, params))


def test_what_cannot_be_merged_or_split():
    architecture = table_of("bvlc_alexnet")
    params = merge(random_params(architecture), architecture)
    params["conv2"]["kernel"][0, 0, 0, -1] = 1e-9
    params["conv5"]["kernel"][0, 0, -1, 0] = 1e-9
    with pytest.raises(ValueError, match="towers split: .* in conv2, conv5; use towers=keep"):
        split(params, architecture)
    within = table_of("bvlc_alexnet", lrn_scope="tower")
    for change in (merge, split):
        with pytest.raises(
            ValueError, match="towers (merge|split): .*lrn_scope all.*; use towers=keep"
        ):
            change(params, within)
    without = table_of("bvlc_alexnet", lrn_scope="tower", lrn=False)
    assert merge(random_params(without), without)["conv2"]["kernel"].shape == (5, 5, 2, 8)


@pytest.fixture
def presets(monkeypatch):
    """Make every preset tiny."""
    for name, config in PRESETS.items():
        if name not in ("quickstart", "photos"):
            monkeypatch.setitem(PRESETS, name, tiny(config))
    monkeypatch.setattr(import_plan, "_THEANO", tiny(import_plan._THEANO))


@pytest.mark.usefixtures("presets")
def test_theanos_weights_see_red_first_whatever_the_network():
    arrays = random_set("theano")
    for preset in ("", "caffenet"):
        kernel = plan_import(RawWeights("theano", arrays), preset=preset).params["conv1"]["kernel"]
        np.testing.assert_array_equal(kernel, arrays["W_0"].transpose(1, 2, 0, 3)[::-1, ::-1])


def write_set(format, folder):
    """Write a file of that format; return its path, the options to read it, and its arrays."""
    arrays = random_set(format)
    by_layer = {}
    for name, array in arrays.items():
        by_layer.setdefault(name.rpartition("_")[0], []).append(array)
    path = folder / f"weights.{format}"
    if format == "torchvision":
        foreign.write_torch_zip(path, arrays)
    elif format == "caffe":
        path.write_bytes(foreign.caffemodel(by_layer, old=True))
    elif format == "tensorflow":
        foreign.write_npy_python2(path, by_layer)
    elif format == "theano":
        foreign.write_theano(path, arrays)
    else:
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    return path, (["--preset", "caffenet"] if format == "plain" else []), arrays


def output(capsys):
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capsys, *arguments):
    """Run a command that must be refused; return its error message."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line.removeprefix("alexnet_jax: ")


RECIPES = {
    # resize, filter, crop of the tiny preset, mean red, scale of red, order, k and alpha of LRN
    "torchvision": ("shorter-side", "antialias", 123.675, 1 / 58.395, "relu_first", 2.0, 1e-4),
    "caffe": ("stretch", "bilinear", 122.67891, 1.0, "relu_first", 1.0, 2e-5),
    "plain": ("stretch", "bilinear", 122.67891, 1.0, "pool_first", 1.0, 2e-5),
    "tensorflow": ("stretch", "bilinear", 122.67891, 1.0, "relu_first", 1.0, 2e-5),
    "theano": ("stretch", "bilinear", 122.67891, 1.0, "pool_first", 2.0, 1e-4),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.usefixtures("presets")
def test_a_set_becomes_a_run(format, tmp_path, capsys):
    path, options, arrays = write_set(format, tmp_path)
    workdir = tmp_path / "runs" / "a"
    assert main(["--from", str(path), "--workdir", str(workdir), *options]) == 0
    assert f"{CLASSES} classes" in output(capsys)
    resize, filter, red, scale, order, k, alpha = RECIPES[format]
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest() == 0
        assert checkpoints.best() is None
        meta, constants = checkpoints.meta(0), checkpoints.statistics(0)
    config = unflatten(meta["config"])
    assert (config.data.resize, config.data.filter, config.data.channels) == (resize, filter, "rgb")
    assert config.model.op_order == order
    lrn = build_architecture(config.model, CLASSES, 99).lrn
    assert (lrn.k, lrn.alpha) == pytest.approx((k, alpha))
    assert config.data.mean == "channel"
    assert constants["mean_color"][0] == pytest.approx(red)
    assert constants["scale"][0] == pytest.approx(scale)
    assert meta["class_names"] == [f"class {i}" for i in range(CLASSES)]
    assert (meta["imported"], meta["data"]) == (path.name, {})
    about = json.loads((workdir / "config.json").read_text())
    assert about["config"] == meta["config"]
    # The parameters, compared with what the conversion alone makes of the arrays.
    architecture = build_architecture(config.model, CLASSES, config.data.crop)
    bgr = format in ("caffe", "tensorflow", "plain")
    expected = convert.to_params(RawWeights(format, arrays), architecture, bgr=bgr)
    weights = read(workdir)
    assert jax.tree.all(jax.tree.map(np.array_equal, weights.params, expected))


@pytest.mark.usefixtures("presets")
def test_the_option_no_kernel_flip_is_used(tmp_path, capsys):
    path, _, arrays = write_set("theano", tmp_path)
    for name, options in (("flipped", []), ("plain", ["--no-kernel-flip"])):
        assert main(["--from", str(path), "--workdir", str(tmp_path / name), *options]) == 0
    output(capsys)
    kernel = arrays["W_0"].transpose(1, 2, 0, 3)
    for name, expected in (("flipped", kernel[::-1, ::-1]), ("plain", kernel)):
        np.testing.assert_array_equal(read(tmp_path / name).params["conv1"]["kernel"], expected)


@pytest.mark.parametrize(
    ("format", "towers", "name", "first"),
    [
        ("torchvision", "keep", "a.safetensors", "features.0.weight"),
        ("torchvision", "keep", "a.npz", "conv1_w"),
        ("caffe", "keep", "a.safetensors", "conv1_w"),
        ("caffe", "merge", "a.safetensors", "features.0.weight"),
        ("theano", "merge", "a.npz", "conv1_w"),
    ],
)
@pytest.mark.usefixtures("presets")
def test_weights_out_and_in_again(format, towers, name, first, tmp_path, capsys):
    path, options, _ = write_set(format, tmp_path)
    names = [f"ein Tier, Nr. {i}" for i in range(CLASSES)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    options = [*options, "--class-names", str(tmp_path / "names.txt")]
    first_run, second_run, out = tmp_path / "a", tmp_path / "b", tmp_path / name
    assert main(["--from", str(path), "--workdir", str(first_run), *options]) == 0
    assert main(["--workdir", str(first_run), "--to", str(out), "--towers", towers]) == 0
    raw = files.read(out)
    assert first in raw.arrays
    assert json.loads(raw.metadata["class_names"]) == names
    assert main(["--from", str(out), "--workdir", str(second_run)]) == 0
    output(capsys)
    before, after = read(first_run), read(second_run)
    expected = before.params if towers == "keep" else merge(before.params, before.architecture)
    assert jax.tree.all(jax.tree.map(np.array_equal, after.params, expected))
    assert after.class_names == names
    flat = flatten(before.config) | {"data.statistics": "init"}
    if towers == "merge":
        flat["model.variant"] = "merged"
    assert {n: v for n, v in flatten(after.config).items() if n.startswith(("data", "model"))} == {
        n: v for n, v in flat.items() if n.startswith(("data", "model"))
    }
    for kind, value in vars(before.statistics).items():
        np.testing.assert_array_equal(getattr(after.statistics, kind), value, strict=True)
    # And the network of the file is what it says that it is.
    assert after.architecture == build_architecture(after.config.model, CLASSES, 99)


@pytest.mark.usefixtures("presets")
def test_merged_on_the_way_in_and_split_again(tmp_path, capsys):
    path, _, _ = write_set("caffe", tmp_path)
    run = [str(tmp_path / name) for name in "abc"]
    assert main(["--from", str(path), "--workdir", run[0]]) == 0
    assert main(["--from", str(path), "--workdir", run[1], "--towers", "merge"]) == 0
    out = str(tmp_path / "a.npz")
    assert main(["--workdir", run[1], "--to", out]) == 0
    assert main(["--from", out, "--workdir", run[2], "--towers", "split"]) == 0
    output(capsys)
    towers, merged, again = (read(tmp_path / name) for name in "abc")
    assert merged.config.model.variant == "merged"
    assert merged.params["conv2"]["kernel"].shape == (5, 5, 2, 8)
    assert again.config.model.variant == "two_towers"
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, towers.params))


@pytest.mark.usefixtures("presets")
def test_a_mean_image_travels_with_the_weights(tmp_path, capsys):
    path, _, _ = write_set("caffe", tmp_path)
    image = np.random.default_rng(0).uniform(0, 255, (3, 112, 112)).astype(np.float32)
    np.save(tmp_path / "mean.npy", image)  # blue, green, red, as the weights
    arguments = ["--from", path, "--workdir", tmp_path / "a", "--mean", tmp_path / "mean.npy"]
    assert main(list(map(str, arguments))) == 0
    output(capsys)
    run = read(tmp_path / "a")
    np.testing.assert_array_equal(run.statistics.mean_image, image[::-1].transpose(1, 2, 0))
    np.testing.assert_allclose(run.statistics.mean_color, image.mean((1, 2))[::-1], rtol=1e-5)
    assert (run.config.data.mean, run.config.data.statistics) == ("image", "init")
    np.save(tmp_path / "mean.npy", image[:, 1:, 1:])
    arguments[3] = tmp_path / "b"
    line = refused(capsys, *arguments)
    assert line.startswith("--mean (111, 111): ")
    assert "(112, 112); name that one, or leave it out" in line
    assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("presets")
def test_out_and_in_again_with_the_mean_image_is_the_same_network(tmp_path, capsys):
    path, _, _ = write_set("caffe", tmp_path)
    image = np.random.default_rng(1).uniform(0, 255, (3, 112, 112)).astype(np.float32)
    np.save(tmp_path / "mean.npy", image)
    for arguments in (
        ["--from", path, "--workdir", "a", "--mean", tmp_path / "mean.npy"],
        ["--to", tmp_path / "a.npz", "--workdir", "a"],
        ["--from", tmp_path / "a.npz", "--workdir", "b", "--mean", tmp_path / "a/statistics.npz"],
        # Where the weights are turned from BGR, a run's mean image is RGB all the same.
        ["--from", path, "--workdir", "c", "--mean", tmp_path / "a/statistics.npz"],
    ):
        arguments = [tmp_path / a if len(str(a)) == 1 else a for a in arguments]
        assert main([*map(str, arguments)]) == 0
        text = output(capsys)
        if "--to" in arguments:
            assert f"import with --mean {tmp_path / 'a' / 'statistics.npz'}." in text
    first = read(tmp_path / "a")
    for name in ("b", "c"):
        again = read(tmp_path / name)
        for key, array in vars(first.statistics).items():
            np.testing.assert_array_equal(vars(again.statistics)[key], array)
        assert again.config.data.mean == first.config.data.mean
        assert jax.tree.all(jax.tree.map(np.array_equal, again.params, first.params))


def test_a_file_of_weights_is_for_whom_the_umask_says(tmp_path):
    raw = RawWeights("plain", {"conv1_w": np.zeros((2, 3, 1, 1), np.float32)})
    (tmp_path / "plain").touch()
    for name in ("a.npz", "a.safetensors"):
        files.write(tmp_path / name, raw)
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.usefixtures("presets")
def test_a_part_keeps_the_rest_at_its_initial_values(tmp_path, capsys):
    arrays = {n: a for n, a in random_set("plain").items() if n.startswith(("conv1", "fc8_b"))}
    np.savez(tmp_path / "a.npz", allow_pickle=False, **arrays, relu1=np.zeros(3))
    workdir = tmp_path / "runs"
    arguments = ["--from", tmp_path / "a.npz", "--workdir", workdir, "--preset", "caffenet"]
    assert "conv2_w is missing, conv2_b is missing" in refused(capsys, *arguments)
    assert not workdir.exists()
    assert main([*map(str, arguments), "--partial"]) == 0
    text = output(capsys)
    assert "Left at their initial values: conv2_w, conv2_b, conv3_w" in text
    assert ": relu1." in text
    params = read(workdir).params
    expected = arrays["conv1_w"].transpose(2, 3, 1, 0)[:, :, ::-1]
    np.testing.assert_array_equal(params["conv1"]["kernel"], expected)
    np.testing.assert_array_equal(params["fc8"]["bias"], arrays["fc8_b"])
    # CaffeNet initializes biases to 1, and fc6 with standard deviation 0.005.
    np.testing.assert_array_equal(params["conv2"]["bias"], np.ones(8, np.float32))
    assert np.std(params["fc6"]["kernel"]) == pytest.approx(0.005, rel=0.1)


@pytest.mark.usefixtures("presets")
def test_refusals_leave_nothing(tmp_path, capsys):
    path, _, _ = write_set("caffe", tmp_path)
    other, _, _ = write_set("torchvision", tmp_path)
    plain, _, _ = write_set("plain", tmp_path)
    names, workdir = tmp_path / "names.txt", tmp_path / "runs" / "a"
    names.write_text("one\ntwo\n")
    out = ["--to", tmp_path / "a.npz"]
    for arguments, pattern in [
        ([], r"--from, --to: .*; see --help"),
        (["--from", path, *out], r"--from, --to: .*; see --help"),
        (["--from", tmp_path / "none.pth"], r".*/none\.pth: .*; correct"),
        (["--to", tmp_path / "none/a.npz"], r"--workdir .*; name the folder of a run"),
        (["--from", plain], r"--preset: .*conv1_w.*; add --preset NAME, one of quickstart, "),
        (["--from", path, "--preset", "alexnet"], r".*--preset.*alexnet"),
        (
            ["--from", path, "--preset", "torchvision"],
            r".*conv2_w is \(8, 1, 5, 5\) and not \(6, 2, .*; name .* with --preset NAME",
        ),
        (
            ["--from", other, "--preset", "caffenet"],
            r"--preset caffenet: .*; leave it out, or use --preset torchvision",
        ),
        (["--from", path, "--class-names", names], r"--class-names of 2 .* 7, .*; name all"),
        (["--from", path, "--towers", "split"], r"--towers split: .* merged.*; use --towers keep"),
        (["--from", path, "--no-kernel-flip"], r"--no-kernel-flip: .*Theano.*; leave it out"),
        (["--form", path], r"--form: .*; try --from"),
        (["--to", tmp_path / "a.pth"], r"--to .*/a\.pth: .*; try a\.safetensors"),
        (["--to", path], r"--to .*/weights\.caffe: .*; try weights\.safetensors"),
        (out, r"--workdir .*/runs/a: .*; name the folder of a run"),
        ([*out, "--partial"], r"--partial: .*--from; leave it out"),
        ([*out, "--no-kernel-flip"], r"--no-kernel-flip: .*--from; leave it out"),
    ]:
        line = refused(capsys, "--workdir", workdir, *arguments)
        assert re.match(pattern, line), line
        assert not (tmp_path / "runs").exists()
        assert not (tmp_path / "a.npz").exists()


@pytest.mark.usefixtures("presets")
def test_a_folder_with_a_run_is_left_alone(tmp_path, capsys):
    path, _, _ = write_set("caffe", tmp_path)
    assert main(["--from", str(path), "--workdir", str(tmp_path / "a")]) == 0
    output(capsys)
    before = (tmp_path / "a" / "config.json").stat().st_mtime_ns
    line = refused(capsys, "--from", path, "--workdir", tmp_path / "a")
    assert re.match(r"--workdir .*/a: .*; name a new folder", line)
    assert (tmp_path / "a" / "config.json").stat().st_mtime_ns == before


def test_a_hostile_file_makes_no_run(tmp_path, capsys):
    victim, workdir = tmp_path / "victim", tmp_path / "runs" / "a"
    evil = foreign.Hostile(victim)
    small = {"a.weight": np.zeros(3, np.float32)}
    foreign.write_torch_zip(tmp_path / "a.pth", small, lambda state: {**state, "evil": evil})
    foreign.write_torch_legacy(tmp_path / "b.pth", small, lambda state: {**state, "evil": evil})
    foreign.write_npy_python3(tmp_path / "c.npy", {"conv1": [evil]})
    for name in ("a.pth", "b.pth", "c.npy"):
        line = refused(capsys, "--from", tmp_path / name, "--workdir", workdir)
        assert "open is not an array" in line
        assert "; save the arrays alone, as .safetensors or .npz" in line
        assert not victim.exists()
        assert not (tmp_path / "runs").exists()


STATISTICS = json.dumps(
    {
        "mean_color": [1, 2, 3],
        "lighting_std": [1, 2, 3],
        "lighting_axes": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "scale": [1, 1, 1],
    }
)


@pytest.mark.parametrize(
    "metadata",
    [
        {"config": "no JSON", "statistics": "{}"},
        {"config": "[]", "statistics": "{}"},
        {"config": '{"model.width": "wide"}', "statistics": "{}"},
        {"config": '{"model.depth": 3}', "statistics": "{}"},
        {"config": "{}", "statistics": "{}"},
        {"config": "{}", "statistics": '{"mean_color": [1, 2, 3], "shoe_size": 4}'},
        {"config": "{}", "statistics": '{"mean_color": [1, 2]}'},
        {"config": "{}", "statistics": '{"mean_color": ["a", 1, 2]}'},
        {"config": "[" * 100_000, "statistics": "{}"},
        {"config": '{"model.width": 1e308}', "statistics": "{}"},
        {"config": '{"data.image_size": 1000000}', "statistics": STATISTICS},
        {"config": "{}", "statistics": STATISTICS.replace("[1, 1, 1]", "[1, 1, 1, 1]")},
    ],
)
def test_metadata_that_cannot_be_read(metadata):
    raw = RawWeights("plain", random_set("plain"), metadata)
    with pytest.raises(
        ValueError, match="metadata cannot be read .*; name its network with preset="
    ):
        plan_import(raw)


@pytest.mark.usefixtures("presets")
@pytest.mark.parametrize("names", ["no JSON", "[" * 100_000])
def test_class_names_that_cannot_be_read(names):
    raw = RawWeights("torchvision", random_set("torchvision"), {"class_names": names})
    with pytest.raises(ValueError, match="class names .*; give them with class_names=FILE"):
        plan_import(raw)


@pytest.mark.usefixtures("presets")
def test_class_names_that_are_not_a_list_are_ignored():
    raw = RawWeights("torchvision", random_set("torchvision"), {"class_names": "3"})
    assert plan_import(raw).class_names[0] == "class 0"


def test_paths_of_images_are_not_exported():
    data = dataclasses.replace(PRESETS["photos"].data, path="/home/me/photos", name="mine")
    config = dataclasses.replace(PRESETS["photos"], data=data)
    statistics = published("imagenet", 4)
    assert "/home/me" not in "".join(export_metadata(config, statistics, ["a"]).values())


def test_caffes_own_arrays(real_data):
    """The published conv1 and conv2 of CaffeNet, among activations, and biases of bvlc_alexnet."""
    raw = files.read(real_data / "golden-caffenet" / "caffenet_cat_golden.npz")
    plan = plan_import(raw, preset="caffenet", partial=True)
    expected = raw.arrays["conv1_w"]
    kernel = plan.params["conv1"]["kernel"]
    assert kernel.shape == (11, 11, 3, 96)
    np.testing.assert_array_equal(kernel[2, 5, 0], expected[:, 2, 2, 5])
    assert plan.params["conv2"]["kernel"].shape == (5, 5, 48, 256)
    assert sorted(plan.params["conv3"]) == ["bias"]
    assumed, missing, ignored, names = plan.notes
    assert "preset=caffenet" in assumed
    assert missing.startswith("Left at their initial values: conv3_w, conv4_w, conv5_w, fc6_w")
    assert "relu1" in ignored
    assert "class_names=imagenet" in names
    assert len(plan.class_names) == 1000
    raw = files.read(real_data / "golden-caffenet" / "bvlc_alexnet_partial.npz")
    plan = plan_import(raw, preset="bvlc_alexnet", partial=True)
    assert sum(kinds["bias"].size for kinds in plan.params.values()) == 10_568
    assert "fc8_w_last_rows" in plan.notes[2]
    assert "mean_image_rgb_chw" in plan.notes[2]


@pytest.mark.parametrize(
    "format",
    [f if f == "caffe" else pytest.param(f, marks=pytest.mark.slow) for f in FORMATS],
)
@pytest.mark.usefixtures("presets")
def test_an_imported_run_is_evaluated_predicts_and_is_fine_tuned(format, tmp_path, capsys):
    """Every command accepts it; class folders are matched with class names."""
    path, options, _ = write_set(format, tmp_path)
    names = [f"n{number:08d} thing {number}, object" for number in range(CLASSES)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    options = [*options, "--class-names", str(tmp_path / "names.txt")]
    workdir, tuned = tmp_path / "imported", tmp_path / "tuned"
    rng = np.random.default_rng(0)
    for number in (1, 4):
        folder = tmp_path / "photographs" / f"n{number:08d}"
        folder.mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (130, 120 + index, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    photographs = str(tmp_path / "photographs")
    assert main(["--from", str(path), "--workdir", str(workdir), *options]) == 0
    output(capsys)

    assert predict.main([photographs, "--workdir", str(workdir), "--json", "--top", "7"]) == 0
    lines = [json.loads(line) for line in output(capsys).splitlines()]
    best = [line["predictions"][0]["class"] for line in lines]
    true = [1] * 4 + [4] * 4
    errors = sum(name != names[number] for name, number in zip(best, true, strict=True)) / 8

    assert evaluate.main(["--workdir", str(workdir), "--images", photographs, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["count"], scores["top1_error"]) == (8, errors)

    arguments = ["--workdir", tuned, "--preset", "photos", "--init-from", workdir]
    arguments += ["--init.reinit-layers", "fc8", "--data.path", photographs]
    arguments += ["--optimizer.batch-size", "3", "--optimizer.learning-rate", "1e-9"]
    arguments += ["--schedule.epochs", "1", "--mesh.towers", "1"]
    assert training.main([*map(str, arguments), "--log.figures", "False"]) == 0
    assert "initialized at random: fc8." in capsys.readouterr().out
    before, after = read(workdir), read(tuned)
    assert (len(before.class_names), after.class_names) == (CLASSES, ["n00000001", "n00000004"])
    assert before.config.model.precision == "highest"  # of imported weights; training has its own
    model = dataclasses.replace(before.config.model, precision=ModelConfig().precision)
    assert after.config.model == model
    np.testing.assert_array_equal(after.statistics.mean_color, before.statistics.mean_color)
    np.testing.assert_array_equal(after.statistics.scale, before.statistics.scale)
    result, expected = (run.params["conv2"]["kernel"] for run in (after, before))
    np.testing.assert_allclose(result, expected, atol=1e-3 * np.abs(expected).max())

    assert training.main(["--workdir", str(workdir), "--preset", "photos"]) == 2
    line = capsys.readouterr().err
    assert f"--workdir {workdir}: " in line
    assert f"{path.name} and no run; to train from them use --init-from {workdir}" in line
