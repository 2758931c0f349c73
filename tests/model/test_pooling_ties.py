"""Which pixels of a tie get the gradient of a pooling window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.config import ModelConfig
from alexnet_jax.model import platform
from alexnet_jax.model.architecture import Pooling
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

PLATFORMS = {"cpu": platform.CPU, "gpu": platform.GPU, "tpu": platform.TPU}


def to_all(x: np.ndarray, g: np.ndarray, pooling: Pooling) -> np.ndarray:
    """Return the gradient of the 2012 code: (img == ma) * mg, summed over windows."""
    result = np.zeros_like(x)
    for row, column in np.ndindex(*g.shape[1:3]):
        top, left = pooling.stride * row, pooling.stride * column
        window = np.s_[:, top : top + pooling.window, left : left + pooling.window]
        maximum = x[window].max(axis=(1, 2), keepdims=True)
        result[window] += (x[window] == maximum) * g[:, row : row + 1, column : column + 1]
    return result


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize("size", [(13, 13), (14, 13), (4, 3)])
@pytest.mark.parametrize("window", [3, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_tied_maximum_gets_the_whole_gradient(ops, size, window, dtype):
    pooling = Pooling(window=window, ties="all")
    x = jnp.round(jax.random.normal(jax.random.key(0), (2, *size, 3))).astype(dtype)
    y, backward = jax.vjp(lambda x: ops.pool(x, pooling), x)
    first, to_first = jax.vjp(lambda x: ops.pool(x, Pooling(window=window)), x)
    g = jnp.round(4 * jax.random.normal(jax.random.key(1), y.shape)).astype(dtype)
    np.testing.assert_array_equal(y, first)  # only the gradient differs
    (actual,) = backward(g)
    assert actual.dtype == x.dtype
    expected = to_all(np.asarray(x, np.float64), np.asarray(g, np.float64), pooling)
    np.testing.assert_array_equal(np.asarray(actual, np.float64), expected)
    assert (np.asarray(to_first(g)[0], np.float64) != expected).any()


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
def test_without_ties_both_rules_are_the_same(ops):
    x = jax.random.normal(jax.random.key(0), (2, 14, 13, 3))
    gradients = [
        jax.grad(lambda x, pooling=pooling: (ops.pool(x, pooling) ** 2).sum())(x)
        for pooling in (Pooling(ties="first"), Pooling(ties="all"))
    ]
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_the_nets_of_the_2012_code_have_its_rule():
    ties = {
        name: build_architecture(config.model, 10, config.data.crop).pooling.ties
        for name, config in PRESETS.items()
    }
    assert {name for name in ties if ties[name] == "all"} == {"source2012", "half", "six_conv"}
    assert build_architecture(ModelConfig(), 10, 224).pooling.ties == "first"
