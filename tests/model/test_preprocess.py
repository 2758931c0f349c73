"""What the device does to a uint8 batch, against plain numpy pixel by pixel."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.config import DataConfig
from alexnet_jax.data import statistics
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.training.setup import make_preprocess

RNG = np.random.default_rng(0)
MEAN = RNG.uniform(0, 255, (9, 9, 3)).astype(np.float32)
AXES = np.linalg.qr(RNG.normal(size=(3, 3)))[0].astype(np.float32)
SCALE = np.array([0.5, 1.0, 3.0], np.float32)
BATCH = {
    "image": RNG.integers(0, 256, (4, 5, 5, 3), np.uint8),
    "offset": np.array([[0, 0], [4, 4], [1, 3], [2, 0]], np.int32),
    "mirror": np.array([False, True, True, False]),
    "lighting": RNG.normal(0, 0.1, (4, 3)).astype(np.float32),
    "divisor": np.array([1.1, 1.0, 1.1, 1.3], np.float32),
}
finished = jax.jit(preprocess)
KRIZHEVSKY = vars(statistics.published("imagenet", 9))


def constants_of(mean, *switches: Any):
    lighting = jnp.asarray(AXES * KRIZHEVSKY["lighting_std"])
    return Preprocess(jnp.asarray(mean), lighting, jnp.asarray(SCALE), *switches)


def plain(batch, mean, alignment="aligned", channels="rgb"):
    """Work through fidelity's section 2 one pixel at a time, in float64."""
    images = np.zeros(batch["image"].shape)
    for b, y, x in np.ndindex(images.shape[:3]):
        # Column x of a mirrored crop was column 4 - x of the square it was cut from.
        before = 4 - x if batch["mirror"][b] else x
        row, column = batch["offset"][b] + (y, before)
        if alignment == "center":
            row, column = 2 + y, 2 + x
        below = mean if mean.ndim == 1 else mean[row, column]
        pixel = batch["image"][b, y, before] - below.astype(np.float64)
        if "lighting" in batch:
            for axis in range(3):
                std = KRIZHEVSKY["lighting_std"][axis]
                pixel += batch["lighting"][b, axis] * std * AXES[:, axis]
            pixel /= batch["divisor"][b]
        pixel *= SCALE
        images[b, y, x] = pixel[::-1] if channels == "bgr" else pixel
    return images


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("lit", [True, False])
@pytest.mark.parametrize(
    ("mean", "alignment"),
    [(MEAN, "aligned"), (MEAN, "center"), (MEAN[0, 0], "aligned")],
    ids=["aligned", "center", "color"],
)
def test_a_batch_equals_plain_numpy(mean, alignment, lit, channels):
    batch = {name: BATCH[name] for name in BATCH if lit or name not in ("lighting", "divisor")}
    images = finished(batch, constants_of(mean, alignment, channels))
    expected = plain(batch, mean, alignment, channels)
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-3)
    assert images.dtype == np.float32


def test_every_switch_changes_the_batch():
    switches = [(), ("center",), ("aligned", "bgr")]
    results = [np.asarray(finished(BATCH, constants_of(MEAN, *switch))) for switch in switches]
    results.append(np.asarray(finished(BATCH, constants_of(MEAN[0, 0]))))
    results.append(
        np.asarray(finished({**BATCH, "divisor": np.ones(4, np.float32)}, constants_of(MEAN)))
    )
    for number, one in enumerate(results):
        for other in results[:number]:
            assert np.abs(one - other).max() > 1


def test_the_mean_of_the_center_crop_is_never_mirrored():
    # An image that is its own mean comes to nothing where the mean follows it.
    cut = np.rint(MEAN)[2:7, 2:7].astype(np.uint8)
    batch = {
        "image": np.stack([cut, cut]),
        "offset": np.full((2, 2), 2, np.int32),
        "mirror": np.array([False, True]),
    }
    aligned, center = (
        np.asarray(finished(batch, constants_of(np.rint(MEAN), alignment)))
        for alignment in ("aligned", "center")
    )
    assert not aligned.any()
    assert not center[0].any()
    assert np.abs(center[1]).max() > 10


def black(lighting):
    return {
        "image": np.zeros((len(lighting), 1, 1, 3), np.uint8),
        "offset": np.zeros((len(lighting), 2), np.int32),
        "mirror": np.zeros(len(lighting), bool),
        "lighting": lighting,
    }


@pytest.mark.parametrize(
    ("unit", "sigmas"),
    [("std", (12.178, 3.709, 1.972)), ("eigenvalue", (1483.0, 137.6, 38.9))],
)
def test_lighting_has_the_sigmas_of_2012(unit, sigmas):
    # 12.2, 3.7 and 2.0 gray levels along Krizhevsky's axes; 1,483 by the letter of P4.1.
    constants = make_preprocess(DataConfig(pca_scale=unit, mean="channel"), KRIZHEVSKY)
    np.testing.assert_allclose(
        0.1 * np.linalg.norm(constants.lighting, axis=0)[::-1], sigmas, rtol=1e-3
    )
    draws = np.random.default_rng(1).normal(0, 0.1, (20_000, 3)).astype(np.float32)
    moved = np.asarray(finished(black(draws), constants))[:, 0, 0]
    along = (moved - moved.mean(0)) @ KRIZHEVSKY["lighting_axes"]
    np.testing.assert_allclose(np.std(along, axis=0)[::-1], sigmas, rtol=0.02)


def test_torchvisions_numbers_are_those_of_its_own_formula():
    # ToTensor(), then Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]).
    published_statistics = vars(statistics.published("torchvision", 9))
    config = DataConfig(mean="channel", statistics="torchvision")
    batch = {name: BATCH[name] for name in ("image", "offset", "mirror")}
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    mirrored = BATCH["mirror"][:, None, None, None]
    crops = np.where(mirrored, BATCH["image"][:, :, ::-1], BATCH["image"])
    expected = (crops / 255 - mean) / std
    np.testing.assert_allclose(
        finished(batch, make_preprocess(config, published_statistics)), expected, atol=1e-6
    )


def test_the_configuration_reaches_the_device():
    published_statistics = vars(statistics.published("caffe", 9)) | {"mean_image": MEAN}
    config = DataConfig(mean="image-center", channels="bgr")
    centered = make_preprocess(config, published_statistics)
    assert (centered.mean_alignment, centered.channels) == ("center", "bgr")
    np.testing.assert_array_equal(centered.mean, MEAN)
    aligned = make_preprocess(DataConfig(mean="image"), published_statistics)
    assert (aligned.mean_alignment, aligned.channels) == ("aligned", "rgb")
    np.testing.assert_array_equal(aligned.mean, MEAN)
    color = make_preprocess(DataConfig(mean="channel"), published_statistics)
    np.testing.assert_allclose(color.mean, [122.68, 116.67, 104.01], atol=0.005)  # RGB
