"""Occlusion: the drop of the score under each square, one square at a time as a reference."""

import jax
import numpy as np
import pytest

from alexnet_jax.explanations import occlusion as module
from alexnet_jax.explanations.occlusion import occlusion

pytestmark = pytest.mark.usefixtures("quick_compilation")


def by_hand(network, image, label, starts, window, score=lambda logits: logits):
    """Return the mean drop over the squares that cover each pixel."""
    crop = len(image)
    total, count = np.zeros((2, crop, crop))
    whole = score(network.apply(network.params, image[None]))[0, label]
    for top in starts:
        for left in starts:
            covered = image.copy()
            covered[top : top + window, left : left + window] = 0
            drop = whole - score(network.apply(network.params, covered[None]))[0, label]
            total[top : top + window, left : left + window] += drop
            count[top : top + window, left : left + window] += 1
    return total / count


@pytest.mark.parametrize(
    ("window", "stride", "starts"),
    [(20, 15, [0, 15, 30, 44]), (32, 32, [0, 32]), (63, 1, [0, 1])],
)
def test_it_is_the_mean_drop_over_the_squares_that_cover_a_pixel(
    network, images, window, stride, starts
):
    (actual,) = occlusion(network, images[:1], 1, window=window, stride=stride)
    expected = by_hand(network, images[0], 1, starts, window)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


def test_of_the_probability_on_two_towers_and_two_shards(network_of, network, images):
    found = occlusion(
        *(network_of("photos", 2, 2), images, [0, 2]), window=32, stride=32, score="probability"
    )
    for image, label, actual in zip(images, [0, 2], found, strict=True):
        expected = by_hand(network, image, label, [0, 32], 32, jax.nn.softmax)
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_the_defaults_are_a_quarter_of_the_crop_and_of_the_window(network, images):
    (default,) = occlusion(network, images[:1])
    (same,) = occlusion(network, images[:1], window=16, stride=4)
    np.testing.assert_array_equal(default, same)


def test_one_program_serves_all_images_windows_and_strides(network, images, caplog):
    occlusion(network, images[:1], 0, window=60, stride=30)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        occlusion(network, images, [1, 2], window=40, stride=13)
    compiled = [line for line in caplog.text.splitlines() if "Compiling" in line]
    assert not [line for line in compiled if "occluded" in line], compiled


def test_more_squares_than_a_batch(network, images, monkeypatch):
    whole = occlusion(network, images[:1], window=16, stride=16)
    monkeypatch.setattr(module, "BATCH", 5)
    np.testing.assert_allclose(
        occlusion(network, images[:1], window=16, stride=16), whole, atol=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window 0: must be from 1 to 63 pixels.*; try 16"),
        ({"window": 64}, "window 64: must be from 1 to 63 pixels.*; try 16"),
        ({"stride": 0}, "stride 0: must be from 1 to window=16.*; try 4"),
        ({"window": 3, "stride": 4}, "stride 4: must be from 1 to window=3.*; try 1"),
    ],
)
def test_refusals(options, message, network, images):
    with pytest.raises(ValueError, match=message):
        occlusion(network, images, **options)
