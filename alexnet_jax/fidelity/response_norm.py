"""Points on which the networks called AlexNet differ: response normalization."""

from alexnet_jax.config import Config
from alexnet_jax.fidelity.comparison import Choice, Point


def _alpha(config: Config) -> float:
    return float(f"{config.model.scaled_lrn_alpha:.6g}")  # 1e-4 / 5 is 2e-5 up to rounding


def _scope(config: Config) -> str:
    if config.model.variant != "half":
        return config.model.lrn_scope
    # The half network is one tower: all its maps belong to it; half of them is no source's scope.
    return "tower" if config.model.lrn_scope == "all" else "half a tower"


NORMALIZATION = (
    Point(
        "response normalization",
        ("model.lrn",),
        (
            Choice(
                True,
                "after conv1 and conv2",
                {
                    "paper": "P3.3; P3.5",
                    "2012 code": "layers-145.cfg:35-45,95-105",
                    "Caffe": "train_val.prototxt:73-83,129-139",
                },
            ),
            Choice(False, "none", {"torchvision": "models/alexnet.py:21-35"}),
        ),
        "P3.3: it reduces the top-1 / top-5 error by 1.4 / 1.2 points",
    ),
    Point(
        "order after conv1",
        ("model.op_order",),
        (
            Choice(
                "relu_first",
                "ReLU, LRN, pool",
                {"paper": "P3.3; P3.5", "bvlc_alexnet": "train_val.prototxt:67-94"},
            ),
            Choice("norm_first", "LRN, pool, ReLU", {"2012 code": "layers-145.cfg:35-54"}),
            Choice(
                "pool_first",
                "ReLU, pool, LRN; conv2 too",
                {"CaffeNet": "train_val.prototxt:83-110,145-166"},
            ),
        ),
        "before the ReLU, LRN sums negative values too; after pooling, it sums maxima",
        requires="model.lrn",
    ),
    Point(
        "LRN n and beta",
        ("model.lrn_n", "model.lrn_beta"),
        (
            Choice(
                (5, 0.75),
                "5 maps, to the power 0.75",
                {
                    "paper": "P3.3",
                    "2012 code": "layers-145.cfg:39,99; layer-params-145.cfg:139,149",
                    "Caffe": "train_val.prototxt:79,81,135,137",
                },
            ),
        ),
        "all sources agree: i - 2 to i + 2, cut off at the first and last map",
        requires="model.lrn",
    ),
    Point(
        "LRN alpha",
        ("model.lrn_alpha", "model.lrn_alpha_over_n"),
        (
            Choice(1e-4, "1e-4", {"paper": "P3.3"}),
            Choice(
                2e-5,
                "1e-4 / 5 = 2e-5",
                {
                    "2012 code": "layer-params-145.cfg:138,148; layer.py:1183",
                    "Caffe": "train_val.prototxt:80,136; lrn_layer.cpp:120",
                },
            ),
        ),
        "the formula of P3.3 does not divide by n; the 2012 code and most frameworks do",
        compute=_alpha,
        requires="model.lrn",
    ),
    Point(
        "LRN k",
        ("model.lrn_k",),
        (
            Choice(2.0, "2", {"paper": "P3.3", "2012 code": "layer-params-145.cfg:140,150"}),
            Choice(1.0, "1", {"Caffe": "caffe.proto:888"}),
        ),
        "Caffe's default, which its prototxt does not change",
        requires="model.lrn",
    ),
    Point(
        "LRN scope",
        ("model.lrn_scope",),
        (
            Choice(
                "tower",
                "maps of one tower",
                {"2012 code": "layers-145.cfg:38,98; conv_util.cu:1190-1192"},
            ),
            Choice("all", "all maps", {"Caffe": "lrn_layer.cpp:117"}),
        ),
        "P3.3 says 'kernels in the layer', which on one GPU were 48 and 128",
        compute=_scope,
        requires="model.lrn",
    ),
    Point(
        "spatial norm",
        ("model.spatial_norm",),
        (
            Choice(
                False,
                "none",
                {
                    "paper": "P3.5",
                    "Caffe": "train_val.prototxt:141-144",
                    "torchvision": "models/alexnet.py:25-27",
                },
            ),
            Choice(
                True,
                "after LRN2: 5 x 5 pixels, 1e-3 / 25",
                {
                    "2012 code": (
                        "layers-145.cfg:107-117; layer-params-145.cfg:157-163; layer.py:1183"
                    )
                },
            ),
        ),
        "'cnorm2' of the 2012 code; in no text and no port",
    ),
)
