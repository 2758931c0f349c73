"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX: two towers on one, two or n devices.

"P3.3" in comments and help texts is section 3.3 of the paper; names such as layers-145.cfg are
files of the authors' code, computerhistory/AlexNet-Source-Code.

    import alexnet_jax as ax

    network = ax.load("runs/a")  # or ax.load("torchvision"), ax.create("paper", num_classes=10)
    probabilities = network.predict(["photo.jpg"])

See `inference/model.py` for what a network can do.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from alexnet_jax.data.pairs import Pairs
    from alexnet_jax.inference.model import create
    from alexnet_jax.inference.network import Network
    from alexnet_jax.presets import PRESETS
    from alexnet_jax.training.loop import train_and_evaluate

__version__ = "0.1.0"
__all__ = ["PRESETS", "Pairs", "create", "load", "train_and_evaluate"]

_MODULES = {
    "PRESETS": "alexnet_jax.presets",
    "Pairs": "alexnet_jax.data.pairs",
    "create": "alexnet_jax.inference.model",
    "train_and_evaluate": "alexnet_jax.training.loop",
}


def __getattr__(name: str) -> Any:
    # JAX takes seconds to import, which the --help of a command need not wait for.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name])
    return getattr(module, name)


def load(
    source: Path | str,
    mesh: "Mesh | None" = None,
    which: Literal["latest", "best"] = "latest",
) -> "Network":
    """Return the network of a run, or one with published weights.

    Args:
        source: folder of a run, trained or imported. Or "torchvision", "bvlc_alexnet" or
            "caffenet": published weights, which are downloaded once (see `weights/published.py`);
            "./torchvision" and Path("torchvision") are folders.
        mesh: None: both towers on one device.
        which: the last checkpoint, or the one with the lowest validation error.

    Raises:
        ValueError: there is no such checkpoint, or this version cannot read it; published weights
            cannot be downloaded or are not those that were published.
    """
    from alexnet_jax.inference.network import load_network
    from alexnet_jax.weights import published

    if isinstance(source, str) and published.is_name(source):
        source = published.run_folder(source)
    return load_network(source, mesh, which)
