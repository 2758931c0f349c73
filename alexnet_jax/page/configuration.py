"""The configuration of a run in groups, with what differs from its preset."""

from typing import Any

from alexnet_jax.config import Config, flatten
from alexnet_jax.presets import PRESETS

TITLES = {
    "": "Run",
    "init": "Start from another run",
    "data": "Data",
    "model": "Network",
    "optimizer": "Update rule",
    "schedule": "Schedule",
    "mesh": "Devices",
    "distributed": "Processes",
    "log": "Records",
    "profile": "Profile",
    "process": "Process",
}


def grouped(config: Config) -> list[dict[str, Any]]:
    """Return groups of fields in the order of the configuration.

    Each field has `name`, `value`, `preset` (the value of the preset) and `differs`.
    """
    preset, groups = flatten(PRESETS[config.preset]), dict[str, list[dict[str, Any]]]()
    for name, value in flatten(config).items():
        section = name.rpartition(".")[0]
        field = {
            "name": name,
            "value": _shown(value),
            "preset": _shown(preset[name]),
            "differs": value != preset[name],
        }
        groups.setdefault(section, []).append(field)
    return [
        {"title": TITLES.get(section, section), "fields": fields}
        for section, fields in groups.items()
    ]


def _shown(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or "none"
