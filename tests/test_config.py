"""Values of a configuration: what is a number, and what a tuple holds."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from alexnet_jax.config import Config, DataConfig, OptimizerConfig, ScheduleConfig, flatten


def test_numpys_numbers_are_numbers():
    numbers: Any = {"crop": np.int64(36), "image_size": np.uint16(40)}
    rate: Any = np.float32(0.5)
    seed: Any = np.int64(3)
    config = Config(
        data=DataConfig(**numbers),
        optimizer=OptimizerConfig(learning_rate=rate),
        schedule=ScheduleConfig(milestones=tuple(np.array([1, 2]))),
        seed=seed,
    )
    plain = Config(
        data=DataConfig(crop=36, image_size=40),
        optimizer=OptimizerConfig(learning_rate=0.5),
        schedule=ScheduleConfig(milestones=(1, 2)),
        seed=3,
    )
    assert config == plain
    assert json.dumps(flatten(config)) == json.dumps(flatten(plain))


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (ScheduleConfig, {"milestones": (1.5,)}, "schedule.milestones 1.5: .*integer; try"),
        (ScheduleConfig, {"milestones": ("1", "2")}, "schedule.milestones 1 2: .*integer; try"),
        (ScheduleConfig, {"milestones": 3}, "schedule.milestones 3: must be a tuple.*; try"),
        (OptimizerConfig, {"layer_learning_rates": (1,)}, "layer_learning_rates 1: .*text; try"),
        (OptimizerConfig, {"learning_rate": np.float32("nan")}, "learning_rate nan: .*finite"),
    ],
)
def test_what_is_of_another_kind_is_refused(section: Any, values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(section(), **values)
