"""uint8 crops become the network's inputs, on the device; the constants travel with the weights."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


class Preprocess(NamedTuple):
    """What is known about the images a network was trained on."""

    mean: (
        Array  # float32 [S, S, 3], subtracted where the crop was taken, or [3], one colour; 0..255
    )
    lighting: (
        Array  # float32 [3, 3]: column i is principal axis i of the colours times its std; 0..255
    )


def finish(batch: Mapping[str, Array], constants: Preprocess) -> Array:
    """Return float32 images [B, h, w, 3], 0..255 less the mean (P2), with lighting (P4.1).

    Args:
        batch: `image` uint8 [B, h, w, 3]; `offset` int32 [B, 2], row and column of the crop;
            `mirror` bool [B], whether the crop was flipped after it was taken; optionally
            `lighting` float32 [B, 3], how many standard deviations to move along each axis.
        constants: of the training split.
    """
    images = batch["image"].astype(jnp.float32)
    images -= _mean_of_crops(batch, constants.mean, images.shape[1])
    if "lighting" in batch:
        images += (batch["lighting"] @ constants.lighting.T)[:, None, None, :]
    return images


def _mean_of_crops(batch: Mapping[str, Array], mean: Array, crop: int) -> Array:
    if mean.ndim == 1:
        return mean[None, None, None, :]

    def one(offset: Array, mirror: Array) -> Array:
        cut = lax.dynamic_slice(mean, (offset[0], offset[1], 0), (crop, crop, 3))
        return jnp.where(mirror, cut[:, ::-1], cut)

    return jax.vmap(one)(batch["offset"], batch["mirror"])
