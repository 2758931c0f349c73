"""Color, orientation and differences between towers, on synthetic filters."""

import itertools
import json

import numpy as np
import pytest

from alexnet_jax.analysis import tower_specialization
from alexnet_jax.analysis.tower_specialization import (
    color_share,
    measure_specialization,
    orientation_strength,
    permutation_test,
)
from alexnet_jax.plots import specialization as scatter

SIDE = 11
DOWN, ACROSS = np.mgrid[:SIDE, :SIDE] - SIDE // 2
RED_GREEN = np.array([1.0, -1.0, 0.0])
GRAY = np.ones(3)


def gabor(angle, color=GRAY, cycles=0.2, phase=0.0):
    """Return a grating under a bell, [k, k, 3]."""
    along = np.cos(angle) * ACROSS + np.sin(angle) * DOWN
    bell = np.exp(-(ACROSS**2 + DOWN**2) / 18)
    return (bell * np.cos(2 * np.pi * cycles * along + phase))[..., None] * color


def blob(color, width=2.5):
    return np.exp(-(ACROSS**2 + DOWN**2) / (2 * width**2))[..., None] * color


def kernel_of(filters):
    return np.stack(filters, -1).astype(np.float32)


def specialized(count=24, seed=0):
    """Return gray Gabors of all directions in one tower, blobs of color in the other."""
    rng = np.random.default_rng(seed)
    gray = [gabor(angle, phase=rng.uniform(0, 6)) for angle in rng.uniform(0, np.pi, count)]
    colors = rng.normal(size=(count, 3))
    blobs = [blob(c - c.mean(), rng.uniform(1.5, 3)) for c in colors]
    kernel = kernel_of([*gray, *blobs])
    return kernel + rng.normal(0, 0.02, kernel.shape).astype(np.float32)


def test_the_share_of_color_by_hand():
    filters = [gabor(0.3), gabor(0.3, RED_GREEN), blob(np.array([1.0, 0, 0])), 0 * gabor(0)]
    # Red alone is 1/3 gray: (1, 0, 0) = (1, 1, 1) / 3 + (2, -1, -1) / 3, and 6/9 is off the axis.
    np.testing.assert_allclose(color_share(kernel_of(filters)), [0, 1, 2 / 3, 0], atol=1e-6)


def test_gratings_are_oriented_whatever_their_direction_color_and_strength():
    gratings = [gabor(angle) for angle in np.linspace(0, np.pi, 7)]
    gratings += [gabor(0.4, RED_GREEN), 1e-3 * gabor(0.4), gabor(0.4) + 5]
    assert (orientation_strength(kernel_of(gratings)) > 0.8).all()


def test_patterns_without_a_direction_are_not_oriented():
    plaid = gabor(0.7) + gabor(0.7 + np.pi / 2)
    none = [blob(GRAY), blob(RED_GREEN), plaid, np.ones((SIDE, SIDE, 3)), np.zeros((SIDE, SIDE, 3))]
    np.testing.assert_allclose(orientation_strength(kernel_of(none)), 0, atol=0.02)


def test_a_uniform_filter_has_no_direction_by_rounding():
    filters = np.full((SIDE, SIDE, 3, 2), 0.1, np.float32) * [1, 1 / 3]
    assert orientation_strength(filters.astype(np.float32)).tolist() == [0, 0]


def test_specialized_towers_differ():
    result = measure_specialization(specialized())
    for measure in (result.color, result.orientation):
        assert measure.p_value == 1 / 10_001  # none of 10,000 permutations
        assert measure.difference > 0.5
    for gray, colored in (result.color.means, result.color_of_energy):
        assert gray < 0.1
        assert colored > 0.8
    assert result.orientation.means[0] > 0.7
    sentences = tower_specialization.statement(result)
    assert "color the towers differ: 0.0" in sentences
    assert "orientation the towers differ: 0." in sentences


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_towers_do_not(seed):
    kernel = specialized()
    shuffled = kernel[..., np.random.default_rng(seed).permutation(kernel.shape[-1])]
    result = measure_specialization(shuffled)
    assert min(result.color.p_value, result.orientation.p_value) > tower_specialization.LEVEL
    assert tower_specialization.statement(result).count("the towers do not differ") == 2


def test_p_values_of_random_towers_are_spread_evenly():
    rng = np.random.default_rng(0)
    values = rng.gamma(2, size=(300, 12))
    result = np.array([permutation_test(some[:6], some[6:], rng) for some in values])
    for level in (0.1, 0.3, 0.5):
        assert np.mean(result <= level) == pytest.approx(level, abs=0.07)


def test_the_order_of_the_towers_changes_nothing():
    kernel = specialized()[..., np.random.default_rng(4).permutation(48)]
    result, swapped = (
        measure_specialization(kernel),
        measure_specialization(np.roll(kernel, 24, axis=-1)),
    )
    for measure, other in (
        (result.color, swapped.color),
        (result.orientation, swapped.orientation),
    ):
        assert measure.means == other.means[::-1]
        assert (measure.p_value, measure.difference) == (other.p_value, other.difference)
    assert tower_specialization.statement(result) == tower_specialization.statement(swapped)


def test_for_few_filters_the_p_value_is_exact():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.8, 1, 4), rng.normal(0, 1, 5)
    pooled = np.concatenate([first, second])
    apart = [
        abs(pooled[list(some)].mean() - np.delete(pooled, some).mean())
        for some in itertools.combinations(range(9), 4)
    ]
    expected = np.mean(np.array(apart) >= abs(first.mean() - second.mean()) - 1e-12)
    assert permutation_test(first, second, rng) == pytest.approx(expected)
    assert permutation_test(second, first, rng) == pytest.approx(expected)


def test_equal_filters_do_not_differ():
    result = measure_specialization(kernel_of([gabor(0.2)] * 40))
    assert result.color.p_value == result.orientation.p_value == 1


def test_filters_of_zeros_are_left_out():
    kernel = specialized()
    kernel[..., [0, 30]] = 0
    result = measure_specialization(kernel)
    assert result.zero == 2
    assert [len(values) for values in result.color.towers] == [23, 23]
    kernel[..., :24] = 0
    with pytest.raises(
        ValueError, match=r"kernel \(11, 11, 3, 48\): .*zero.*; use a trained network"
    ):
        measure_specialization(kernel)


@pytest.mark.parametrize("shape", [(11, 11, 3, 5), (5, 5, 48, 256), (11, 11, 3)])
def test_other_kernels_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"kernel \(.*\): .*\[k, k, 3, C\].*; pass the kernel of the first layer"
    ):
        measure_specialization(np.zeros(shape))


def test_random_filters_have_the_value_of_noise():
    result = measure_specialization(np.random.default_rng(0).normal(size=(SIDE, SIDE, 3, 96)))
    for measure in (result.color, result.orientation):
        assert np.mean(measure.means) == pytest.approx(measure.noise, abs=0.03)
    assert result.color.noise == pytest.approx(2 / 3, abs=0.01)


def test_the_result_can_be_json():
    result = measure_specialization(specialized())
    read = json.loads(json.dumps(tower_specialization.as_json(result)))
    assert read["color"]["differs"] is True
    assert read["color"]["towers"] == list(result.color.means)
    assert [len(values) for values in read["orientation"]["filters"]] == [24, 24]


def test_the_picture_has_a_point_for_each_filter():
    result = measure_specialization(specialized())
    middle = scatter.draw(result).axes[2]
    for tower, points in enumerate(middle.collections):
        expected = np.stack([result.color.towers[tower], result.orientation.towers[tower]], -1)
        np.testing.assert_allclose(np.asarray(points.get_offsets()), expected)
        assert points.get_label() == f"tower {tower}"
