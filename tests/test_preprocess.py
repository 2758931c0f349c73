"""What the device does to a uint8 batch, against plain numpy pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model.preprocess import Preprocess, finish

RNG = np.random.default_rng(0)
MEAN = RNG.uniform(0, 255, (9, 9, 3)).astype(np.float32)
# The 2012 constants: standard deviations 19.7, 37.1 and 121.8 grey levels along three axes.
STDS = np.array([19.7208, 37.0939, 121.7801], np.float32)
AXES = np.linalg.qr(RNG.normal(size=(3, 3)))[0].astype(np.float32)
BATCH = {
    "image": RNG.integers(0, 256, (4, 5, 5, 3), np.uint8),
    "offset": np.array([[0, 0], [4, 4], [1, 3], [2, 0]], np.int32),
    "mirror": np.array([False, True, True, False]),
    "lighting": RNG.normal(0, 0.1, (4, 3)).astype(np.float32),
}


def plain(mean, lighting):
    images = np.zeros((4, 5, 5, 3))
    for b in range(4):
        for y in range(5):
            for x in range(5):
                # Column x of a mirrored crop was column 4 - x of the square it was cut from.
                column = 4 - x if BATCH["mirror"][b] else x
                row_offset, column_offset = BATCH["offset"][b]
                below = mean if mean.ndim == 1 else mean[row_offset + y, column_offset + column]
                images[b, y, x] = BATCH["image"][b, y, x] - below.astype(np.float64)
                if lighting:
                    for axis in range(3):
                        images[b, y, x] += BATCH["lighting"][b, axis] * STDS[axis] * AXES[:, axis]
    return images


@pytest.mark.parametrize("mean", [MEAN, MEAN[0, 0]], ids=["image", "colour"])
@pytest.mark.parametrize("lighting", [True, False])
def test_the_mean_is_aligned_with_the_crop_and_lighting_moves_along_the_axes(mean, lighting):
    batch = BATCH if lighting else {k: v for k, v in BATCH.items() if k != "lighting"}
    constants = Preprocess(jnp.asarray(mean), jnp.asarray(AXES * STDS))
    images = jax.jit(finish)(batch, constants)
    np.testing.assert_allclose(images, plain(mean, lighting), rtol=0, atol=1e-3)


def test_lighting_has_the_sigmas_of_2012():
    # A tenth of the standard deviations: 12.2, 3.7 and 2.0 grey levels along the axes, one colour
    # an image.
    draws = np.random.default_rng(1).normal(0, 0.1, (20_000, 3)).astype(np.float32)
    batch = {
        "image": np.zeros((len(draws), 1, 1, 3), np.uint8),
        "offset": np.zeros((len(draws), 2), np.int32),
        "mirror": np.zeros(len(draws), bool),
        "lighting": draws,
    }
    moved = jax.jit(finish)(batch, Preprocess(jnp.zeros(3), jnp.asarray(AXES * STDS)))[:, 0, 0]
    np.testing.assert_allclose(np.std(moved @ AXES, axis=0), [1.97, 3.71, 12.18], rtol=0.02)
