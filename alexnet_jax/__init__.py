"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX: two towers on one, two or n devices.

"P3.3" in comments and help texts is section 3.3 of the paper; names such as layers-145.cfg are
files of the authors' code, computerhistory/AlexNet-Source-Code.

    import alexnet_jax as ax

    network = ax.load("runs/a")  # or ax.create("paper", num_classes=10)
    probabilities = network.predict(["photo.jpg"])

See `inference/model.py` for what a network can do.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_jax.data.pairs import Pairs
    from alexnet_jax.inference.model import create
    from alexnet_jax.inference.network import load_network as load
    from alexnet_jax.presets import PRESETS
    from alexnet_jax.training.loop import train_and_evaluate

__version__ = "0.1.0"
__all__ = ["PRESETS", "Pairs", "create", "load", "train_and_evaluate"]

_MODULES = {
    "PRESETS": "alexnet_jax.presets",
    "Pairs": "alexnet_jax.data.pairs",
    "create": "alexnet_jax.inference.model",
    "load": "alexnet_jax.inference.network",
    "train_and_evaluate": "alexnet_jax.training.loop",
}


def __getattr__(name: str) -> Any:
    # JAX takes seconds to import, which the --help of a command need not wait for.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name])
    return getattr(module, "load_network" if name == "load" else name)
