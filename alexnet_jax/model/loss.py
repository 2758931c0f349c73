"""Cross-entropy in the form whose gradient is not a scatter; `platform.py` chooses."""

import jax
import jax.numpy as jnp
from jax import Array


def label_logits(logits: Array, labels: Array) -> Array:
    """Return the logit of each image's own class, float [B].

    By selection and a sum: the gradient of a gather is a scatter, which a GPU computes by atomic
    additions, in any order.
    """
    true = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None, :] == labels[:, None]
    return jnp.sum(jnp.where(true, logits, 0), axis=-1)


def cross_entropy_by_selection(logits: Array, labels: Array) -> Array:
    """Return -log softmax(logits)[label] for each image, in nats, float [B].

    The same as `optax.softmax_cross_entropy_with_integer_labels`, which gathers.
    """
    return jax.nn.logsumexp(logits, axis=-1) - label_logits(logits, labels)
