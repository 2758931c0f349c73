"""Weights of a file as a run: which network they are of, and which preprocessing they need."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from alexnet_jax.config import PREPROCESSING, Config, fields_marked, flatten, invalid, unflatten
from alexnet_jax.data.statistics import PUBLISHED, Statistics, published
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.weights import convert, metadata
from alexnet_jax.weights.class_names import describe_duplicates
from alexnet_jax.weights.convert import Params
from alexnet_jax.weights.files import RawWeights
from alexnet_jax.weights.merge import Towers, change_towers
from alexnet_jax.weights.other_networks import check_is_alexnet
from alexnet_jax.weights.untrained import describe_untrained

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


CAFFE_NAMES = {
    # The names in the .prototxt files of Caffe's models/ (BVLC/caffe), in lower case.
    **dict.fromkeys(("caffenet", "bvlc_reference_caffenet"), "caffenet"),
    **dict.fromkeys(("alexnet", "bvlc_alexnet"), "bvlc_alexnet"),
}
# Fields of the network that its arrays do not show.
_UNSEEN = ("model.conv1_padding", "model.activation")
_UNSEEN_LRN = (
    *("model.op_order", "model.lrn_scope", "model.lrn_n", "model.lrn_k", "model.lrn_alpha"),
    *("model.lrn_alpha_over_n", "model.spatial_norm"),
)
_UNSEEN_DATA = ("data.image_size", "data.resize", "data.filter", "data.crop")


@dataclasses.dataclass(frozen=True)
class ImportPlan:
    """What the checkpoint of imported weights is made of."""

    config: Config
    architecture: Architecture
    params: Params  # arrays that are missing keep their initial values
    statistics: Statistics
    class_names: list[str]
    notes: list[str]  # for the user

    @property
    def untrained(self) -> list[str]:
        """The layers of which an array is missing."""
        layers = [layer.name for layer in self.architecture.layers]
        return [name for name in layers if len(self.params.get(name, ())) < 2]


@dataclasses.dataclass(frozen=True)
class _Network:
    """What weights are of, apart from their number of classes."""

    config: Config
    statistics: Statistics
    bgr: bool  # conv1 is to be converted from BGR to RGB
    note: str  # what was assumed


def plan_import(
    raw: RawWeights,
    *,
    preset: str = "",
    fields: Mapping[str, Any] = types.MappingProxyType({}),
    class_names: Sequence[str] = (),
    mean: tuple[np.ndarray, bool] | None = None,
    towers: Towers = "keep",
    partial: bool = False,
    kernel_flip: bool = True,
    is_known: bool = False,
) -> ImportPlan:
    """Return a file's weights in the layout of `model/`, with the preprocessing they need.

    Args:
        raw: from `files.read`.
        preset: the network that they are of; "" to infer it from the file.
        fields: of network and preprocessing that are not those of the preset, such as
            `{"model.lrn_k": 2.0, "data.channels": "rgb"}`; the latter is the order that conv1 sees.
        class_names: of all classes; by default "class 0" and so on.
        mean: mean image, float32 [S, S, 3], and whether it is RGB rather than in the color order
            of the weights, from `files.read_mean`; None for the published mean color.
        towers: keep the file's, or make one network of two towers, or two towers of one.
        partial, kernel_flip: see `convert.to_params`.
        is_known: the weights are known to be those of `preset`, and nothing is assumed.

    Raises:
        ValueError: the arguments, or the arrays, do not match.
    """
    check_is_alexnet(raw)
    network = _network(raw, preset, fields, mean)
    config = network.config
    raw, sigmoid_note = _check_outputs(raw, class_names)
    count = convert.num_classes(raw) or len(class_names) or IMAGENET_CLASSES
    if class_names and len(class_names) != count:
        rule = f"must be {count}, one for each output of the weights in their order"
        raise invalid("class_names", f"of {len(class_names)} classes", rule, "name all classes")
    architecture = build_architecture(config.model, count, config.data.crop)
    if not kernel_flip and raw.format != "theano":
        raise ValueError(
            "kernel_flip=False: is about Theano's kernels, and the file has none; leave it out."
        )
    in_torchvision = all(map(convert.in_torchvision, architecture.layers))
    if preset and raw.format == "torchvision" and not in_torchvision:
        rule = "the file has torchvision's names, which are of eight layers without towers"
        raise invalid("preset", preset, rule, "leave it out, or use preset=torchvision")
    params = convert.to_params(
        raw, architecture, bgr=network.bgr, kernel_flip=kernel_flip, partial=partial
    )
    missing, unknown = convert.unmatched(raw, architecture)
    names = list(class_names) or metadata.read_class_names(raw.metadata, count)
    notes = [*raw.notes, "" if is_known else network.note, sigmoid_note]
    if missing:
        notes.append(f"Left at their initial values: {', '.join(missing)}.")
    if unknown:
        notes.append(f"Ignored, as they are not of this network: {', '.join(unknown)}.")
    notes += [describe_untrained(params), describe_duplicates(names)]
    if count == IMAGENET_CLASSES and names[0] == "class 0":
        notes.append(
            "The 1,000 classes have no names; if they are ImageNet's in their usual order, add "
            "class_names=imagenet."
        )
    config, architecture, params = change_towers(config, architecture, params, towers)
    notes = [note for note in notes if note]
    return ImportPlan(config, architecture, params, network.statistics, names, notes)


def _network(
    raw: RawWeights,
    preset: str,
    fields: Mapping[str, Any],
    mean: tuple[np.ndarray, bool] | None,
) -> _Network:
    _check_fields(fields, mean)
    if not preset and "config" in raw.metadata:
        config, statistics = metadata.read_network(raw.metadata)
        bgr, bgr_mean, note = False, config.data.channels == "bgr", ""
        config = unflatten({**flatten(config), **fields})
        if "data.statistics" in fields:
            statistics = published(fields["data.statistics"], config.data.image_size)
        elif config.data.image_size != len(statistics.mean_image):
            side = config.data.image_size
            image = np.broadcast_to(statistics.mean_color, (side, side, 3)).copy()
            statistics = dataclasses.replace(statistics, mean_image=image)
    else:
        base = PRESETS[preset] if preset else _infer_preset(raw)
        # Of Caffe's networks only theano_alexnet's see RGB (preprocessing/make_hkl.py).
        rgb = {"data.channels": "rgb"} if raw.format == "theano" else {}
        seen = unflatten({**flatten(base), **rgb, **fields})
        bgr = bgr_mean = seen.data.channels == "bgr"
        name = fields.get("data.statistics") or _published_statistics(raw, base)
        statistics = published(name, seen.data.image_size)
        data = dataclasses.replace(
            seen.data, channels="rgb", mean="channel", statistics=name, source="folder"
        )
        config = dataclasses.replace(seen, data=data)
        shown = dataclasses.replace(seen, data=dataclasses.replace(seen.data, statistics=name))
        note = _assumptions(raw, preset, shown, fields, mean is not None)
    if "model.precision" not in fields:
        # Scores and features of published weights are those of float32, on every device.
        model = dataclasses.replace(config.model, precision="highest")
        config = dataclasses.replace(config, model=model)
    if mean is None:
        return _Network(_with_mean(config, "channel"), statistics, bgr, note)
    side, (image, rgb) = config.data.image_size, mean
    if image.shape != (side, side, 3):
        rule = f"must be the mean image of the weights, ({side}, {side})"
        remedy = "name that one, or leave it out for its mean color"
        raise invalid("mean", str(image.shape[:2]), rule, remedy)
    if not np.isfinite(image).all():
        raise invalid("mean", "image", "must hold finite numbers", "name an intact file")
    image = np.ascontiguousarray(image[:, :, ::-1] if bgr_mean and not rgb else image, np.float32)
    color = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    statistics = dataclasses.replace(statistics, mean_image=image, mean_color=color)
    kind = fields.get("data.mean", config.data.mean)
    config = _with_mean(config, "image-center" if kind == "image-center" else "image")
    data = dataclasses.replace(config.data, statistics="init")
    config = dataclasses.replace(config, data=data)
    return _Network(config, statistics, bgr, note)


def _check_fields(fields: Mapping[str, Any], mean: tuple[np.ndarray, bool] | None) -> None:
    """Raise a ValueError for a field that says nothing about weights."""
    for name, value in fields.items():
        belongs = name in fields_marked(PREPROCESSING) or name == "data.statistics"
        if not belongs and not name.startswith("model."):
            rule = "is about training, and does not belong to weights"
            raise invalid(name, value, rule, "leave it out")
    if fields.get("data.statistics", "caffe") not in PUBLISHED:
        rule = f"must be published constants, of {', '.join(PUBLISHED)}"
        remedy = "use one of them, or mean=FILE"
        raise invalid("data.statistics", fields["data.statistics"], rule, remedy)
    kind = fields.get("data.mean")
    if kind in ("image", "image-center") and mean is None:
        raise invalid("data.mean", kind, "needs a mean image", "add mean=FILE")
    if kind == "channel" and mean is not None:
        rule = "is the color alone, and a mean image is given"
        raise invalid("data.mean", kind, rule, "leave one of them out")


def _check_outputs(raw: RawWeights, class_names: Sequence[str]) -> tuple[RawWeights, str]:
    """Return weights with two outputs in place of a sigmoid's one, and a note.

    The sigmoid of z is the second softmax of (0, z): a first output whose weights are 0 is added.

    Raises:
        ValueError: there is one output, and no names of two classes.
    """
    if convert.num_classes(raw) != 1:
        return raw, ""
    if len(class_names) != 2:
        given = f"of {len(class_names)} classes" if class_names else "are missing"
        rule = "the weights have one output, which tells two classes apart (a sigmoid) or is none"
        remedy = "if it does, name both classes, the second is that of a high output"
        raise ValueError(f"class_names {given}: {rule} of a classifier; {remedy}.")
    arrays = dict(raw.arrays)
    for name in arrays.keys() & convert.head_names(raw.format):
        array = arrays[name]
        axis = -1 if raw.format in ("tensorflow", "theano") else 0
        arrays[name] = np.concatenate([np.zeros_like(array), array], axis=axis)
    note = f"The one output was taken for the sigmoid of {class_names[1]}."
    return dataclasses.replace(raw, arrays=arrays), note


def _assumptions(
    raw: RawWeights, preset: str, config: Config, fields: Mapping[str, Any], has_mean: bool
) -> str:
    """Return what the arrays do not show, as fields that may be given otherwise."""
    lrn = _UNSEEN_LRN if config.model.lrn else ()
    mean = () if has_mean else ("data.statistics",)
    flat = flatten(config)
    unseen = [*_UNSEEN, *lrn, "data.channels", *_UNSEEN_DATA, *mean]
    assumed = [f"{name}={flat[name]}" for name in unseen if name not in fields]
    named = raw.metadata.get("name", "")
    if raw.format == "caffe" and not preset and named.lower() not in CAFFE_NAMES:
        other = "caffenet" if config.preset == "bvlc_alexnet" else "bvlc_alexnet"
        question = f" (the file's net is {named or 'unnamed'}; if it is the other, preset={other})"
    else:
        question = "" if preset else " (add preset=NAME for another)"
    network = "" if raw.format == "theano" and not preset else f"preset={config.preset}{question}, "
    return (
        f"Assumed, as arrays do not show it: {network}{', '.join(assumed)}. "
        "Give what is otherwise, or the scores will be wrong."
    )


def _with_mean(config: Config, mean: Literal["image", "image-center", "channel"]) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, mean=mean))


def _infer_preset(raw: RawWeights) -> Config:
    if raw.format == "theano":
        return _THEANO
    if raw.format == "torchvision":
        return PRESETS["torchvision"]
    if raw.format == "plain":
        rule = "is missing, as arrays named conv1_w may be of any network"
        remedy = f"add preset=NAME, one of {', '.join(PRESETS)}"
        raise ValueError(f"preset: {rule}; {remedy}.")
    name = raw.metadata.get("name", "").lower()
    derived = "caffenet" if "caffenet" in name else "bvlc_alexnet"
    return PRESETS[CAFFE_NAMES.get(name, derived)]


def _published_statistics(
    raw: RawWeights, config: Config
) -> Literal["imagenet", "caffe", "torchvision"]:
    if config.data.statistics == "torchvision":
        return "torchvision"
    caffe = raw.format in ("caffe", "tensorflow", "theano") or config.data.channels == "bgr"
    return "caffe" if caffe else "imagenet"
