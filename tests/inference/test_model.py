"""A network from Python: any number of images, dropout by key or masks, gradients, refusals."""

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import alexnet_jax as ax
from alexnet_jax.inference.ensemble import Predictor
from alexnet_jax.model import towers
from alexnet_jax.training.state import make_key
from tests import untrained

UNKNOWN: Any = "alexnet"

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return untrained.make(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture(scope="module")
def network(workdir):
    return ax.load(workdir)


@pytest.fixture(scope="module")
def squares(network):
    size = network.config.data.image_size
    return np.random.default_rng(0).integers(0, 256, (35, size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def images(network, squares):
    return network.preprocess(squares[:4])


def test_any_number_of_images_is_predicted(network, squares):
    predictor = Predictor(network, 1)
    expected = np.exp(np.concatenate([predictor(squares[:32]), predictor(squares[32:])]))
    for count in (1, 3, 35):  # less and more than a batch
        got = network.predict(squares[:count])
        assert got.shape == (count, 3)
        np.testing.assert_allclose(got, expected[:count], atol=1e-6)
    np.testing.assert_allclose(
        jax.nn.softmax(network.logits(list(squares[:2]))), expected[:2], atol=1e-6
    )


def test_one_image_is_a_list_of_one(network, squares, tmp_path):
    Image.fromarray(squares[0]).save(tmp_path / "a.png")
    expected = network.predict([squares[0]])
    for one in (squares[0], tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(network.predict(one), expected)
        assert network.preprocess(one).shape[0] == 1


def test_a_network_is_shown_in_a_line(network):
    assert repr(network) == "Network(two_towers, 64 x 64 pixels, 3 classes)"


def test_a_mesh_of_two_shards_predicts_an_odd_number(workdir, squares, network):
    on_two = ax.load(workdir, towers.make_mesh(data=2, towers=2, batch=2))
    np.testing.assert_allclose(on_two.predict(squares[:3]), network.predict(squares[:3]), atol=1e-5)


def test_apply_is_compiled_once(network, images, caplog):
    network.apply(network.params, images)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        network.apply(network.params, images + 1)
    assert "Compiling" not in caplog.text.replace("Compiling jit(add)", "")


def test_dropout_is_drawn_by_a_key_or_given(network, images):
    params, key = network.params, jax.random.key(0)
    evaluated = network.apply(params, images)
    by_key = network.apply(params, images, train=True, rngs={"dropout": key})
    np.testing.assert_array_equal(
        by_key, network.apply(params, images, train=True, rngs={"dropout": key})
    )
    other = network.apply(params, images, train=True, rngs={"dropout": jax.random.key(1)})
    assert (by_key != evaluated).any()
    assert (by_key != other).any()
    dropped = network.architecture.dropped
    # All kept: what follows fc6 and fc7 is twice as loud as at test.
    keep = {name: np.ones((4, *shape), bool) for name, shape in dropped.items()}
    kept = network.apply(params, images, train=True, dropout_masks=keep)
    bias = np.asarray(params["fc8"]["bias"])[None]
    np.testing.assert_allclose(kept - bias, 4 * (evaluated - bias), rtol=1e-3, atol=1e-4)


def test_gradients_of_images_and_parameters_are_those_of_differences(network, images):
    def score(images, params):
        return network.apply(params, images)[:, 1].sum()

    by_image, by_params = jax.grad(score, argnums=(0, 1))(images, network.params)
    assert by_image.shape == images.shape
    direction = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    step = 0.05
    change = score(images + step * direction, network.params)
    change -= score(images - step * direction, network.params)
    slope = float(jnp.sum(by_image * direction))
    assert float(change) / (2 * step) == pytest.approx(slope, rel=0.05)
    np.testing.assert_allclose(by_params["fc8"]["bias"], [0, 4, 0], atol=1e-5)
    within = jax.jit(jax.grad(score))(images, network.params)
    np.testing.assert_allclose(within, by_image, atol=1e-5 * np.abs(by_image).max())
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: score(x, network.params), (images,), (images,))


def test_a_new_network_has_the_parameters_of_training():
    network = ax.create("quickstart", num_classes=20, seed=3)
    initialize = jax.jit(towers.initializer(network.architecture))
    jax.tree.map(np.testing.assert_array_equal, network.params, initialize(make_key(3))["params"])
    assert network.class_names[19] == "class 19"
    size = network.config.data.image_size
    assert network.predict(np.zeros((1, size, size, 3), np.uint8)).shape == (1, 20)


def test_gradients_of_a_feature_reach_the_image(network, images):
    def feature(images):
        return network.features(images, "relu5")["relu5"][..., 2].sum()

    gradient = jax.grad(feature)(images)
    np.testing.assert_allclose(jax.jit(jax.grad(feature))(images), gradient, atol=1e-5)
    assert np.abs(gradient).max() > 0


def test_networks_and_images_on_other_devices(workdir, network, images):
    both = ax.load(workdir, mesh=towers.make_mesh(towers=2, data=1, batch=1))
    expected = network.apply(network.params, images)
    np.testing.assert_allclose(both.apply(both.params, images), expected, atol=1e-5)
    elsewhere = jax.device_put(images, jax.devices()[1])
    np.testing.assert_array_equal(network.apply(network.params, elsewhere), expected)
    taps = [n.features(elsewhere, "pool5")["pool5"] for n in (network, both)]
    np.testing.assert_allclose(taps[0], taps[1], atol=1e-5)
    assert network != both
    assert len({network, both}) == 2


def test_any_array_is_an_image(network, squares, tmp_path):
    expected = network.predict(squares[:2])
    np.testing.assert_array_equal(network.predict(jnp.asarray(squares[:2])), expected)
    alone = network.predict(jnp.asarray(squares[0]))
    np.testing.assert_allclose(alone, expected[:1], atol=1e-6)
    listed = network.predict([jnp.asarray(squares[0]), squares[1]])
    np.testing.assert_array_equal(listed, expected)
    for number in range(2):
        Image.fromarray(squares[number]).save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    for files in (np.array(paths), np.array(paths, object)):
        np.testing.assert_array_equal(network.predict(files), expected)


def ones(network, batch):
    dropped = network.architecture.dropped
    return {name: np.ones((batch, *shape), np.float32) for name, shape in dropped.items()}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda n, x: n.apply(n.params, x[:, 1:]),
            r"images .*: must have .*; use preprocess",
        ),
        (lambda n, x: n.apply(n.params, x.astype(int)), "images int.*: .*float32.*; pass them"),
        (lambda n, x: n.apply({}, x), "params conv1 bias None: must have the shape"),
        (lambda n, x: n.apply(n.params, x, train=True), "rngs None: must be given.*; use rngs="),
        (lambda n, x: n.apply(n.params, x, rngs={}, dropout_masks={"fc6": x}), "masks.*; use tr"),
        (lambda n, x: n.apply(n.params, x, train=True, dropout_masks={}), "dropout_masks {}: .*us"),
        (
            lambda n, x: n.apply(n.params, x, train=True, rngs={}, dropout_masks={}),
            "rngs given: .*dropout_masks.*; leave",
        ),
        (
            lambda n, x: n.apply(n.params, x, train=True, dropout_masks=ones(n, len(x))),
            "dropout_masks fc6 of float32: .* of bool.*; use x > 0",
        ),
        (
            lambda n, x: n.apply(n.params, x, train=True, dropout_masks=[x]),
            "dropout_masks list: must be a dict.*; use {name",
        ),
        (lambda n, x: n.apply(n.params, x, train=True, rngs=x), "rngs ArrayImpl: .*; use rngs="),
        (lambda n, _: n.preprocess([]), "images 0: must be at least one; add"),
        (lambda n, _: n.predict(None), "NoneType: must be an array, uint8 .*; np.asarray"),
        (lambda n, _: n.predict(np.zeros((5, 5), np.uint8)), r"uint8 \(5, 5\): must be uint8"),
        (lambda n, _: n.predict(np.zeros((0, 5, 3), np.uint8)), r"\(0, 5, 3\): .*one pixel; pass"),
        (lambda n, _: ax.load(n.workdir, which=UNKNOWN), "which alexnet: .*; use latest"),
        (lambda n, _: n.predict([]), "images 0: must be at least one; name"),
        (lambda n, _: n.predict(["none.png"]), "none.png: No such file"),
        (lambda *_: ax.create(UNKNOWN), "preset alexnet: .*; choose from quickstart"),
        (lambda *_: ax.create(num_classes=0), "num_classes 0: .*; try 1000"),
    ],
)
def test_refusals(call, message, network, images):
    with pytest.raises(ValueError, match=message):
        call(network, images)


def test_importing_the_package_imports_no_jax():
    program = "import sys, alexnet_jax as ax; assert 'jax' not in sys.modules; "
    program += "from alexnet_jax import *; assert {*ax.__all__} <= {*dir()}"
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        _ = ax.train
