"""The update rule of P5 and of the 2012 code against plain numpy, while rates drop and freeze."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.config import OptimizerConfig
from alexnet_jax.model import towers
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.training import schedule
from alexnet_jax.training.optimizer import describe_learning_rates, paper_sgd, set_learning_rates
from alexnet_jax.training.state import abstract_state
from alexnet_jax.training.step import draw_dropout_masks, make_gradient, make_train_step, step_key

SHAPES = {"kernel": (6, 4), "bias": (4,)}
LAYERS = ("conv1", "conv3", "fc8")
MESHES = {"one": (1, 1), "two": (1, 2), "four": (2, 2)}  # (data, tower)

# Sixty steps at equal rates of all layers.
STEPS, DROPS = 60, (20, 40)

# Ten steps, each at the epoch that it stands for. Rates: kernel and bias of conv1, of the others.
# Net 145, 2010: drops after 23, 51 and 78; conv1 slowed after 68 and frozen after 72; the biases
# follow the first drop alone.
SOURCE2012 = {
    0: (0.01, 0.02, 0.01, 0.02),
    22: (0.01, 0.02, 0.01, 0.02),
    23: (0.001, 0.002, 0.001, 0.002),
    50: (0.001, 0.002, 0.001, 0.002),
    51: (0.0001, 0.002, 0.0001, 0.002),
    67: (0.0001, 0.002, 0.0001, 0.002),
    68: (0.00001, 0.002, 0.0001, 0.002),
    71: (0.00001, 0.002, 0.0001, 0.002),
    72: (0, 0, 0.0001, 0.002),
    78: (0, 0, 0.00001, 0.002),
}
# The paper: one rate for everything. Where no look is better than the first, drops follow the
# looks 6, 11 and 16.
PAPER = {
    epoch: (rate,) * 4
    for epoch, rate in zip(range(0, 20, 2), [1e-2] * 3 + [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 2)
}
TABLES = {"paper": PAPER, "source2012": SOURCE2012}


def draw(seed, scale):
    rng = np.random.default_rng(seed)
    return {
        layer: {kind: rng.normal(0, scale, SHAPES[kind]).astype(np.float32) for kind in SHAPES}
        for layer in LAYERS
    }


START = draw(0, 1.0)
GRADIENTS = [draw(1 + step, 1.0) for step in range(STEPS)]


def every(kernel, bias, layers=LAYERS):
    return {layer: {"kernel": kernel, "bias": bias} for layer in layers}


def with_conv1(row, layers=LAYERS):
    """Return the rates of all layers by a row of the tables above."""
    conv1_kernel, conv1_bias, kernel, bias = row
    return every(kernel, bias, layers) | every(conv1_kernel, conv1_bias, ["conv1"])


def drops(bias_rate=1.0):
    """Return the rates of sixty steps with two drops."""
    rates = [0.01 * 0.1 ** sum(step >= drop for drop in DROPS) for step in range(STEPS)]
    return [every(rate, rate * bias_rate) for rate in rates]


def scheduled(preset, layers=LAYERS):
    """Return the rates at the epochs of the preset's table, after looks that never improve."""
    config, progress, history = PRESETS[preset], schedule.Progress(), []
    for epoch in TABLES[preset]:
        while progress.epoch < epoch:
            progress = schedule.advance(config.schedule, progress, 0.5)
        history.append(schedule.learning_rates(config.schedule, config.optimizer, progress, layers))
    return history


def product(config, rates):
    """Return parameters and velocity after each step of the package's rule."""
    tx = paper_sgd(config)
    params, opt_state, history = START, tx.init(START), []
    step_of = jax.jit(tx.update)
    for gradient, now in zip(GRADIENTS, rates, strict=False):
        opt_state = set_learning_rates(opt_state, now)
        updates, opt_state = step_of(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        history.append(jax.device_get((params, opt_state.velocity)))
    return history


def plain(
    rates,
    dtype=np.float64,
    start=START,
    gradients=GRADIENTS,
    decay_on=("kernel",),
    rate_outside=False,
):
    """Return the same by the 2012 code's two lines, or with the rate outside (PyTorch)."""
    w = jax.tree.map(lambda array: array.astype(dtype), start)
    v = jax.tree.map(np.zeros_like, w)
    history = []
    for gradient, now in zip(gradients, rates, strict=False):
        for layer in w:
            for kind in w[layer]:
                eps = dtype(now[layer][kind])
                if eps == 0:  # weights.cu:148
                    continue
                wc = dtype(0.0005 if kind in decay_on else 0)
                g, old = gradient[layer][kind].astype(dtype), v[layer][kind]
                if rate_outside:
                    v[layer][kind] = dtype(0.9) * old - wc * w[layer][kind] - g
                    w[layer][kind] = w[layer][kind] + eps * v[layer][kind]
                else:
                    v[layer][kind] = dtype(0.9) * old - eps * g - wc * eps * w[layer][kind]
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
    ours = product(OptimizerConfig(bias_lr_multiplier=bias_rate), drops(bias_rate))
    assert max(map(distance, ours, plain(drops(bias_rate), dtype))) <= 1e-5


@pytest.mark.parametrize("preset", TABLES)
def test_ten_steps_of_a_preset_are_those_of_2012(preset):
    ours = product(PRESETS[preset].optimizer, scheduled(preset))
    theirs = plain([with_conv1(row) for row in TABLES[preset].values()])
    assert len(ours) == len(theirs) == 10
    assert max(map(distance, ours, theirs)) <= 1e-5


def test_the_ten_steps_notice_another_rule():
    ours = product(PRESETS["source2012"].optimizer, scheduled("source2012"))
    # As above: kernel and bias of conv1, of the others.
    a, b, c, d = columns = np.array(list(SOURCE2012.values())).T

    def rates(*columns):
        return [with_conv1(row) for row in zip(*columns, strict=True)]

    others = {
        "decay on biases": plain(rates(*columns), decay_on=("kernel", "bias")),
        "no decay": plain(rates(*columns), decay_on=()),
        "rate outside": plain(rates(*columns), rate_outside=True),
        "equal rates": plain(rates(a, a, c, c)),
        "biases that drop again": plain(rates(a, 2 * a, c, 2 * c)),
        "conv1 never slow": plain(rates(np.where(a > 0, c, 0), b, c, d)),
        "conv1 never frozen": plain(rates(np.maximum(a, 1e-5), d, c, d)),
        "only two drops": plain(rates(a, b, np.maximum(c, 1e-4), d)),
    }
    for name, other in others.items():
        assert max(map(distance, ours, other)) > 5e-5, name


def test_the_rate_stands_inside_the_velocity():
    rates = drops()
    ours = [params for params, _ in product(OptimizerConfig(), rates)]
    outside = [params for params, _ in plain(rates, rate_outside=True)]
    first = DROPS[0]
    assert distance(ours[first - 1], outside[first - 1]) <= 1e-5  # the same until the rate drops
    moved = jax.tree.map(np.subtract, ours[first + 5], ours[first - 1])
    moved_outside = jax.tree.map(np.subtract, outside[first + 5], outside[first - 1])
    assert distance(moved, moved_outside) > 0.5
    assert distance(ours[-1], outside[-1]) > 1e-2


def test_optax_sgd_is_not_this_rule():
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.01, momentum=0.9)
    params, opt_state = START, tx.init(START)
    for gradient, now in zip(GRADIENTS, drops(), strict=True):
        opt_state = optax.tree.set(opt_state, learning_rate=now["fc8"]["kernel"])
        updates, opt_state = tx.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    without_decay = product(OptimizerConfig(weight_decay=0.0), drops())[-1][0]
    assert distance(without_decay, jax.device_get(params)) > 1e-2


def test_without_a_word_the_rates_are_the_configurations():
    opt_state: Any = paper_sgd(OptimizerConfig(learning_rate=0.3, bias_lr_multiplier=2.0)).init(
        START
    )
    assert jax.tree.map(float, opt_state.rates) == every(pytest.approx(0.3), pytest.approx(0.6))


def test_layers_have_rates_of_their_own_from_the_first_step():
    config = OptimizerConfig(
        learning_rate=0.3, bias_lr_multiplier=2.0, layer_learning_rates=("conv1=0", "fc8=10")
    )
    opt_state: Any = paper_sgd(config).init(START)
    expected = every(pytest.approx(0.3), pytest.approx(0.6))
    expected["conv1"] = {"kernel": 0, "bias": 0}
    expected["fc8"] = {"kernel": pytest.approx(3), "bias": pytest.approx(6)}
    assert jax.tree.map(float, opt_state.rates) == expected
    plan = PRESETS["paper"].schedule
    assert schedule.learning_rates(plan, config, schedule.Progress(), LAYERS) == expected


def test_frozen_layers_are_described():
    assert describe_learning_rates(OptimizerConfig()) == ""
    config = OptimizerConfig(
        layer_learning_rates=("conv2=0", "conv1=0", "fc8=10", "fc7=10", "fc6=.5")
    )
    text = "Frozen: conv2, conv1; 10 times the learning rate: fc8, fc7; "
    text += "0.5 times the learning rate: fc6."
    assert describe_learning_rates(config) == describe_learning_rates(config, ("fc8",)) == text
    assert (
        describe_learning_rates(OptimizerConfig(layer_learning_rates=("fc8=2.",)))
        == "2 times the learning rate: fc8."
    )
    assert "; conv2 will stay at random initial values" in describe_learning_rates(
        config, ("conv2", "fc8")
    )


def test_a_frozen_matrix_stays_bit_for_bit_and_thaws_with_its_velocity():
    moving, frozen = every(0.01, 0.01), every(0.01, 0.01)
    frozen["conv1"]["kernel"] = frozen["fc8"]["bias"] = 0.0
    history = product(OptimizerConfig(), [moving] * 3 + [frozen] * 4 + [moving])
    (w, v), (w_after, v_after), (_, v_thawed) = history[2], history[6], history[7]
    for layer in LAYERS:
        for kind in SHAPES:
            still = frozen[layer][kind] == 0
            assert np.array_equal(w[layer][kind], w_after[layer][kind]) == still
            assert np.array_equal(v[layer][kind], v_after[layer][kind]) == still
    expected = 0.9 * v["fc8"]["bias"] - 0.01 * GRADIENTS[7]["fc8"]["bias"]
    np.testing.assert_allclose(v_thawed["fc8"]["bias"], expected, rtol=1e-5)


def test_rates_of_other_layers_are_refused():
    opt_state = paper_sgd(OptimizerConfig()).init(START)
    with pytest.raises(ValueError, match="fc8"):
        set_learning_rates(opt_state, every(0.1, 0.1, LAYERS[:2]))


def recording(tx):
    """Return the same rule; beside its own state it keeps the last gradients."""

    def init(params):
        return tx.init(params), params

    def update(updates, state, params=None):
        moves, opt_state = tx.update(updates, state[0], params)
        return moves, (opt_state, updates)

    return optax.GradientTransformation(init, update)


class Network:
    """Ten steps of a preset's own training of a tiny network on a mesh."""

    def __init__(self, preset, data, tower, batch=4, crop=67):
        config, rng = PRESETS[preset], np.random.default_rng(0)
        self.mesh = towers.make_mesh(data=data, towers=tower, batch=batch)
        model = dataclasses.replace(config.model, width=0.125, scale_init=True)
        self.architecture = build_architecture(model, 10, crop)
        self.layers = [layer.name for layer in self.architecture.layers]
        self.constants = Preprocess(jnp.full(3, 120.0), jnp.eye(3), jnp.ones(3))
        images = {
            "image": rng.integers(0, 256, (batch, crop, crop, 3), np.uint8),
            "label": rng.integers(0, 10, batch).astype(np.int32),
            "mirror": np.zeros(batch, bool),
        }
        self.batch = towers.put_batch(images, self.mesh)
        tx = recording(paper_sgd(config.optimizer))
        create, _ = abstract_state(self.architecture, tx, self.mesh, seed=3)
        self.step = make_train_step(self.architecture, tx, self.mesh, self.constants, seed=5)
        state = create()
        self.start = jax.device_get(state.variables["params"])
        self.gradients, self.history = [], []
        for number, rates in enumerate(scheduled(preset, self.layers)):
            if number:  # the first step's rates are those of the start
                own, kept = state.opt_state
                state = state.replace(opt_state=(set_learning_rates(own, rates), kept))
            state, _ = self.step(state, self.batch)
            own, gradients = state.opt_state
            self.gradients.append(jax.device_get(gradients))
            self.history.append(jax.device_get((state.variables["params"], own.velocity)))
        self.state = state

    def first_gradient(self):
        """Return the gradient of the mean cross-entropy at the start."""
        apply, labels = towers.forward(self.architecture, self.mesh), self.batch["label"]
        dropout_masks = draw_dropout_masks(
            self.architecture, step_key(5, jnp.asarray(0)), len(labels)
        )

        def loss(params):
            logits = apply(
                {"params": params}, preprocess(self.batch, self.constants), dropout_masks
            )
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])

        return jax.device_get(jax.jit(jax.grad(loss))(self.start))


@pytest.fixture(scope="module")
def network():
    return Network("source2012", data=1, tower=2)


def test_ten_steps_of_the_network_are_those_of_2012(network):
    rates = [with_conv1(row, network.layers) for row in SOURCE2012.values()]
    theirs = plain(rates, start=network.start, gradients=network.gradients)
    assert max(map(distance, network.history, theirs)) <= 1e-5
    assert distance(network.gradients[0], network.first_gradient()) <= 1e-5
    # The gradients are large enough to tell: of conv1, which hears of the loss last.
    moved = theirs[7][0]["conv1"]["kernel"] - network.start["conv1"]["kernel"]
    assert np.max(np.abs(moved)) > 1e-3 * np.max(np.abs(network.start["conv1"]["kernel"]))


def test_conv1_of_the_network_freezes_bit_for_bit(network):
    (w, v), (w_after, v_after) = network.history[7], network.history[9]
    for kind in SHAPES:
        np.testing.assert_array_equal(w["conv1"][kind], w_after["conv1"][kind])
        np.testing.assert_array_equal(v["conv1"][kind], v_after["conv1"][kind])
        assert not np.array_equal(w["fc8"][kind], w_after["fc8"][kind])


@pytest.mark.slow
def test_frozen_layers_have_no_gradient_and_the_others_theirs(network):
    frozen = ("conv1", "conv2", "fc6")
    gradient = towers.jit(
        make_gradient(network.architecture, network.mesh, network.constants, 5, frozen),
        network.mesh,
    )
    start = {"params": jax.device_put(network.start)}
    (_, _), found = gradient(start, jnp.asarray(0), network.batch)
    for layer, kinds in found["params"].items():
        for kind, value in kinds.items():
            wanted = network.gradients[0][layer][kind] * (layer not in frozen)
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())


def test_what_only_frozen_layers_need_is_not_computed(network):
    def operations(frozen):
        gradient = make_gradient(network.architecture, network.mesh, network.constants, 5, frozen)
        arguments = {"params": network.start}, jnp.asarray(0), network.batch
        analysis: Any = jax.jit(gradient).lower(*arguments).cost_analysis()
        return analysis["flops"]

    trunk = [name for name in network.layers if name.startswith("conv")]
    assert operations(trunk) < operations(["conv1"]) < operations([])


def test_the_rates_are_on_every_device_and_change_without_compiling_the_step_again(network):
    rates, velocity = network.state.opt_state[0]
    assert all(rate.sharding.is_fully_replicated for rate in jax.tree.leaves(rates))
    assert velocity["conv1"]["kernel"].sharding.spec[-1] == "tower"
    assert network.step._cache_size() == 1


@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_setting_the_rates_does_not_compile_the_rule_again(mesh):
    tx = paper_sgd(OptimizerConfig(bias_lr_multiplier=2.0))
    data, tower = mesh
    devices = towers.make_mesh(data=data, towers=tower, batch=2)
    place = jax.sharding.NamedSharding(devices, jax.P())
    params, opt_state = (jax.device_put(tree, place) for tree in (START, tx.init(START)))
    step_of = jax.jit(lambda gradient, state, params: tx.update(gradient, state, params))
    gradient = jax.device_put(GRADIENTS[0], place)
    _, opt_state = step_of(gradient, opt_state, params)
    changed = set_learning_rates(opt_state, every(0.001, 0.002))
    updates, _ = step_of(gradient, changed, params)
    assert step_of._cache_size() == 1  # pyrefly: ignore[missing-attribute] (no public name)
    # .9 of the first step's velocity, at the old rate, is still there, and the new rate's share.
    expected = -(0.9 * 0.02 + 0.002) * GRADIENTS[0]["fc8"]["bias"]
    np.testing.assert_allclose(jax.device_get(updates["fc8"]["bias"]), expected, rtol=1e-5)


def test_a_frozen_weight_of_minus_zero_keeps_its_sign():
    config = OptimizerConfig(layer_learning_rates=("conv1=0",))
    tx = paper_sgd(config)
    params = {"conv1": {"kernel": jnp.array([-0.0, 0.0, 1.0]), "bias": jnp.array([-0.0])}}
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    after: Any = optax.apply_updates(params, updates)
    for kind in ("kernel", "bias"):
        before = np.asarray(params["conv1"][kind])
        assert np.asarray(after["conv1"][kind]).tobytes() == before.tobytes()
