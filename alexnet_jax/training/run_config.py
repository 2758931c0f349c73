"""The settings in the folder of a run, read without JAX: the command line starts from them."""

import dataclasses
from pathlib import Path

from alexnet_jax.config import Config, DistributedConfig, invalid, unflatten
from alexnet_jax.storage.json_objects import read_object
from alexnet_jax.storage.local import check_local

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"  # folder of the checkpoints, which are named by their steps


def read_config(folder: Path, name: str, remedy: str = "name the folder of a run") -> Config:
    """Return the configuration in a run's folder.

    Args:
        folder: of a run or of imported weights.
        name: of the argument that named the folder, for messages.
        remedy: what to do if there is none, for messages.

    Raises:
        ValueError: there is no config.json, or it is not that of a run.
    """
    check_local(folder, name)
    try:
        config = read_object(folder / CONFIG).get("config")
        if not isinstance(config, dict):
            raise ValueError(f"{folder / CONFIG}: it has no configuration")
        return unflatten(config)
    except OSError as error:
        rule = f"{CONFIG} cannot be read ({error.strerror})"
        raise invalid(name, folder, rule, remedy) from error
    except (ValueError, TypeError) as error:
        rule = f"{CONFIG} must be that of a run of this version of alexnet_jax ({error})"
        raise invalid(name, folder, rule, remedy) from error


def config_to_resume(workdir: Path) -> Config | None:
    """Return the settings with which the run in a folder is resumed; None if it holds no run.

    Which of several processes this is belongs to the process that wrote them, and is left out.

    Raises:
        ValueError: its config.json is damaged.
    """
    if not (workdir / CONFIG).exists():
        return None
    remedy = f"restore {CONFIG} from a backup, or give preset=NAME and all options of the run"
    config = read_config(workdir, "workdir", remedy)
    if "imported" in read_object(workdir / CONFIG):
        return None
    return dataclasses.replace(config, distributed=DistributedConfig())


def has_checkpoint(workdir: Path) -> bool:
    """Return whether a run has trained: one without a checkpoint can start with other settings."""
    try:
        names = [path.name for path in (workdir / CHECKPOINTS).iterdir()]
    except OSError:
        return False
    return any(name.partition(".")[0].isdigit() for name in names)
