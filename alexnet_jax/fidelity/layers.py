"""Points on which the networks called AlexNet differ: layers, input, pooling, dropout."""

from alexnet_jax.config import Config
from alexnet_jax.fidelity.comparison import Choice, Point
from alexnet_jax.model.architecture import Architecture, Conv
from alexnet_jax.model.variants import build_architecture


def _architecture(config: Config) -> Architecture:
    return build_architecture(config.model, num_classes=1000, crop=config.data.crop)


def _widths(config: Config) -> tuple[int, ...]:
    layers = _architecture(config).layers[:-1]
    return tuple(layer.features for layer in layers if layer.name != "bottleneck")


def _own(config: Config) -> tuple[str, ...]:
    return tuple(layer.name for layer in _architecture(config).layers if layer.sees == "own")


def _padding(config: Config) -> str:
    conv1 = _architecture(config).layers[0]
    assert isinstance(conv1, Conv)
    return config.model.conv1_padding if any(conv1.padding(config.data.crop)) else "none"


LAYERS = (
    Point(
        "widths",
        ("model.variant", "model.width", "model.drop_layer"),
        (
            Choice(
                (96, 256, 384, 384, 256, 4096, 4096),
                "96-256-384-384-256, 4096-4096",
                {
                    "paper": "P3.5",
                    "2012 code": "layers-145.cfg:13,68,138,166,195,241,269",
                    "Caffe": "train_val.prototxt:54,109,166,198,232,277,317",
                },
            ),
            Choice(
                (64, 192, 384, 256, 256, 4096, 4096),
                "64-192-384-256-256, 4096-4096",
                {"torchvision": "models/alexnet.py:22,25,28,30,32,39,42"},
            ),
            Choice(
                (48, 128, 192, 192, 256, 4096, 4096),
                "48-128-192-192-256, 4096-4096",
                {"net 145-half": "layers-145-half.cfg:13-140"},
            ),
            Choice(
                (96, 256, 384, 384, 256, 256, 4096, 4096),
                "96-256-384-384-256-256, 4096-4096",
                {"net 146": "layers-146-2012-2011.cfg:13-323"},
            ),
        ),
        "torchvision has the one-GPU network of 2014 ('One weird trick')",
        compute=_widths,
    ),
    Point(
        "towers",
        ("model.variant", "model.drop_layer"),
        (
            Choice(
                ("conv2", "conv4", "conv5"),
                "conv2, 4 and 5 see their own tower",
                {
                    "paper": "P3.5",
                    "2012 code": "layers-145.cfg:67,82,165,179,194,208",
                    "net 146": "layers-146-2012-2011.cfg:71,88,177,193,210,226",
                    "Caffe": "train_val.prototxt:112,201,235",
                },
            ),
            Choice(
                (),
                "every layer sees all maps",
                {
                    "torchvision": "models/alexnet.py:25,28,30,32",
                    "net 145-half": "layers-145-half.cfg:39,74,88,102",
                },
            ),
        ),
        "the paper had two GPUs of 3 GB; without towers it is another network",
        compute=_own,
    ),
    Point(
        "bottleneck",
        ("model.bottleneck",),
        (
            Choice(
                0,
                "none",
                {
                    "paper": "P3.5",
                    "2012 code": "layers-145.cfg:294-297",
                    "Caffe": "train_val.prototxt:343-347",
                    "torchvision": "models/alexnet.py:42-44",
                },
            ),
            Choice(
                2048,
                "2 x 1,024 linear units",
                {"net 146": "layers-146-2011.cfg:344-371"},
            ),
        ),
        "reduces what follows fc7 for 21,843 classes from 89 million weights to 53 million",
    ),
    Point(
        "input size",
        ("data.crop",),
        (
            Choice(
                224,
                "224 x 224",
                {
                    "paper": "P3.5; P4.1",
                    "2012 code": "shownet.py:482",
                    "torchvision": "models/alexnet.py:58",
                },
            ),
            Choice(227, "227 x 227", {"Caffe": "train_val.prototxt:12,31"}),
        ),
        "at 227 pixels, 11 x 11 windows at stride 4 fit 55 times without padding",
    ),
    Point(
        "padding of conv1",
        ("model.conv1_padding",),
        (
            Choice("end", "3 after the image", {"2012 code": "layers-145.cfg:14; layer.py:1004"}),
            Choice("none", "none", {"Caffe": "train_val.prototxt:53-66"}),
            Choice("both", "2 on every side", {"torchvision": "models/alexnet.py:22"}),
        ),
        "(224 - 11) / 4 is not an integer; the 2012 code rounds the windows up, to 55",
        compute=_padding,
    ),
    Point(
        "activation",
        ("model.activation",),
        (
            Choice(
                "relu",
                "ReLU",
                {
                    "paper": "P3.1",
                    "2012 code": "layers-145.cfg:54,77,146,171,227,244,272",
                    "Caffe": "train_val.prototxt:67-72",
                    "torchvision": "models/alexnet.py:23,26,29,31,33,40,43",
                },
            ),
        ),
        "Figure 1 of the paper compares with tanh",
    ),
    Point(
        "pooling",
        ("model.pool_window",),
        (
            Choice(
                3,
                "3 x 3, stride 2",
                {
                    "paper": "P3.4",
                    "2012 code": "layers-145.cfg:51-52,123-124,224-225; layer.py:1164",
                    "Caffe": "train_val.prototxt:89-93,145-149,257-261",
                    "torchvision": "models/alexnet.py:24,27,34",
                },
            ),
        ),
        "windows of 2 do not overlap: 0.4 / 0.3 points worse (P3.4)",
    ),
    Point(
        "pooling ties",
        ("model.pool_ties",),
        (
            Choice(
                "all",
                "to every pixel that ties, whole",
                {"2012 code": "layer.cu:1333; conv_util.cu:1704,1766"},
            ),
            Choice("first", "to the first pixel that ties", {"Caffe": "pooling_layer.cpp:178"}),
        ),
        "P3.4 names no rule, PyTorch and XLA take the first; rare in float32, common in bfloat16",
        training_only=True,
    ),
    Point(
        "dropout",
        ("model.dropout",),
        (
            Choice(
                0.5,
                "half of the outputs",
                {
                    "paper": "P4.2",
                    "2012 code": "layers-145.cfg:258,263,286,291",
                    "Caffe": "train_val.prototxt:299-301,339-341",
                    "torchvision": "models/alexnet.py:18,38,41",
                },
            ),
        ),
        "without it the network overfits, but converges in half the time (P4.2)",
    ),
    Point(
        "dropout position",
        ("model.dropout_on",),
        (
            Choice(
                "fc6-fc7",
                "outputs of fc6 and fc7",
                {
                    "paper": "P4.2",
                    "2012 code": "layers-145.cfg:256-264,284-292",
                    "Caffe": "train_val.prototxt:294-298,334-338",
                },
            ),
            Choice(
                "pool5-fc6", "outputs of pool5 and fc6", {"torchvision": "models/alexnet.py:38-42"}
            ),
        ),
        "torchvision has it before fc6 and fc7, not after them (pytorch/vision#549)",
        requires="model.dropout",
    ),
    Point(
        "dropout scaling",
        ("model.dropout_scale",),
        (
            Choice(
                "test",
                "at test: outputs x 0.5",
                {"paper": "P4.2", "2012 code": "layer.cu:1127-1134"},
            ),
            Choice(
                "training",
                "in training: outputs / 0.5",
                {
                    "Caffe": "dropout_layer.cpp:17,41",
                    "torchvision": "torch/nn/modules/dropout.py:47",
                },
            ),
        ),
        "training outputs differ by a factor of 2; imported weights need their own",
        requires="model.dropout",
    ),
)
