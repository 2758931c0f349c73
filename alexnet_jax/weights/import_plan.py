"""Weights of a file as a run: which network they are of, and which preprocessing they need."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from alexnet_jax.config import Config, invalid
from alexnet_jax.data.statistics import Statistics, published
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.weights import convert, metadata
from alexnet_jax.weights.convert import Params
from alexnet_jax.weights.files import RawWeights
from alexnet_jax.weights.merge import Towers, change_towers

IMAGENET_CLASSES = 1000

# theano_alexnet (15c16d3) follows Caffe, except for the constants of local response normalization
# and for dropout, whose scale is applied at test (CrossChannelNormalization and DropoutLayer of
# lib/layers.py).
_THEANO = dataclasses.replace(
    PRESETS["caffenet"],
    data=dataclasses.replace(PRESETS["caffenet"].data, channels="rgb"),
    model=dataclasses.replace(
        PRESETS["caffenet"].model,
        lrn_k=2.0,
        lrn_alpha=1e-4,
        lrn_alpha_over_n=False,
        dropout_scale="test",
    ),
)


@dataclasses.dataclass(frozen=True)
class ImportPlan:
    """What the checkpoint of imported weights is made of."""

    config: Config
    architecture: Architecture
    params: Params  # arrays that are missing keep their initial values
    statistics: Statistics
    class_names: list[str]
    notes: list[str]  # for the user


def plan_import(
    raw: RawWeights,
    *,
    preset: str = "",
    class_names: Sequence[str] = (),
    mean: tuple[np.ndarray, bool] | None = None,
    towers: Towers = "keep",
    partial: bool = False,
    kernel_flip: bool = True,
) -> ImportPlan:
    """Return a file's weights in the layout of `model/`, with the preprocessing they need.

    Args:
        raw: from `files.read`.
        preset: the network that they are of; "" to infer it from the file.
        class_names: of all classes; by default "class 0" and so on.
        mean: mean image, float32 [S, S, 3], and whether it is RGB rather than in the color order
            of the weights, from `files.read_mean`; None for the published mean color.
        towers: keep the file's, or make one network of two towers, or two towers of one.
        partial, kernel_flip: see `convert.to_params`.

    Raises:
        ValueError: the arguments, or the arrays, do not match.
    """
    config, statistics, bgr = _network(raw, preset, mean)
    # Scores and features of published weights are those of float32, on every device.
    model = dataclasses.replace(config.model, precision="highest")
    config = dataclasses.replace(config, model=model)
    count = convert.num_classes(raw) or len(class_names) or IMAGENET_CLASSES
    if class_names and len(class_names) != count:
        rule = f"must be {count}, one for each output of the weights in their order"
        raise invalid("class_names", f"of {len(class_names)} classes", rule, "name all classes")
    architecture = build_architecture(config.model, count, config.data.crop)
    in_torchvision = all(map(convert.in_torchvision, architecture.layers))
    if preset and raw.format == "torchvision" and not in_torchvision:
        rule = "the file has torchvision's names, which are of eight layers without towers"
        raise invalid("preset", preset, rule, "leave it out, or use preset=torchvision")
    params = convert.to_params(raw, architecture, bgr=bgr, kernel_flip=kernel_flip, partial=partial)
    missing, unknown = convert.unmatched(raw, architecture)
    config, architecture, params = change_towers(config, architecture, params, towers)
    notes = []
    if missing:
        notes.append(f"Left at their initial values: {', '.join(missing)}.")
    if unknown:
        notes.append(f"Ignored, as they are not of this network: {', '.join(unknown)}.")
    names = list(class_names) or metadata.read_class_names(raw.metadata, count)
    return ImportPlan(config, architecture, params, statistics, names, notes)


def _network(
    raw: RawWeights, preset: str, mean: tuple[np.ndarray, bool] | None
) -> tuple[Config, Statistics, bool]:
    """Return network, preprocessing, and whether conv1 is to be converted from BGR to RGB."""
    if not preset and "config" in raw.metadata:
        config, statistics = metadata.read_network(raw.metadata)
        bgr, bgr_mean = False, config.data.channels == "bgr"
    else:
        config = PRESETS[preset] if preset else _infer_preset(raw)
        # Of Caffe's networks only theano_alexnet's see RGB (preprocessing/make_hkl.py).
        bgr = bgr_mean = config.data.channels == "bgr" and raw.format != "theano"
        name = _published_statistics(raw, config)
        statistics = published(name, config.data.image_size)
        data = dataclasses.replace(
            config.data, channels="rgb", mean="channel", statistics=name, source="folder"
        )
        config = dataclasses.replace(config, data=data)
    if mean is None:
        return _with_mean(config, "channel"), statistics, bgr
    side, (image, rgb) = config.data.image_size, mean
    if image.shape != (side, side, 3):
        rule = f"must be the mean image of the weights, ({side}, {side})"
        remedy = "name that one, or leave it out for its mean color"
        raise invalid("mean", str(image.shape[:2]), rule, remedy)
    image = np.ascontiguousarray(image[:, :, ::-1] if bgr_mean and not rgb else image, np.float32)
    color = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    statistics = dataclasses.replace(statistics, mean_image=image, mean_color=color)
    config = _with_mean(config, "image-center" if config.data.mean == "image-center" else "image")
    data = dataclasses.replace(config.data, statistics="init")
    return dataclasses.replace(config, data=data), statistics, bgr


def _with_mean(config: Config, mean: Literal["image", "image-center", "channel"]) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, mean=mean))


def _infer_preset(raw: RawWeights) -> Config:
    if raw.format == "plain":
        rule = "is missing, as arrays named conv1_w may be of any network"
        remedy = f"add preset=NAME, one of {', '.join(PRESETS)}"
        raise ValueError(f"preset: {rule}; {remedy}.")
    if raw.format == "theano":
        return _THEANO
    if raw.format == "torchvision":
        return PRESETS["torchvision"]
    # The name in bvlc_reference_caffenet's prototxt.
    caffenet = raw.metadata.get("name", "").lower() == "caffenet"
    return PRESETS["caffenet" if caffenet else "bvlc_alexnet"]


def _published_statistics(
    raw: RawWeights, config: Config
) -> Literal["imagenet", "caffe", "torchvision"]:
    if config.data.statistics == "torchvision":
        return "torchvision"
    caffe = raw.format in ("caffe", "tensorflow", "theano") or config.data.channels == "bgr"
    return "caffe" if caffe else "imagenet"
