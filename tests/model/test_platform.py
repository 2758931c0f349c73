"""Each layer against its formula written plainly, and against other people's numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model import convolution, platform, response_norm
from alexnet_jax.model.architecture import SPATIAL_NORM, Pooling, ResponseNorm
from alexnet_jax.model.pooling import pool as plain_pool

PLATFORMS = {"cpu": platform.CPU, "gpu": platform.GPU, "tpu": platform.TPU}
RAMP = jnp.arange(0.0, 800.0, 100.0)
# Conventions side by side, computed by their owners: the paper's text, the 2012 code (which divides
# alpha by n = 5; PyTorch with k = 2 agrees), and Caffe, whose k is 1.
NORMALIZED = {
    "paper": (
        ResponseNorm(),
        [0, 12.500000, 14.865089, 14.461559, 13.465396, 12.486180, 15.766808, 20.332207],
    ),
    "2012 code": (
        ResponseNorm(alpha=2e-5),
        [0, 30.836784, 42.044821, 43.819129, 42.294851, 40.010272, 50.376103, 64.556445],
    ),
    "Caffe": (
        ResponseNorm(k=1.0, alpha=2e-5),
        [0, 36.741959, 46.473616, 46.530243, 43.953634, 41.077261, 51.811395, 66.650308],
    ),
}


def relative(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return np.max(np.abs(a - b)) / np.max(np.abs(b))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def plain_normalize(x, norm):
    """Apply P3.3 in float64, channel by channel."""
    x = np.asarray(x, np.float64)
    channels, reach = x.shape[-1], norm.n // 2
    y = np.empty_like(x)
    for i in range(channels):
        window = x[..., max(0, i - reach) : min(channels, i + reach + 1)]
        y[..., i] = x[..., i] / (norm.k + norm.alpha * np.sum(window**2, axis=-1)) ** norm.beta
    return y


@pytest.mark.parametrize("convention", NORMALIZED)
def test_normalize_gives_the_published_vectors(convention):
    norm, expected = NORMALIZED[convention]
    y = response_norm.normalize(RAMP[None, None, None, :], norm)[0, 0, 0]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_normalize_stops_at_the_edge_of_its_tower():
    # 300 everywhere: maps 46-49 of 96 lie at the seam of two towers of 48.
    towers = [response_norm.normalize(jnp.full((1, 1, 1, 48), 300.0), ResponseNorm(alpha=2e-5))] * 2
    seam = jnp.concatenate(towers, axis=-1)[0, 0, 0, 44:52]
    inside, edge, next_to_edge = 49.668008, 66.864787, 56.791114
    expected = [inside, inside, next_to_edge, edge, edge, next_to_edge, inside, inside]
    np.testing.assert_allclose(seam, expected, rtol=1e-6)


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize("norm", [ResponseNorm(), ResponseNorm(n=3, k=1.0, alpha=1e-2, beta=0.5)])
@pytest.mark.parametrize("channels", [2, 5, 48])
def test_normalize_and_its_gradient_match_the_formula(ops, norm, channels):
    x, g = 100 * normal(0, 2, 3, 4, channels), normal(1, 2, 3, 4, channels)
    y, backward = jax.vjp(lambda x: ops.normalize(x, norm), x)
    assert relative(y, plain_normalize(x, norm)) < 1e-6
    # The gradient along a direction, by central differences in float64.
    direction = np.asarray(normal(2, *x.shape), np.float64)
    step = 1e-3
    moved = [
        plain_normalize(np.asarray(x, np.float64) + sign * step * direction, norm)
        for sign in (1, -1)
    ]
    slope = np.sum((moved[0] - moved[1]) / (2 * step) * np.asarray(g, np.float64))
    assert np.sum(np.asarray(backward(g)[0]) * direction) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
def test_every_entry_of_the_gradient_of_normalize_matches_automatic_differentiation(ops):
    x, g = 100 * normal(0, 2, 3, 4, 16), normal(1, 2, 3, 4, 16)

    def plain(x):
        padded = jnp.pad(x * x, ((0, 0),) * 3 + ((2, 2),))
        return x / (2 + 1e-4 * sum(padded[..., i : i + 16] for i in range(5))) ** 0.75

    (actual,), (expected,) = (
        jax.vjp(f, x)[1](g) for f in (functools.partial(ops.normalize, norm=ResponseNorm()), plain)
    )
    assert relative(actual, expected) < 2e-6


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize(("groups", "n"), [(2, 5), (2, 9), (3, 3)])
def test_groups_of_maps_are_normalized_each_by_itself(ops, groups, n):
    norm, x, g = ResponseNorm(n=n), 100 * normal(0, 2, 3, 4, 12), normal(1, 2, 3, 4, 12)
    y, backward = jax.vjp(lambda x: ops.normalize(x, norm, groups=groups), x)
    apart = [jnp.split(array, groups, axis=-1) for array in (x, g)]
    results = []
    for part, part_g in zip(*apart, strict=True):
        part_y, part_backward = jax.vjp(lambda x: ops.normalize(x, norm), part)
        results.append((part_y, *part_backward(part_g)))
    expected, expected_gradient = (
        jnp.concatenate(parts, axis=-1) for parts in zip(*results, strict=True)
    )
    assert relative(y, expected) < 1e-6
    assert relative(backward(g)[0], expected_gradient) < 1e-6
    assert relative(ops.normalize(x, norm), y) > 1e-3  # as one group: other numbers


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize(("alpha", "scale"), [(1e-6, 300), (1e-4, 30), (1e-2, 30), (1e-2, 1)])
def test_in_bfloat16_normalize_differs_from_the_formula_by_its_rounding(ops, alpha, scale):
    norm = ResponseNorm(alpha=alpha)
    x = (scale * normal(0, 2, 3, 4, 48)).astype(jnp.bfloat16)
    g = normal(1, *x.shape).astype(jnp.bfloat16)
    y, backward = jax.vjp(lambda x: ops.normalize(x, norm), x)
    wide = x.astype(jnp.float32)
    exact, exact_backward = jax.vjp(lambda x: response_norm.normalize(x, norm), wide)
    assert relative(y.astype(jnp.float32), exact) < 2**-8
    slope = exact_backward(g.astype(jnp.float32))[0]
    # A GPU's form rounds the gradient's first term twice.
    bound = 2**-7 if ops is platform.GPU else 2**-8
    assert relative(backward(g)[0].astype(jnp.float32), slope) < bound


def plain_spatial_norm(x):
    """Apply the 2012 code's cnorm2 in float64: 1e-3 / 25 over 5 x 5 pixels, clipped."""
    x = np.asarray(x, np.float64)
    y = np.empty_like(x)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            window = x[:, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            s = 1 + 0.001 / 25 * np.sum(window**2, axis=(1, 2))
            y[:, row, column] = x[:, row, column] / s**0.75
    return y


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
def test_spatial_norm_and_its_gradient_match_the_formula(ops):
    x, g = 100 * normal(0, 2, 7, 6, 3), normal(1, 2, 7, 6, 3)
    y, backward = jax.vjp(lambda x: ops.normalize(x, SPATIAL_NORM), x)
    assert relative(y, plain_spatial_norm(x)) < 1e-6
    direction = np.asarray(normal(2, *x.shape), np.float64)
    moved = [plain_spatial_norm(np.asarray(x, np.float64) + h * direction) for h in (1e-3, -1e-3)]
    slope = np.sum((moved[0] - moved[1]) / 2e-3 * np.asarray(g, np.float64))
    assert np.sum(np.asarray(backward(g)[0]) * direction) == pytest.approx(slope, rel=1e-4)


def test_spatial_norm_of_a_constant_map():
    y = response_norm.normalize(jnp.full((1, 7, 7, 2), 100.0), SPATIAL_NORM)
    # 25 pixels in the middle, 9 in a corner: 100 / (1 + 4e-5 * 25e4) ** 0.75.
    assert y[0, 3, 3, 0] == pytest.approx(100 / 11**0.75, rel=1e-6)
    assert y[0, 0, 0, 0] == pytest.approx(100 / 4.6**0.75, rel=1e-6)


# (side, kernel, stride, padding, in, out): geometries of the network, at sides that the stride
# divides and others.
GEOMETRIES = [
    (36, 11, 4, (0, 3), 3, 8),
    (37, 11, 4, (0, 2), 3, 8),
    (39, 11, 4, (0, 0), 3, 6),
    (38, 11, 4, (0, 1), 3, 6),
    (9, 5, 1, (2, 2), 4, 6),
    (7, 3, 1, (1, 1), 4, 6),
    (1, 3, 1, (1, 1), 4, 6),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", ["cpu", "tpu"])
def test_convolutions_and_their_gradients_match_the_plain_one(name, geometry):
    side, kernel_side, stride, padding, inputs, outputs = geometry
    x, kernel = (
        normal(0, 3, side, side, inputs),
        normal(1, kernel_side, kernel_side, inputs, outputs),
    )
    results = []
    for convolve in (PLATFORMS[name].convolve, convolution.convolve):

        def product(x, kernel, convolve=convolve):
            return convolve(x, kernel, stride, padding, "highest")

        y, backward = jax.vjp(product, x, kernel)
        results.append((y, *backward(normal(2, *y.shape))))
    for actual, plain in zip(*results, strict=True):
        assert relative(actual, plain) < 2e-6


def test_a_tpu_never_compiles_a_convolution_with_a_stride_in_several_passes():
    # Its compiler does not end for conv1 of 2012.
    x, kernel = normal(0, 1, 36, 36, 3), normal(1, 11, 11, 3, 8)
    for precision, stride in (("default", 4), ("high", 1), ("highest", 1)):
        product = functools.partial(platform.TPU.convolve, stride=4, padding=(0, 3))
        text = str(jax.make_jaxpr(functools.partial(product, precision=precision))(x, kernel))
        assert f"window_strides=({stride}, {stride})" in text


def test_a_convolution_by_hand():
    # 1 x 1 output of a 2 x 2 / 2 window over [[1, 2], [3, 4]], kernel [[1, 10], [100, 1000]].
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    kernel = jnp.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(2, 2, 1, 1)
    for convolve in (platform.CPU.convolve, convolution.convolve):
        assert convolve(x, kernel, 2, (0, 0)).item() == 4321


OVERLAPPING, APART = Pooling(), Pooling(window=2, rounds="down")  # P3.4, and its control


# Integer values: neighbors tie all the time, as flat regions and zeros after ReLU do.
@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize("values", ["ties", "continuous"])
@pytest.mark.parametrize("size", [(55, 55), (13, 13), (14, 14), (14, 13), (4, 3), (3, 3), (2, 2)])
@pytest.mark.parametrize(
    "pooling", [OVERLAPPING, Pooling(rounds="down"), APART], ids=["up", "down", "apart"]
)
def test_pooling_and_its_gradient_match_the_plain_one(ops, values, size, pooling):
    x = normal(0, 2, *size, 3)
    x = jnp.round(x) if values == "ties" else x
    actual, backward = jax.vjp(lambda x: ops.pool(x, pooling), x)
    plain, plain_backward = jax.vjp(lambda x: plain_pool(x, pooling), x)
    np.testing.assert_array_equal(actual, plain)
    g = normal(1, *actual.shape)
    np.testing.assert_allclose(backward(g)[0], plain_backward(g)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
def test_a_tie_gives_its_gradient_to_the_first_pixel(ops):
    y, backward = jax.vjp(lambda x: ops.pool(x, OVERLAPPING), jnp.ones((1, 3, 3, 1)))
    first = np.zeros((1, 3, 3, 1), np.float32)
    first[0, 0, 0, 0] = 1
    np.testing.assert_array_equal(backward(jnp.ones_like(y))[0], first)


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
def test_the_last_window_may_hang_over_the_edge(ops):
    # Rows 0-2 and 2-4 of four: the second window sees rows 2 and 3 alone, negative as they are.
    x = -jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(ops.pool(x, OVERLAPPING)[0, :, :, 0], [[-1, -3], [-9, -11]])


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
def test_cross_entropy_and_its_gradient_match_the_formula(ops):
    logits, labels = 5 * normal(0, 6, 11), jnp.array([0, 10, 3, 3, 7, 1])
    values, backward = jax.vjp(lambda x: ops.cross_entropy(x, labels), logits)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    rows = np.arange(6)
    np.testing.assert_allclose(values, -np.log(probabilities[rows, labels]), rtol=1e-5, atol=1e-6)
    g = np.asarray(normal(1, 6))
    expected = g[:, None] * (probabilities - np.eye(11)[np.asarray(labels)])
    np.testing.assert_allclose(backward(g)[0], expected, rtol=0, atol=1e-6)


def test_the_platform_decides_in_one_place():
    assert platform.for_platform("cpu") is platform.CPU
    assert platform.for_platform("tpu") is platform.TPU
    assert platform.for_platform("gpu") is platform.for_platform("cuda") is platform.GPU


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that is not there."""

    platform: str


def test_an_option_that_this_xla_does_not_know_is_left_out():
    cpu = jax.devices("cpu")[0]
    known = "xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
    assert platform.is_supported(*known, cpu)
    assert not platform.is_supported("xla_cpu_scheduler_type", "of another release", cpu)
    assert not platform.is_supported("xla_cpu_of_another_release", "1", cpu)


def test_of_the_release_installed_every_option_is_supported():
    cpu = jax.devices("cpu")[0]
    assert platform.compiler_options(cpu) == dict(platform.CPU.compiler_options)


def test_operations_of_a_gpu_are_deterministic_unless_asked_otherwise():
    for name in ("gpu", "cuda", "rocm"):  # of a device, and of a compiler without one
        assert platform.compiler_options(Device(name))["xla_gpu_deterministic_ops"] is True
        assert platform.compiler_options(Device(name), False) == {}
    cpu = jax.devices("cpu")[0]
    assert platform.compiler_options(cpu, True) == platform.compiler_options(cpu, False)
    # XLA for a CPU knows the option too, and refuses what it cannot read.
    assert platform.is_supported("xla_gpu_deterministic_ops", True, cpu)
    assert not platform.is_supported("xla_gpu_deterministic_ops", "true", cpu)


@pytest.mark.parametrize("ops", PLATFORMS.values(), ids=PLATFORMS)
def test_flipping_gives_every_byte_back(ops):
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 256, 3), np.uint8)
    images[0, 0, :, 0] = np.arange(256)
    mirror = np.array([True, False, True, False])
    flipped = np.asarray(jax.jit(ops.flip)(images, mirror))
    np.testing.assert_array_equal(flipped[::2], images[::2, :, ::-1])
    np.testing.assert_array_equal(flipped[1::2], images[1::2])
