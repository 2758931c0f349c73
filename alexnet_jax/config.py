"""Every choice of a run, in frozen dataclasses; each field's comment gives its unit and where it comes from.

"P" is Krizhevsky, Sutskever and Hinton (2012) with the section; "2012 code" is computerhistory/AlexNet-Source-Code.
The command line (`--data.crop 224`), `config.json` and the refusal to resume with other settings all read these fields.
"""

import dataclasses
import math
from typing import Any, Literal

from alexnet_jax.model import architecture

Preset = Literal["quickstart", "photos"]

# The formatter would move long comments to where tyro does not see them for --help.


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and what is done to them before they reach the device."""

    # kind of data set; ours
    source: Literal["embedded", "folder", "arrayrecord", "tfds"] = "embedded"
    # folder of class folders, folder of .arrayrecord shards, or TFDS data_dir; ours
    path: str = ""
    # TFDS data set as `name` or `name/config:version`; ours
    name: str = ""
    # pixels: shorter side resized to this, centre square kept; P2
    image_size: int = 256
    # pixels: side of the square the network sees; P4.1
    crop: int = 224
    # flip half of the training crops left to right; P4.1
    mirror: bool = True
    # standard deviation of the PCA lighting draw, in standard deviations of colour; 0 = off; P4.1
    lighting: float = 0.1
    # subtract the mean image, aligned with the crop, or one mean colour; P2
    mean: Literal["image", "colour"] = "image"
    # of the training split, or Krizhevsky's for ImageNet; P2
    statistics: Literal["computed", "imagenet"] = "computed"
    # share of each class held out where the source has no validation split; 0 = none held out,
    # `test` is looked at instead; ours
    validation_fraction: float = 0.1
    # leave unreadable images out and say so, or stop before training; ours
    unreadable: Literal["skip", "stop"] = "skip"
    # GiB: resized images are kept in memory once decoded, split by split (training first) as long
    # as the whole split fits; 0 keeps none; ours
    cache_gib: float = 2.0
    # threads that read ahead (the batches do not depend on it); ours
    threads: int = 2
    # batches read ahead at most, and at least one a thread; ours
    prefetch: int = 4

    def __post_init__(self):
        _require(
            self.image_size >= 1,
            "--data.image-size",
            self.image_size,
            "is at least 1 pixel",
            "try 256",
        )
        _require(
            1 <= self.crop <= self.image_size,
            "--data.crop",
            self.crop,
            f"is between 1 and --data.image-size={self.image_size}",
            f"try {max(1, self.image_size * 7 // 8)}",
        )
        _require(
            self.lighting >= 0,
            "--data.lighting",
            self.lighting,
            "is not negative",
            "use 0 to switch it off",
        )
        _require(
            0 <= self.validation_fraction < 1,
            "--data.validation-fraction",
            self.validation_fraction,
            "is at least 0 and below 1",
            "try 0.1",
        )
        _require(
            self.cache_gib >= 0,
            "--data.cache-gib",
            self.cache_gib,
            "is not negative",
            "use 0 to keep nothing",
        )
        _require(
            self.threads >= 0,
            "--data.threads",
            self.threads,
            "is not negative",
            "use 0 to read in the main thread",
        )
        _require(
            self.prefetch >= 1, "--data.prefetch", self.prefetch, "is at least 1 batch", "try 4"
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network: rows of the layer table in `model/architecture.py`."""

    # maps and units relative to 2012 (96-256-384-384-256, 4096-4096); P3.5
    width: float = 1.0
    # initial weight std of conv3, conv4 and conv5; .01 in P5, .03 in the 2012 code
    middle_std: float = 0.01
    # widen each initial std by sqrt(2012 inputs / inputs), so that a smaller net starts as loud;
    # ours
    scale_std: bool = True
    # multiplies the sum of squares, undivided; P3.3 (the 2012 code divides by n: 2e-5)
    lrn_alpha: float = 1e-4
    # share of fc6 and fc7 outputs silenced in training; at test outputs are scaled by the rest;
    # P4.2
    dropout: float = 0.5

    def __post_init__(self):
        _require(
            self.middle_std > 0, "--model.middle-std", self.middle_std, "is positive", "try 0.01"
        )
        _require(
            self.lrn_alpha >= 0,
            "--model.lrn-alpha",
            self.lrn_alpha,
            "is not negative",
            "use 0 to switch LRN off",
        )
        _require(
            0 <= self.dropout < 1,
            "--model.dropout",
            self.dropout,
            "is at least 0 and below 1",
            "try 0.5",
        )

    def table(self, num_classes: int, crop: int) -> architecture.Architecture:
        """Return the layer table for `num_classes` classes and square inputs of `crop` pixels."""
        return architecture.two_towers(
            num_classes=num_classes,
            crop=crop,
            width=self.width,
            middle_std=self.middle_std,
            scale_std=self.scale_std,
            lrn_alpha=self.lrn_alpha,
            dropout=self.dropout,
        )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The paper's stochastic gradient descent (P5): v <- momentum v - decay rate w - rate g; w <- w + v."""

    # images a step, over all devices; P5
    batch: int = 128
    # initial learning rate; P5
    rate: float = 0.01
    # learning rate of biases, as a multiple of the weights'; 1 in P5, 2 in the 2012 code
    bias_rate: float = 1.0
    # share of the velocity kept each step; P5
    momentum: float = 0.9
    # per unit of learning rate, on weights; biases have none (2012 code); P5
    weight_decay: float = 5e-4

    def __post_init__(self):
        _require(self.batch >= 1, "--optimizer.batch", self.batch, "is at least 1 image", "try 128")
        _require(self.rate > 0, "--optimizer.rate", self.rate, "is positive", "try 0.01")
        _require(
            self.bias_rate >= 0, "--optimizer.bias-rate", self.bias_rate, "is not negative", "try 1"
        )
        _require(
            0 <= self.momentum < 1,
            "--optimizer.momentum",
            self.momentum,
            "is at least 0 and below 1",
            "try 0.9",
        )
        _require(
            self.weight_decay >= 0,
            "--optimizer.weight-decay",
            self.weight_decay,
            "is not negative",
            "try 5e-4",
        )


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """When the learning rate falls and when training ends."""

    # drop when the validation error stops improving (P5), or at fixed epochs
    kind: Literal["plateau", "fixed"] = "plateau"
    # epochs at most; P5 (about 90 cycles)
    epochs: int = 90
    # the learning rate is multiplied by this at each drop; P5
    drop: float = 0.1
    # plateau: drops before training ends at the next plateau; P5
    drops: int = 3
    # plateau: looks in a row without improvement before a drop; ours, as P5 judged by eye: a run of
    # five is longer than the error's own ups and downs from epoch to epoch
    patience: int = 5
    # plateau: least fall of the top-1 error, as a fraction of 1, that counts; ours: two standard
    # errors of an error measured on ImageNet's 50,000 validation images are .0044, half of it here
    improvement: float = 0.002
    # epochs between looks at the validation split; ours: a look costs a few per cent of an epoch
    every: int = 1
    # fixed: epochs after which the rate drops; the 2012 code's notes on net 145
    at: tuple[int, ...] = (23, 51, 78)

    def __post_init__(self):
        _require(self.epochs >= 1, "--schedule.epochs", self.epochs, "is at least 1", "try 90")
        _require(0 < self.drop < 1, "--schedule.drop", self.drop, "is between 0 and 1", "try 0.1")
        _require(self.drops >= 0, "--schedule.drops", self.drops, "is not negative", "try 3")
        _require(
            self.patience >= 1, "--schedule.patience", self.patience, "is at least 1 look", "try 5"
        )
        _require(
            0 <= self.improvement < 1,
            "--schedule.improvement",
            self.improvement,
            "is at least 0 and below 1",
            "try 0.002",
        )
        _require(self.every >= 1, "--schedule.every", self.every, "is at least 1 epoch", "try 1")
        _require(
            list(self.at) == sorted(set(self.at)) and all(epoch >= 1 for epoch in self.at),
            "--schedule.at",
            self.at,
            "is a rising list of epochs from 1 on",
            "try 23 51 78",
        )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How devices are arranged: `data` shards of the batch times `towers` halves of the network."""

    # devices that share one copy of the network: 1 or 2; auto: 2 where there are enough;
    # P3.2
    towers: int | Literal["auto"] = "auto"
    # shards of the batch; auto: as many as there are devices for and as divide the batch; ours
    data: int | Literal["auto"] = "auto"

    def __post_init__(self):
        _require(
            self.towers in ("auto", 1, 2),
            "--mesh.towers",
            self.towers,
            "is 1, 2 or auto",
            "use auto",
        )
        _require(
            self.data == "auto" or self.data >= 1,
            "--mesh.data",
            self.data,
            "is at least 1 or auto",
            "use auto",
        )


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What is written down, and how often."""

    # steps between lines of training loss in metrics.jsonl and TensorBoard (one ends every epoch too);
    # ours
    every: int = 20
    # steps between checkpoints within an epoch (one follows every epoch too); ours
    checkpoint_every: int = 1000
    # draw figures/ at the end; ours
    figures: bool = True

    def __post_init__(self):
        _require(self.every >= 1, "--log.every", self.every, "is at least 1 step", "try 20")
        _require(
            self.checkpoint_every >= 1,
            "--log.checkpoint-every",
            self.checkpoint_every,
            "is at least 1 step",
            "try 1000",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    # named starting point for all other fields; ours
    preset: Preset = "quickstart"
    # of initialisation, order of images, augmentation, dropout and the validation split; ours
    seed: int = 0
    # where images come from, and what is done to them before they reach the device
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    # the network: the layer table in model/architecture.py
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    # the update rule, P5: v <- momentum v - decay rate w - rate g; w <- w + v
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    # when the learning rate falls, and when training ends
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    # devices: shards of the batch times towers of the network
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    # what is written down, and how often
    log: LogConfig = dataclasses.field(default_factory=LogConfig)

    def __post_init__(self):
        for field, value in flatten(self).items():
            finite = not isinstance(value, float) or math.isfinite(value)
            _require(
                finite, option(field), value, "is a finite number", "see --help for its default"
            )
        _require(0 <= self.seed < 2**31, "--seed", self.seed, "is between 0 and 2**31 - 1", "try 0")
        # The table refuses a width that does not split over the towers and a crop that some layer would lose.
        self.model.table(num_classes=2, crop=self.data.crop)


def _require(holds: bool, option: str, value: Any, rule: str, remedy: str):
    if not holds:
        raise ValueError(f"{option} {value}: it {rule}; {remedy}.")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field as `{"data.crop": 224, ...}`, values as JSON would give them back."""
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items() if prefix == "" else config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def option(field: str) -> str:
    """Return the command line's name of a field: data.image_size -> --data.image-size."""
    return "--" + field.replace("_", "-")


# The same table, towers, crossings, LRN, dropout, augmentation and update rule on 72 pixel images and
# half the maps and units, for minutes instead of days. The initial weights are scaled to the smaller
# sums (unscaled, the ratios of the eight layers multiply to 1/68), and the schedule has fixed epochs.
_QUICKSTART = Config(
    preset="quickstart",
    data=DataConfig(source="embedded", image_size=72, crop=64),
    model=ModelConfig(width=0.5, middle_std=0.03),
    schedule=ScheduleConfig(kind="fixed", epochs=24, at=(18, 22)),
)

# The full network on one's own photographs. The paper's text gives .01 for every layer (P5), the 2012
# code .03 in conv3-5 and biases at twice the rate. The .03 leaves the plateau at ln(classes) within a
# few epochs, where .01 stays; the bias rate makes no difference that shows (experiments/RESULTS.md).
_PHOTOS = Config(
    preset="photos",
    data=DataConfig(source="folder"),  # --data.path says where
    model=ModelConfig(middle_std=0.03),
    optimizer=OptimizerConfig(bias_rate=2.0),
)

PRESETS: dict[str, Config] = {"quickstart": _QUICKSTART, "photos": _PHOTOS}
