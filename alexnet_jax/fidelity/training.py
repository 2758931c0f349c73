"""Points on which the networks called AlexNet differ: how they start, and how they learn."""

import dataclasses
from typing import Any

from alexnet_jax.config import Config
from alexnet_jax.fidelity.comparison import Choice, Point, Source
from alexnet_jax.model.variants import build_architecture


def _widened(config: Config) -> bool:
    as_given = dataclasses.replace(config.model, scale_init=False)
    crop = config.data.crop
    return build_architecture(config.model, num_classes=1000, crop=crop) != build_architecture(
        as_given, 1000, crop
    )


def _schedule(config: Config) -> tuple[Any, ...]:
    schedule = config.schedule
    drops = schedule.max_drops if schedule.kind == "plateau" else schedule.milestones
    return schedule.kind, schedule.factor, drops, schedule.epochs


# models/alexnet.py leaves it to PyTorch: kaiming_uniform_(a=sqrt(5)), which is uniform within
# 1 / sqrt(inputs) on either side, a standard deviation of 1 / sqrt(3 inputs).
_PYTORCH: dict[Source, str] = {"torchvision": "torch.nn.Conv2d, Linear: reset_parameters"}
# Under "AlexNet and VGG": train.py with --lr 1e-2, all else its defaults, on 8 GPUs.
_RECIPE = "references/classification/README.md"
_SCRIPT = "references/classification/train.py"

START = (
    Point(
        "std of conv1-2 and fc8",
        ("model.init_std",),
        (
            Choice(
                0.01,
                ".01",
                {
                    "paper": "P5",
                    "2012 code": "layers-145.cfg:17,73,298",
                    "Caffe": "train_val.prototxt:53-366",
                },
            ),
            Choice(None, "uniform within 1 / sqrt(inputs)", _PYTORCH),
        ),
        "N(0, .01) has a standard deviation of .01, not a variance",
    ),
    Point(
        "std of conv3-5",
        ("model.conv345_init_std",),
        (
            Choice(0.01, ".01", {"paper": "P5", "Caffe": "train_val.prototxt:53-366"}),
            Choice(0.03, ".03", {"2012 code": "layers-145.cfg:143,172,200"}),
            Choice(None, "uniform within 1 / sqrt(inputs)", _PYTORCH),
        ),
        "what lets the loss leave ln(classes) within a few epochs",
    ),
    Point(
        "std of fc6 and fc7",
        ("model.fc_init_std",),
        (
            Choice(0.01, ".01", {"paper": "P5", "2012 code": "layers-145.cfg:242,270"}),
            Choice(0.005, ".005", {"Caffe": "train_val.prototxt:53-366"}),
            Choice(None, "uniform within 1 / sqrt(inputs)", _PYTORCH),
        ),
        "Caffe halves it, and its dropout doubles what is kept in training",
    ),
    Point(
        "std scaled",
        ("model.scale_init",),
        (
            Choice(
                False,
                "as given",
                {"paper": "P5", "2012 code": "layer.py:807", "Caffe": "train_val.prototxt"},
            ),
        ),
        "ours is widened by sqrt(2012 inputs / inputs), so that small sums start as loud",
        of=_widened,
    ),
    Point(
        "bias at the start",
        ("model.init_bias",),
        (
            Choice(
                1.0,
                "1 in conv2, 4, 5, fc6, fc7, else 0",
                {
                    "paper": "P5",
                    "2012 code": "layers-145.cfg:74,173,201,243,271",
                    "CaffeNet": "bvlc_reference_caffenet/train_val.prototxt",
                },
            ),
            Choice(
                0.1, ".1 there, else 0", {"bvlc_alexnet": "train_val.prototxt:53-366, readme.md:14"}
            ),
            Choice(None, "uniform, as the weights", _PYTORCH),
        ),
        "1 gives ReLUs something to pass on at first; Caffe saw a flat loss with it",
    ),
)

UPDATE = (
    Point(
        "batch",
        ("optimizer.batch_size",),
        (
            Choice(128, "128 images", {"paper": "P5", "2012 code": "convnet.py:177"}),
            Choice(
                256,
                "256 images",
                {
                    "Caffe": "train_val.prototxt",
                    "torchvision": "classification/README.md, 8 x 32",
                },
            ),
        ),
        "Caffe and torchvision have twice the images at the same rate",
    ),
    Point(
        "rate and decay",
        ("optimizer.learning_rate", "optimizer.momentum", "optimizer.weight_decay"),
        (
            Choice(
                (0.01, 0.9, 5e-4),
                ".01, momentum .9, 5e-4 of weights",
                {
                    "paper": "P5",
                    "2012 code": "layer-params-145.cfg:113-119",
                    "Caffe": "solver.prototxt:4-11",
                },
            ),
            # No decay of biases can be asked for here.
            Choice(None, ".01, momentum .9, 1e-4, biases too", {"torchvision": _RECIPE}),
        ),
        "the rate is inside the velocity (P5, weights.cu:146-198); torch.optim.SGD has it outside",
    ),
    Point(
        "bias rate",
        ("optimizer.bias_lr_multiplier", "optimizer.bias_lr_drops"),
        (
            Choice((1.0, "all"), "that of weights", {"paper": "P5", "torchvision": _SCRIPT}),
            Choice(
                (2.0, 1),
                "twice it, constant after one drop",
                {"2012 code": "layer-params-120-4gpu-auto2.cfg"},
            ),
            Choice((2.0, "all"), "twice it", {"Caffe": "train_val.prototxt, lr_mult: 2"}),
        ),
        "P5 says 'equal'; the code's files have a factor of 2, as Caffe has since",
    ),
    Point(
        "schedule",
        (
            "schedule.kind",
            "schedule.factor",
            "schedule.max_drops",
            "schedule.milestones",
            "schedule.epochs",
        ),
        (
            Choice(
                ("plateau", 0.1, 3, 90),
                "/ 10 at 3 plateaus, about 90 epochs",
                {"paper": "P5"},
            ),
            Choice(
                ("step", 0.1, (23, 51, 78), 93),
                "/ 10 after epochs 23, 51, 78; ends 93",
                {"2012 code": "layer-params-145-2010.cfg:170-176"},
            ),
            Choice(
                ("step", 0.1, (20, 40, 60, 80), 90),
                "/ 10 every 20 epochs; ends 90",
                {"Caffe": "solver.prototxt:4-11"},
            ),
            Choice(
                ("step", 0.1, (30, 60), 90),
                "/ 10 every 30 epochs; ends 90",
                {"torchvision": _RECIPE},
            ),
        ),
        "by hand and eye in 2012: the text has the rule, the notes the epochs",
        of=_schedule,
    ),
    Point(
        "conv1 late on",
        ("schedule.slow_conv1", "schedule.freeze_conv1"),
        (
            Choice(
                (0, 0),
                "as the others",
                {"paper": "P5", "Caffe": "solver.prototxt", "torchvision": _SCRIPT},
            ),
            Choice(
                (68, 72),
                "rate / 10 after epoch 68, 0 after 72",
                {"2012 code": "layer-params-145-2010.cfg:170-176"},
            ),
        ),
        "done by hand in 2012, and not in the text",
    ),
)
