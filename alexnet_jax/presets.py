"""Whole configurations by name: two recipes, the 2012 network by text and by code, and others."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from alexnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    Preset,
    ScheduleConfig,
    flatten,
    unflatten,
)

# The same layers, towers, collectives, LRN, dropout, augmentation and update rule, on images of 72
# pixels and with half the maps and units: minutes instead of days. Initial weights are scaled to
# the smaller fan-in (unscaled, activations would be 68 times smaller after eight layers).
_QUICKSTART = Config(
    preset="quickstart",
    data=DataConfig(source="synthetic", image_size=72, crop=64),
    model=ModelConfig(width=0.5, conv345_init_std=0.03),
    schedule=ScheduleConfig(kind="step", epochs=24, milestones=(18, 22)),
)

# The full network for one's own photographs, several thousand of them: a few hundred make too few
# steps in batches of 128, see `small`. The paper's text gives 0.01 for every layer (P5), the
# 2012 code 0.03 in conv3-5 and twice the learning rate for biases. With 0.03 the loss leaves
# ln(classes) within a few epochs, with 0.01 it stays there; the biases' rate makes no visible
# difference (experiments/RESULTS.md).
_PHOTOS = Config(
    preset="photos",
    data=DataConfig(source="folder"),  # data.path is still needed
    model=ModelConfig(conv345_init_std=0.03),
    optimizer=OptimizerConfig(bias_lr_multiplier=2.0),
)


class Recipe(NamedTuple):
    """How a preset trains from so many training images on: `epochs`, or more to make the steps."""

    from_images: int
    batch_size: int
    epochs: int
    at_least: int  # steps
    # pixels of images and crops, and width; None: those of init_from
    size: tuple[int, int, float] | None


# Presets that follow the number of training images. On 1,000 photographs more pixels and units
# have less error, on 360 they gained little for seven times the time, and 600 lies between
# (experiments/RESULTS.md, "Few photographs").
FITTED: dict[str, tuple[Recipe, ...]] = {
    "small": (
        Recipe(0, 32, epochs=100, at_least=1500, size=(72, 64, 0.5)),
        Recipe(600, 128, epochs=36, at_least=250, size=(144, 128, 1.0)),
    ),
    "finetune": (Recipe(0, 32, epochs=20, at_least=1000, size=None),),
}
TYPICAL_IMAGES = 1000  # that PRESETS are fitted to, before the data are known


def recipe(preset: str, num_images: int) -> Recipe:
    """Return how a preset in FITTED trains on so many images."""
    return [recipe for recipe in FITTED[preset] if recipe.from_images <= num_images][-1]


SIDES = ("data.image_size", "data.crop")


def both_sides(given: Mapping[str, int]) -> dict[str, int]:
    """Return data.image_size and data.crop, of which one may be missing: they are as 9 to 8."""
    image_size, crop = (given.get(name, 0) for name in SIDES)
    sides = image_size or crop * 9 // 8, crop or max(1, image_size * 8 // 9)
    return dict(zip(SIDES, sides, strict=True))


def fit_to_images(config: Config, num_images: int, given: Collection[str] = ()) -> Config:
    """Return `config`, one of a preset in FITTED, as it is for so many training images.

    The network needs hundreds of steps or more, however few the images: a number of epochs that is
    right for a million images makes a few dozen on a few hundred. The rate drops once, for the last
    fifth: a validation split of so few images cannot tell when.

    Args:
        config: whose preset decides.
        num_images: in the training split.
        given: fields that keep their values; the others follow them.
    """
    chosen = recipe(config.preset, num_images)
    fields: dict[str, Any] = {}
    if chosen.size:
        *sides, fields["model.width"] = chosen.size
        given_sides = {name: flatten(config)[name] for name in SIDES if name in given}
        fields |= both_sides(given_sides or dict(zip(SIDES, sides, strict=True)))
    batch_size = min(chosen.batch_size, 2 ** (num_images.bit_length() - 1))
    if "optimizer.batch_size" in given:
        batch_size = config.optimizer.batch_size
    epochs = max(chosen.epochs, math.ceil(chosen.at_least * batch_size / num_images))
    if "schedule.epochs" in given:
        epochs = config.schedule.epochs
    fields |= {
        "optimizer.batch_size": batch_size,
        "schedule.epochs": epochs,
        "schedule.milestones": [max(1, round(0.8 * epochs))],
        "schedule.eval_every": max(1, epochs // 20),
    }
    kept = {name: value for name, value in fields.items() if name not in given}
    return unflatten(flatten(config) | kept)


# A hundred to a few thousand photographs, with the rates and initial weights of `photos`.
_SMALL = fit_to_images(
    Config(
        preset="small",
        data=DataConfig(source="folder"),
        model=ModelConfig(conv345_init_std=0.03),
        optimizer=OptimizerConfig(bias_lr_multiplier=2.0),
        schedule=ScheduleConfig(kind="step"),
    ),
    TYPICAL_IMAGES,
)

# Other classes for the network named by init_from, which gives model and preprocessing; see
# `training.finetune.fit_to_classes` for its last layer.
_FINETUNE = fit_to_images(
    Config(
        preset="finetune",
        data=DataConfig(source="folder"),
        model=ModelConfig(conv345_init_std=0.03),
        optimizer=OptimizerConfig(learning_rate=0.001, bias_lr_multiplier=2.0),
        schedule=ScheduleConfig(kind="step"),
    ),
    TYPICAL_IMAGES,
)

# The text of the 2012 paper. Every field in which `source2012` differs is written out here too.
_PAPER = Config(
    preset="paper",
    data=DataConfig(
        source="folder",
        image_size=256,
        resize="shorter-side",
        channels="rgb",
        crop=224,
        crop_offsets="all-but-last",
        horizontal_flip=True,
        images_per_crop=1,
        pca_std=0.1,
        pca_scale="std",  # "eigenvalue" would be 1,483 gray levels
        train_divisor=1.0,
        pca_epochs=0,
        mean="image",
        shuffle="each-epoch",
    ),
    model=ModelConfig(
        variant="two_towers",
        init_std=0.01,
        conv345_init_std=0.01,
        fc_init_std=0.01,
        init_bias=1.0,
        scale_init=False,
        conv1_padding="end",
        op_order="relu_first",
        lrn_n=5,
        lrn_k=2.0,
        lrn_alpha=1e-4,
        lrn_alpha_over_n=False,
        lrn_beta=0.75,
        lrn_scope="tower",
        spatial_norm=False,
        pool_window=3,
        pool_ties="first",
        dropout=0.5,
        dropout_on="fc6-fc7",
        dropout_scale="test",
    ),
    optimizer=OptimizerConfig(
        batch_size=128,
        learning_rate=0.01,
        bias_lr_multiplier=1.0,
        bias_lr_drops="all",
        momentum=0.9,
        weight_decay=5e-4,
    ),
    schedule=ScheduleConfig(
        kind="plateau", epochs=90, factor=0.1, max_drops=3, slow_conv1=0, freeze_conv1=0
    ),
)

# Net 145 of the released 2012 code on ILSVRC-2010, which produced the published 37.5 / 17.0 %
# (layers-145.cfg, layer-params-145-2010.cfg:165-180). Of epochs, see EPOCHS.
_SOURCE2012 = Config(
    preset="source2012",
    data=DataConfig(
        source="folder",
        image_size=256,
        resize="shorter-side",
        channels="rgb",
        crop=224,
        crop_offsets="all",
        horizontal_flip=True,
        images_per_crop=32,
        pca_std=0.1,
        pca_scale="std",
        train_divisor=1.1,
        pca_epochs=68,
        mean="image-center",
        shuffle="once",
    ),
    model=ModelConfig(
        variant="two_towers",
        init_std=0.01,
        conv345_init_std=0.03,
        fc_init_std=0.01,
        init_bias=1.0,
        scale_init=False,
        conv1_padding="end",
        op_order="norm_first",
        lrn_n=5,
        lrn_k=2.0,
        lrn_alpha=1e-4,
        lrn_alpha_over_n=True,
        lrn_beta=0.75,
        lrn_scope="tower",
        spatial_norm=True,
        pool_window=3,
        pool_ties="all",
        dropout=0.5,
        dropout_on="fc6-fc7",
        dropout_scale="test",
    ),
    optimizer=OptimizerConfig(
        batch_size=128,
        learning_rate=0.01,
        bias_lr_multiplier=2.0,
        bias_lr_drops=1,
        momentum=0.9,
        weight_decay=5e-4,
    ),
    schedule=ScheduleConfig(
        kind="step", epochs=93, factor=0.1, milestones=(23, 51, 78), slow_conv1=68, freeze_conv1=72
    ),
)


def _variant(
    preset: Preset, base: Config, data: Mapping[str, Any] | None = None, **model: Any
) -> Config:
    return dataclasses.replace(
        base,
        preset=preset,
        data=dataclasses.replace(base.data, **(data or {})),
        model=dataclasses.replace(base.model, **model),
    )


# Networks that are called AlexNet, each with the preprocessing that its weights need.
_MERGED = _variant("merged", _PAPER, variant="merged", lrn_scope="all")
# Net 145-half by its own notes (layers-145-half.cfg, layer-params-145-half.cfg:94-99).
_HALF = dataclasses.replace(
    _variant("half", _SOURCE2012, {"pca_epochs": 66}, variant="half", lrn_scope="all"),
    optimizer=dataclasses.replace(_SOURCE2012.optimizer, bias_lr_drops=0),
    schedule=dataclasses.replace(
        _SOURCE2012.schedule, epochs=96, milestones=(20, 48), slow_conv1=66, freeze_conv1=72
    ),
)
# Net 146 fine-tuned on ILSVRC-2012 by its own notes (layers-146-2012-2011.cfg,
# layer-params-146-2012-2011.cfg:181-193). Its biases have 0.02 throughout, conv1's a tenth of it.
_SIX_CONV = dataclasses.replace(
    _variant("six_conv", _SOURCE2012, {"pca_epochs": 38}, variant="six_conv"),
    optimizer=dataclasses.replace(
        _SOURCE2012.optimizer,
        learning_rate=0.001,
        layer_learning_rates=("conv1=0.1",),
        bias_lr_multiplier=20.0,
        bias_lr_drops=0,
    ),
    schedule=dataclasses.replace(
        _SOURCE2012.schedule, epochs=54, milestones=(22, 42), slow_conv1=5, freeze_conv1=7
    ),
)
_TORCHVISION = _variant(
    "torchvision",
    _PAPER,
    {"pca_std": 0.0, "mean": "channel", "statistics": "torchvision", "crop_offsets": "all"},
    variant="torchvision",
    conv1_padding="both",
    lrn=False,
    dropout_on="pool5-fc6",
    dropout_scale="training",
)
_CAFFE_IMAGES = {
    "resize": "stretch",
    "filter": "bilinear",
    "channels": "bgr",
    "crop": 227,
    "crop_offsets": "all",
    "pca_std": 0.0,
    "shuffle": "once",  # create_imagenet.sh shuffles once
}
# CAFFE models/bvlc_alexnet/{train_val,solver}.prototxt.
_BVLC_ALEXNET = dataclasses.replace(
    _variant(
        "bvlc_alexnet",
        _PAPER,
        _CAFFE_IMAGES,
        fc_init_std=0.005,
        init_bias=0.1,
        conv1_padding="none",
        lrn_k=1.0,
        lrn_alpha_over_n=True,
        lrn_scope="all",
        dropout_scale="training",
    ),
    optimizer=OptimizerConfig(batch_size=256, bias_lr_multiplier=2.0),
    schedule=ScheduleConfig(kind="step", epochs=90, milestones=(20, 40, 60, 80)),
)
_CAFFENET = _variant(
    "caffenet",
    _BVLC_ALEXNET,
    init_bias=1.0,
    op_order="pool_first",
)

PRESETS: dict[str, Config] = {
    config.preset: config
    for config in (
        *(_QUICKSTART, _PHOTOS, _SMALL, _FINETUNE, _PAPER, _SOURCE2012, _MERGED, _HALF),
        *(_SIX_CONV, _TORCHVISION, _BVLC_ALEXNET, _CAFFENET),
    )
}

# What a preset says about the training that it follows, and what no field expresses of it.
_EPOCHS = (
    "Epochs are the numbers in the notes of 2012. Those count from 1 (gpumodel.py:82,151), so a "
    "change at epoch 23 was made during the 23rd pass over the images; here it is made after 23 "
    "passes, the latest reading. The earliest is one epoch less throughout."
)
_FITTED_NOTE = (
    f"{{}} are those for {TYPICAL_IMAGES:,} training images. Training decides them by the number "
    "that it finds; what is given stays."
)
NOTES: dict[str, tuple[str, ...]] = {
    "small": (
        _FITTED_NOTE.format("Pixels, width, batch size, epochs, milestones and evaluations"),
    ),
    "finetune": (_FITTED_NOTE.format("Batch size, epochs, milestones and evaluations"),),
    "source2012": (_EPOCHS,),
    "half": (
        _EPOCHS,
        (
            "Not expressed: the biases of conv1 and conv2 end at a rate of 0.002, the others at "
            "0.02 (layer-params-145-half.cfg:3,11,19,60), and the notes do not say since when; "
            "here all keep 0.02."
        ),
    ),
    "six_conv": (
        _EPOCHS,
        (
            "It is the schedule of fine-tuning a net trained on Fall 2011 "
            "(layer-params-146-2012-2011.cfg:181): it needs init_from. To train from random "
            "weights, use preset=source2012 with model.variant=six_conv."
        ),
        (
            "Not expressed: fc8 alone at a rate of 0.01 from batch 300 to epoch 9 "
            "(layer-params-146-2012-2011.cfg:186,189); here it has 0.001, and "
            "optimizer.layer_learning_rates takes fc8=10 for the whole run. The rates of conv1's "
            "biases before it is frozen are not known (layer-params-146-2012-2011.cfg:3,11); here "
            "they are a tenth of the others'."
        ),
    ),
}
