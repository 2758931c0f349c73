"""Points on which the networks called AlexNet differ: what is done to images."""

from alexnet_jax.config import Config
from alexnet_jax.fidelity.comparison import Choice, Point


def _mean(config: Config) -> str:
    # The published statistics have no mean image (PUBLISHED in data/statistics.py).
    published = config.data.statistics in ("imagenet", "caffe", "torchvision")
    return "channel" if published else config.data.mean


def _scale(config: Config) -> str:
    return {"torchvision": "divided", "init": "imported"}.get(config.data.statistics, "gray levels")


IMAGES = (
    Point(
        "image size",
        ("data.image_size",),
        (
            Choice(
                256,
                "256",
                {
                    "paper": "P2",
                    "2012 code": "convdata_jpeg.py:31; make-data.py:41",
                    "Caffe": "create_imagenet.sh:17-18",
                    "torchvision": "classification/presets.py:54,62",
                },
            ),
        ),
        "leaves room for crops; all sources agree",
    ),
    Point(
        "resize",
        ("data.resize",),
        (
            Choice(
                "shorter-side",
                "shorter side, then the center square",
                {
                    "paper": "P2",
                    "2012 code": "make-data.py:32-34,40; pyext.cpp:102-106,117-121",
                    "torchvision": "classification/presets.py:62-63",
                },
            ),
            Choice(
                "stretch",
                "both sides, aspect ratio lost",
                {"Caffe": "create_imagenet.sh:41-42; io.cpp:84"},
            ),
        ),
        "Caffe's script resizes both sides",
    ),
    Point(
        "resize filter",
        ("data.filter",),
        (
            Choice(
                "antialias",
                "bilinear, over all pixels that shrink",
                {"torchvision": "classification/presets.py:57,62"},
            ),
            Choice("bilinear", "bilinear, the four nearest pixels", {"Caffe": "io.cpp:84"}),
            # Pillow's BOX is nearest to the average; no field of the configuration selects it.
            Choice(
                None, "average of a box; enlarged, bicubic", {"cuda-convnet2": "pyext.cpp:109-110"}
            ),
        ),
        "P2 names no filter, and the tool of 2012 is not released; cuda-convnet2's is of 2014",
    ),
    Point(
        "channel order",
        ("data.channels",),
        (
            Choice(
                "rgb",
                "red, green, blue",
                {
                    "paper": "P2",
                    "2012 code": "convdata_jpeg.py:34",
                    "torchvision": "torchvision/datasets/folder.py:264",
                },
            ),
            Choice("bgr", "blue, green, red", {"Caffe": "io.cpp:76-78"}),
        ),
        "OpenCV reads images as BGR",
    ),
    Point(
        "crop offsets",
        ("data.crop_offsets",),
        (
            Choice("all-but-last", "all but the last (32 x 32)", {"paper": "P4.1"}),
            Choice(
                "all",
                "all (33 x 33 of 224 in 256 pixels)",
                {"2012 code": "convdata_jpeg.py:239", "Caffe": "data_transformer.cpp:88-89"},
            ),
            Choice(
                None, "random sizes and shapes", {"torchvision": "classification/presets.py:20"}
            ),
        ),
        "P4.1 counts 2,048 = 32 x 32 x 2 variants; the code's range ends at 32 inclusive: 2,178",
        training_only=True,
    ),
    Point(
        "horizontal flip",
        ("data.horizontal_flip",),
        (
            Choice(
                True,
                "half of the crops",
                {
                    "paper": "P4.1",
                    "2012 code": "convdata_jpeg.py:244",
                    "Caffe": "train_val.prototxt:11; data_transformer.cpp:51",
                    "torchvision": "classification/presets.py:14,22",
                },
            ),
        ),
        "all sources agree",
        training_only=True,
    ),
    Point(
        "images per crop",
        ("data.images_per_crop",),
        (
            Choice(
                1,
                "1",
                {
                    "paper": "P4.1",
                    "Caffe": "data_transformer.cpp:42,88-89",
                    "torchvision": "classification/presets.py:20,45-46",
                },
            ),
            Choice(32, "32 in a row", {"2012 code": "convdata_jpeg.py:77,238-246"}),
        ),
        "the code crops 32 at once; 1 gives more variety",
        training_only=True,
    ),
    Point(
        "mean",
        ("data.mean", "data.statistics"),
        (
            Choice(
                "image",
                "mean image, aligned with the crop",
                {"paper": "P2", "Caffe": "data_transformer.cpp:101,115"},
            ),
            Choice(
                "image-center",
                "its center, never flipped",
                {"2012 code": "convdata_jpeg.py:95,209-210"},
            ),
            Choice("channel", "mean color", {"torchvision": "classification/presets.py:11,37"}),
        ),
        "P2 subtracts it from each pixel of the image; the code crops it once",
        compute=_mean,
    ),
    Point(
        "image scale",
        ("data.statistics",),
        (
            Choice(
                "gray levels",
                "0 to 255, mean subtracted",
                {
                    "paper": "P2",
                    "2012 code": "convdata_jpeg.py:209-211",
                    "Caffe": "data_transformer.cpp:115",
                },
            ),
            Choice(
                "divided",
                "/ 255, then / (0.229, 0.224, 0.225)",
                {"torchvision": "classification/presets.py:12,36-37"},
            ),
        ),
        "weights need the scale that they were trained with: it is saved with them",
        compute=_scale,
    ),
    Point(
        "PCA lighting",
        ("data.pca_std",),
        (
            Choice(
                0.1,
                "0.1 along the principal axes of color",
                {
                    "paper": "P4.1",
                    "2012 code": "convdata_jpeg.py:155,177; layer-params-145-2010.cfg:173",
                },
            ),
            Choice(
                0.0,
                "none",
                {"Caffe": "readme.md:13", "torchvision": "classification/presets.py:20-39"},
            ),
        ),
        "P4.1: it reduces the top-1 error by more than 1 point",
        training_only=True,
    ),
    Point(
        "PCA lighting scale",
        ("data.pca_scale",),
        (
            Choice(
                "std",
                "the standard deviation",
                {"paper": "P4.1", "2012 code": "convdata_jpeg.py:65"},
            ),
            Choice("eigenvalue", "the variance", {"text, literally": "P4.1"}),
        ),
        "P4.1's 'eigenvalue' must be its root: 0.1 would be 1,483 gray levels, in the code 12.2",
        requires="data.pca_std",
        training_only=True,
    ),
    Point(
        "training divisor",
        ("data.train_divisor",),
        (
            Choice(1.0, "none", {"paper": "P4.1"}),
            Choice(1.1, "training images / 1.1", {"2012 code": "convdata_jpeg.py:155,179"}),
        ),
        "1 + 0.1, in training only: test images have 10 % larger values",
        requires="data.pca_std",
        training_only=True,
    ),
    Point(
        "PCA lighting epochs",
        ("data.pca_epochs",),
        (
            Choice(0, "all", {"paper": "P4.1"}),
            Choice(68, "the first 68", {"2012 code": "layer-params-145-2010.cfg:172-173"}),
            Choice(66, "the first 66", {"net 145-half": "layer-params-145-half.cfg:97"}),
            Choice(38, "the first 38", {"net 146": "layer-params-146-2012-2011.cfg:191"}),
        ),
        "switched off by hand in 2012; not in the text",
        requires="data.pca_std",
        training_only=True,
    ),
    Point(
        "shuffling",
        ("data.shuffle",),
        (
            Choice(
                "once",
                "once, before training",
                {
                    "2012 code": "make-data.py:136; data.py:76-83; convdata_jpeg.py:262",
                    "Caffe": "create_imagenet.sh:43",
                },
            ),
            Choice("each-epoch", "every epoch", {"torchvision": "classification/train.py:174,177"}),
        ),
        "the paper is silent; in the code the line that permutes is commented out",
        training_only=True,
    ),
)
