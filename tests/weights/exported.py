"""Small networks of every kind to export, and what they compute here."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from alexnet_jax.config import Config
from alexnet_jax.data.crops import views_of
from alexnet_jax.data.statistics import published
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture, weighted_rows
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.setup import make_preprocess
from alexnet_jax.weights.convert import Params

CLASSES = 7
# Every preset, and what none of them has.
SETTINGS: dict[str, dict[str, Any]] = {
    **{preset: {"preset": preset} for preset in PRESETS},
    "tanh, pooling of 2": {"activation": "tanh", "pool_window": 2},
    "a bottleneck": {"variant": "six_conv", "bottleneck": 64},
    "LRN over all maps": {"lrn_scope": "all", "lrn_n": 3},
    "no LRN, no conv4": {"lrn": False, "drop_layer": "conv4"},
    "LRN with alpha 0": {"lrn_alpha": 0.0},
    "LRN with beta 0": {"lrn_beta": 0.0},
}


@dataclasses.dataclass(frozen=True)
class Example:
    """A network with random weights, and random squares."""

    config: Config
    architecture: Architecture
    params: Params
    constants: Preprocess
    squares: np.ndarray  # uint8 [3, S, S, 3]

    @property
    def exported(self) -> tuple[Architecture, Params, Preprocess, int]:
        """The arguments of `onnx_graph.build_model` and `stablehlo.build_program`."""
        return self.architecture, self.params, self.constants, self.config.data.image_size

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """What the network computes here on one device, float32 [3, classes]."""
        mesh = towers.make_mesh(towers=1, data=1, batch=len(self.squares))
        apply = towers.forward(self.architecture, mesh)
        (batch,) = views_of(self.squares, self.config.data.crop)
        images = preprocess(towers.put_batch(batch, mesh), self.constants)
        return np.asarray(jax.nn.softmax(jax.jit(apply)({"params": self.params}, images)))


def make_example(name: str) -> Example:
    """Return the network of a row of SETTINGS at a twentieth of the width."""
    settings = dict(SETTINGS[name])
    config = PRESETS[settings.pop("preset", "paper")]
    crop = config.data.crop % 2 + 70  # odd and even, as 224 and 227
    data = dataclasses.replace(config.data, image_size=crop + 9, crop=crop)
    model = dataclasses.replace(config.model, width=0.05, precision="highest", **settings)
    architecture, rng = build_architecture(model, CLASSES, crop), np.random.default_rng(0)
    params = {
        row.name: {
            # Preserves the variance of activations; biases, so that a wrong order is seen.
            "kernel": rng.normal(0, np.prod(row.kernel_shape[:-1]) ** -0.5, row.kernel_shape),
            "bias": rng.normal(0, 0.1, row.channels),
        }
        for row in weighted_rows(architecture)
    }
    params = jax.tree.map(np.float32, params)
    statistics = dataclasses.asdict(published("imagenet", data.image_size))
    # A mean image that depends on the place, as a wrong crop of it must be seen.
    statistics["mean_image"] = rng.uniform(0, 255, statistics["mean_image"].shape)
    constants = make_preprocess(data, jax.tree.map(np.float32, statistics))
    squares = rng.integers(0, 256, (3, data.image_size, data.image_size, 3), np.uint8)
    config = dataclasses.replace(config, data=data, model=model)
    example = Example(config, architecture, params, constants, squares)
    return _with_moderate_logits(example)


def _with_moderate_logits(example: Example) -> Example:
    """Return the network with its last layer scaled: softmax hides what exceeds a few units."""
    params, last = example.params, example.architecture.layers[-1].name
    spread = np.log(example.probabilities + 1e-30).std()
    scaled = {kind: array / np.float32(spread) for kind, array in params[last].items()}
    return dataclasses.replace(example, params={**params, last: scaled})
