"""The CIFAR-10 experiments: the network by hand, the counted errors, and smoke tests."""

import dataclasses
import functools
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "claims"))

import cifar
import cifar_net
import lrn_in_local_net
import lrn_on_cifar
import pooling_on_cifar
import record
import relu_vs_tanh
from cifar_net import CIFAR_NORM, FourLayerNet, LocalNet
from experiment import Arguments

from alexnet_jax.model.architecture import Pooling
from alexnet_jax.model.convolution import convolve
from alexnet_jax.model.pooling import pool
from alexnet_jax.model.response_norm import normalize

pytestmark = pytest.mark.slow
BATCH = 16
PLAIN = cifar.Recipe(learning_rate=0.001, epochs=1, regularized=False)


@pytest.fixture(autouse=True, scope="module")
def quick(quick_compilation):  # noqa: ARG001 (runs before this fixture)
    """Compile in half the time, and use small batches."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar, "BATCH", BATCH)
        yield


@pytest.fixture(scope="module")
def images():
    return cifar.synthetic_images(2 * BATCH, 0)


def parameters(net, side):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
    return {name: (p["kernel"].shape, p["bias"].shape) for name, p in shapes.items()}


@pytest.mark.parametrize(("side", "last", "number"), [(32, 4, 89_578), (24, 3, 85_098)])
@pytest.mark.parametrize("window", [2, 3])
def test_the_net_of_layers_18pct(side, last, number, window):
    shapes = parameters(FourLayerNet(window=window), side)
    assert shapes == {
        "conv1": ((5, 5, 3, 32), (32,)),
        "conv2": ((5, 5, 32, 32), (32,)),
        "conv3": ((5, 5, 32, 64), (64,)),
        "fc10": ((last * last * 64, 10), (10,)),
    }
    assert number == 76 * 32 + 801 * 32 + 801 * 64 + (last * last * 64 + 1) * 10
    assert number == sum(int(np.prod(shape)) for layer in shapes.values() for shape in layer)


def test_the_net_of_layers_cifar10_11pct():
    assert parameters(LocalNet(), 24) == {
        "conv1": ((5, 5, 3, 64), (64,)),
        "conv2": ((5, 5, 64, 64), (64,)),
        "local3": ((36, 576, 64), (36, 64)),
        "local4": ((36, 576, 32), (36, 32)),
        "fc10": ((1152, 10), (10,)),
    }


def test_local_layers_have_kernels_of_their_own_at_each_pixel():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    layer = cifar_net.Local(6)
    params: Any = layer.init(jax.random.key(1), x)["params"]
    params["bias"] = jax.random.normal(jax.random.key(2), params["bias"].shape)
    kernel = params["kernel"].reshape(3, 4, 3, 3, 5, 6)
    bias, padded = np.asarray(params["bias"]), np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.asarray(layer.apply({"params": params}, x))
    for row, column in itertools.product(range(3), range(4)):
        window = padded[:, row : row + 3, column : column + 3]
        expected = np.einsum("bijc,ijco->bo", window, kernel[row, column])
        expected += bias[4 * row + column]
        np.testing.assert_allclose(y[:, row, column], expected, rtol=1e-5, atol=1e-6)


def test_lrn_in_the_local_net_is_before_the_second_pooling(images):
    x = images.pixels[:2, :24, :24].astype(np.float32) - 128
    params: Any = LocalNet().init(jax.random.key(0), x)["params"]
    params["conv1"]["kernel"] *= 1000
    plain, normed = (
        np.asarray(LocalNet(norm).apply({"params": params}, x)) for norm in (None, CIFAR_NORM)
    )

    def by_hand():
        # Biases are zero at the start.
        conv = lambda x, name: convolve(x, params[name]["kernel"], 1, (2, 2))
        x1 = normalize(jax.nn.relu(pool(conv(x, "conv1"), Pooling(3, 2))), CIFAR_NORM)
        x2 = pool(normalize(jax.nn.relu(conv(x1, "conv2")), CIFAR_NORM), Pooling(3, 2))
        for name, maps in (("local3", 64), ("local4", 32)):
            local: Any = cifar_net.Local(maps).apply({"params": params[name]}, x2)
            x2 = jax.nn.relu(local)
        return x2.reshape(2, -1) @ params["fc10"]["kernel"]

    np.testing.assert_allclose(normed, by_hand(), rtol=1e-4, atol=1e-5)
    assert np.abs(normed - plain).max() > 0.01


def test_initial_weights():
    params = cifar.initialize(FourLayerNet(), False, jax.random.key(0)).params
    stds = {name: float(layer["kernel"].std()) for name, layer in params.items()}
    expected = {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01}
    assert stds == pytest.approx(expected, rel=0.05)
    assert all(not layer["bias"].any() for layer in params.values())


def test_the_norm_by_hand():
    # 30 everywhere: s = 1 + 1e-3 / 9 x 900 x maps in the window = 1 + maps / 10.
    y = normalize(jnp.full((1, 1, 1, 32), 30.0), CIFAR_NORM)[0, 0, 0]
    maps = np.array([5, 6, 7, 8, *[9] * 24, 8, 7, 6, 5])
    np.testing.assert_allclose(y, 30 / (1 + maps / 10) ** 0.75, rtol=1e-5)


def test_norm_window_and_units_each_make_a_difference(images):
    x = images.pixels[:2, :8, :8].astype(np.float32) - 128
    # Larger weights than the initial ones, with which the norm divides by almost 1.
    params = jax.tree.map(
        lambda w: 20 * w,
        cifar.initialize(FourLayerNet(), False, jax.random.key(0)).params,
    )
    params["fc10"]["kernel"] = params["fc10"]["kernel"][:64]
    nets = [
        FourLayerNet(),
        FourLayerNet(norm=CIFAR_NORM),
        FourLayerNet(norm_before_pool2=True),
        FourLayerNet(norm=CIFAR_NORM, norm_before_pool2=True),
        FourLayerNet(window=2),
        FourLayerNet(jnp.tanh),
    ]
    logits = [np.asarray(jax.jit(net.apply)({"params": params}, x)) for net in nets]
    for first, second in itertools.combinations(logits, 2):
        assert np.abs(first - second).max() > 1e-3


def test_the_convolution_of_colors_is_the_plain_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    kernel = rng.normal(size=(5, 5, 3, 6)).astype(np.float32)
    g = rng.normal(size=(2, 8, 8, 6)).astype(np.float32)
    plain = lambda x, kernel: convolve(x, kernel, 1, (2, 2))

    def value_and_gradient(function):
        y, pull = jax.vjp(functools.partial(function, x), kernel)
        return y, *pull(g)

    for actual, expected in zip(
        value_and_gradient(cifar_net.convolve_colors), value_and_gradient(plain), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_mean_pooling_by_hand():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    # The last windows hang over: their means are of 3 x 2, 2 x 3 and 2 x 2 pixels.
    overlapping = cifar_net.mean_pool(x, Pooling(3, 2))[0, :, :, 0]
    np.testing.assert_allclose(overlapping, [[5, 6.5], [11, 12.5]])
    apart = cifar_net.mean_pool(x, Pooling(2, 2))[0, :, :, 0]
    np.testing.assert_allclose(apart, [[2.5, 4.5], [10.5, 12.5]])


def updates(net, regularized, gradient):
    """Return weights, and their updates at learning rate 0.5 if every gradient is `gradient`."""
    state = cifar.initialize(net, regularized, jax.random.key(0))
    state = cifar.with_learning_rate(state, 0.5)
    gradients = jax.tree.map(lambda w: jnp.full_like(w, gradient), state.params)
    rule = cifar.optimizer(net, regularized)
    changes: Any = rule.update(gradients, state.opt_state, state.params)[0]
    return state.params, changes


@pytest.mark.parametrize(
    ("net", "regularized", "decays"),
    [
        (FourLayerNet(), True, {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc10": 1}),
        (FourLayerNet(), False, dict.fromkeys(("conv1", "conv2", "conv3", "fc10"), 0)),
        (
            LocalNet(),
            True,
            {"conv1": 0, "conv2": 0, "local3": 0.004, "local4": 0.004, "fc10": 0.01},
        ),
        (
            FourLayerNet(fc10_decay=0.01),
            True,
            {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc10": 0.01},
        ),
    ],
)
def test_decay_is_of_weights_alone(net, regularized, decays):
    params, changes = updates(net, regularized, 0)
    assert params.keys() == decays.keys()
    for name, layer in params.items():
        expected = -0.5 * decays[name] * layer["kernel"]
        np.testing.assert_allclose(changes[name]["kernel"], expected, rtol=1e-5)
        assert not changes[name]["bias"].any()


@pytest.mark.parametrize("net", [FourLayerNet(), LocalNet()])
def test_biases_learn_at_twice_the_rate(net):
    _, changes = updates(net, False, 1)
    for layer in changes.values():
        assert (layer["kernel"] == -0.5).all()
        assert (layer["bias"] == -1).all()


def test_learning_rates_drop_at_milestones():
    recipe = cifar.Recipe(learning_rate=1.0, epochs=5, regularized=True, milestones=(2, 4))
    assert [recipe.learning_rate_at(epoch) for epoch in range(5)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )


@pytest.mark.parametrize("name", ["cifar", "relu_vs_tanh"])
def test_committed_records_name_fields_of_the_recipe(name):
    path = Path(cifar.__file__).parents[1] / "records" / f"{name}.jsonl"
    recorded = [json.loads(line)["settings"] for line in path.read_text().splitlines()]
    assert recorded
    for settings in recorded:
        assert settings == json.loads(json.dumps(dataclasses.asdict(cifar.Recipe(**settings))))


def test_crops_and_flips():
    # Every pixel says where it lies.
    rows, columns = np.mgrid[:32, :32].astype(np.uint8)
    pixels = np.stack([rows, columns, rows], -1)[None].repeat(500, 0)
    cropped = cifar.crops(pixels, 24, np.random.default_rng(0)).astype(int)
    assert cropped.shape == (500, 24, 24, 3)
    steps = cropped[:, 0, 1, 1] - cropped[:, 0, 0, 1]
    assert set(steps) == {1, -1}
    assert 0.4 < (steps == 1).mean() < 0.6
    tops, lefts = cropped[:, 0, 0, 0], cropped[..., 1].min(axis=(1, 2))
    assert set(tops) == set(lefts) == set(range(9))
    assert (cropped[:, -1, 0, 0] == tops + 23).all()
    center = cifar.crops(pixels, 24, None)
    assert (center[0, 0, 0, :2] == 4).all()
    assert (center[0, -1, -1, :2] == 27).all()


def test_errors_are_counted_before_each_step_learns(images, tmp_path):
    """At a rate of next to nothing all epochs, and a pass over all images, find the same errors."""
    recipe = dataclasses.replace(PLAIN, learning_rate=1e-30)
    net = FourLayerNet(jnp.tanh)
    state, history = cifar.train(net, recipe, 0, images, tmp_path / "a.msgpack", images)
    mean = cifar.mean_image(images, 32)
    logits = jax.jit(net.apply)({"params": state.params}, images.pixels - mean)
    wrong = np.asarray(logits).argmax(-1) != images.labels
    assert 0 < wrong.mean() < 1
    assert history.test_errors == [wrong.mean()]
    halves = [
        wrong[np.random.default_rng((0, 0)).permutation(32)[part]].mean()
        for part in (slice(16), slice(16, None))
    ]
    assert history.training_errors == halves


def test_a_resumed_run_is_bit_identical(images, tmp_path):
    net, two = FourLayerNet(jnp.tanh), dataclasses.replace(PLAIN, epochs=2)
    whole, history = cifar.train(net, two, 3, images, tmp_path / "whole.msgpack")
    cifar.train(net, PLAIN, 3, images, tmp_path / "parts.msgpack")
    parts, resumed = cifar.train(net, two, 3, images, tmp_path / "parts.msgpack")
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), whole, parts))
    assert resumed.training_errors == history.training_errors
    assert len(history.training_errors) == 4
    other, _ = cifar.train(net, PLAIN, 4, images, tmp_path / "other.msgpack")
    assert not (other.params["conv1"]["kernel"] == whole.params["conv1"]["kernel"]).all()


def test_a_run_stops_at_its_target_or_at_a_non_finite_loss(images, tmp_path):
    net = FourLayerNet(jnp.tanh)
    easy = dataclasses.replace(PLAIN, epochs=9, target=1.0)
    assert len(cifar.train(net, easy, 0, images, tmp_path / "a")[1].training_errors) == 1
    mad = dataclasses.replace(PLAIN, epochs=9, learning_rate=1e38)
    _, history = cifar.train(net, mad, 0, images, tmp_path / "b")
    assert history.diverged
    with pytest.raises(ValueError, match="16 images: .*two batches of 16; add images"):
        cifar.train(net, PLAIN, 0, cifar.synthetic_images(16, 0), tmp_path / "c")


def test_epochs_to_the_target_are_interpolated():
    # Half epochs count at their middles: 0.25, 0.75, 1.25, 1.75.
    assert relu_vs_tanh.crossing([0.8, 0.5, 0.3, 0.2]) == pytest.approx(1.5)
    assert relu_vs_tanh.crossing([0.8, 0.25]) == pytest.approx(0.75)
    assert relu_vs_tanh.crossing([0.2, 0.1]) == 0.25
    assert relu_vs_tanh.crossing([0.8, 0.3]) is None
    assert relu_vs_tanh.crossing([]) is None


@pytest.mark.parametrize(
    ("least", "tried"), [(0, {-1, 0, 1}), (3, set(range(-1, 5))), (-2, {-3, -2, -1, 0, 1})]
)
def test_the_search_descends_until_both_sides_rise(least, tried):
    seen = set()

    def error(exponent):
        seen.add(exponent)
        return float("inf") if exponent > 3 else abs(exponent - least)

    assert relu_vs_tanh.best_exponent(error) == least
    assert seen == tried


def test_the_folders_of_cifar10(tmp_path):
    for name, color in (("b", 10), ("a", 200)):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (color, 0, 0)).save(tmp_path / "train" / name / "0.png")
    images = cifar.read(tmp_path / "train")
    assert images.pixels.shape == (2, 32, 32, 3)
    assert images.pixels[:, 0, 0, 0].tolist() == [200, 10]
    assert images.labels.tolist() == [0, 1]
    Image.new("RGB", (33, 32)).save(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(ValueError, match=r"1\.png: .*\(33, 32\).*; remove it"):
        cifar.read(tmp_path / "train")
    with pytest.raises(ValueError, match=r"no class folders; .*data=DIR"):
        cifar.read(tmp_path / "test")
    with pytest.raises(ValueError, match=r"data is missing: .*; add data=DIR"):
        cifar.data_sets(Arguments(tmp_path))
    (tmp_path / "train" / "a" / "1.png").unlink()
    (tmp_path / "test" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"classes a, b .*test a; .*10 classes.*: add or remove"):
        cifar.data_sets(Arguments(tmp_path, tmp_path))
    with pytest.raises(ValueError, match=r"data .*: .*; leave it out"):
        cifar.data_sets(Arguments(tmp_path, tmp_path, smoke=True))


def test_relu_against_tanh_runs(tmp_path, capsys):
    relu_vs_tanh.main(Arguments(tmp_path, seeds=(0,), smoke=True))
    printed = capsys.readouterr().out
    assert "| seed | ReLU, learning rate " in printed
    path = tmp_path / "smoke" / record.NAME
    assert len(record.finished(path, kind="run")) == 2
    assert len(record.finished(path, kind="search")) >= 6
    assert (tmp_path / "smoke" / "relu_vs_tanh.png").stat().st_size > 10_000
    before = path.read_bytes()
    relu_vs_tanh.main(Arguments(tmp_path, seeds=(0,), smoke=True))
    assert path.read_bytes() == before  # nothing is run twice


def test_the_tables_of_relu_vs_tanh(tmp_path, capsys):
    """Two ratios, one run that never reached 25 %, one that diverged."""
    curves = {
        ("ReLU", 0): [0.5, 0.25],
        ("tanh", 0): [0.5, 0.4, 0.25],
        ("ReLU", 1): [0.25],
        ("tanh", 1): [0.3, 0.25],
        ("ReLU", 2): [0.5, 0.25],
        ("tanh", 2): [0.5, 0.4],
        ("tanh", 3): [0.9],
    }
    for (units, seed), errors in curves.items():
        line = {"units": units, "seed": seed, "training_errors": errors, "learning_rate": 0.002}
        more = {"kind": "run", "epochs": 40, "diverged": seed == 3}
        record.append(tmp_path / record.NAME, {**line, **more})
    search = {"kind": "search", "units": "ReLU", "learning_rate": 0.002, "diverged": False}
    record.append(tmp_path / record.NAME, {**search, "training_errors": [0.5, 0.421]})
    relu_vs_tanh.main(Arguments(tmp_path, seeds=()))
    lines = capsys.readouterr().out.splitlines()
    assert "| 0 | 0.75 | 1.25 | 1.67 |" in lines
    assert "| 1 | 0.25 | 0.75 | 3.00 |" in lines
    assert "| 2 | 0.75 | > 40 | > 53.33 |" in lines
    assert "| 3 | not run | diverged |  |" in lines
    assert "| learning rate | 0.002 |" in lines
    assert "| ReLU | 42.1 |" in lines
    assert "| tanh |  |" in lines
    assert any(line.startswith("| mean of 2, 95 % interval | 0.50 ± ") for line in lines)


def test_pairs_run_and_share_a_side(tmp_path, capsys):
    lrn_on_cifar.main(Arguments(tmp_path, seeds=(0, 1), smoke=True))
    printed = capsys.readouterr().out
    assert "LRN, 3/2 pooling - no LRN, 3/2 pooling, in points: " in printed
    pooling_on_cifar.main(Arguments(tmp_path, seeds=(0, 1), smoke=True))
    lines = record.finished(tmp_path / "smoke" / record.NAME)
    assert len(lines) == 14
    for line in lines:
        assert (len(line["training_errors"]), len(line["test_errors"])) == (4, 2)
    lrn_in_local_net.main(Arguments(tmp_path, seeds=(0,), smoke=True))
    for name in (
        "lrn_on_cifar",
        "lrn_on_cifar_with_little_decay",
        "lrn_before_pooling",
        "pooling_on_cifar",
        "lrn_in_local_net",
    ):
        assert (tmp_path / "smoke" / f"{name}.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="no finished run; .*--seeds"):
        lrn_on_cifar.main(Arguments(tmp_path / "empty", seeds=()))
