"""The last step of preprocessing, on the device: uint8 crops to the network's inputs."""

from collections.abc import Callable, Mapping
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_jax.config import Precision


class Preprocess(flax.struct.PyTreeNode):
    """Constants of the images that a network was trained on, in the order RGB.

    They are saved with the weights.
    """

    mean: Array  # float32 [S, S, 3], a mean image, or [3], a mean color; 0..255
    lighting: Array  # float32 [3, 3]: column i is what a draw of 1 along axis i adds; 0..255
    scale: Array  # float32 [3], multiplies the image after the mean is subtracted
    # Of a mean image. aligned: the part where the crop is, flipped with it; center: never flipped.
    mean_alignment: Literal["aligned", "center"] = flax.struct.field(
        pytree_node=False, default="aligned"
    )
    channels: Literal["rgb", "bgr"] = flax.struct.field(pytree_node=False, default="rgb")


def flip_by_bits(images: Array, mirror: Array) -> Array:
    """Return uint8 images [B, h, w, 3], flipped left to right where `mirror` [B] is true."""
    # Selected by bits: XLA for CPUs does not vectorize a choice between two orders of pixels.
    chosen = -mirror.astype(jnp.uint8)[:, None, None, None]  # -1 is 255, all bits
    return (images & ~chosen) | (images[:, :, ::-1] & chosen)


def flip_by_product(images: Array, mirror: Array) -> Array:
    """Compute `flip_by_bits` as a product with a matrix of 0 and 1, float32 [B, h, w, 3].

    Exact: bfloat16 has all bytes, and each sum has one term. Faster on a TPU by its compiler's
    estimate, whose reversal of an axis copies the images; see experiments/RESULTS.md.
    """
    reversal = jnp.asarray(np.eye(images.shape[2])[::-1], jnp.bfloat16)
    images = images.astype(jnp.bfloat16)
    flipped = jnp.einsum("vw,bhwc->bhvc", reversal, images, preferred_element_type=jnp.float32)
    return jnp.where(mirror[:, None, None, None], flipped, images.astype(jnp.float32))


def preprocess(
    batch: Mapping[str, Array],
    constants: Preprocess,
    precision: Precision = "default",
    flip: Callable[[Array, Array], Array] = flip_by_bits,
) -> Array:
    """Return (image - mean + lighting) / divisor * scale, float32 [B, h, w, 3].

    Lighting and divisor are applied only if the batch has them.

    Args:
        batch: `image` uint8 [B, h, w, 3]; `offset` int32 [B, 2], row and column of the crop;
            `mirror` bool [B], whether to flip it; in training also `lighting` float32 [B, 3],
            coefficients of the principal axes of color (P4.1), and `divisor` float32 [B]
            (convdata_jpeg.py:179).
        constants: of the training split; `channels` is the order of the colors in the result.
        precision: of the product of coefficients and axes.
        flip: the platform's form of `flip_by_bits`.
    """
    # Bytes are flipped, and the mean before it is cropped: the same numbers as the flipped
    # difference, but fewer bytes to move.
    images = flip(batch["image"], batch["mirror"]).astype(jnp.float32)
    images -= _mean_of_crops(batch, constants, images.shape[1])
    if "lighting" in batch:
        noise = jnp.matmul(batch["lighting"], constants.lighting.T, precision=precision)
        images += noise[:, None, None, :]
    if "divisor" in batch:
        images /= batch["divisor"][:, None, None, None]
    images *= constants.scale[None, None, None, :]
    return images[..., ::-1] if constants.channels == "bgr" else images


def _mean_of_crops(batch: Mapping[str, Array], constants: Preprocess, crop: int) -> Array:
    mean = constants.mean
    if mean.ndim == 1:
        return mean[None, None, None, :]
    if constants.mean_alignment == "center":
        start = (mean.shape[0] - crop) // 2
        return mean[None, start : start + crop, start : start + crop]

    # The flipped crop of the mean is a crop of the flipped mean.
    sides = jnp.stack([mean, mean[:, ::-1]])

    def cropped(offset: Array, mirror: Array) -> Array:
        row, column = offset
        column = jnp.where(mirror, mean.shape[1] - crop - column, column)
        start = (mirror.astype(row.dtype), row, column, 0)
        return lax.dynamic_slice(sides, start, (1, crop, crop, 3))[0]

    return jax.vmap(cropped)(batch["offset"], batch["mirror"])
