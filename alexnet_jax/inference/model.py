"""A network to use from Python: any number of images in, logits, probabilities or features out."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.config import Config, Preset, invalid
from alexnet_jax.data.crops import center_views
from alexnet_jax.data.images import read_image
from alexnet_jax.data.statistics import published
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.features import check_inputs, features
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.model.settings import fixed_settings
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.setup import make_preprocess
from alexnet_jax.training.state import make_key
from alexnet_jax.training.step import draw_dropout_masks

BATCH = 32  # images at a time, of any number

Image = Path | str | np.ndarray | Array
Images = Sequence[Image] | Image


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Model:
    """A network on a mesh, with the preprocessing that belongs to its weights.

    Programs are compiled at the first call with a batch of new size, and kept. Gradients are
    available in reverse mode alone (`jax.grad`, `jax.vjp`): response normalization and pooling have
    gradients of their own, for which `jax.jvp` and `jax.hessian` raise a TypeError.
    """

    config: Config
    class_names: tuple[str, ...]
    architecture: Architecture
    mesh: Mesh
    variables: Any  # {"params": {layer: {"kernel", "bias"}}}, global arrays on the mesh
    statistics: Mapping[str, np.ndarray]  # the fields of `statistics.Statistics`

    def __repr__(self) -> str:
        """Describe it in a line: its fields would be pages."""
        crop, classes = self.architecture.crop, len(self.class_names)
        variant = self.config.model.variant
        return f"{type(self).__name__}({variant}, {crop} x {crop} pixels, {classes:,} classes)"

    @property
    def params(self) -> Any:
        """The parameters, {layer: {"kernel", "bias"}}."""
        return self.variables["params"]

    @property
    @fixed_settings()
    def constants(self) -> Preprocess:
        """The constants that `model.preprocess.preprocess` needs."""
        return make_preprocess(self.config.data, self.statistics)

    @fixed_settings()
    def preprocess(self, images: Images) -> Array:
        """Return center views as the network's input, float32 [B, crop, crop, 3].

        Args:
            images: files, or arrays of any size, uint8 [H, W, 3], RGB, or one of them; their
                number must be divisible by the data shards of the mesh.

        Raises:
            ValueError: an image cannot be read, or their number is not divisible.
        """
        arrays = [read_image(image) for image in _listed(images)]
        towers.check_batch(len(arrays), self.mesh)
        batch = towers.put_batch(center_views(arrays, self.config.data), self.mesh)
        return preprocess(batch, self.constants)

    @fixed_settings()
    def apply(
        self,
        params: Any,
        images: Array | np.ndarray,
        *,
        train: bool = False,
        rngs: Mapping[str, Array] | None = None,
        dropout_masks: Mapping[str, Array] | None = None,
    ) -> Array:
        """Return the logits, float32 [B, classes]; differentiable in `params` and `images`.

        Args:
            params: such as `self.params`.
            images: float [B, crop, crop, 3], as `preprocess` returns them.
            train: with dropout.
            rngs: {"dropout": key}, which draws the masks of a training step.
            dropout_masks: instead, which outputs are kept: bool [B, ...] for each layer of
                `architecture.dropped`.

        Raises:
            ValueError: shapes or dtypes are others, or dropout has neither a key nor masks.
        """
        check_inputs(params, images, self.architecture, self.mesh)
        masks = self._dropout_masks(len(images), train, rngs, dropout_masks)
        variables = {"params": dict(params)}
        shardings = towers.state_shardings(variables, self.architecture, self.mesh)
        variables = jax.device_put(variables, shardings)
        return _compiled(self.architecture, self.mesh)(variables, images, masks)

    def _dropout_masks(
        self,
        batch: int,
        train: bool,
        rngs: Mapping[str, Array] | None,
        dropout_masks: Mapping[str, Array] | None,
    ) -> Mapping[str, Array] | None:
        if rngs is not None and not isinstance(rngs, Mapping):
            remedy = 'use rngs={"dropout": key}'
            raise invalid("rngs", type(rngs).__name__, "must be a dict of keys", remedy)
        if not train:
            if rngs or dropout_masks:
                given = "rngs" if rngs else "dropout_masks"
                rule = "is for training alone, where outputs are dropped"
                raise invalid(given, "given", rule, "use train=True, or leave it out")
            return None
        if rngs is not None and dropout_masks is not None:
            rule = "draw the masks that dropout_masks gives"
            raise invalid("rngs", "given", rule, "leave one of them out")
        if dropout_masks is None and "dropout" not in (rngs or {}):
            rule = "must be given for train=True, which drops outputs at random"
            raise invalid("rngs", rngs, rule, 'use rngs={"dropout": jax.random.key(0)}')
        if dropout_masks is None:
            assert rngs is not None
            return draw_dropout_masks(self.architecture, rngs["dropout"], batch)
        if not isinstance(dropout_masks, Mapping):
            rule = "must be a dict of arrays by layer"
            raise invalid("dropout_masks", type(dropout_masks).__name__, rule, "use {name: mask}")
        expected = {name: (batch, *shape) for name, shape in self.architecture.dropped.items()}
        given = {name: np.shape(mask) for name, mask in dropout_masks.items()}
        if given != expected:
            rule = "must have the shapes of the layers with dropout"
            raise invalid("dropout_masks", given, rule, f"use {expected}")
        for name, mask in dropout_masks.items():
            if (kind := _kind(mask)) != "bool":
                rule = "must be an array of bool, whether an output is kept"
                raise invalid("dropout_masks", f"{name} of {kind}", rule, "use x > 0")
        return dropout_masks

    @fixed_settings()
    def logits(self, images: Images) -> np.ndarray:
        """Return the logits of the center views of any number of images, float32 [N, classes].

        Args:
            images: files, or arrays of any size, uint8 [H, W, 3], RGB, or one of them.

        Raises:
            ValueError: there are none, or one cannot be read.
        """
        images = _listed(images)
        if not images:
            raise invalid("images", 0, "must be at least one", "name files or arrays")
        shards = towers.num_shards(self.mesh)
        size = -(-min(BATCH, len(images)) // shards) * shards
        rows = []
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            padding = [chunk[-1]] * (size - len(chunk))
            logits = self.apply(self.params, self.preprocess([*chunk, *padding]))
            rows.append(np.asarray(logits)[: len(chunk)])
        return np.concatenate(rows)

    @fixed_settings()
    def predict(self, images: Images) -> np.ndarray:
        """Return the probabilities of the classes, float32 [N, classes]; see `logits`."""
        return np.asarray(jax.nn.softmax(jnp.asarray(self.logits(images))))

    @fixed_settings()
    def features(self, images: Array | np.ndarray, layers: str | Sequence[str]) -> dict[str, Array]:
        """Return the outputs of one or several layers for images from `preprocess`.

        See `model.features.features`.
        """
        layers = (layers,) if isinstance(layers, str) else layers
        return features(self.params, images, layers, architecture=self.architecture, mesh=self.mesh)


def _kind(value: Any) -> str:
    return str(getattr(value, "dtype", type(value).__name__))


def _listed(images: Images) -> list[Path | str | np.ndarray]:
    """Return one image as a list of it, several as a list."""
    if isinstance(images, (np.ndarray, Array)) and images.dtype.kind not in "OUS":
        pixels = np.asarray(images)
        return list(pixels) if pixels.ndim == 4 else [pixels]
    if isinstance(images, (str, Path)) or not isinstance(images, Iterable):
        return [images]
    return [np.asarray(image) if isinstance(image, Array) else image for image in images]


@functools.lru_cache
def _compiled(architecture: Architecture, mesh: Mesh) -> Callable[..., Array]:
    return towers.jit_anywhere(towers.forward(architecture, mesh), mesh)


@fixed_settings()
def create(
    preset: Preset = "paper", *, num_classes: int = 1000, seed: int = 0, mesh: Mesh | None = None
) -> Model:
    """Return a network of a preset with initial weights (P5), as training from `seed` starts.

    Preprocessing uses the published mean color of ImageNet.

    Args:
        preset: name of a configuration, see `presets.PRESETS`.
        num_classes: outputs of the last layer.
        seed: of the initial weights.
        mesh: None: both towers on one device.

    Raises:
        ValueError: there is no such preset, or no class.
    """
    if preset not in PRESETS:
        raise invalid("preset", preset, "must be a preset", f"choose from {', '.join(PRESETS)}")
    if num_classes < 1:
        raise invalid("num_classes", num_classes, "must be at least 1", "try 1000")
    config = dataclasses.replace(PRESETS[preset], seed=seed)
    mesh = mesh or towers.make_mesh(towers=1, data=1, batch=1)
    architecture = build_architecture(config.model, num_classes, config.data.crop)
    initialize = towers.initializer(architecture)
    shapes = jax.eval_shape(initialize, make_key(seed))
    shardings = towers.state_shardings(shapes, architecture, mesh)
    return Model(
        config=config,
        class_names=tuple(f"class {number}" for number in range(num_classes)),
        architecture=architecture,
        mesh=mesh,
        variables=jax.jit(initialize, out_shardings=shardings)(make_key(seed)),
        statistics=dataclasses.asdict(published("imagenet", config.data.image_size)),
    )
