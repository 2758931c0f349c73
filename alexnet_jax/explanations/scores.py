"""The score that an explanation explains: the logit or the probability of one class."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.config import invalid
from alexnet_jax.inference.model import Model
from alexnet_jax.model.features import check_inputs

Score = Literal["logit", "probability"]
Classes = Sequence[int] | np.ndarray | Array | int | None


def scores_of(logits: Array, classes: Array, score: Score) -> Array:
    """Return the score of one class for each image, [B], from logits [B, K] and classes [B]."""
    values = jax.nn.softmax(logits) if score == "probability" else logits
    return jnp.take_along_axis(values, classes[:, None], axis=1)[:, 0]


def check_arguments(network: Model, images: Any, classes: Classes, score: Score) -> Array:
    """Return the classes to explain, int32 [B]: those given, or the predicted ones for None.

    Raises:
        ValueError: `images` do not fit the network, `score` is another, or a class does not exist.
    """
    if score not in ("logit", "probability"):
        raise invalid("score", score, "must be logit or probability", "try logit")
    check_inputs(network.params, images, network.architecture, network.mesh)
    if classes is None:
        return jnp.argmax(network.apply(network.params, images), axis=1).astype(jnp.int32)
    count, number = len(images), network.architecture.num_classes
    labels = np.asarray(classes)
    if labels.ndim == 0:
        labels = np.full(count, labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        rule = f"must be {count} numbers of classes, one for each image, or one for all of them"
        raise invalid("classes", classes, rule, "leave it out for the predicted classes")
    if not ((labels >= 0) & (labels < number)).all():
        rule = f"must be from 0 to {number - 1}"
        raise invalid("classes", labels.tolist(), rule, "number the classes from 0")
    return jnp.asarray(labels, jnp.int32)
