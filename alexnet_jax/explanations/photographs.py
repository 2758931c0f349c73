"""All explanations of one photograph after the other, with programs that are compiled once."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.config import invalid
from alexnet_jax.data.crops import center_views
from alexnet_jax.explanations.grad_cam import check_maps, default_layer, grad_cam, upsample
from alexnet_jax.explanations.gradients import gradient, saliency
from alexnet_jax.explanations.occlusion import check_window, occlusion
from alexnet_jax.explanations.scores import Score
from alexnet_jax.inference.model import Model
from alexnet_jax.storage.atomic import replacing

Method = Literal["occlusion", "gradient", "gradcam"]
METHODS: tuple[Method, ...] = ("occlusion", "gradient", "gradcam")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What speaks for one class in one photograph."""

    file: Path
    image: np.ndarray  # uint8 [crop, crop, 3], which the network sees
    probabilities: np.ndarray  # float32 [K]
    label: int  # the class that is explained
    class_names: Sequence[str]  # K of them
    score: float  # of this class, its logit or its probability
    maps: Mapping[Method, np.ndarray]  # at the size of the image, float32 [crop, crop]
    towers: np.ndarray | None  # what each adds to Grad-CAM, float32 [2, crop, crop]
    raw: Mapping[str, np.ndarray]  # gradient [crop, crop, 3], gradcam [H, W], gradcam_towers

    def peak(self, method: Method) -> tuple[int, int] | None:
        """Return row and column of a map's largest value, None if no value is above 0."""
        values = self.maps[method]
        row, column = np.unravel_index(np.argmax(values), values.shape)
        return (int(row), int(column)) if values[row, column] > 0 else None


class Explainer:
    """A network and the ways in which it is explained.

    Raises:
        ValueError: an argument does not fit the network.
    """

    def __init__(
        self,
        network: Model,
        methods: Sequence[Method] = METHODS,
        *,
        layer: str = "",
        window: int | None = None,
        stride: int | None = None,
        score: Score = "logit",
    ):
        self.network, self.score = network, score
        self.methods = tuple(method for method in METHODS if method in methods)
        self.layer = layer or default_layer(network.architecture)
        check_maps(network.architecture, self.layer)
        self.window, self.stride = check_window(network.architecture, window, stride)

    def __call__(self, file: Path, image: np.ndarray, label: int | None = None) -> Explanation:
        """Explain a class of an image, or the predicted one.

        Args:
            file: where the image is from.
            image: uint8 [H, W, 3] of any size.
            label: number of the class; None: the predicted one.

        Raises:
            ValueError: the outputs of the network are not finite.
        """
        network = self.network
        images = network.preprocess([image])
        logits = network.apply(network.params, images)
        probabilities = np.asarray(jax.nn.softmax(logits))[0]
        if not np.isfinite(probabilities).all():
            rule = f"the outputs of its network are not finite for {file}"
            raise invalid("workdir", repr(network), rule, "use an earlier checkpoint")
        label = int(jnp.argmax(logits[0])) if label is None else label
        scores = probabilities if self.score == "probability" else np.asarray(logits)[0]
        maps: dict[Method, np.ndarray] = {}
        raw: dict[str, np.ndarray] = {}
        towers = None
        if "occlusion" in self.methods:
            (maps["occlusion"],) = occlusion(
                *(network, images, label),
                window=self.window,
                stride=self.stride,
                score=self.score,
                progress=True,
            )
        if "gradient" in self.methods:
            gradients = np.asarray(gradient(network, images, label, score=self.score))
            (maps["gradient"],), raw["gradient"] = saliency(gradients), gradients[0]
        if "gradcam" in self.methods:
            cam = grad_cam(network, images, label, layer=self.layer, score=self.score)
            raw |= {
                "gradcam": np.asarray(cam.total[0]),
                "gradcam_towers": np.asarray(cam.towers[0]),
            }
            maps["gradcam"] = self._at_image_size(raw["gradcam"])
            if network.architecture.has_towers:
                towers = self._at_image_size(raw["gradcam_towers"])
        return Explanation(
            file=file,
            image=center_views([image], network.config.data)["image"][0],
            probabilities=probabilities,
            label=label,
            class_names=network.class_names,
            score=float(scores[label]),
            maps=maps,
            towers=towers,
            raw=raw,
        )

    def _at_image_size(self, maps: np.ndarray) -> np.ndarray:
        return upsample(maps, self.network.architecture, self.layer)


def save_maps(explanations: Sequence[Explanation], path: Path) -> Path:
    """Write the maps of N explanations to an .npz file, whole or not at all; return `path`.

    Its arrays: `files`, `labels` and `scores` [N]; `occlusion` [N, crop, crop]; `gradient`
    [N, crop, crop, 3]; `gradcam` [N, H, W] and `gradcam_towers` [N, T, H, W] at the layer's size.
    """
    arrays: dict[str, Any] = {
        "files": np.array([str(each.file) for each in explanations]),
        "labels": np.array([each.label for each in explanations], np.int32),
        "scores": np.array([each.score for each in explanations], np.float32),
    }
    first = explanations[0]
    if "occlusion" in first.maps:
        arrays["occlusion"] = np.stack([each.maps["occlusion"] for each in explanations])
    arrays |= {name: np.stack([each.raw[name] for each in explanations]) for name in first.raw}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path
