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
                {"paper": "P3.5", "2012 code": "layers-145.cfg", "Caffe": "train_val.prototxt"},
            ),
            Choice(
                (64, 192, 384, 256, 256, 4096, 4096),
                "64-192-384-256-256, 4096-4096",
                {"torchvision": "models/alexnet.py"},
            ),
            Choice(
                (48, 128, 192, 192, 256, 4096, 4096),
                "48-128-192-192-256, 4096-4096",
                {"net 145-half": "layers-145-half.cfg"},
            ),
            Choice(
                (96, 256, 384, 384, 256, 256, 4096, 4096),
                "96-256-384-384-256-256, 4096-4096",
                {"net 146": "layers-146-2012-2011.cfg"},
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
                    "paper": "P3.2",
                    "2012 code": "layers-145.cfg:67,165,194",
                    "net 146": "layers-146-2012-2011.cfg",
                    "Caffe": "train_val.prototxt, group: 2",
                },
            ),
            Choice(
                (),
                "every layer sees all maps",
                {"torchvision": "models/alexnet.py", "net 145-half": "layers-145-half.cfg"},
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
                    "2012 code": "layers-145.cfg:294",
                    "Caffe": "train_val.prototxt",
                    "torchvision": "models/alexnet.py",
                },
            ),
            Choice(
                2048,
                "2 x 1,024 linear units",
                {"net 146": "layers-146-2011.cfg, for 21,843 classes"},
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
                    "paper": "P3.5, P4.1",
                    "2012 code": "convdata_jpeg.py:72",
                    "torchvision": "references/classification/presets.py",
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
            Choice("end", "3 after the image", {"2012 code": "layer.py:1004"}),
            Choice("none", "none", {"Caffe": "train_val.prototxt:53-57"}),
            Choice("both", "2 on every side", {"torchvision": "models/alexnet.py"}),
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
                    "2012 code": "layers-145.cfg",
                    "Caffe": "train_val.prototxt",
                    "torchvision": "models/alexnet.py",
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
                    "2012 code": "layers-145.cfg, layer.py:1164",
                    "Caffe": "train_val.prototxt",
                    "torchvision": "models/alexnet.py",
                },
            ),
        ),
        "windows of 2 do not overlap: 0.4 / 0.3 points worse (P3.4)",
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
                    "2012 code": "layer.cu:1126-1135",
                    "Caffe": "train_val.prototxt",
                    "torchvision": "models/alexnet.py",
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
                    "2012 code": "layers-145.cfg:238-282",
                    "Caffe": "train_val.prototxt",
                },
            ),
            Choice("pool5-fc6", "outputs of pool5 and fc6", {"torchvision": "models/alexnet.py"}),
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
                {"paper": "P4.2", "2012 code": "layer.cu:1126-1135"},
            ),
            Choice(
                "training",
                "in training: outputs / 0.5",
                {"Caffe": "dropout_layer.cpp", "torchvision": "torch.nn.Dropout"},
            ),
        ),
        "training outputs differ by a factor of 2; imported weights need their own",
        requires="model.dropout",
    ),
)
