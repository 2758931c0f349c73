"""What classifiers without a notion of shape reach on the synthetic data set.

Claim:    the synthetic data set is not trivial. A linear classifier on its pixels has more than
          50 % error, and neither color nor shape alone identifies a class: the pattern alone leaves
          four colors, so at least 75 % error, and the color alone five patterns, so at least 80 %.
Expected: validation error 0.79 on all pixels, 0.91 on gray pixels, 0.79 on mean colors, 0.84 on
          color histograms; nearest class means are slightly worse; chance is 0.95
Cost:     40 seconds and 1.6 GB on two cores
Run:      python experiments/claims/linear_baseline.py

Each classifier is multinomial logistic regression on standardized features, trained on the whole
training split. The best weight decay and the best step are selected on the validation split itself,
so the printed errors are optimistic.
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alexnet_jax.data.synthetic import CLASS_NAMES, Synthetic

DECAYS = (1e-3, 1e-2, 1e-1)
STEPS = 80  # full-batch steps of Adam at each decay


class Split(NamedTuple):
    """Images uint8 [N, 72, 72, 3] or features float32 [N, D], and labels [N]."""

    features: np.ndarray
    labels: np.ndarray


def load(split: str) -> Split:
    """Return a whole split."""
    source = Synthetic(split)
    records = [source[index] for index in range(len(source))]
    images = np.stack([record["image"] for record in records])
    return Split(images, np.array([record["label"] for record in records]))


def pixels(images: np.ndarray) -> np.ndarray:
    """Return all values of an image [N, 15552]."""
    return images.reshape(len(images), -1).astype(np.float32)


def gray(images: np.ndarray) -> np.ndarray:
    """Return the luma of each pixel [N, 5184]."""
    return pixels(images @ np.array([0.299, 0.587, 0.114], np.float32))


def mean_color(images: np.ndarray) -> np.ndarray:
    """Return the mean color of the image and of its center [N, 6]."""
    parts = images, images[:, 24:48, 24:48]
    return np.concatenate([part.mean((1, 2)) for part in parts], axis=1, dtype=np.float32)


def histogram(images: np.ndarray) -> np.ndarray:
    """Return square roots of the frequencies of 512 colors [N, 512]."""
    codes = (images >> 5) @ np.array([64, 8, 1], np.uint16)
    counts = [np.bincount(code.ravel(), minlength=512) for code in codes]
    return np.sqrt(np.array(counts, np.float32) / codes[0].size)


def standardize(train: np.ndarray, validation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale each feature by its mean and deviation over the training split."""
    mean, scale = train.mean(0), train.std(0) + 1e-6
    return (train - mean) / scale, (validation - mean) / scale


def logistic_error(train: Split, validation: Split) -> float:
    """Return the lowest validation error of logistic regression over DECAYS and steps."""
    shape = train.features.shape[1], len(CLASS_NAMES)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.3 / np.sqrt(shape[0]), STEPS))

    def loss(weights: jax.Array, decay: float) -> jax.Array:
        # No bias: features are centered and classes equally frequent.
        logits = train.features @ weights
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, train.labels).mean()
        return nll + decay / 2 * jnp.sum(weights**2)

    @jax.jit
    def step(weights: jax.Array, state: optax.OptState, decay: float):
        wrong = (validation.features @ weights).argmax(-1) != validation.labels
        updates, state = optimizer.update(jax.grad(loss)(weights, decay), state)
        return optax.apply_updates(weights, updates), state, wrong.mean()

    errors = []
    for decay in DECAYS:
        weights = jnp.zeros(shape)
        state = optimizer.init(weights)
        for _ in range(STEPS):
            weights, state, error = step(weights, state, decay)
            errors.append(float(error))
    return min(errors)


def nearest_mean_error(train: Split, validation: Split) -> float:
    """Return the validation error of taking the class whose mean features are nearest."""
    means = np.stack(
        [train.features[train.labels == label].mean(0) for label in range(len(CLASS_NAMES))]
    )
    scores = validation.features @ means.T - (means**2).sum(1) / 2
    return float(np.mean(scores.argmax(1) != validation.labels))


def main() -> None:
    """Print the table."""
    train, validation = load("train"), load("validation")
    print(
        f"validation top-1 error, {len(CLASS_NAMES)} classes, chance {1 - 1 / len(CLASS_NAMES):.1%}"
    )
    for name, extract in {
        "all pixels": pixels,
        "gray pixels": gray,
        "mean color": mean_color,
        "color histogram": histogram,
    }.items():
        start = time.perf_counter()
        features = standardize(extract(train.features), extract(validation.features))
        splits = Split(features[0], train.labels), Split(features[1], validation.labels)
        logistic, nearest = logistic_error(*splits), nearest_mean_error(*splits)
        seconds = time.perf_counter() - start
        print(
            f"{name:18} logistic regression {logistic:6.1%}   "
            f"nearest class mean {nearest:6.1%}   {seconds:5.1f} s"
        )


if __name__ == "__main__":
    main()
