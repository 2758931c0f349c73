"""Scoring: every image once on any batch size and mesh, and errors that give ties no credit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.config import DataConfig, ModelConfig
from alexnet_jax.model import towers
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.evaluation import evaluate
from alexnet_jax.training.step import make_eval_step, top_k_error
from tests.noise import Noise

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUMBER, CLASSES, SIZE, CROP = 37, 7, 40, 36
CONFIG = DataConfig(image_size=SIZE, crop=CROP, threads=1)
TABLE = build_architecture(ModelConfig(width=0.05, conv345_init_std=0.03), CLASSES, CROP)
CONSTANTS = Preprocess(jnp.full((3,), 120.0), jnp.eye(3), jnp.ones(3))


def noise(unreadable=()):
    return Noise(NUMBER, SIZE, CLASSES, unreadable)


@pytest.fixture(scope="module")
def variables():
    """Return parameters whose logits differ widely from image to image."""
    host = jax.device_get(jax.jit(towers.initializer(TABLE))(jax.random.key(0)))
    host["params"]["fc8"]["kernel"] = host["params"]["fc8"]["kernel"] * 30
    return host


@pytest.fixture(scope="module")
def reference(variables):
    """Return what each image alone scores, in float64 numpy from its own logits."""
    apply = jax.jit(towers.forward(TABLE, towers.make_mesh(towers=1, data=1, batch=1)))
    source, scores = noise(), []
    inner = slice((SIZE - CROP) // 2, (SIZE + CROP) // 2)
    for image, label in zip(source.images[:, inner, inner], source.labels, strict=True):
        centered = image[None].astype(np.float32) - np.float32(120)
        logits = np.asarray(apply(variables, centered), np.float64)[0]
        rank = int(np.sum(logits > logits[label]))
        loss = np.log(np.sum(np.exp(logits - logits[label])))
        scores.append({"loss": loss, "top1_error": rank >= 1, "top5_error": rank >= 5})
    return scores


def mean_of(scores):
    return {name: np.mean([score[name] for score in scores]) for name in scores[0]}


def score(variables, mesh, batch, source):
    specs = towers.state_shardings(variables, TABLE, mesh)
    placed = jax.device_put(variables, specs)
    return evaluate(make_eval_step(TABLE, mesh, CONSTANTS), placed, source, CONFIG, batch, mesh)


@pytest.mark.parametrize(("data", "tower", "batch"), [(1, 1, 16), (1, 2, 8), (2, 2, 16), (4, 1, 8)])
def test_every_image_counts_once_on_any_mesh(variables, reference, data, tower, batch):
    assert NUMBER % batch
    scores = score(
        variables, towers.make_mesh(towers=tower, data=data, batch=batch), batch, noise()
    )
    assert scores.pop("count") == NUMBER
    expected = mean_of(reference)
    assert 0 < expected["top5_error"] < expected["top1_error"] < 1
    assert scores == pytest.approx(expected, rel=1e-5)


def test_one_batch_may_hold_all_and_an_unreadable_image_does_not_count(variables, reference):
    scores = score(
        variables, towers.make_mesh(towers=1, data=1, batch=1), 64, noise(unreadable=(36, 3))
    )
    assert scores.pop("count") == NUMBER - 2
    kept = [one for index, one in enumerate(reference) if index not in (3, 36)]
    assert scores == pytest.approx(mean_of(kept), rel=1e-5)


def errors(logits, label, k):
    return top_k_error(jnp.array([logits], jnp.float32), jnp.array([label]), k).item()


@pytest.mark.parametrize(
    ("logits", "label", "k", "expected"),
    [
        ([3, 2, 1], 0, 1, 0),
        ([3, 2, 1], 1, 1, 1),
        ([3, 2, 1], 1, 2, 0),
        ([3, 2, 1], 2, 2, 1),
        ([1, 1, 0], 0, 1, 1 / 2),  # two share the one place
        ([1, 1, 0], 1, 1, 1 / 2),
        ([1, 1, 0], 1, 2, 0),
        ([1, 1, 0], 2, 2, 1),
        ([2, 1, 1, 1], 2, 1, 1),
        ([2, 1, 1, 1], 2, 2, 2 / 3),  # three share one of the two places
        ([2, 1, 1, 1], 2, 3, 1 / 3),
        ([2, 1, 1, 1], 2, 4, 0),
        ([5, 4, 0, 0], 0, 3, 0),
        ([1, 2, 3], 0, 5, 0),  # more guesses than classes
        ([0, 0, 0], 0, 5, 0),
        ([np.nan] * 4, 0, 1, 1),  # a network that broke scores nothing
        ([np.nan, 1, 0, 0], 0, 3, 1),
        ([1, np.nan, 0, 0], 0, 1, 1),
        # also where there are no more classes than guesses
        ([np.nan] * 3, 0, 3, 1),
        ([np.nan] * 3, 0, 5, 1),
        ([np.nan, 1], 0, 5, 1),
        ([1, np.nan], 0, 2, 0),
        ([np.inf, 1], 0, 1, 0),
        ([np.inf, np.inf], 0, 1, 1 / 2),
        ([-np.inf, 1], 0, 1, 1),
    ],
)
def test_errors_by_hand(logits, label, k, expected):
    assert errors(logits, label, k) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("classes", "k"), [(101, 1), (101, 5), (1000, 5), (20, 1), (5, 5)])
def test_a_constant_predictor_scores_chance(classes, k):
    labels = jnp.arange(classes)
    scores = top_k_error(jnp.full((classes, classes), 0.3), labels, k)
    np.testing.assert_allclose(scores, 1 - k / classes, rtol=1e-6)


def test_errors_of_101_classes_against_sorting():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 101)).astype(np.float32)
    labels = rng.integers(0, 101, 200)
    for k in (1, 5):
        best = np.argsort(-logits, axis=1)[:, :k]
        expected = ~(best == labels[:, None]).any(axis=1)
        np.testing.assert_array_equal(
            top_k_error(jnp.array(logits), jnp.array(labels), k), expected
        )
        assert 0 < expected.mean() < 1


def test_the_probabilities_of_the_eval_step_are_those_of_the_logits(variables):
    mesh = towers.make_mesh(towers=1, data=1, batch=4)
    rng = np.random.default_rng(0)
    batch: dict[str, Any] = {
        "image": rng.integers(0, 256, (4, CROP, CROP, 3), np.uint8),
        "label": np.zeros(4, np.int32),
        "offset": np.zeros((4, 2), np.int32),
        "mirror": np.zeros(4, bool),
        "mask": np.array([True, True, False, True]),
    }
    sums, probabilities = make_eval_step(TABLE, mesh, CONSTANTS)(variables, batch)
    np.testing.assert_allclose(np.sum(probabilities, axis=1), np.ones(4), rtol=1e-6)
    losses = -np.log(np.asarray(probabilities)[:, 0])
    assert sums["loss"] == pytest.approx(losses[batch["mask"]].sum(), rel=1e-5)
    assert sums["count"] == 3
