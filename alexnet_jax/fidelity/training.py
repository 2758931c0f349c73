"""Points on which the networks called AlexNet differ: initialization and update rule."""

import dataclasses
from typing import Any

from alexnet_jax.config import Config
from alexnet_jax.fidelity.comparison import Choice, Point, Source
from alexnet_jax.model.variants import build_architecture


def _is_scaled(config: Config) -> bool:
    unscaled = dataclasses.replace(config.model, scale_init=False)
    crop = config.data.crop
    return build_architecture(config.model, num_classes=1000, crop=crop) != build_architecture(
        unscaled, 1000, crop
    )


def _schedule(config: Config) -> tuple[Any, ...]:
    schedule = config.schedule
    drops = schedule.max_drops if schedule.kind == "plateau" else schedule.milestones
    return schedule.kind, schedule.factor, drops, schedule.epochs


# models/alexnet.py leaves it to PyTorch: kaiming_uniform_(a=sqrt(5)), which is uniform in
# +-1 / sqrt(fan-in), a standard deviation of 1 / sqrt(3 fan-in).
_PYTORCH: dict[Source, str] = {"torchvision": "torch.nn.Conv2d, Linear: reset_parameters"}
# Under "AlexNet and VGG": train.py with --lr 1e-2 and otherwise its defaults, on 8 GPUs.
_RECIPE = "references/classification/README.md"
_SCRIPT = "references/classification/train.py"

INITIALIZATION = (
    Point(
        "initial std of conv1-2 and fc8",
        ("model.init_std",),
        (
            Choice(
                0.01,
                "0.01",
                {
                    "paper": "P5",
                    "2012 code": "layers-145.cfg:17,73,298",
                    "Caffe": "train_val.prototxt:53-366",
                },
            ),
            Choice(None, "uniform in +-1 / sqrt(fan-in)", _PYTORCH),
        ),
        "N(0, 0.01) has a standard deviation of 0.01, not a variance",
    ),
    Point(
        "initial std of conv3-5",
        ("model.conv345_init_std",),
        (
            Choice(0.01, "0.01", {"paper": "P5", "Caffe": "train_val.prototxt:53-366"}),
            Choice(0.03, "0.03", {"2012 code": "layers-145.cfg:143,172,200"}),
            Choice(None, "uniform in +-1 / sqrt(fan-in)", _PYTORCH),
        ),
        "with 0.03 the loss falls below ln(classes) within a few epochs",
    ),
    Point(
        "initial std of fc6 and fc7",
        ("model.fc_init_std",),
        (
            Choice(0.01, "0.01", {"paper": "P5", "2012 code": "layers-145.cfg:242,270"}),
            Choice(0.005, "0.005", {"Caffe": "train_val.prototxt:53-366"}),
            Choice(None, "uniform in +-1 / sqrt(fan-in)", _PYTORCH),
        ),
        "Caffe halves it, and its dropout doubles the outputs in training",
    ),
    Point(
        "scaled initialization",
        ("model.scale_init",),
        (
            Choice(
                False,
                "no",
                {"paper": "P5", "2012 code": "layer.py:807", "Caffe": "train_val.prototxt"},
            ),
        ),
        "std x sqrt(fan-in of 2012 / fan-in) preserves activation variance in small networks",
        compute=_is_scaled,
    ),
    Point(
        "initial bias",
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
                0.1,
                "0.1 in these, else 0",
                {"bvlc_alexnet": "train_val.prototxt:53-366, readme.md:14"},
            ),
            Choice(None, "uniform, as weights", _PYTORCH),
        ),
        "1 gives ReLUs positive inputs at first; with it, Caffe's loss stayed flat",
    ),
)

UPDATE = (
    Point(
        "batch size",
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
        "Caffe and torchvision have twice the images at the same learning rate",
    ),
    Point(
        "learning rate and weight decay",
        ("optimizer.learning_rate", "optimizer.momentum", "optimizer.weight_decay"),
        (
            Choice(
                (0.01, 0.9, 5e-4),
                "0.01, momentum 0.9, decay 5e-4",
                {
                    "paper": "P5",
                    "2012 code": "layer-params-145.cfg:113-119",
                    "Caffe": "solver.prototxt:4-11",
                },
            ),
            # No field of the configuration applies weight decay to biases.
            Choice(None, "0.01, momentum 0.9, 1e-4, also biases", {"torchvision": _RECIPE}),
        ),
        "the velocity contains the rate (P5, weights.cu:146-198); torch.optim.SGD's does not",
    ),
    Point(
        "bias learning rate",
        ("optimizer.bias_lr_multiplier", "optimizer.bias_lr_drops"),
        (
            Choice((1.0, "all"), "as weights", {"paper": "P5", "torchvision": _SCRIPT}),
            Choice(
                (2.0, 1),
                "x 2, constant after one drop",
                {"2012 code": "layer-params-120-4gpu-auto2.cfg"},
            ),
            Choice((2.0, "all"), "x 2", {"Caffe": "train_val.prototxt, lr_mult: 2"}),
        ),
        "P5 says 'equal'; the 2012 code's files and Caffe have a factor of 2",
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
        "by hand in 2012: the text has the rule, the code's notes have the epochs",
        compute=_schedule,
    ),
    Point(
        "conv1 in late epochs",
        ("schedule.slow_conv1", "schedule.freeze_conv1"),
        (
            Choice(
                (0, 0),
                "as other layers",
                {"paper": "P5", "Caffe": "solver.prototxt", "torchvision": _SCRIPT},
            ),
            Choice(
                (68, 72),
                "rate / 10 after epoch 68, 0 after 72",
                {"2012 code": "layer-params-145-2010.cfg:170-176"},
            ),
        ),
        "by hand in 2012; not in the text",
    ),
)
