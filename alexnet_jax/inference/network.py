"""A network from a run folder, together with the preprocessing that belongs to its weights."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

from alexnet_jax.config import invalid
from alexnet_jax.inference.model import Model
from alexnet_jax.model import towers
from alexnet_jax.model.settings import fixed_settings
from alexnet_jax.training.finetune import load_origin

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Network(Model):
    """A network from a run folder, trained or imported."""

    workdir: Path
    step: int
    meta: Mapping[str, Any]  # the plain part of the checkpoint

    @property
    def untrained(self) -> tuple[str, ...]:
        """The layers at their initial random values: the import that made the run lacked them."""
        return tuple(self.meta.get("untrained", ()))

    def check_trained(self) -> None:
        """Raise a ValueError if layers are at their initial random values: files do not say so."""
        if self.untrained:
            rule = f"has layers at their initial random values ({', '.join(self.untrained)})"
            remedy = "train them first, in a run with init_from"
            raise invalid("workdir", self.workdir, rule, remedy)

    @property
    def caveats(self) -> dict[str, list[str]]:
        """What every result as JSON says of the network: layers that are untrained, if any."""
        return {"untrained": list(self.untrained)} if self.untrained else {}


@fixed_settings()
def load_network(
    workdir: Path | str,
    mesh: Mesh | None = None,
    which: Literal["latest", "best"] = "latest",
) -> Network:
    """Return the network in a run folder without changing the folder.

    A warning names the layers that were never trained.

    Args:
        workdir: folder of a run, trained or imported.
        mesh: None: both towers on one device.
        which: the last checkpoint, or the one with the lowest validation error.

    Raises:
        ValueError: there is no such checkpoint, or this version cannot read it.
    """
    mesh = mesh or towers.make_mesh(towers=1, data=1, batch=1)
    origin = load_origin(Path(workdir), mesh, which, name="workdir")
    network = Network(
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
    if network.untrained:
        LOGGER.warning(
            "%s: %s still at initial random values, and so is all that is computed from them; "
            "train them with init_from=%s.",
            *(network.workdir, ", ".join(network.untrained), network.workdir),
        )
    return network
