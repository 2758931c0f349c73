"""uint8 crops become the network's inputs, on the device; the constants travel with the weights."""

from collections.abc import Mapping
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax


class Preprocess(flax.struct.PyTreeNode):
    """What is known about the images a network was trained on; colors in the order RGB."""

    mean: Array  # float32 [S, S, 3], an image, or [3], one color; 0..255
    lighting: Array  # float32 [3, 3]: column i is what a draw of 1 along axis i adds; 0..255
    scale: Array  # float32 [3], what an image less the mean is multiplied by
    # Of a mean image: where the crop was taken, flipped with it, or the center, never flipped.
    where: Literal["aligned", "center"] = flax.struct.field(pytree_node=False, default="aligned")
    channels: Literal["rgb", "bgr"] = flax.struct.field(pytree_node=False, default="rgb")


def preprocess(batch: Mapping[str, Array], constants: Preprocess) -> Array:
    """Return the network's inputs: (0..255 - mean + lighting) / divisor x scale, [B, h, w, 3].

    The image is flipped where the batch says so, and the mean with it where it is aligned.

    Float32, without the division and lighting where the batch says nothing of them.

    Args:
        batch: `image` uint8 [B, h, w, 3]; `offset` int32 [B, 2], row and column of the crop;
            `mirror` bool [B], whether to flip it; in training also `lighting` float32 [B, 3], how
            far to move along each axis of color (P4.1), and `divisor` float32 [B]
            (convdata_jpeg.py:179).
        constants: of the training split; their `channels` is the order of the colors returned.
    """
    images = batch["image"].astype(jnp.float32)
    mean = _mean_of_crops(batch, constants, images.shape[1])
    mirror = batch["mirror"][:, None, None, None]
    if constants.where == "aligned":
        images -= mean
    images = jnp.where(mirror, images[:, :, ::-1], images)
    if constants.where == "center":
        images -= mean
    if "lighting" in batch:
        images += (batch["lighting"] @ constants.lighting.T)[:, None, None, :]
    if "divisor" in batch:
        images /= batch["divisor"][:, None, None, None]
    images *= constants.scale[None, None, None, :]
    return images[..., ::-1] if constants.channels == "bgr" else images


def _mean_of_crops(batch: Mapping[str, Array], constants: Preprocess, crop: int) -> Array:
    mean = constants.mean
    if mean.ndim == 1:
        return mean[None, None, None, :]
    if constants.where == "center":
        start = (mean.shape[0] - crop) // 2
        return mean[None, start : start + crop, start : start + crop]

    def one(offset: Array) -> Array:
        return lax.dynamic_slice(mean, (offset[0], offset[1], 0), (crop, crop, 3))

    return jax.vmap(one)(batch["offset"])
