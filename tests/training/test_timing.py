"""The parts of a run's time sum to the whole, and its speed is that of training alone."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from alexnet_jax.config import Config
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.setup import TrainSetup
from alexnet_jax.training.timing import PARTS, Meter, TimeBudget, earlier_time, no_time


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def budget(clock):
    return TimeBudget(clock)


def test_every_second_is_in_one_part(budget, clock):
    clock.now += 5
    with budget.during("saving"):
        clock.now += 1
    clock.now += 2
    budget.begin("steps")
    clock.now += 10
    with budget.during("evaluation"):
        clock.now += 3
        with budget.during("saving"):
            clock.now += 4
        clock.now += 0.5
    clock.now += 7
    budget.move(6, "data")
    expected = {"start": 7, "steps": 11, "data": 6, "evaluation": 3.5, "saving": 5, "repeated": 0}
    assert budget.spent() == expected
    assert list(budget.spent()) == [*PARTS]
    assert budget.seconds() == clock.now - 100
    budget.add(expected)
    assert budget.seconds() == 2 * (clock.now - 100)


def test_an_error_ends_its_part(budget, clock):
    def fail():
        with budget.during("evaluation"):
            clock.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock.now += 2
    assert (budget["evaluation"], budget["start"]) == (1, 2)


def test_what_a_killed_process_did_after_its_checkpoint_is_repeated():
    saved = no_time() | {"start": 4.0, "steps": 6.0}
    line = {"split": "train"}
    lines = [
        {**line, "step": 4, "seconds": 8.0},
        {**line, "step": 5, "seconds": 9.9},
        {**line, "step": 5, "seconds": 12.0, "split": "test"},
        {**line, "step": 6, "seconds": 13.0},
        {**line, "step": 7, "seconds": 15.0},
    ]
    assert earlier_time(saved, 5, lines) == saved | {"evaluation": 2.0, "repeated": 3.0}
    assert earlier_time(saved, 5, lines[:2]) == saved
    assert saved["repeated"] == 0


def test_the_speed_is_that_of_steps_and_waiting(budget, clock):
    budget.begin("steps")
    clock.now += 50
    meter = Meter(budget)
    assert meter.images_per_second() is None
    clock.now += 3
    meter.images += 80
    with budget.during("saving"):
        clock.now += 100
    clock.now += 1
    budget.move(1, "data")
    assert meter.images_per_second() == 20
    assert meter.waiting_for_data() == 0.25
    meter.reset()
    assert meter.images_per_second() is None


@pytest.mark.parametrize(
    ("kind", "dtype", "share"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 41.35610496 / (2 * 989)),
        ("NVIDIA H100 80GB HBM3", "float32", 41.35610496 / (2 * 495)),
        ("TPU v5 lite", "float32", 41.35610496 / (2 * 197)),
        ("cpu", "float32", None),
    ],
)
def test_tflops_and_the_share_of_the_peak_of_two_devices(kind, dtype, share):
    config: Config = PRESETS["paper"]
    architecture = build_architecture(config.model, 1000, 224)
    device = SimpleNamespace(device_kind=kind)
    setup: Any = SimpleNamespace(
        config=config,
        architecture=dataclasses.replace(architecture, dtype=dtype),
        mesh=SimpleNamespace(size=2, devices=SimpleNamespace(flat=[device])),
    )
    speed = TrainSetup.speed(setup, 10_000.0)
    assert speed["images_per_second"] == 10_000
    assert speed["tflop_per_second"] == pytest.approx(41.35610496)
    assert speed["peak_share"] == (share and pytest.approx(share))
    assert json.dumps(TrainSetup.speed(setup, None)).count("null") == 3
