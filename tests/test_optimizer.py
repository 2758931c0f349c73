"""The update rule of P5 against plain numpy, over two drops of the rate."""

import jax
import numpy as np
import optax
import pytest

from alexnet_jax.config import OptimizerConfig
from alexnet_jax.model import towers
from alexnet_jax.training.optimizer import paper_sgd, set_rate

STEPS, DROPS = 60, (20, 40)
SHAPES = {"kernel": (6, 4), "bias": (4,)}
LAYERS = ("conv1", "fc8")


def draw(seed, scale):
    rng = np.random.default_rng(seed)
    return {
        layer: {kind: rng.normal(0, scale, SHAPES[kind]).astype(np.float32) for kind in SHAPES}
        for layer in LAYERS
    }


START = draw(0, 0.1)
GRADIENTS = [draw(1 + step, 1.0) for step in range(STEPS)]


def rate_at(step):
    return 0.01 * 0.1 ** sum(step >= drop for drop in DROPS)


def product(config):
    """Return parameters and velocity after each step of the package's rule."""
    tx = paper_sgd(config)
    params, opt_state, history = START, tx.init(START), []
    step_of = jax.jit(tx.update)
    for step, gradient in enumerate(GRADIENTS):
        if step in DROPS:
            opt_state = set_rate(opt_state, rate_at(step), config)
        updates, opt_state = step_of(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        history.append(jax.device_get((params, optax.tree.get(opt_state, "trace"))))
    return history


def paper(dtype, bias_rate=1.0, decay_on=("kernel",), rate_outside=False):
    """Return the same by P5's two lines, or with the rate outside the velocity (PyTorch)."""
    w = jax.tree.map(lambda array: array.astype(dtype), START)
    v = jax.tree.map(np.zeros_like, w)
    history = []
    for step, gradients in enumerate(GRADIENTS):
        for layer in LAYERS:
            for kind in SHAPES:
                g = gradients[layer][kind].astype(dtype)
                rate = dtype(rate_at(step) * (bias_rate if kind == "bias" else 1))
                decay = dtype(0.0005 if kind in decay_on else 0)
                old = v[layer][kind]
                if rate_outside:
                    v[layer][kind] = dtype(0.9) * old + decay * w[layer][kind] + g
                    w[layer][kind] = w[layer][kind] - rate * v[layer][kind]
                else:
                    v[layer][kind] = dtype(0.9) * old - decay * rate * w[layer][kind] - rate * g
                    w[layer][kind] = w[layer][kind] + v[layer][kind]
        history.append(jax.tree.map(np.copy, (w, v)))
    return history


def distance(a, b):
    """Return the largest max |a - b| / max |b| of any tensor."""
    errors = jax.tree.map(lambda x, y: np.max(np.abs(x - y)) / np.max(np.abs(y)), a, b)
    return max(jax.tree.leaves(errors))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("bias_rate", [1.0, 2.0])
def test_sixty_steps_with_two_drops_are_the_papers(bias_rate, dtype):
    ours = product(OptimizerConfig(bias_rate=bias_rate))
    reference = paper(dtype, bias_rate)
    assert max(map(distance, ours, reference)) <= 1e-5


def test_the_comparison_notices_another_rule():
    ours = product(OptimizerConfig())
    others = {
        "decay on biases": paper(np.float64, decay_on=("kernel", "bias")),
        "no decay": paper(np.float64, decay_on=()),
        "biases at twice the rate": paper(np.float64, bias_rate=2.0),
    }
    for name, other in others.items():
        assert distance(ours[-1][0], other[-1][0]) > 1e-4, name


def test_the_rate_stands_inside_the_velocity():
    ours = [params for params, _ in product(OptimizerConfig())]
    outside = [params for params, _ in paper(np.float64, rate_outside=True)]
    first = DROPS[0]
    assert distance(ours[first - 1], outside[first - 1]) <= 1e-5  # the same until the rate drops
    moved = jax.tree.map(np.subtract, ours[first + 5], ours[first - 1])
    moved_outside = jax.tree.map(np.subtract, outside[first + 5], outside[first - 1])
    assert distance(moved, moved_outside) > 0.5
    assert distance(ours[-1], outside[-1]) > 1e-2


def test_optax_sgd_is_not_this_rule():
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.01, momentum=0.9)
    params, opt_state = START, tx.init(START)
    for step, gradient in enumerate(GRADIENTS):
        opt_state = optax.tree.set(opt_state, learning_rate=rate_at(step))
        updates, opt_state = tx.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    without_decay = product(OptimizerConfig(weight_decay=0.0))[-1][0]
    assert distance(without_decay, jax.device_get(params)) > 1e-2


@pytest.mark.parametrize("mesh", [(1, 1), (1, 2), (2, 2)], ids=["one", "two", "four"])
def test_setting_the_rate_does_not_compile_the_step_again(mesh):
    config = OptimizerConfig(bias_rate=2.0)
    tx = paper_sgd(config)
    data, tower = mesh
    devices = towers.make_mesh(data=data, towers=tower, batch=2)
    place = jax.sharding.NamedSharding(devices, jax.P())
    params, opt_state = (jax.device_put(tree, place) for tree in (START, tx.init(START)))
    step_of = jax.jit(lambda gradient, state, params: tx.update(gradient, state, params))
    gradient = jax.device_put(GRADIENTS[0], place)
    _, opt_state = step_of(gradient, opt_state, params)
    changed = set_rate(opt_state, 0.001, config)
    updates, _ = step_of(gradient, changed, params)
    assert step_of._cache_size() == 1  # pyrefly: ignore[missing-attribute] (no public name)
    rates = {name: optax.tree.get(changed, name).item() for name in ("rate", "bias_rate")}
    assert rates == pytest.approx({"rate": 0.001, "bias_rate": 0.002}, rel=1e-6)
    # .9 of the first step's velocity, at the old rate, is still there, and the new rate's share.
    expected = -(0.9 * 0.02 + 0.002) * GRADIENTS[0]["fc8"]["bias"]
    np.testing.assert_allclose(jax.device_get(updates["fc8"]["bias"]), expected, rtol=1e-5)
