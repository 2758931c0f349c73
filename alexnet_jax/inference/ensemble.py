"""Probabilities averaged over views of an image and over networks, and their scores.

The paper averages over ten views of an image (section 4.1) and over several networks (section 6);
both times the probabilities of the softmax, not the logits.
"""

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from alexnet_jax.config import invalid
from alexnet_jax.data.crops import views_of
from alexnet_jax.data.pipeline import Batch, evaluation_batches
from alexnet_jax.data.sources import Source
from alexnet_jax.inference.network import Network
from alexnet_jax.model import towers
from alexnet_jax.model.settings import fixed_settings
from alexnet_jax.training.step import make_predict_step, top_k_error

Views = Literal[1, 10]
TOLERANCE = 1e-6  # the search of ensemble weights ends when no weight changes by more
MAX_ROUNDS = 10_000  # of the search


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The scores of one network, or of one weighted average of networks, on each of N images."""

    label: np.ndarray  # int [N]
    best: np.ndarray  # int [N], the most probable class
    loss: np.ndarray  # float64 [N], nats
    top1_error: np.ndarray  # float64 [N], 0 to 1, see `step.top_k_error`
    top5_error: np.ndarray

    def scores(self) -> dict[str, float]:
        """Return the means `loss`, `top1_error`, `top5_error`."""
        return {
            name: float(np.mean(getattr(self, name)))
            for name in ("loss", "top1_error", "top5_error")
        }


class Predictor:
    """A network compiled to predict the classes of square images from one view or ten of each."""

    def __init__(self, network: Network, views: Views):
        self.data = network.config.data
        self._network, self._views = network, views
        self._step = make_predict_step(network.architecture, network.mesh, network.constants)

    @fixed_settings()
    def __call__(self, squares: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return log-probabilities [B, classes], averaged over the views of each image.

        Args:
            squares: uint8 [S, S, 3] each, S = `image_size`; B must be divisible by the data shards
                of the mesh.

        Raises:
            ValueError: an output is NaN, so that there is neither a best class nor a loss.
        """
        variables, mesh = self._network.variables, self._network.mesh
        # One view after the other, as ten times the batch would need ten times the memory; and each
        # is waited for, as emulated devices with many programs in flight may deadlock.
        logs = [
            np.asarray(self._step(variables, towers.put_batch(view, mesh)))
            for view in views_of(squares, self.data.crop, self._views)
        ]
        if num_nan := int(np.isnan(logs).any(axis=(0, 2)).sum()):
            workdir, step = self._network.workdir, self._network.step
            rule = f"the outputs of its network (step {step:,}) are NaN for {num_nan:,} images"
            remedy = "use an earlier checkpoint, or a run whose weights are finite"
            raise invalid("workdir", workdir, rule, remedy)
        return np.asarray(
            mix_log_probabilities(np.stack(logs), np.full(self._views, 1 / self._views, np.float32))
        )


@jax.jit
def mix_log_probabilities(logs: Array | np.ndarray, weights: Array | np.ndarray) -> Array:
    """Return the logarithm of the weighted mean probabilities: [M, B, K], [M] -> [B, K]."""
    weights = jnp.broadcast_to(jnp.asarray(weights)[:, None, None], logs.shape)
    return jax.nn.logsumexp(logs, axis=0, b=weights)


@fixed_settings()
def predict_sources(
    predictors: Sequence[Predictor],
    sources: Sequence[Source],
    ensemble_weights: Sequence[np.ndarray],
    batch_size: int,
) -> list[Predictions]:
    """Predict the same images with M networks; return the predictions of each weighted average.

    An image that one of the networks cannot read counts for none of them.

    Args:
        predictors: of M networks on one mesh with the same classes.
        sources: the images for each network, at its own size, in the same order.
        ensemble_weights: float [M] each, summing to 1; `np.eye(M)` gives each network alone.
        batch_size: images at a time; must be divisible by the data shards of the mesh.

    Raises:
        ValueError: no image can be read.
    """
    columns: list[list[tuple[np.ndarray, ...]]] = [[] for _ in ensemble_weights]
    with contextlib.ExitStack() as reader_threads:
        streams = []
        for predictor, source in zip(predictors, sources, strict=True):
            stream = _predict_source(predictor, source, batch_size)
            streams.append(reader_threads.enter_context(contextlib.closing(stream)))
        steps = -(-len(sources[0]) // batch_size)
        # disable=None: no bar unless stderr is a terminal.
        for batches in tqdm(zip(*streams, strict=True), "evaluating", steps, disable=None):
            logs, labels = np.stack([log for log, _ in batches]), batches[0][1]["label"]
            mask = np.logical_and.reduce([batch["mask"] for _, batch in batches])
            for weights, rows in zip(ensemble_weights, columns, strict=True):
                scores = _score(
                    mix_log_probabilities(logs, np.asarray(weights, np.float32)), labels
                )
                rows.append(tuple(np.asarray(values)[mask] for values in (labels, *scores)))
    joined = [[np.concatenate(parts) for parts in zip(*rows, strict=True)] for rows in columns]
    if not joined[0][0].size:
        raise ValueError(f"None of the {len(sources[0])} images can be read; check the files.")
    return [
        Predictions(label, best, *(values.astype(float) for values in scores))
        for label, best, *scores in joined
    ]


def _predict_source(
    predictor: Predictor, source: Source, batch_size: int
) -> Generator[tuple[np.ndarray, Batch], None, None]:
    """Yield log-probabilities [batch_size, classes] and their batch, padding included."""
    # With a crop as large as the image, batches hold whole squares, from which views are taken.
    whole = dataclasses.replace(predictor.data, crop=predictor.data.image_size)
    with contextlib.closing(evaluation_batches(source, whole, batch_size)) as batches:
        for batch in batches:
            yield predictor(batch["image"]), batch


@jax.jit
def _score(logs: Array, labels: Array | np.ndarray) -> tuple[Array, ...]:
    """Return best class, loss and both errors of each image from log-probabilities [B, K]."""
    labels = jnp.asarray(labels)
    loss = -jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
    errors = (top_k_error(logs, labels, k) for k in (1, 5))
    return jnp.argmax(logs, axis=1), loss, *errors


def search_ensemble_weights(losses: np.ndarray) -> np.ndarray:
    """Return the weights, float64 [M] summing to 1, whose average has the lowest mean loss.

    `losses` are float [N, M], of each network on each image. The loss of the average is convex in
    the weights, and each round of this search (expectation maximization) lowers it. The 2012 code
    searched greedily for the lowest top-5 error instead, which is piecewise constant and has many
    local minima (avg-valid.py:27-71).
    """
    # Only the probabilities relative to the best network's on the same image matter. inf - inf: an
    # image that all networks hold for impossible prefers none of them.
    with np.errstate(invalid="ignore"):
        relative = losses.min(axis=1, keepdims=True) - losses
    likelihood = np.exp(np.where(np.isnan(relative), 0, relative))
    weights = np.full(losses.shape[1], 1 / losses.shape[1])
    for _ in range(MAX_ROUNDS):
        shares = likelihood * weights
        before, weights = weights, np.mean(shares / shares.sum(axis=1, keepdims=True), axis=0)
        if np.abs(weights - before).max() < TOLERANCE:
            break
    return weights
