"""Views of an image, and networks, asked together: the mean of their probabilities, and its scores.

P4.1 averages over ten views of an image, P6 over several networks; both average the probabilities
of the softmax, not the logits.
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

from alexnet_jax.data.pipeline import Batch, evaluation_batches
from alexnet_jax.data.sources import Source
from alexnet_jax.data.wrappers import views_of
from alexnet_jax.inference.network import Network
from alexnet_jax.model import towers
from alexnet_jax.training.step import make_predict_step, top_k_error

Views = Literal[1, 10]
SETTLED, ROUNDS = 1e-6, 10_000  # of the search: weights that change less; rounds at most


@dataclasses.dataclass(frozen=True)
class Predictions:
    """How right one network, or one mixture of them, was on each of N images."""

    label: np.ndarray  # int [N]
    best: np.ndarray  # int [N], the most probable class
    loss: np.ndarray  # float64 [N], nats
    top1_error: np.ndarray  # float64 [N], 0 to 1, as `step.top_k_error`
    top5_error: np.ndarray

    def scores(self) -> dict[str, float]:
        """Return the means `loss`, `top1_error`, `top5_error`."""
        return {
            name: float(np.mean(getattr(self, name)))
            for name in ("loss", "top1_error", "top5_error")
        }


class Predictor:
    """A network, compiled to be asked about square images, some views of each."""

    def __init__(self, network: Network, views: Views):
        self.data = network.config.data
        self._network, self._views = network, views
        self._step = make_predict_step(network.architecture, network.mesh, network.preprocess)

    def __call__(self, squares: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return log-probabilities [B, classes] for squares uint8 [S, S, 3], S = `image_size`.

        The mean is over the views of each; B is what the mesh's shards of the batch divide.
        """
        variables, mesh = self._network.variables, self._network.mesh
        # One view after the other: ten times the batch at once would be ten times the memory. And
        # each to its end: emulated devices with many programs under way may wait for one another.
        logs = [
            np.asarray(self._step(variables, towers.put_batch(view, mesh)))
            for view in views_of(squares, self.data.crop, self._views)
        ]
        return np.asarray(
            mix_log_probabilities(np.stack(logs), np.full(self._views, 1 / self._views, np.float32))
        )


@jax.jit
def mix_log_probabilities(logs: Array | np.ndarray, weights: Array | np.ndarray) -> Array:
    """Return the logarithm of the mean probabilities: [M, B, K] and weights [M] -> [B, K]."""
    weights = jnp.broadcast_to(jnp.asarray(weights)[:, None, None], logs.shape)
    return jax.nn.logsumexp(logs, axis=0, b=weights)


def predict_sources(
    askers: Sequence[Predictor],
    sources: Sequence[Source],
    mixtures: Sequence[np.ndarray],
    batch: int,
) -> list[Predictions]:
    """Ask networks about the same images and return what each mixture of them answers.

    Args:
        askers: of M networks, on one mesh, with the same classes.
        sources: the images for each, at its own size, in the same order.
        mixtures: weights, float [M] that sum to 1; `np.eye(M)` is each network alone.
        batch: images at a time, as many as the mesh's shards of the batch divide.

    Raises:
        ValueError: no image can be read.
    """
    found: list[list[tuple[np.ndarray, ...]]] = [[] for _ in mixtures]
    with contextlib.ExitStack() as open_threads:
        together = []
        for ask, source in zip(askers, sources, strict=True):
            asked = _ask_all(ask, source, batch)
            together.append(open_threads.enter_context(contextlib.closing(asked)))
        steps = -(-len(sources[0]) // batch)
        # disable=None: no bar where stderr is no terminal.
        for parts in tqdm(zip(*together, strict=True), "evaluating", steps, disable=None):
            logs, labels = np.stack([log for log, _ in parts]), parts[0][1]["label"]
            mask = np.logical_and.reduce([read["mask"] for _, read in parts])
            for weights, kept in zip(mixtures, found, strict=True):
                scored = _score(
                    mix_log_probabilities(logs, np.asarray(weights, np.float32)), labels
                )
                kept.append(tuple(np.asarray(one)[mask] for one in (labels, *scored)))
    columns = [[np.concatenate(column) for column in zip(*kept, strict=True)] for kept in found]
    if not columns[0][0].size:
        raise ValueError(
            f"None of the {len(sources[0])} images can be read; a score needs some: check the "
            "files."
        )
    return [
        Predictions(label, best, *(one.astype(float) for one in rest))
        for label, best, *rest in columns
    ]


def _ask_all(
    ask: Predictor, source: Source, batch: int
) -> Generator[tuple[np.ndarray, Batch], None, None]:
    """Yield log-probabilities [batch, classes] and what they are of, padding included."""
    # A crop as large as the image: whole squares, of which `ask` takes its views.
    whole = dataclasses.replace(ask.data, crop=ask.data.image_size)
    with contextlib.closing(evaluation_batches(source, whole, batch)) as batches:
        for read in batches:
            yield ask(read["image"]), read


@jax.jit
def _score(logs: Array, labels: Array | np.ndarray) -> tuple[Array, ...]:
    """Return best class, loss and both errors of each image, from log-probabilities [B, K]."""
    labels = jnp.asarray(labels)
    loss = -jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
    errors = (top_k_error(logs, labels, k) for k in (1, 5))
    return jnp.argmax(logs, axis=1), loss, *errors


def search_weights(losses: np.ndarray) -> np.ndarray:
    """Return the weights, float64 [M] that sum to 1, whose mixture has the least mean loss.

    `losses` are float [N, M], each network's on each image. The loss of a mixture is convex in its
    weights, and each round of this search (expectation maximization) lowers it. The 2012 code
    searched for the lowest top-5 error instead, greedily, which has steps and many minima
    (avg-valid.py:27-71).
    """
    # Of each image only the networks' probabilities relative to the best one's matter.
    likelihood = np.exp(losses.min(axis=1, keepdims=True) - losses)
    weights = np.full(losses.shape[1], 1 / losses.shape[1])
    for _ in range(ROUNDS):
        shares = likelihood * weights
        before, weights = weights, np.mean(shares / shares.sum(axis=1, keepdims=True), axis=0)
        if np.abs(weights - before).max() < SETTLED:
            break
    return weights
