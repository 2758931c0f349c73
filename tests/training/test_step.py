"""The loss without a gather, and random numbers that do not depend on the process's settings."""

import hashlib
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.config import ModelConfig, OptimizerConfig
from alexnet_jax.model import platform, towers
from alexnet_jax.model.loss import cross_entropy_by_selection, label_logits
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import abstract_state
from alexnet_jax.training.step import (
    draw_dropout_masks,
    make_train_step,
    step_key,
)

WITH_GATHER = optax.softmax_cross_entropy_with_integer_labels


def value_and_gradient(losses, logits, labels):
    return jax.jit(jax.value_and_grad(lambda logits: jnp.mean(losses(logits, labels))))(logits)


def logits_and_labels(images, classes, scale):
    rng = np.random.default_rng(images)
    logits = jnp.asarray(rng.normal(0, scale, (images, classes)), jnp.float32)
    return logits, jnp.asarray(rng.integers(0, classes, images), jnp.int32)


@pytest.mark.parametrize(("classes", "scale"), [(1000, 3), (1000, 100), (20, 30), (101, 1e-6)])
@pytest.mark.parametrize("images", [8, 128])
def test_the_loss_and_its_gradient_are_those_of_optax_bit_for_bit(images, classes, scale):
    logits, labels = logits_and_labels(images, classes, scale)
    np.testing.assert_array_equal(
        cross_entropy_by_selection(logits, labels), WITH_GATHER(logits, labels)
    )
    loss, gradient = value_and_gradient(cross_entropy_by_selection, logits, labels)
    expected, expected_gradient = value_and_gradient(WITH_GATHER, logits, labels)
    np.testing.assert_allclose(loss, expected, rtol=2e-7)  # XLA may sum the images otherwise
    np.testing.assert_array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("images", [3, 100])
def test_of_other_numbers_of_images_only_the_last_bit_may_differ(images):
    # 1 / images is rounded, and XLA rounds its products once more, or not.
    logits, labels = logits_and_labels(images, 20, 1)
    loss, gradient = value_and_gradient(cross_entropy_by_selection, logits, labels)
    expected, expected_gradient = value_and_gradient(WITH_GATHER, logits, labels)
    np.testing.assert_allclose(loss, expected, rtol=2e-7)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=2**-23 / images)


def test_only_the_logit_of_the_class_itself_counts():
    logits = jnp.array([[1.0, jnp.nan, jnp.inf], [jnp.nan, 2.0, 3.0]])
    np.testing.assert_array_equal(label_logits(logits, jnp.array([0, 0])), [1, jnp.nan])


ARCHITECTURE = build_architecture(ModelConfig(width=0.05), 10, 64)
CONSTANTS = Preprocess(mean=jnp.zeros((72, 72, 3)), lighting=jnp.eye(3), scale=jnp.ones(3))
SHAPES = {
    "image": ((4, 64, 64, 3), np.uint8),
    "label": ((4,), np.int32),
    "lighting": ((4, 3), np.float32),
    "divisor": ((4,), np.float32),
    "offset": ((4, 2), np.int32),
    "mirror": ((4,), bool),
}


@pytest.mark.parametrize("ops", [platform.TPU, platform.GPU], ids=["tpu", "gpu"])
def test_a_step_has_no_scatter(ops, monkeypatch):
    monkeypatch.setattr(platform, "for_platform", lambda _: ops)
    mesh = towers.make_mesh(towers=2, data=1, batch=4)
    tx = paper_sgd(OptimizerConfig(batch_size=4))
    _, state = abstract_state(ARCHITECTURE, tx, mesh, seed=0)
    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in SHAPES.items()}
    step: Any = make_train_step(ARCHITECTURE, tx, mesh, CONSTANTS, seed=0)
    program = step.lower(state, batch).as_text()
    assert "stablehlo.convolution" in program
    assert "stablehlo.scatter" not in program


def programs() -> str:
    """Return a digest of the programs that draw initial values and dropout masks."""
    architecture = build_architecture(ModelConfig(width=0.02), 3, 36)
    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    create, _ = abstract_state(architecture, paper_sgd(OptimizerConfig()), mesh, seed=3)
    masks = jax.jit(lambda step: draw_dropout_masks(architecture, step_key(3, step), 4))
    texts = (create.lower().as_text(), masks.lower(jnp.asarray(7)).as_text())
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def test_initial_values_and_dropout_do_not_depend_on_jaxs_default_generator():
    expected = programs()
    with jax.default_prng_impl("rbg"):
        assert str(jax.random.key(0).dtype) == "key<rbg>"
        assert programs() == expected
    program = (
        "import jax\nfrom tests.training import test_step\n"
        "print(jax.random.key(0).dtype, test_step.programs())"
    )
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.split() == ["key<rbg>", expected]
