"""Somebody's weights as a run: what network they are of, and what images they want."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Literal

import numpy as np

from alexnet_jax.config import Config, flatten, unflatten
from alexnet_jax.data.statistics import Statistics, published
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.weights import convert
from alexnet_jax.weights.convert import Params
from alexnet_jax.weights.files import RawWeights
from alexnet_jax.weights.merge import merge, split

IMAGENET_CLASSES = 1000
LARGEST_IMAGE = 4096  # pixels a side; a mean image of those has 200 MB
# What travels of the statistics, and in which shape.
_STATISTICS = {"mean_color": (3,), "lighting_std": (3,), "lighting_axes": (3, 3), "scale": (3,)}

Towers = Literal["keep", "merge", "split"]

# theano_alexnet (15c16d3) follows Caffe, but for the constants of response normalization and for
# dropout, made up for at test (CrossChannelNormalization and DropoutLayer of lib/layers.py).
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
class Imported:
    """All that a checkpoint at step 0 needs, but for what the file lacks."""

    config: Config
    architecture: Architecture
    params: Params  # where arrays are missing they keep their initial values
    statistics: Statistics
    class_names: list[str]
    notes: list[str]  # for whoever asked for it


def prepare_import(
    raw: RawWeights,
    *,
    model: str = "",
    class_names: Sequence[str] = (),
    mean: tuple[np.ndarray, bool] | None = None,
    towers: Towers = "keep",
    partial: bool = False,
    flip: bool = True,
) -> Imported:
    """Return a file's weights as ours, with the preprocessing that they want.

    Args:
        raw: what `files.read` found.
        model: preset whose network they are of; "" to tell by the file.
        class_names: of all classes; where empty, "class 0" and so on.
        mean: image, float32 [S, S, 3], and whether it is RGB or its colors are in the order that
            the weights see, as from `files.read_mean`; None for the published mean color.
        towers: keep the file's, or make one network of two towers, or two towers of one.
        partial, flip: see `convert.to_params`.

    Raises:
        ValueError: anything does not fit.
    """
    config, statistics, bgr = _recipe(raw, model, mean)
    count = convert.num_classes(raw) or len(class_names) or IMAGENET_CLASSES
    if class_names and len(class_names) != count:
        raise ValueError(
            f"--class-names: it has {len(class_names)} lines and the weights have {count} classes; "
            "give one name a line, in the order of the outputs."
        )
    architecture = build_architecture(config.model, count, config.data.crop)
    if (
        model
        and raw.format == "torchvision"
        and not all(map(convert.in_torchvision, architecture.layers))
    ):
        raise ValueError(
            f"--model {model}: the file has torchvision's names, and its AlexNet has eight "
            "layers without towers; leave --model out, or say torchvision."
        )
    params = convert.to_params(raw, architecture, bgr=bgr, flip=flip, partial=partial)
    missing, ignored = convert.left_out(raw, architecture)
    config, architecture, params = change_towers(config, architecture, params, towers)
    notes = []
    if missing:
        notes.append(f"Left at their initial values: {', '.join(missing)}.")
    if ignored:
        notes.append(f"Not of this network, and left aside: {', '.join(ignored)}.")
    names = list(class_names) or _class_names(raw, count)
    return Imported(config, architecture, params, statistics, names, notes)


def change_towers(
    config: Config, architecture: Architecture, params: Params, towers: Towers
) -> tuple[Config, Architecture, Params]:
    """Return the network, its table and parameters after merging or splitting its towers."""
    if towers == "keep":
        return config, architecture, params
    before, after = ("two_towers", "merged") if towers == "merge" else ("merged", "two_towers")
    if config.model.variant != before:
        raise ValueError(
            f"--towers {towers}: it wants the variant {before}, and this is {config.model.variant};"
            " use --towers keep."
        )
    changed = dataclasses.replace(config, model=dataclasses.replace(config.model, variant=after))
    new = build_architecture(changed.model, architecture.num_classes, architecture.crop)
    change = merge(params, architecture) if towers == "merge" else split(params, new)
    return changed, new, change


def export_metadata(
    config: Config, statistics: Statistics, class_names: Sequence[str]
) -> dict[str, str]:
    """Return what travels with exported weights, as text: network, preprocessing, classes."""
    wanted = ("preset", "data", "model")
    # Where the images lie is nobody else's business.
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path="", name=""))
    flat = {
        name: value for name, value in flatten(config).items() if name.partition(".")[0] in wanted
    }
    constants = {
        name: np.asarray(value).tolist()
        for name, value in vars(statistics).items()
        if name != "mean_image"  # as large as a layer, and not for a header
    }
    return {
        "format": "pt",  # what readers of .safetensors expect
        "config": json.dumps(flat),
        "statistics": json.dumps(constants),
        "class_names": json.dumps(list(class_names)),
    }


def _recipe(
    raw: RawWeights, model: str, mean: tuple[np.ndarray, bool] | None
) -> tuple[Config, Statistics, bool]:
    """Return network and preprocessing, and whether conv1 is to be turned from BGR to RGB."""
    if not model and "config" in raw.metadata:
        config, statistics = _described(raw)
        bgr, seen_bgr = False, config.data.channels == "bgr"
    else:
        preset = PRESETS[model] if model else _guess(raw)
        # Of Caffe's networks only theano_alexnet's are fed with RGB (preprocessing/make_hkl.py).
        bgr = seen_bgr = preset.data.channels == "bgr" and raw.format != "theano"
        name = _published(raw, preset)
        statistics = published(name, preset.data.image_size)
        data = dataclasses.replace(
            preset.data, channels="rgb", mean="channel", statistics=name, source="folder"
        )
        config = dataclasses.replace(preset, data=data)
    if mean is None:
        data = dataclasses.replace(config.data, mean="channel")
        return dataclasses.replace(config, data=data), statistics, bgr
    side, (image, rgb) = config.data.image_size, mean
    if image.shape != (side, side, 3):
        raise ValueError(
            f"--mean: it is an image of {image.shape[:2]} and the weights want ({side}, {side}); "
            "give that one, or leave it out for its mean color."
        )
    image = np.ascontiguousarray(image[:, :, ::-1] if seen_bgr and not rgb else image, np.float32)
    color = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    statistics = dataclasses.replace(statistics, mean_image=image, mean_color=color)
    where = "image-center" if config.data.mean == "image-center" else "image"
    data = dataclasses.replace(config.data, mean=where, statistics="init")
    return dataclasses.replace(config, data=data), statistics, bgr


def _guess(raw: RawWeights) -> Config:
    if raw.format == "plain":
        raise ValueError(
            "--model: arrays named conv1_w do not say which network they are of; name it, "
            f"one of {', '.join(PRESETS)}."
        )
    if raw.format == "theano":
        return _THEANO
    if raw.format == "torchvision":
        return PRESETS["torchvision"]
    # bvlc_reference_caffenet's prototxt calls itself so.
    caffenet = raw.metadata.get("name", "").lower() == "caffenet"
    return PRESETS["caffenet" if caffenet else "bvlc_alexnet"]


def _published(raw: RawWeights, preset: Config) -> Literal["imagenet", "caffe", "torchvision"]:
    if preset.data.statistics == "torchvision":
        return "torchvision"
    caffe = raw.format in ("caffe", "tensorflow", "theano") or preset.data.channels == "bgr"
    return "caffe" if caffe else "imagenet"


def _class_names(raw: RawWeights, count: int) -> list[str]:
    try:
        described = json.loads(raw.metadata.get("class_names", "[]"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"The file's class names cannot be read ({error}); give them with --class-names."
        ) from None
    if isinstance(described, list) and len(described) == count:
        return [str(name) for name in described]
    return [f"class {number}" for number in range(count)]


def _described(raw: RawWeights) -> tuple[Config, Statistics]:
    """Return what `describe` wrote. A mean image did not travel; its mean color stands for it."""
    try:
        flat = json.loads(raw.metadata["config"])
        # What `describe` exports; where somebody's images lay, and how they trained, stays there.
        told = {n: v for n, v in flat.items() if n.partition(".")[0] in ("preset", "data", "model")}
        config = unflatten({n: v for n, v in told.items() if n not in ("data.path", "data.name")})
        known = json.loads(raw.metadata["statistics"])
        arrays = {name: np.array(value, np.float32) for name, value in known.items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != _STATISTICS:
            raise ValueError(f"the statistics are {shapes}")
        side = config.data.image_size
        if side > LARGEST_IMAGE:
            raise ValueError(f"images of {side} pixels")
        image = np.broadcast_to(arrays["mean_color"], (side, side, 3)).copy()
        statistics = Statistics(mean_image=image, **arrays)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"The file's description of its network cannot be read ({error}); name the network "
            "with --model."
        ) from None
    data = dataclasses.replace(config.data, statistics="init")
    return dataclasses.replace(config, data=data), statistics
