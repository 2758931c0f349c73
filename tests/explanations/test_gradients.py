"""Gradients and Grad-CAM are those of a plain network, on any mesh, in any order of layers."""

from typing import Any

import jax
import numpy as np
import pytest

from alexnet_jax.config import ModelConfig
from alexnet_jax.explanations.grad_cam import (
    default_layer,
    grad_cam,
    last_layer_of_side,
    upsample,
)
from alexnet_jax.explanations.gradients import gradient, saliency
from alexnet_jax.model.variants import build_architecture
from tests.explanations import plain

pytestmark = pytest.mark.usefixtures("quick_compilation")
LABELS = [2, 0]
LOSS: Any = "loss"


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("preset", "layer", "score", "meshes"),
    [
        ("photos", "relu5", "logit", [(1, 1), (1, 2)]),  # LRN within towers
        # Pooled before the ReLU, ties to all, two normalizations.
        ("source2012", "pool1", "logit", [(1, 2)]),
        ("torchvision", "conv3", "probability", [(1, 1)]),  # no towers, no LRN
        ("caffenet", "norm2", "logit", [(2, 2)]),  # LRN over both towers, after pooling
        pytest.param("photos", "conv4", "probability", [(2, 2)], marks=pytest.mark.slow),
        pytest.param("caffenet", "pool2", "logit", [(1, 1), (1, 2)], marks=pytest.mark.slow),
        pytest.param("source2012", "cnorm2", "logit", [(1, 1), (2, 2)], marks=pytest.mark.slow),
        pytest.param("torchvision", "relu5", "logit", [(1, 2)], marks=pytest.mark.slow),
        pytest.param("merged", "relu2", "logit", [(1, 1), (1, 2)], marks=pytest.mark.slow),
        pytest.param("six_conv", "relu_conv6", "logit", [(1, 2)], marks=pytest.mark.slow),
    ],
)
def test_gradient_and_grad_cam_are_those_of_a_plain_network(
    network_of, images, preset, layer, score, meshes
):
    architecture = network_of(preset).architecture
    params = jax.device_get(network_of(preset).params)
    by_pixel, total, by_tower = plain.explain(params, images, LABELS, architecture, layer, score)
    assert total.max() > 0
    assert np.abs(by_tower[:, 0] - by_tower[:, 1]).max() > 0.1 * np.abs(by_tower).max()
    for mesh in meshes:
        network = network_of(preset, *mesh)
        close(gradient(network, images, LABELS, score=score), by_pixel)
        cam = grad_cam(network, images, LABELS, layer=layer, score=score)
        close(cam.total, total)
        has_towers = architecture.has_towers
        close(cam.towers, by_tower if has_towers else by_tower.sum(axis=1, keepdims=True))


def test_the_gradient_is_the_slope_along_the_preprocessed_image(network, images):
    direction = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    step, rows = 0.05, np.arange(len(images))
    sides = [
        network.apply(network.params, images + s * step * direction)[rows, LABELS] for s in (1, -1)
    ]
    slopes = np.sum(gradient(network, images, LABELS) * direction, axis=(1, 2, 3))
    np.testing.assert_allclose((sides[0] - sides[1]) / (2 * step), slopes, rtol=0.05, atol=1e-4)


def test_the_predicted_class_is_explained_unless_another_is_given(network, images):
    predicted = np.asarray(network.apply(network.params, images)).argmax(axis=1)
    np.testing.assert_array_equal(gradient(network, images), gradient(network, images, predicted))
    one = gradient(network, images, 2)
    np.testing.assert_array_equal(one, gradient(network, images, [2, 2]))
    assert (np.asarray(one) != gradient(network, images, 0)).any()


def test_nothing_is_compiled_again_for_another_image_or_class(network, images, caplog):
    gradient(network, images, LABELS)
    grad_cam(network, images, LABELS)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        gradient(network, images[::-1].copy(), LABELS[::-1])
        grad_cam(network, images[::-1].copy(), LABELS[::-1])
    assert "Compiling" not in caplog.text


def test_gradients_may_be_compiled_with_what_uses_them(network, images):
    both = jax.jit(lambda x: (gradient(network, x, LABELS), grad_cam(network, x, LABELS).total))
    by_pixel, cam = both(images)
    close(by_pixel, gradient(network, images, LABELS))
    close(cam, grad_cam(network, images, LABELS).total)


def test_saliency_is_the_largest_absolute_value_of_the_colors():
    gradients = np.zeros((1, 15, 15, 3))
    gradients[0, 7, 7] = [1, -3, 2]
    (sharp,), (blurred,) = saliency(gradients), saliency(gradients, 1.5)
    assert (sharp[7, 7], sharp.sum()) == (3, 3)
    assert np.unravel_index(blurred.argmax(), (15, 15)) == (7, 7)
    np.testing.assert_allclose(blurred[7, 7:10], blurred[7:10, 7])
    np.testing.assert_allclose(blurred[7, 8] / blurred[7, 7], np.exp(-0.5 / 1.5**2), rtol=1e-6)
    np.testing.assert_allclose(saliency(np.ones((1, 9, 9, 3)), 4), 1, rtol=1e-6)


def test_maps_are_placed_where_their_units_look(network):
    # conv1 of 11 pixels every 4: its positions look at pixels 5, 9, 13 ...
    maps = np.zeros((2, 15, 15), np.float32)
    maps[0, 2, 3] = maps[1, 0, 14] = 1
    placed = upsample(maps, network.architecture, "conv1")
    assert placed.shape == (2, 64, 64)
    assert placed[0, 13, 17] == 1
    np.testing.assert_allclose(placed[0, 13, 17:22], [1, 0.75, 0.5, 0.25, 0])
    assert placed[1, :6, 61:].min() == 1  # beyond the outermost centers
    # pool1 of 3 positions, the middle of the first at 1: pixels 9, 17, 25 ...
    placed = upsample(np.eye(7, dtype=np.float32), network.architecture, "pool1")
    np.testing.assert_allclose(placed[[9, 17, 25], [9, 17, 25]], 1)


def test_the_default_is_the_last_convolution_with_maps_that_can_tell_where(network_of):
    assert default_layer(network_of().architecture) == "relu2"  # relu5 has 3 x 3
    for variant, layer in (("two_towers", "relu5"), ("six_conv", "relu_conv6")):
        assert default_layer(build_architecture(ModelConfig(variant=variant), 10, 224)) == layer
    assert last_layer_of_side(network_of().architecture, 1) == "relu5"
    assert last_layer_of_side(network_of("six_conv").architecture, 1) == "relu_conv6"
    assert last_layer_of_side(network_of().architecture, 99) == ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, x: gradient(n, x, 3), r"classes .*3.*: must be from 0 to 2; number"),
        (lambda n, x: gradient(n, x, [0, 1, 2]), "classes .*: must be 2 numbers.*; leave it out"),
        (
            lambda n, x: gradient(n, x, np.zeros(2)),
            r"classes .*0.*: must be 2 numbers of.*; leave it out",
        ),
        (lambda n, x: gradient(n, x, score=LOSS), "score loss: must be logit .*; try logit"),
        (lambda n, x: gradient(n, x[:, 1:]), "images .*: must have the shape"),
        (lambda n, x: grad_cam(n, x, layer="fc6"), "layer fc6: must be a conv.*; choose .*relu5"),
        (lambda n, x: grad_cam(n, x, layer="conv9"), "layer conv9: .*; choose from conv1"),
        (lambda _, x: saliency(x, -1), "blur -1: must be at least 0 pixels; try 4"),
        (lambda _, x: saliency(x, np.nan), "blur nan: must be at least 0 pixels; try 4"),
        (lambda _, x: saliency(x[0]), "gradients .*: must have the shape .*; pass"),
        (lambda n, x: upsample(x[..., 0], n.architecture, "relu5"), "maps .*: must be 3 x 3"),
    ],
)
def test_refusals(call, message, network, images):
    with pytest.raises(ValueError, match=message):
        call(network, images)
