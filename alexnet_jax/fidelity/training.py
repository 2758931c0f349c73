"""Points on which the networks called AlexNet differ: initialization and update rule."""

import dataclasses
from typing import Any

from alexnet_jax.config import Config
from alexnet_jax.fidelity.comparison import Choice, Point
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
                    "2012 code": "layers-145.cfg:17,30,73,88,298; layer.py:807",
                    "Caffe": "train_val.prototxt:57-60,113-116,358-361",
                },
            ),
            Choice(
                None,
                "uniform in +-1 / sqrt(fan-in)",
                {
                    "torchvision": (
                        "torch/nn/modules/conv.py:196; torch/nn/modules/linear.py:121-124"
                    )
                },
            ),
        ),
        "N(0, 0.01) has a standard deviation of 0.01, not a variance",
    ),
    Point(
        "initial std of conv3-5",
        ("model.conv345_init_std",),
        (
            Choice(
                0.01, "0.01", {"paper": "P5", "Caffe": "train_val.prototxt:168-171,202-205,236-239"}
            ),
            Choice(0.03, "0.03", {"2012 code": "layers-145.cfg:143,157,172,186,200,214"}),
            Choice(
                None,
                "uniform in +-1 / sqrt(fan-in)",
                {"torchvision": "torch/nn/modules/conv.py:196"},
            ),
        ),
        "with 0.03 the loss falls below ln(classes) within a few epochs",
    ),
    Point(
        "initial std of fc6 and fc7",
        ("model.fc_init_std",),
        (
            Choice(0.01, "0.01", {"paper": "P5", "2012 code": "layers-145.cfg:242,251,270,279"}),
            Choice(0.005, "0.005", {"Caffe": "train_val.prototxt:278-281,318-321"}),
            Choice(
                None,
                "uniform in +-1 / sqrt(fan-in)",
                {"torchvision": "torch/nn/modules/linear.py:121-124"},
            ),
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
                {
                    "paper": "P5",
                    "2012 code": "layer.py:807",
                    "Caffe": "train_val.prototxt:57-60,168-171",
                },
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
                    "CaffeNet": "train_val.prototxt:79-380",
                },
            ),
            Choice(
                0.1,
                "0.1 in these, else 0",
                {"bvlc_alexnet": "train_val.prototxt:63-364; readme.md:14"},
            ),
            Choice(
                None,
                "uniform, as weights",
                {"torchvision": "torch/nn/modules/conv.py:201; torch/nn/modules/linear.py:128"},
            ),
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
                    "Caffe": "train_val.prototxt:17",
                    "torchvision": "classification/README.md:7,12",
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
                    "2012 code": "layer-params-145.cfg:4,6,116,118,169; layer.cu:565",
                    "Caffe": "solver.prototxt:4,10-11",
                },
            ),
            Choice(
                (0.001, 0.9, 5e-4),
                "0.001, momentum 0.9, decay 5e-4",
                {"net 146": "layer-params-146-2012-2011.cfg:4,6,182"},
            ),
            # No field of the configuration applies weight decay to biases.
            Choice(
                None,
                "0.01, momentum 0.9, 1e-4, also biases",
                {"torchvision": "classification/README.md:15-16,27"},
            ),
        ),
        "the velocity contains the rate (P5, weights.cu:146-198); torch.optim.SGD's does not",
    ),
    Point(
        "layer learning rates",
        ("optimizer.layer_learning_rates",),
        (
            Choice(
                (),
                "all the same at first",
                {
                    "paper": "P5",
                    "2012 code": "layer-params-145.cfg:169",
                    "Caffe": "train_val.prototxt:46-349",
                    "torchvision": "classification/train.py:239,247-249",
                },
            ),
            Choice(
                ("conv1=0.1",), "conv1's / 10", {"net 146": "layer-params-146-2012-2011.cfg:182"}
            ),
        ),
        "net 146 starts from trained convolutions",
        compute=lambda config: tuple(sorted(config.optimizer.layer_learning_rates)),
    ),
    Point(
        "bias learning rate",
        ("optimizer.bias_lr_multiplier", "optimizer.bias_lr_drops"),
        (
            Choice(
                (1.0, "all"),
                "as weights",
                {"paper": "P5", "torchvision": "classification/train.py:239,247-249"},
            ),
            Choice(
                (2.0, 1),
                "x 2, constant after one drop",
                {
                    "2012 code": (
                        "layer-params-120-4gpu.cfg:2-3; layer-params-120-4gpu-auto3.cfg:2-3"
                    )
                },
            ),
            Choice((2.0, "all"), "x 2", {"Caffe": "train_val.prototxt:45-52"}),
            Choice(
                (2.0, 0),
                "0.02, which is x 2, constant",
                {"net 145-half": "layer-params-145-half.cfg:19-60,95"},
            ),
            Choice(
                (20.0, 0),
                "0.02, which is x 20, constant",
                {"net 146": "layer-params-146-2012-2011.cfg:19-131,182"},
            ),
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
                {"2012 code": "layer-params-145-2010.cfg:170-171,175-176"},
            ),
            Choice(
                ("step", 0.1, (20, 48), 96),
                "/ 10 after epochs 20, 48; ends 96",
                {"net 145-half": "layer-params-145-half.cfg:95-96,99"},
            ),
            Choice(
                ("step", 0.1, (22, 42), 54),
                "/ 10 after epochs 22, 42; ends 54",
                {"net 146": "layer-params-146-2012-2011.cfg:190,192-193"},
            ),
            Choice(
                ("step", 0.1, (20, 40, 60, 80), 90),
                "/ 10 every 20 epochs; ends 90",
                {"Caffe": "solver.prototxt:5-9"},
            ),
            Choice(
                ("step", 0.1, (30, 60), 90),
                "/ 10 every 30 epochs; ends 90",
                {"torchvision": "classification/README.md:13,17-18"},
            ),
        ),
        "by hand in 2012: the text has the rule, the code's notes have the epochs, as printed here",
        compute=_schedule,
    ),
    Point(
        "conv1 in late epochs",
        ("schedule.slow_conv1", "schedule.freeze_conv1"),
        (
            Choice(
                (0, 0),
                "as other layers",
                {
                    "paper": "P5",
                    "Caffe": "solver.prototxt:5-7",
                    "torchvision": "classification/train.py:239,247-249",
                },
            ),
            Choice(
                (68, 72),
                "rate / 10 after epoch 68, 0 after 72",
                {"2012 code": "layer-params-145-2010.cfg:172,174"},
            ),
            Choice(
                (66, 72),
                "rate / 10 after epoch 66, 0 after 72",
                {"net 145-half": "layer-params-145-half.cfg:97-98"},
            ),
            Choice(
                (5, 7),
                "rate / 10 after epoch 5, 0 after 7",
                {"net 146": "layer-params-146-2012-2011.cfg:187-188"},
            ),
        ),
        "by hand in 2012; not in the text",
    ),
)
