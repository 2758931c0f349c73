"""Every setting of a run, as frozen dataclasses. The comment above a field is its help text.

"P3.5" is section 3.5 of Krizhevsky, Sutskever and Hinton (2012); "2012 code" is the authors' own,
computerhistory/AlexNet-Source-Code. A field's annotation holds its limits and where it may differ:
between a run and its resumption, between processes, or from the network that a run starts from.
"""

import dataclasses
import functools
import math
import numbers
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

Preset = Literal[
    "quickstart",
    "photos",
    "small",
    "finetune",
    "paper",
    "source2012",
    "merged",
    "half",
    "six_conv",
    "torchvision",
    "bvlc_alexnet",
    "caffenet",
]

# Weights that are downloaded by name, see weights/published.py.
PublishedName = Literal["torchvision", "bvlc_alexnet", "caffenet"]

Precision = Literal["default", "high", "highest"]

RESUMABLE = "may change when a run is resumed, as it does not change what is computed"
PER_PROCESS = "belongs to one process of several, and may change on resume like RESUMABLE"
PREPROCESSING = "belongs to the weights: what an image becomes before the network sees it"

Fraction = Annotated[float, Ge(0), Lt(1)]
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(1)]

_RULES: dict[type, tuple[Callable[[Any, Any], bool], str]] = {
    Ge: (operator.ge, "at least"),
    Gt: (operator.gt, "greater than"),
    Le: (operator.le, "at most"),
    Lt: (operator.lt, "less than"),
}

_TYPES: dict[Any, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "an integer"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
}


def invalid(name: str, value: Any, rule: str, remedy: str) -> ValueError:
    """Return the error `name value: rule; remedy.` for a field or an argument."""
    shown = " ".join(map(str, value)) if isinstance(value, (tuple, list)) else value
    return ValueError(f"{name} {shown}: {rule}; {remedy}.")


class _Section:
    """Checks the limits in the annotations of a dataclass when it is made."""

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(typing.cast(Any, self)):
            value, remedy = _plain(getattr(self, field.name)), f"try {field.default}"
            object.__setattr__(self, field.name, value)
            if rule := _wrong_type(value, _hints(type(self))[field.name]):
                raise invalid(self._name(field.name), value, rule, remedy)
            if isinstance(value, float) and not math.isfinite(value):
                raise invalid(self._name(field.name), value, "must be a finite number", remedy)
            limits = [limit for limit in _notes(type(self), field.name) if type(limit) in _RULES]
            if isinstance(value, str) or not limits:
                continue
            if not all(_RULES[type(limit)][0](value, _bound(limit)) for limit in limits):
                rules = [f"{_RULES[type(limit)][1]} {_bound(limit)}" for limit in limits]
                rule = f"must be {' and '.join(rules)}"
                raise invalid(self._name(field.name), value, rule, remedy)

    def _name(self, field: str) -> str:
        return f"{self.section}.{field}" if self.section else field

    def _require(self, holds: bool, field: str, rule: str, remedy: str) -> None:
        if not holds:
            raise invalid(self._name(field), getattr(self, field), rule, remedy)


def _plain(value: Any) -> Any:
    """Return a value without NumPy's kinds of numbers and with tuples for lists."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, numbers.Number) and hasattr(value, "item") else value


def _wrong_type(value: Any, hint: Any) -> str:
    """Return the rule that a value breaks which is not of the annotated type, else ""."""
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    rules = []
    for kind in typing.get_args(hint) if union else (hint,):
        if typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            fits, rule = value in choices, " or ".join(map(str, choices))
        elif kind in _TYPES:
            type_, rule = _TYPES[kind]
            fits = isinstance(value, type_)
            fits &= kind is bool or not isinstance(value, bool)
        elif typing.get_origin(kind) is tuple:
            of = typing.get_args(kind)[0]
            rule = f"a tuple, each item {_TYPES[of][1]}"
            fits = isinstance(value, tuple) and not any(_wrong_type(item, of) for item in value)
        else:  # of a section's own checks
            return ""
        if fits:
            return ""
        rules.append(rule)
    return f"must be {' or '.join(rules)}"


def _bound(limit: Any) -> float:
    """Return the bound of one of annotated_types' limits."""
    (bound,) = (getattr(limit, field.name) for field in dataclasses.fields(limit))
    return bound


# A comment stands above its field, where tyro finds it for --help.


@dataclasses.dataclass(frozen=True)
class DataConfig(_Section):
    """Where images come from, and their preprocessing and augmentation."""

    section: ClassVar[str] = "data"

    # kind of data set; synthetic: images that the package draws itself; given: those of a program
    # that calls `train_and_evaluate` with `splits`
    source: Literal["synthetic", "folder", "arrayrecord", "tfds", "given"] = "synthetic"
    # folder of class folders, folder of .arrayrecord shards, or TFDS data_dir
    path: Annotated[str, PER_PROCESS] = ""
    # TFDS data set as `name` or `name/config:version`
    name: str = ""
    # side of the square that every image is resized to, pixels (P2)
    image_size: Annotated[int, Ge(1), PREPROCESSING] = 256
    # shorter-side: resize the shorter side and keep the center square (P2); stretch: resize both
    # sides, whatever the shape (Caffe's create_imagenet.sh)
    resize: Annotated[Literal["shorter-side", "stretch"], PREPROCESSING] = "shorter-side"
    # antialias: Pillow's bilinear, which averages over all pixels that shrink into one; bilinear:
    # OpenCV's and Caffe's, between the four nearest pixels (P2 names no filter)
    filter: Annotated[Literal["antialias", "bilinear"], PREPROCESSING] = "antialias"
    # order of the colors in the network's input; rgb in P2 and the 2012 code, bgr in Caffe
    channels: Annotated[Literal["rgb", "bgr"], PREPROCESSING] = "rgb"
    # side of the square that the network sees, pixels (P4.1)
    crop: Annotated[int, Ge(1), PREPROCESSING] = 224
    # where a training crop may start along a side of s pixels: at all s - crop + 1 offsets (33;
    # 2012 code, convdata_jpeg.py:239) or at all but the last (32, which makes the 2,048 of P4.1)
    crop_offsets: Literal["all", "all-but-last"] = "all"
    # flip half of the training crops left to right (P4.1)
    horizontal_flip: bool = True
    # consecutive images of a batch that share one crop and one flip: 1 in P4.1, 32 in the 2012 code
    # (convdata_jpeg.py:77)
    images_per_crop: Count = 1
    # standard deviation of the PCA lighting noise, in units of data.pca_scale; 0: off (P4.1)
    pca_std: NonNegative = 0.1
    # what a draw of 1 moves the colors by along a principal axis: its standard deviation (2012
    # code), or its variance, as P4.1 says literally, which would be 1,483 gray levels
    pca_scale: Literal["std", "eigenvalue"] = "std"
    # number of epochs with PCA lighting; 0: all epochs (P4.1); 68 in the 2012 code's notes on net
    # 145
    pca_epochs: Annotated[int, Ge(0)] = 0
    # divide training images by this while PCA lighting is on: 1 in P4.1, 1.1 in the 2012 code
    # (convdata_jpeg.py:179)
    train_divisor: Positive = 1.0
    # what is subtracted: the mean image, cropped and flipped with the image (P2); the center of the
    # mean image, never flipped (2012 code, convdata_jpeg.py:95); or one mean color (Caffe,
    # torchvision)
    mean: Annotated[Literal["image", "image-center", "channel"], PREPROCESSING] = "image"
    # mean and principal axes of color: computed from the training split (P2), published for
    # ImageNet by Krizhevsky, Caffe or torchvision (with its scale), or init: those that come with
    # init_from
    statistics: Literal["computed", "imagenet", "caffe", "torchvision", "init"] = "computed"
    # each-epoch: a new order of the training images every epoch; once: one order for all epochs
    # (2012 code, convdata_jpeg.py:262)
    shuffle: Literal["each-epoch", "once"] = "each-epoch"
    # fraction of each class to hold out if the source has no validation split; 0: use the test
    # split
    validation_fraction: Fraction = 0.1
    # unreadable images: skip them and report them, or stop, both before and during training
    unreadable: Literal["skip", "stop"] = "skip"
    # memory for decoded and resized images, GiB: a split is kept if all of it fits, training first
    cache_gib: Annotated[NonNegative, PER_PROCESS] = 2.0
    # threads that read ahead; batches do not depend on it; 0: read in the main thread
    threads: Annotated[int, Ge(0), PER_PROCESS] = 2
    # batches to read ahead at most, and at least one a thread
    prefetch: Annotated[Count, PER_PROCESS] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            self.crop <= self.image_size,
            "crop",
            f"must be at most data.image_size={self.image_size}",
            f"try {max(1, self.image_size * 7 // 8)}",
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig(_Section):
    """The network: `model/variants.py` makes its layers of these fields."""

    section: ClassVar[str] = "model"

    # two_towers: the network of 2012 (P3.5); merged: the same widths without towers; half: one
    # tower (2012 code, net 145-half); six_conv: a sixth convolution (2012 code, net 146);
    # torchvision: 64-192-384-256-256 ("One weird trick", 2014)
    variant: Literal["two_towers", "merged", "half", "six_conv", "torchvision"] = "two_towers"
    # multiplies the number of maps and units (96-256-384-384-256, 4096-4096 in P3.5)
    width: Annotated[float, Gt(0), Le(64)] = 1.0
    # units of a linear layer before the classes, half in each tower; 0: none; 2048 before 21,843
    # classes in the 2012 code (layers-146-2011.cfg)
    bottleneck: Annotated[int, Ge(0)] = 0
    # convolution to leave out; the pooling after it stays (P7)
    drop_layer: Literal["none", "conv2", "conv3", "conv4", "conv5"] = "none"
    # standard deviation of the initial weights of conv1, conv2 and fc8 (P5)
    init_std: Positive = 0.01
    # the same for conv3, conv4 and conv5: 0.01 in P5, 0.03 in the 2012 code
    conv345_init_std: Positive = 0.01
    # the same for fc6 and fc7: 0.01 in P5, 0.005 in Caffe
    fc_init_std: Positive = 0.01
    # initial bias of conv2, conv4, conv5, fc6 and fc7 (0 elsewhere): 1 in P5, 0.1 in bvlc_alexnet
    init_bias: float = 1.0
    # multiply each initial standard deviation by sqrt(fan-in of 2012 / fan-in), which preserves
    # activation variance in networks of other widths and crops
    scale_init: bool = True
    # activation function of every layer but the last: relu (P3.1), or tanh (its Figure 1)
    activation: Literal["relu", "tanh"] = "relu"
    # zero padding of conv1. end: after the image, as far as the last window reaches (3 at 224
    # pixels; 2012 code); none (Caffe, 227 pixels); both: 2 on every side (torchvision)
    conv1_padding: Literal["end", "none", "both"] = "end"
    # relu_first: ReLU, LRN, pooling (P3.5); norm_first: LRN and pooling before ReLU in conv1 (2012
    # code); pool_first: pooling before LRN in conv1 and conv2 (CaffeNet)
    op_order: Literal["relu_first", "norm_first", "pool_first"] = "relu_first"
    # local response normalization after conv1 and conv2 (P3.3)
    lrn: bool = True
    # number of maps in the LRN sum, with the map itself in the middle (P3.3)
    lrn_n: Count = 5
    # constant added to the LRN sum: 2 in P3.3 and the 2012 code, 1 in Caffe
    lrn_k: Positive = 2.0
    # factor of the sum of squares (P3.3)
    lrn_alpha: NonNegative = 1e-4
    # divide alpha by n: not in P3.3's formula; done by the 2012 code (layer.py:1183), Caffe,
    # PyTorch
    lrn_alpha_over_n: bool = False
    # exponent (P3.3)
    lrn_beta: NonNegative = 0.75
    # maps that LRN sums over: those of the same tower (P3.3 in the 2012 code) or all (Caffe)
    lrn_scope: Literal["tower", "all"] = "tower"
    # normalize conv2 again, over 5 x 5 pixels of each map (2012 code, layers-145.cfg:107; not in
    # the paper)
    spatial_norm: bool = False
    # side of the pooling window, pixels, at stride 2: 3 overlaps (P3.4), 2 does not
    pool_window: Literal[3, 2] = 3
    # pixels that get the gradient of a pooling window where several have its maximum: the first
    # (Caffe, PyTorch), or each of them all of it (2012 code, conv_util.cu:1766); P3.4 names none
    pool_ties: Literal["first", "all"] = "first"
    # fraction of outputs set to zero in training (P4.2)
    dropout: Fraction = 0.5
    # outputs with dropout: of fc6 and fc7 (P4.2), or of pool5 and fc6 (torchvision)
    dropout_on: Literal["fc6-fc7", "pool5-fc6"] = "fc6-fc7"
    # test: multiply outputs by the fraction kept, at test (P4.2); training: divide by it, in
    # training (torchvision)
    dropout_scale: Literal["test", "training"] = "test"
    # data type of the arrays that layers multiply and pass on; parameters, velocity, LRN sums, the
    # last layer and the loss stay float32. bfloat16 is faster on GPU and TPU, not on a CPU
    dtype: Literal["float32", "bfloat16"] = "float32"
    # of products of float32 numbers. default: one bfloat16 pass on TPU, TF32 on GPUs since Ampere;
    # high: three passes, TF32; highest: six passes, float32. A CPU always computes in float32
    precision: Precision = "default"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            self.lrn_n % 2 == 1, "lrn_n", "must be odd, as the map itself is in the middle", "try 5"
        )
        self._require(
            self.bottleneck % 2 == 0,
            "bottleneck",
            "must be even, half for each tower",
            "use 0 for none",
        )

    @property
    def scaled_lrn_alpha(self) -> float:
        """What the sum of squares is multiplied by: alpha, or alpha / n."""
        return self.lrn_alpha / (self.lrn_n if self.lrn_alpha_over_n else 1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(_Section):
    """SGD with momentum as in P5: v <- momentum v - decay rate w - rate g; w <- w + v."""

    section: ClassVar[str] = "optimizer"

    # images a step, over all devices (P5)
    batch_size: Count = 128
    # initial learning rate (P5)
    learning_rate: Positive = 0.01
    # learning rate of biases as a multiple of the weights': 1 in P5, 2 in the 2012 code
    bias_lr_multiplier: NonNegative = 1.0
    # how many drops of the learning rate apply to biases: all in P5, 1 in the 2012 code
    # (layer-params-120-4gpu-auto3.cfg:2-3)
    bias_lr_drops: Annotated[int | Literal["all"], Ge(0)] = "all"
    # layers with multiples of the learning rate, such as conv1=0 fc8=10; 0: frozen, and its
    # gradient is not computed
    layer_learning_rates: tuple[str, ...] = ()
    # fraction of the velocity kept each step (P5)
    momentum: Fraction = 0.9
    # times the learning rate, on weights and not on biases (2012 code; P5)
    weight_decay: NonNegative = 5e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self._name("layer_learning_rates")
        for entry in self.layer_learning_rates:
            layer, _, multiple = entry.partition("=")
            if not layer or not re.fullmatch(r"\d+(\.\d*)?|\.\d+", multiple):
                rule = "must be a layer, = and a multiple of the learning rate, at least 0"
                raise invalid(name, entry, rule, "try conv1=0 fc8=10")
        self._require(
            len(self.layer_multipliers) == len(self.layer_learning_rates),
            "layer_learning_rates",
            "must name each layer once",
            "leave one out",
        )

    @property
    def layer_multipliers(self) -> dict[str, float]:
        """The layers with learning rates of their own, as multiples of the others'."""
        pairs = (entry.partition("=") for entry in self.layer_learning_rates)
        return {name: float(multiple) for name, _, multiple in pairs}

    @property
    def frozen(self) -> frozenset[str]:
        """The layers with learning rate 0."""
        return frozenset(name for name, rate in self.layer_multipliers.items() if not rate)


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(_Section):
    """When the learning rate drops and when training ends."""

    section: ClassVar[str] = "schedule"

    # plateau: drop the learning rate when the validation error stops improving (P5); step: at fixed
    # epochs
    kind: Literal["plateau", "step"] = "plateau"
    # maximum number of epochs; about 90 in P5
    epochs: Annotated[Count, RESUMABLE] = 90
    # multiplies the learning rate at each drop (P5)
    factor: Annotated[float, Gt(0), Lt(1)] = 0.1
    # plateau: number of drops; training ends at the plateau after the last (P5)
    max_drops: Annotated[int, Ge(0)] = 3
    # plateau: evaluations in a row without improvement before a drop (P5 judged by eye). auto: 5,
    # longer than the error's fluctuations from epoch to epoch; with fewer than 2,500 validation
    # images more, in proportion to the standard error of their error: 15 with 278, 42 with 36
    patience: Annotated[int | Literal["auto"], Ge(1)] = "auto"
    # plateau: smallest decrease of the top-1 error, a fraction, that counts as an improvement (two
    # standard errors on ImageNet's 50,000 validation images are 0.0044; this is half of it)
    min_delta: Fraction = 0.002
    # epochs between evaluations on the validation split; one costs a few percent of an epoch
    eval_every: Count = 1
    # step: epochs after which the learning rate drops; the 2012 code's notes on net 145
    milestones: tuple[int, ...] = (23, 51, 78)
    # epochs after which the learning rate of conv1's kernel is one drop lower than the others'; 0:
    # never (P5); 68 in the 2012 code's notes on net 145
    slow_conv1: Annotated[int, Ge(0)] = 0
    # epochs after which conv1 is frozen; 0: never (P5); 72 in the 2012 code's notes on net 145
    freeze_conv1: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = list(self.milestones) == sorted(set(self.milestones))
        self._require(
            rising and all(epoch >= 1 for epoch in self.milestones),
            "milestones",
            "must be a rising list of epochs, each at least 1",
            "try 23 51 78",
        )


@dataclasses.dataclass(frozen=True)
class MeshConfig(_Section):
    """The mesh of devices: `data` shards of the batch times `towers` halves of the network."""

    section: ClassVar[str] = "mesh"

    # devices that share one copy of the network; auto: 2 if there are enough (P3.2)
    towers: Annotated[int | Literal["auto"], Ge(1), Le(2)] = "auto"
    # shards of the batch; auto: the largest number of devices that divides the batch
    data: Annotated[int | Literal["auto"], Ge(1)] = "auto"


@dataclasses.dataclass(frozen=True)
class DistributedConfig(_Section):
    """Several processes that train one run, all started by the same command."""

    section: ClassVar[str] = "distributed"

    # HOST:PORT on which process 0 listens; auto: what SLURM, Open MPI or a TPU pod say, otherwise
    # one process; none: one process, whatever they say
    coordinator: str = "auto"
    # number of processes, given together with a coordinator
    num_processes: int | Literal["auto"] = "auto"
    # number of this process, from 0, given together with a coordinator
    process_id: int | Literal["auto"] = "auto"
    # seconds without a sign of life after which a process is given up, and the run with it; at the
    # start, seconds to wait for all to connect
    timeout: Count = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        host, colon, port = self.coordinator.rpartition(":")
        given = self.coordinator not in ("auto", "none")
        self._require(
            not given or bool(host and colon and port.isdecimal() and 0 < int(port) < 2**16),
            "coordinator",
            "must be auto, none, or HOST:PORT of process 0",
            "try auto",
        )
        for name in ("num_processes", "process_id"):
            self._require(
                (getattr(self, name) != "auto") == given,
                name,
                "must be given together with distributed.coordinator=HOST:PORT",
                "give both or neither",
            )
        if given:
            number = int(self.num_processes)
            self._require(number >= 1, "num_processes", "must be at least 1", "try 2")
            self._require(
                0 <= int(self.process_id) < number,
                "process_id",
                f"must be at least 0 and less than distributed.num_processes={number}",
                "give each process its own",
            )


@dataclasses.dataclass(frozen=True)
class LogConfig(_Section):
    """What is recorded, and how often."""

    section: ClassVar[str] = "log"

    # steps between lines of training metrics in metrics.jsonl and TensorBoard (also at epoch ends)
    every: Count = 20
    # steps between checkpoints, which are also saved with every evaluation
    checkpoint_every: Count = 1000
    # draw figures/ and the page index.html when training ends
    figures: bool = True
    # write tensorboard/
    tensorboard: bool = True


@dataclasses.dataclass(frozen=True)
class ProcessConfig(_Section):
    """Settings of the process and its compiler; on a CPU they change speed, not results."""

    section: ClassVar[str] = "process"

    # restart the command with large pages for malloc (GLIBC_TUNABLES) if glibc supports them, which
    # makes training on a CPU faster
    large_pages: Annotated[bool, PER_PROCESS] = True
    # folder for compiled programs, which makes the next start faster; empty: none
    compilation_cache: Annotated[str, PER_PROCESS] = "~/.cache/alexnet_jax"
    # on GPUs, compile steps so that they give the same bits in every run (XLA's deterministic ops;
    # kernels are then not chosen by trial, which may cost speed); no effect on CPU and TPU
    deterministic: Annotated[bool, RESUMABLE] = True


@dataclasses.dataclass(frozen=True)
class ProfileConfig(_Section):
    """Traces for TensorBoard's profiler and Perfetto, written to WORKDIR/profile."""

    section: ClassVar[str] = "profile"

    # first and last step to trace, such as 10:15; empty: none
    steps: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        first, _, last = self.steps.partition(":")
        numbers = first.isdecimal() and last.isdecimal()
        self._require(
            not self.steps or (numbers and 1 <= int(first) <= int(last)),
            "steps",
            "must be FIRST:LAST, steps from 1 on",
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
class InitConfig(_Section):
    """What is not taken from the run named by init_from."""

    section: ClassVar[str] = "init"

    # layers to initialize at random all the same, such as fc8 for other classes (as in the 2012
    # code's pretrained nets, initw.py)
    reinit_layers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Config(_Section):
    """One run."""

    # named starting point for all other options
    preset: Annotated[Preset, RESUMABLE] = "quickstart"
    # seed of initialization, shuffling, augmentation, dropout and the validation split
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    # folder of a run, trained or imported, to fine-tune (P7), or on the command line the name of
    # published weights: torchvision, bvlc_alexnet, caffenet (./caffenet is a folder); model and
    # preprocessing of these become the defaults
    init_from: str = ""
    # what is not taken from the run named by init_from
    init: InitConfig = dataclasses.field(default_factory=InitConfig)
    # where images come from, and their preprocessing and augmentation
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    # the network
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    # SGD with momentum as in P5: v <- momentum v - decay rate w - rate g; w <- w + v
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    # when the learning rate drops and when training ends
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    # devices: shards of the batch times towers of the network
    mesh: Annotated[MeshConfig, RESUMABLE] = dataclasses.field(default_factory=MeshConfig)
    # several processes that train one run
    distributed: Annotated[DistributedConfig, PER_PROCESS] = dataclasses.field(
        default_factory=DistributedConfig
    )
    # what is recorded, and how often
    log: Annotated[LogConfig, RESUMABLE] = dataclasses.field(default_factory=LogConfig)
    # traces of a few steps
    profile: Annotated[ProfileConfig, PER_PROCESS] = dataclasses.field(
        default_factory=ProfileConfig
    )
    # settings of the process and its compiler
    process: ProcessConfig = dataclasses.field(default_factory=ProcessConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init.reinit_layers and not self.init_from:
            raise invalid(
                "init.reinit_layers",
                self.init.reinit_layers,
                "must be given together with init_from=FOLDER",
                "give both or neither",
            )


def _notes(section: type, name: str) -> tuple[Any, ...]:
    """Return what the annotation of a field holds beside its type."""
    return getattr(_hints(section)[name], "__metadata__", ())


@functools.cache
def _hints(section: type) -> dict[str, Any]:
    return typing.get_type_hints(section, include_extras=True)


def fields_marked(*marks: str) -> frozenset[str]:
    """Return the fields of `Config`, such as "data.path", marked by RESUMABLE and the like."""

    def names(section: Any, prefix: str, inherited: bool) -> Iterator[str]:
        for field in dataclasses.fields(section):
            value = getattr(section, field.name)
            marked = inherited or any(mark in _notes(type(section), field.name) for mark in marks)
            if dataclasses.is_dataclass(value):
                yield from names(value, f"{prefix}{field.name}.", marked)
            elif marked:
                yield prefix + field.name

    return frozenset(names(Config(), "", False))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field as `{"data.crop": 224, ...}`, values as JSON would give them back."""
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items() if prefix == "" else config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def is_local(path: str) -> bool:
    """Return whether a path is one of this machine, and not the address of a bucket."""
    return "://" not in path


def absolute_path(path: str) -> str:
    """Return a path that does not depend on the working directory; "" stays "" (none)."""
    if not path or not is_local(path):
        return path
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111  (links are kept)


def with_absolute_paths(config: Config) -> Config:
    """Return a configuration that means the same in every working directory."""
    data = dataclasses.replace(config.data, path=absolute_path(config.data.path))
    return dataclasses.replace(config, init_from=absolute_path(config.init_from), data=data)


def unflatten(flat: Mapping[str, Any]) -> Config:
    """Return the configuration that `flatten` took apart; ValueError if a field is unknown."""

    def build(section: Any, prefix: str) -> Any:
        values = {}
        for field in dataclasses.fields(section):
            name, value = prefix + field.name, getattr(section, field.name)
            if dataclasses.is_dataclass(value):
                values[field.name] = build(value, f"{name}.")
            elif name in flat:
                given = flat[name]
                values[field.name] = tuple(given) if isinstance(given, list) else given
        return dataclasses.replace(section, **values)

    default = Config()
    if unknown := sorted(set(flat) - set(flatten(default))):
        raise invalid(
            "configuration",
            ", ".join(unknown),
            "this version of alexnet_jax has no such field",
            "use the version that wrote it",
        )
    return build(default, "")
