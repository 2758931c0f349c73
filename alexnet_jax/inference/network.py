"""A network from a run folder, together with the preprocessing that belongs to its weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

from alexnet_jax.inference.model import Model
from alexnet_jax.model import towers
from alexnet_jax.model.settings import fixed_settings
from alexnet_jax.training.finetune import load_origin


@dataclasses.dataclass(frozen=True)
class Network(Model):
    """A network from a run folder, trained or imported."""

    workdir: Path
    step: int
    meta: Mapping[str, Any]  # the plain part of the checkpoint


@fixed_settings()
def load_network(
    workdir: Path | str,
    mesh: Mesh | None = None,
    which: Literal["latest", "best"] = "latest",
) -> Network:
    """Return the network in a run folder without changing the folder.

    Args:
        workdir: folder of a run, trained or imported.
        mesh: None: both towers on one device.
        which: the last checkpoint, or the one with the lowest validation error.

    Raises:
        ValueError: there is no such checkpoint, or this version cannot read it.
    """
    mesh = mesh or towers.make_mesh(towers=1, data=1, batch=1)
    origin = load_origin(Path(workdir), mesh, which, name="workdir")
    return Network(
        workdir=origin.folder,
        step=origin.step,
        config=origin.config,
        class_names=origin.class_names,
        architecture=origin.architecture,
        mesh=mesh,
        variables={"params": origin.params},
        statistics=origin.statistics,
        meta=origin.meta,
    )
