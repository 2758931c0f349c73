"""The module against the network written plainly; dropout; blocks of images."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import print_saved_residuals

from alexnet_jax.config import ModelConfig
from alexnet_jax.model import platform
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.variants import build_architecture

ARCHITECTURE = build_architecture(ModelConfig(width=0.1, scale_init=False), 11, 67)
# For references of many small parts, which are run once.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def normal(seed, *shape, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    variables = AlexNet(ARCHITECTURE, platform.CPU).init(
        jax.random.key(0), jnp.zeros((1, 67, 67, 3))
    )
    # Larger than at the start, so that every layer matters to the logits.
    return jax.tree.map(lambda x: 8 * x + normal(x.size, *x.shape, scale=0.01), variables)


def logits_of(architecture, ops, variables, x, dropout_masks=None) -> jax.Array:
    logits, _ = AlexNet(architecture, ops).apply(variables, x, dropout_masks)
    assert isinstance(logits, jax.Array)
    return logits


def plain_forward(params, x, dropout_masks):
    """Compute the logits by P3.5 with `feature_group_count=2`, and LRN map by map."""

    def conv(x, name, stride, padding, groups):
        y = lax.conv_general_dilated(
            x,
            params[name]["kernel"],
            (stride, stride),
            (padding, padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return jax.nn.relu(y + params[name]["bias"][None, None, None])

    def normalize(x):
        maps = [x[..., i] for i in range(x.shape[-1])]
        half = len(maps) // 2
        out = []
        for i, a in enumerate(maps):
            first = 0 if i < half else half
            window = maps[max(first, i - 2) : min(first + half, i + 3)]
            out.append(a / (2 + 1e-4 * sum(b**2 for b in window)) ** 0.75)
        return jnp.stack(out, axis=-1)

    def pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")

    def dense(x, name):
        return x @ params[name]["kernel"] + params[name]["bias"][None]

    x = pool(normalize(conv(x, "conv1", 4, (0, 0), 1)))  # 67 = 11 + 14 * 4: no padding
    x = pool(normalize(conv(x, "conv2", 1, (2, 2), 2)))
    x = conv(conv(x, "conv3", 1, (1, 1), 1), "conv4", 1, (1, 1), 2)
    x = pool(conv(x, "conv5", 1, (1, 1), 2)).reshape(len(x), -1)
    for name in ("fc6", "fc7"):
        x = jax.nn.relu(dense(x, name))
        x = x * 0.5 if dropout_masks is None else x * dropout_masks[name]
    return dense(x, "fc8")


def masks(batch):
    rng = np.random.default_rng(7)
    return {name: rng.random((batch, *shape)) < 0.5 for name, shape in ARCHITECTURE.dropped.items()}


@pytest.mark.parametrize(
    "ops", [platform.CPU, platform.GPU, platform.TPU], ids=["cpu", "gpu", "tpu"]
)
@pytest.mark.parametrize("training", [True, False], ids=["training", "test"])
def test_logits_and_every_gradient_match_the_plain_network(variables, ops, training):
    x, dropout_masks = normal(1, 5, 67, 67, 3, scale=50), masks(5) if training else None
    weight = normal(2, 5, 11)

    def network(variables):
        return jnp.sum(weight * logits_of(ARCHITECTURE, ops, variables, x, dropout_masks))

    def plain(variables):
        return jnp.sum(weight * plain_forward(variables["params"], x, dropout_masks))

    value, grads = jax.jit(jax.value_and_grad(network))(variables)
    expected, expected_grads = jax.jit(jax.value_and_grad(plain), compiler_options=QUICKLY)(
        variables
    )
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    errors = jax.tree.map(
        lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))), grads, expected_grads
    )
    assert max(jax.tree.leaves(errors)) < 1e-5, errors


def test_a_gpu_keeps_one_array_of_a_convolution_for_its_gradient(variables, capsys):
    # The product: what follows is computed again from it. Of pooling it keeps a byte a window.
    x = normal(1, 5, 67, 67, 3, scale=50)

    def kept(side):
        gpu = platform.GPU
        print_saved_residuals(lambda v: logits_of(ARCHITECTURE, gpu, v, x).sum(), variables)
        saved = re.findall(rf"^(\w+)\[5,{side},{side},10\]", capsys.readouterr().out, re.MULTILINE)
        return sorted(saved)

    assert kept(15) == ["f32"]  # conv1, of both towers
    assert kept(7) == ["u8"]  # pool1


@pytest.mark.parametrize(
    ("batch", "size"), [(1, 1), (8, 8), (9, 5), (16, 8), (32, 8), (64, 16), (128, 32), (130, 26)]
)
def test_a_cpu_convolves_blocks_of_8_to_32_images(batch, size):
    assert platform.CPU.block_size(batch) == size
    assert platform.GPU.block_size(batch) == batch


@pytest.mark.parametrize(
    ("batch", "size"),
    [(1, 1), (64, 64), (128, 128), (200, 200), (256, 128), (384, 128), (512, 128), (640, 640)],
)
def test_a_tpu_convolves_two_to_four_blocks_of_whole_lanes(batch, size):
    assert platform.TPU.block_size(batch) == size


def test_blocks_of_images_change_nothing(variables):
    x = normal(1, 7, 67, 67, 3, scale=50)
    whole, blocks = (
        logits_of(
            ARCHITECTURE,
            dataclasses.replace(platform.CPU, block_size=lambda _, n=size: n),
            variables,
            x,
        )
        for size in (7, 3)
    )
    np.testing.assert_allclose(blocks, whole, rtol=0, atol=1e-6 * np.abs(whole).max())


def test_dropout_zeroes_outputs_in_training_and_halves_all_at_test(variables):
    # P4.2: in training a dropped output is 0 and a kept one unchanged; at test all are halved.
    x = normal(1, 2, 67, 67, 3, scale=50)
    fc8 = variables["params"]["fc8"]
    dropped = {name: np.zeros((2, *shape), bool) for name, shape in ARCHITECTURE.dropped.items()}
    bias_only = logits_of(
        ARCHITECTURE, platform.CPU, variables, x, {**masks(2), "fc7": dropped["fc7"]}
    )
    np.testing.assert_allclose(bias_only, np.tile(fc8["bias"], (2, 1)), rtol=1e-6)
    everything = {name: ~mask for name, mask in dropped.items()}
    without_dropout = dataclasses.replace(ARCHITECTURE, dropout=0.0)
    np.testing.assert_array_equal(
        logits_of(ARCHITECTURE, platform.CPU, variables, x, everything),
        logits_of(without_dropout, platform.CPU, variables, x),
    )


def test_initial_parameters_are_those_of_the_paper():
    # P5: weights N(0, 0.01); biases 1 in conv2, conv4, conv5, fc6, fc7 and 0 elsewhere.
    architecture = build_architecture(ModelConfig(scale_init=False), 1000, 67)
    params = jax.jit(AlexNet(architecture, platform.CPU).init)(
        jax.random.key(0), jnp.zeros((1, 67, 67, 3))
    )["params"]
    ones = {name for name, layer in params.items() if np.all(layer["bias"] == 1)}
    zeros = {name for name, layer in params.items() if np.all(layer["bias"] == 0)}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert zeros == {"conv1", "conv3", "fc8"}
    for layer in params.values():
        # The relative standard error of the standard deviation of n values is 1 / sqrt(2 n); 4 of
        # those are 1.5 % for the 34,848 values of conv1.
        spread = 4 / np.sqrt(2 * layer["kernel"].size)
        assert np.std(layer["kernel"]) == pytest.approx(0.01, rel=spread)
        assert abs(np.mean(layer["kernel"])) < 4 * 0.01 / np.sqrt(layer["kernel"].size)


def test_the_init_std_of_the_2012_code_is_for_conv3_conv4_conv5():
    stds = {
        layer.name: layer.std
        for layer in build_architecture(
            ModelConfig(conv345_init_std=0.03, scale_init=False), 10, 224
        ).layers
    }
    assert stds == dict.fromkeys(("conv1", "conv2", "fc6", "fc7", "fc8"), 0.01) | dict.fromkeys(
        ("conv3", "conv4", "conv5"), 0.03
    )
