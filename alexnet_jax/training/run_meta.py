"""The plain part of a run's checkpoint, as `resume.to_checkpoint` and an import write it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from alexnet_jax.config import invalid, unflatten
from alexnet_jax.storage.json_objects import is_number
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.schedule import Progress
from alexnet_jax.training.timing import PARTS


def read_meta(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """Return the plain part of a checkpoint, whose entries are of the right types.

    Raises:
        ValueError: one is not, or the checkpoint has another format.
    """
    meta = checkpoints.meta(step)
    for name, is_right in _ENTRIES.items():
        if name not in meta or not is_right(meta[name]):
            rule = f"{name} in the checkpoint of step {step:,} is not that of a run"
            raise invalid("workdir", checkpoints.workdir, rule, "restore the run from a backup")
    unflatten(meta["config"])
    return meta


def _is_dict_of(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_right, value.values()))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_progress(value: object) -> bool:
    """Return whether a value has the fields of `Progress`, of the types of their defaults."""
    default = dataclasses.asdict(Progress())
    return (
        isinstance(value, dict)
        and value.keys() == default.keys()
        and all(_is_like(value[name], default[name]) for name in default)
    )


def _is_like(value: object, default: object) -> bool:
    if default is None or isinstance(default, float):
        return value is None or is_number(value)
    return type(value) is type(default)


def _is_time(value: object) -> bool:
    return _is_dict_of(is_number)(value) and isinstance(value, Mapping) and {*PARTS} == {*value}


def _is_reasons(value: object) -> bool:
    """Return whether a value has a reason by the number of each unreadable record."""
    return (
        isinstance(value, dict)
        and all(map(str.isdecimal, value))
        and all(map(_is_text, value.values()))
    )


_ENTRIES: Mapping[str, Callable[[object], bool]] = {
    "config": lambda value: isinstance(value, dict),
    "class_names": _is_names,
    "progress": _is_progress,
    "time": _is_time,
    "data": _is_dict_of(_is_text),
    "line_sums": _is_dict_of(is_number),
    "epoch_sums": _is_dict_of(is_number),
    "unreadable": _is_dict_of(_is_reasons),
}
