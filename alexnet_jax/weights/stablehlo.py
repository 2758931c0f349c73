"""A network as a serialized JAX program, which needs JAX alone, on a CPU, GPU or TPU."""

import jax
import jax.numpy as jnp
from jax import Array, export

from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.convolution import convolve
from alexnet_jax.model.loss import cross_entropy_by_selection
from alexnet_jax.model.platform import Ops, whole_batch
from alexnet_jax.model.pooling import pool
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.model.response_norm import normalize
from alexnet_jax.weights.convert import Params

PLATFORMS = ("cpu", "cuda", "tpu")
# The plain formulations, one program for all platforms.
PORTABLE = Ops(convolve, normalize, pool, cross_entropy_by_selection, whole_batch)


def build_program(
    architecture: Architecture, params: Params, constants: Preprocess, image_size: int
) -> bytes:
    """Return a program, with the weights in it, that `jax.export.deserialize` reads.

    Its `call` maps squares uint8 [N, image_size, image_size, 3], RGB, to probabilities float32
    [N, classes]; N may be any number. Both towers are computed on one device.
    """
    net, crop = AlexNet(architecture, PORTABLE), architecture.crop
    start = (image_size - crop) // 2

    def predict(image: Array) -> Array:
        batch = {
            "image": image[:, start : start + crop, start : start + crop],
            "offset": jnp.full((image.shape[0], 2), start),
            "mirror": jnp.zeros(image.shape[0], bool),
        }
        logits, _ = net.apply({"params": params}, preprocess(batch, constants))
        return jax.nn.softmax(logits)

    (batch_size,) = export.symbolic_shape("N")
    squares = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.uint8)
    return bytes(export.export(jax.jit(predict), platforms=PLATFORMS)(squares).serialize())
