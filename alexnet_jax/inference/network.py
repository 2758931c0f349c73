"""A network from a run folder, together with the preprocessing that belongs to its weights."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.crops import center_views
from alexnet_jax.data.images import read_image
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.features import features
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.training.finetune import load_origin
from alexnet_jax.training.setup import make_preprocess

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, trained or imported, on a mesh."""

    workdir: Path
    step: int
    config: Config
    class_names: tuple[str, ...]
    architecture: Architecture
    mesh: Mesh
    variables: Any  # {"params": {layer: {"kernel", "bias"}}}, global arrays on the mesh
    statistics: Mapping[str, np.ndarray]  # the fields of `statistics.Statistics`
    meta: Mapping[str, Any]  # the plain part of the checkpoint

    @property
    def untrained(self) -> tuple[str, ...]:
        """The layers at their initial random values: the import that made the run lacked them."""
        return tuple(self.meta.get("untrained", ()))

    @property
    def caveats(self) -> dict[str, list[str]]:
        """What every result as JSON says of the network: layers that are untrained, if any."""
        return {"untrained": list(self.untrained)} if self.untrained else {}

    @property
    def preprocess(self) -> Preprocess:
        """The constants that `model.preprocess.preprocess` needs."""
        return make_preprocess(self.config.data, self.statistics)

    def prepare(self, images: Sequence[Path | str | np.ndarray]) -> Array:
        """Return center views as the network's input, float32 [B, crop, crop, 3].

        Args:
            images: files, or arrays of any size, uint8 [H, W, 3], RGB; their number must be
                divisible by the data shards of the mesh.

        Raises:
            ValueError: an image cannot be read, or their number is not divisible.
        """
        towers.check_batch(len(images), self.mesh)
        arrays = [read_image(image) for image in images]
        batch = towers.put_batch(center_views(arrays, self.config.data), self.mesh)
        return preprocess(batch, self.preprocess)

    def features(self, images: Array | np.ndarray, layers: str | Sequence[str]) -> dict[str, Array]:
        """Return the outputs of one or several layers for images from `prepare`.

        See `model.features.features`.
        """
        layers = (layers,) if isinstance(layers, str) else layers
        params = self.variables["params"]
        return features(params, images, layers, architecture=self.architecture, mesh=self.mesh)


def load_network(
    workdir: Path | str, mesh: Mesh, which: Literal["latest", "best"] = "latest"
) -> Network:
    """Return the network in a run folder without changing the folder.

    A warning names the layers that were never trained.

    Raises:
        ValueError: there is no such checkpoint, or this version cannot read it.
    """
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
