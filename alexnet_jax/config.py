"""Every choice of a run, in frozen dataclasses; each field's comment gives its unit and where it comes from.

"P" is Krizhevsky, Sutskever and Hinton (2012) with the section; "2012 code" is computerhistory/AlexNet-Source-Code.
The command line (`--data.crop 224`), `config.json` and the refusal to resume with other settings all read these fields.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from alexnet_jax.model import variants
from alexnet_jax.model.architecture import Architecture

Preset = Literal[
    "quickstart",
    "photos",
    "paper",
    "source2012",
    "merged",
    "half",
    "six_conv",
    "torchvision",
    "bvlc_alexnet",
    "caffenet",
]

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
    # pixels: side of the square that every image is resized to; P2
    image_size: int = 256
    # crop: shorter side resized, center square kept (P2); warp: both sides resized, whatever the
    # shape (Caffe's create_imagenet.sh; the 2012 code crops)
    resize: Literal["crop", "warp"] = "crop"
    # area: Pillow's bilinear, which averages over the pixels that shrink into one; point: OpenCV's
    # and Caffe's bilinear between the four nearest pixels; ours, P2 names no filter
    filter: Literal["area", "point"] = "area"
    # order of the colors in the network's input; P2 and the 2012 code have rgb, Caffe has bgr
    channels: Literal["rgb", "bgr"] = "rgb"
    # pixels: side of the square the network sees; P4.1
    crop: int = 224
    # where a training crop may start along a side of s pixels: all s - crop + 1 places (33; 2012
    # code, convdata_jpeg.py:239) or all but the last (32, which makes the 2,048 of P4.1)
    offsets: Literal["all", "all-but-last"] = "all"
    # flip half of the training crops left to right; P4.1
    mirror: bool = True
    # consecutive images of a batch that share one crop and one flip; 1 in P4.1, 32 in the 2012 code
    # (convdata_jpeg.py:77)
    share: int = 1
    # standard deviation of the PCA lighting draw, in units of lighting_unit; 0 = off; P4.1
    lighting: float = 0.1
    # what a draw of 1 moves the colors by along a principal axis: its standard deviation (2012
    # code) or its variance, the eigenvalue that P4.1 says and cannot mean (1,483 gray levels)
    lighting_unit: Literal["deviation", "eigenvalue"] = "deviation"
    # training images are divided by this while there is lighting; 1 in P4.1, 1 + lighting = 1.1 in
    # the 2012 code (convdata_jpeg.py:179)
    divisor: float = 1.0
    # epochs with lighting, after which it is off; 0 = all; P4.1 has it throughout, the 2012 code's
    # notes on net 145 until epoch 68
    lighting_epochs: int = 0
    # subtract the mean image where the crop was taken, flipped with it (P2), or always its center,
    # never flipped (2012 code, convdata_jpeg.py:95), or one mean color (Caffe, torchvision)
    mean: Literal["aligned", "center", "color"] = "aligned"
    # of the training split, or published for ImageNet: Krizhevsky's (2012 code), Caffe's,
    # torchvision's (with its scale); init: those that came with --init-from; P2
    statistics: Literal["computed", "imagenet", "caffe", "torchvision", "init"] = "computed"
    # order of the training images: reshuffled each epoch, or fixed, shuffled once (2012 code,
    # convdata_jpeg.py:262)
    order: Literal["reshuffled", "fixed"] = "reshuffled"
    # share of each class held out where the source has no validation split; 0 = none held out,
    # `test` is looked at instead; ours
    validation_fraction: float = 0.1
    # leave unreadable images out and say so, or stop: before training, and at a file that goes bad on the way; ours
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
        _require(self.share >= 1, "--data.share", self.share, "is at least 1 image", "try 1")
        _require(self.divisor > 0, "--data.divisor", self.divisor, "is positive", "try 1")
        _require(
            self.lighting_epochs >= 0,
            "--data.lighting-epochs",
            self.lighting_epochs,
            "is not negative",
            "use 0 for all epochs",
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
    """The network: rows of the layer table, chosen in `model/variants.py`."""

    # two_towers: the network of 2012 (P3.5); merged: the same widths without towers; half: one tower
    # (2012 code, net 145-half); six_conv: a sixth convolution (2012 code, net 146); torchvision:
    # 64-192-384-256-256 ("One weird trick", 2014)
    variant: Literal["two_towers", "merged", "half", "six_conv", "torchvision"] = "two_towers"
    # maps and units relative to the variant's (96-256-384-384-256, 4096-4096); P3.5
    width: float = 1.0
    # units of a linear layer before the classes, half in each tower; 0 = none; the 2012 code has
    # 2048 before 21,843 classes (layers-146-2011.cfg)
    bottleneck: int = 0
    # leave this convolution out, keeping what pools behind it; P7
    without: Literal["none", "conv2", "conv3", "conv4", "conv5"] = "none"
    # initial weight std of conv1, conv2 and fc8; P5
    std: float = 0.01
    # initial weight std of conv3, conv4 and conv5; .01 in P5, .03 in the 2012 code
    middle_std: float = 0.01
    # initial weight std of fc6 and fc7; .01 in P5, .005 in Caffe
    fc_std: float = 0.01
    # initial bias of conv2, conv4, conv5, fc6 and fc7 (0 elsewhere); 1 in P5, .1 in bvlc_alexnet
    bias: float = 1.0
    # widen each initial std by sqrt(2012 inputs / inputs), so that a smaller net starts as loud;
    # ours
    scale_std: bool = True
    # of every layer but the last; P3.1 (tanh: its Figure 1)
    activation: Literal["relu", "tanh"] = "relu"
    # zeros around conv1: behind the image, as far as the last window hangs over (3 at 224 pixels;
    # 2012 code), none (Caffe, 227 pixels), or 2 on every side (torchvision)
    padding: Literal["end", "none", "both"] = "end"
    # norm_first: conv1 is normalized and pooled before its ReLU (2012 code); pool_first: conv1 and
    # conv2 are pooled before they are normalized (CaffeNet); relu_first: ReLU, LRN, pooling (P3.5)
    order: Literal["relu_first", "norm_first", "pool_first"] = "relu_first"
    # response normalization behind conv1 and conv2; P3.3
    lrn: bool = True
    # maps that are summed over, the map itself in the middle; P3.3
    lrn_n: int = 5
    # constant under the power: 2 in P3.3 and the 2012 code, 1 in Caffe
    lrn_k: float = 2.0
    # multiplies the sum of squares; P3.3
    lrn_alpha: float = 1e-4
    # divide alpha by n: not in P3.3's formula; done by the 2012 code (layer.py:1183), Caffe, PyTorch
    lrn_alpha_over_n: bool = False
    # power; P3.3
    lrn_beta: float = 0.75
    # neighbors within the tower (P3.3 by way of the 2012 code) or among all maps (Caffe)
    lrn_scope: Literal["tower", "all"] = "tower"
    # normalize conv2 again, over 5 x 5 pixels of each map (2012 code, layers-145.cfg:107; not in P)
    spatial_norm: bool = False
    # pixels, at stride 2: 3 overlap, 2 do not; P3.4
    pool: Literal[3, 2] = 3
    # share of outputs silenced in training; P4.2
    dropout: float = 0.5
    # which outputs: of fc6 and fc7 (P4.2) or of pool5 and fc6 (torchvision)
    dropout_on: Literal["fc6-fc7", "pool5-fc6"] = "fc6-fc7"
    # test: outputs times the share kept, at test (P4.2); training: divided by it, in training
    # (torchvision)
    dropout_scale: Literal["test", "training"] = "test"
    # numbers that layers multiply and hand on; parameters, velocity, the sums of response
    # normalization, the last layer and the loss stay float32. bfloat16 gains on GPU and TPU, not on
    # a CPU; ours
    compute: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        for name, usual in {"std": 0.01, "middle_std": 0.01, "fc_std": 0.01, "lrn_k": 2}.items():
            value = getattr(self, name)
            _require(value > 0, option(f"model.{name}"), value, "is positive", f"try {usual}")
        for name, usual in {"lrn_alpha": 1e-4, "lrn_beta": 0.75}.items():
            value = getattr(self, name)
            _require(value >= 0, option(f"model.{name}"), value, "is not negative", f"try {usual}")
        _require(
            self.lrn_n >= 1 and self.lrn_n % 2 == 1,
            "--model.lrn-n",
            self.lrn_n,
            "is odd and positive, as the map itself is in the middle",
            "try 5",
        )
        _require(
            self.bottleneck >= 0 and self.bottleneck % 2 == 0,
            "--model.bottleneck",
            self.bottleneck,
            "is an even number of units, half for each tower",
            "use 0 for none",
        )
        _require(
            0 <= self.dropout < 1,
            "--model.dropout",
            self.dropout,
            "is at least 0 and below 1",
            "try 0.5",
        )

    def table(self, num_classes: int, crop: int) -> Architecture:
        """Return the layer table for `num_classes` classes and square inputs of `crop` pixels."""
        return variants.build(self, num_classes, crop)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The paper's stochastic gradient descent (P5): v <- momentum v - decay rate w - rate g; w <- w + v."""

    # images a step, over all devices; P5
    batch: int = 128
    # initial learning rate; P5
    rate: float = 0.01
    # learning rate of biases, as a multiple of the weights'; 1 in P5, 2 in the 2012 code
    bias_rate: float = 1.0
    # layers with rates of their own, as multiples of the others': conv1=0 fc8=10; 0 = frozen, and
    # not even its gradient is computed; ours
    rates: tuple[str, ...] = ()
    # drops of the rate that the biases' rate follows; all in P5, 1 in the 2012 code
    # (layer-params-120-4gpu-auto2.cfg)
    bias_drops: int | Literal["all"] = "all"
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
            self.bias_drops == "all" or self.bias_drops >= 0,
            "--optimizer.bias-drops",
            self.bias_drops,
            "is at least 0 or all",
            "use all",
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
        for entry in self.rates:
            name, _, multiple = entry.partition("=")
            _require(
                bool(name) and bool(re.fullmatch(r"\d+(\.\d*)?|\.\d+", multiple)),
                "--optimizer.rates",
                entry,
                "is a layer, = and a multiple of the rate that is not negative",
                "try conv1=0 fc8=10",
            )
        _require(
            len(self.multiples) == len(self.rates),
            "--optimizer.rates",
            " ".join(self.rates),
            "names each layer once",
            "leave one out",
        )

    @property
    def multiples(self) -> dict[str, float]:
        """The layers with rates of their own, as multiples of the others'."""
        pairs = (entry.partition("=") for entry in self.rates)
        return {name: float(multiple) for name, _, multiple in pairs}

    @property
    def frozen(self) -> frozenset[str]:
        """The layers that do not learn."""
        return frozenset(name for name, multiple in self.multiples.items() if not multiple)


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
    # epochs after which conv1's kernel is one drop ahead of the others; 0 = never (P5); 68 in the
    # 2012 code's notes on net 145
    slow_conv1: int = 0
    # epochs after which conv1 stays as it is; 0 = never (P5); 72 in the 2012 code's notes on net 145
    freeze_conv1: int = 0

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
        for name in ("slow_conv1", "freeze_conv1"):
            value = getattr(self, name)
            _require(
                value >= 0,
                option(f"schedule.{name}"),
                value,
                "is not negative",
                "use 0 for never",
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
class DistributedConfig:
    """Several processes as one run, each with devices of its own; the same command for all of them."""

    # HOST:PORT of process 0, free for it to listen on; auto: as SLURM, Open MPI or a TPU pod say, one
    # process elsewhere; none: one process whatever they say; ours
    coordinator: str = "auto"
    # of this run, when the coordinator is named; ours
    num_processes: int | Literal["auto"] = "auto"
    # of this one, from 0, when the coordinator is named; ours
    process_id: int | Literal["auto"] = "auto"
    # seconds after which a process that fell silent is given up, and with it the run; ours
    timeout: int = 60

    def __post_init__(self):
        host, colon, port = self.coordinator.rpartition(":")
        named = self.coordinator not in ("auto", "none")
        _require(
            not named or bool(host and colon and port.isdecimal() and 0 < int(port) < 2**16),
            "--distributed.coordinator",
            self.coordinator,
            "is auto, none, or HOST:PORT of process 0",
            "try auto",
        )
        for name in ("num_processes", "process_id"):
            value = getattr(self, name)
            _require(
                (value != "auto") == named,
                option(f"distributed.{name}"),
                value,
                "goes with --distributed.coordinator HOST:PORT, one not without the other",
                "give both or neither",
            )
        if named:
            number, this = int(self.num_processes), int(self.process_id)
            _require(number >= 1, "--distributed.num-processes", number, "is at least 1", "try 2")
            _require(
                0 <= this < number,
                "--distributed.process-id",
                this,
                f"is between 0 and --distributed.num-processes={number} less 1",
                "give each process its own",
            )
        _require(
            self.timeout >= 1, "--distributed.timeout", self.timeout, "is at least 1", "try 60"
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
class ProcessConfig:
    """What the command does to its own process; nothing of it changes what is computed."""

    # start anew with large pages for malloc (GLIBC_TUNABLES), where glibc can; ours: 1.2 times
    # as fast on a CPU
    large_pages: bool = True
    # folder for compiled programs, so that the next start is faster; empty = none; ours
    compilation_cache: str = "~/.cache/alexnet_jax"


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """Traces for TensorBoard's profiler and Perfetto, in WORKDIR/profile."""

    # first and last step to trace, as 10:15; empty = none; ours
    steps: str = ""

    def __post_init__(self):
        first, colon, last = self.steps.partition(":")
        _require(
            not self.steps
            or (
                colon == ":"
                and first.isdecimal()
                and last.isdecimal()
                and 1 <= int(first) <= int(last)
            ),
            "--profile.steps",
            self.steps,
            "is the first and the last step, from 1 on, with a colon between",
            "try 10:15",
        )

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last step to trace, or None."""
        if not self.steps:
            return None
        first, _, last = self.steps.partition(":")
        return int(first), int(last)


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """What is not taken over from the run named by --init-from."""

    # layers that start from their initial values all the same, such as fc8 for other classes; the
    # way of the 2012 code's pretrained nets (initw.py)
    reset: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    # named starting point for all other fields; ours
    preset: Preset = "quickstart"
    # of initialization, order of images, augmentation, dropout and the validation split; ours
    seed: int = 0
    # folder of a run, trained or imported, whose weights this one starts from (P7: pretraining); its
    # model and preprocessing are then the defaults
    init_from: str = ""
    # what is not taken over from --init-from
    init: InitConfig = dataclasses.field(default_factory=InitConfig)
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
    # processes that make up this run, on one machine or several
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    # what is written down, and how often
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    # traces of a few steps
    profile: ProfileConfig = dataclasses.field(default_factory=ProfileConfig)
    # what the command does to its own process
    process: ProcessConfig = dataclasses.field(default_factory=ProcessConfig)

    def __post_init__(self):
        for field, value in flatten(self).items():
            finite = not isinstance(value, float) or math.isfinite(value)
            _require(
                finite, option(field), value, "is a finite number", "see --help for its default"
            )
        _require(0 <= self.seed < 2**31, "--seed", self.seed, "is between 0 and 2**31 - 1", "try 0")
        _require(
            not self.init.reset or bool(self.init_from),
            "--init.reset",
            " ".join(self.init.reset),
            "names layers that --init-from would bring",
            "add --init-from, or leave it out",
        )
        # The table refuses a width that does not split over the towers and a crop that some layer would lose.
        table = self.model.table(num_classes=2, crop=self.data.crop)
        layers = [layer.name for layer in table.layers]
        for entry in self.optimizer.rates:
            _require(
                entry.partition("=")[0] in layers,
                "--optimizer.rates",
                entry,
                f"names a layer of the network, {', '.join(layers)}",
                "name some of them",
            )
        _require(
            not self.optimizer.frozen.issuperset(layers),
            "--optimizer.rates",
            " ".join(self.optimizer.rates),
            "leaves some layer to learn",
            "leave one out",
        )


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


def unflatten(flat: Mapping[str, Any]) -> Config:
    """Return the configuration that `flatten` took apart; ValueError where a field is unknown."""

    def build(cls: Any, prefix: str) -> Any:
        values = {}
        for field in dataclasses.fields(cls):
            name = prefix + field.name
            if dataclasses.is_dataclass(field.type):
                values[field.name] = build(field.type, f"{name}.")
            elif name in flat:
                value = flat[name]
                values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    unknown = sorted(set(flat) - set(flatten(Config())))
    _require(
        not unknown,
        "the configuration",
        ", ".join(unknown),
        "has no such field in this version of alexnet_jax",
        "use the version that wrote it",
    )
    return build(Config, "")


def option(field: str) -> str:
    """Return the command line's name of a field: data.image_size -> --data.image-size."""
    return "--" + field.replace("_", "-")
