"""When the rate drops and when training ends, at the corner points of both schedules."""

import dataclasses

import pytest

from alexnet_jax.config import OptimizerConfig, ScheduleConfig
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.schedule import Progress, advance, finished, learning_rate, learning_rates

PLATEAU = ScheduleConfig(
    kind="plateau", epochs=1000, max_drops=2, patience=3, min_delta=0.125, factor=0.1
)
FIXED = ScheduleConfig(kind="step", epochs=90, milestones=(23, 51, 78), factor=0.1)


def follow(errors, config=PLATEAU):
    """Return the progress after each of `errors`."""
    progress, history = Progress(), []
    for error in errors:
        progress = advance(config, progress, error)
        history.append(progress)
    return history


def test_the_first_look_is_the_best_so_far():
    (first,) = follow([0.75])
    assert first == Progress(epoch=1, drops=0, best=0.75, since=0, ended=False)


def test_an_improvement_counts_only_beyond_the_threshold():
    # 1/2 - 1/8 is exact in binary: exactly at the threshold is no improvement.
    assert follow([0.5, 0.375])[-1] == Progress(epoch=2, best=0.5, since=1)
    assert follow([0.5, 0.374])[-1] == Progress(epoch=2, best=0.374, since=0)


def test_improvement_is_measured_from_the_best_and_not_from_the_last_look():
    # Each look is better than the one before, and none by enough.
    assert follow([0.5, 0.45, 0.40])[-1] == Progress(epoch=3, best=0.5, since=2)
    assert follow([0.5, 0.9, 0.5])[-1] == Progress(epoch=3, best=0.5, since=2)


def test_without_a_least_improvement_any_fall_counts_and_an_equal_error_does_not():
    config = dataclasses.replace(PLATEAU, min_delta=0.0)
    assert follow([0.5, 0.5], config)[-1].since == 1
    assert follow([0.5, 0.4999], config)[-1].since == 0


def test_the_rate_drops_when_patience_is_reached_and_not_before():
    before, at = follow([0.5] * 4)[-2:]
    assert before == Progress(epoch=3, drops=0, best=0.5, since=2)
    assert at == Progress(epoch=4, drops=1, best=0.5, since=0)
    assert learning_rate(PLATEAU, before, 0.01) == 0.01
    assert learning_rate(PLATEAU, at, 0.01) == pytest.approx(0.001)


def test_an_improvement_at_the_last_moment_starts_patience_anew():
    assert follow([0.5, 0.5, 0.5, 0.25])[-1] == Progress(epoch=4, drops=0, best=0.25, since=0)
    assert [p.drops for p in follow([0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25])][-2:] == [0, 1]


def test_training_ends_at_the_plateau_after_the_last_drop():
    history = follow([0.5] * 10)
    assert [progress.drops for progress in history] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert [progress.ended for progress in history] == [False] * 9 + [True]
    assert [finished(PLATEAU, progress) for progress in history] == [False] * 9 + [True]
    # The rate stays where it was: the last epochs are not trained at a fourth one.
    assert learning_rate(PLATEAU, history[-1], 0.01) == pytest.approx(0.0001)


def test_no_drops_ends_at_the_first_plateau():
    config = dataclasses.replace(PLATEAU, max_drops=0)
    assert [finished(config, progress) for progress in follow([0.5] * 4, config)] == [
        *[False] * 3,
        True,
    ]


def test_epochs_that_nobody_looked_after_count_only_as_epochs():
    history = follow([0.5, None, None, 0.5, None, 0.5, 0.5])
    assert [progress.since for progress in history] == [0, 0, 0, 1, 1, 2, 0]
    assert [progress.drops for progress in history] == [0, 0, 0, 0, 0, 0, 1]
    assert history[-1].epoch == 7
    assert follow([None])[-1] == Progress(epoch=1)


def test_epochs_bound_the_plateau_schedule_too():
    config = dataclasses.replace(PLATEAU, epochs=2)
    assert [finished(config, progress) for progress in follow([0.5, 0.1, 0.0], config)] == [
        False,
        True,
        True,
    ]


def test_the_fixed_schedule_drops_after_its_epochs():
    history = follow([0.5] * 90, FIXED)
    drops = {progress.epoch: progress.drops for progress in history}
    assert [drops[epoch] for epoch in (1, 22, 23, 50, 51, 77, 78, 90)] == [0, 0, 1, 1, 2, 2, 3, 3]
    rates = [learning_rate(FIXED, history[epoch - 1], 0.01) for epoch in (22, 23, 51, 78)]
    assert rates == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])
    assert learning_rate(FIXED, Progress(), 0.01) == 0.01


def test_the_step_schedule_ignores_the_error():
    assert follow([None] * 90, FIXED) == follow([0.5] * 90, FIXED)
    assert not any(progress.ended for progress in follow([0.5] * 90, FIXED))


def test_the_fixed_schedule_ends_at_its_last_epoch_and_more_epochs_go_on():
    last = follow([0.5] * 90, FIXED)[-1]
    assert not finished(FIXED, follow([0.5] * 89, FIXED)[-1])
    assert finished(FIXED, last)
    longer = dataclasses.replace(FIXED, epochs=91)
    assert not finished(longer, last)
    assert finished(longer, advance(longer, last, 0.5))


def test_more_epochs_do_not_wake_a_run_that_ended_at_a_plateau():
    last = follow([0.5] * 10)[-1]
    assert finished(dataclasses.replace(PLATEAU, epochs=10**6), last)


def rates_at(epoch, config=PRESETS["source2012"], layers=("conv1", "conv2", "fc8"), **changes):
    """Return the rates for the epoch after `epoch` epochs without improvement."""
    plan, progress = dataclasses.replace(config.schedule, **changes), Progress()
    while progress.epoch < epoch:
        progress = advance(plan, progress, 0.5)
    return learning_rates(plan, config.optimizer, progress, layers)


@pytest.mark.parametrize(
    ("epoch", "conv1", "conv1_bias", "kernel", "bias"),
    [
        (0, 1e-2, 2e-2, 1e-2, 2e-2),
        (22, 1e-2, 2e-2, 1e-2, 2e-2),
        (23, 1e-3, 2e-3, 1e-3, 2e-3),
        (50, 1e-3, 2e-3, 1e-3, 2e-3),
        (51, 1e-4, 2e-3, 1e-4, 2e-3),
        (67, 1e-4, 2e-3, 1e-4, 2e-3),
        (68, 1e-5, 2e-3, 1e-4, 2e-3),
        (71, 1e-5, 2e-3, 1e-4, 2e-3),
        (72, 0, 0, 1e-4, 2e-3),
        (77, 0, 0, 1e-4, 2e-3),
        (78, 0, 0, 1e-5, 2e-3),
        (92, 0, 0, 1e-5, 2e-3),
    ],
)
def test_the_rates_of_2012(epoch, conv1, conv1_bias, kernel, bias):
    others = {"kernel": pytest.approx(kernel), "bias": pytest.approx(bias)}
    assert rates_at(epoch) == {
        "conv1": {"kernel": pytest.approx(conv1), "bias": pytest.approx(conv1_bias)},
        "conv2": others,
        "fc8": others,
    }


def test_the_2012_run_ends_after_its_last_epoch():
    plan = PRESETS["source2012"].schedule
    assert [finished(plan, Progress(epoch=epoch)) for epoch in (92, 93)] == [False, True]


def test_the_paper_has_one_rate_for_everything():
    # Five looks without improvement between drops, three drops.
    for epoch, one in [(0, 1e-2), (5, 1e-2), (6, 1e-3), (11, 1e-4), (16, 1e-5), (30, 1e-5)]:
        expected = pytest.approx(one)
        for layer in rates_at(epoch, PRESETS["paper"]).values():
            assert layer == {"kernel": expected, "bias": expected}


def test_a_slow_conv1_that_is_never_frozen_stays_one_drop_ahead():
    late = rates_at(78, freeze_conv1=0)
    assert late["conv2"]["kernel"] == pytest.approx(1e-5)
    assert late["conv1"] == {"kernel": pytest.approx(1e-6), "bias": pytest.approx(2e-3)}
    assert rates_at(72, slow_conv1=0)["conv1"] == {"kernel": 0, "bias": 0}
    assert rates_at(71, slow_conv1=0)["conv1"]["kernel"] == pytest.approx(1e-4)


def test_conv1_slows_and_freezes_on_the_plateau_schedule_too():
    config = PRESETS["paper"]
    changes = {"slow_conv1": 2, "freeze_conv1": 4}
    conv1 = [rates_at(epoch, config, **changes)["conv1"] for epoch in (1, 2, 4)]
    assert [one["kernel"] for one in conv1] == pytest.approx([1e-2, 1e-3, 0])
    assert [one["bias"] for one in conv1] == pytest.approx([1e-2, 1e-2, 0])


@pytest.mark.parametrize(
    ("bias_drops", "expected"),
    [(0, [6e-2] * 4), (2, [6e-2, 6e-3, 6e-4, 6e-4]), ("all", [6e-2, 6e-3, 6e-4, 6e-5])],
)
def test_biases_follow_as_many_drops_as_they_are_told(bias_drops, expected):
    optimizer = OptimizerConfig(
        learning_rate=0.02, bias_lr_multiplier=3.0, bias_lr_drops=bias_drops
    )
    found = [learning_rates(FIXED, optimizer, Progress(drops=n), ["fc8"])["fc8"] for n in range(4)]
    assert [one["bias"] for one in found] == pytest.approx(expected)
    assert [one["kernel"] for one in found] == pytest.approx([2e-2, 2e-3, 2e-4, 2e-5])


def test_layers_keep_their_multiples_through_drops_and_conv1s_own_schedule():
    config = PRESETS["source2012"]
    rates = ("conv1=2", "conv2=0", "fc8=10")
    config = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, layer_learning_rates=rates)
    )
    for epoch, conv1, fc8, fc8_bias in [(0, 2e-2, 1e-1, 2e-1), (23, 2e-3, 1e-2, 2e-2)]:
        found = rates_at(epoch, config)
        assert found["conv2"] == {"kernel": 0, "bias": 0}
        assert found["conv1"]["kernel"] == pytest.approx(conv1)
        assert found["fc8"] == {"kernel": pytest.approx(fc8), "bias": pytest.approx(fc8_bias)}
    assert rates_at(68, config)["conv1"]["kernel"] == pytest.approx(2e-5)
    assert rates_at(72, config)["conv1"] == {"kernel": 0, "bias": 0}
