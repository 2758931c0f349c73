"""Points on which the networks called AlexNet differ: what is done to images."""

from alexnet_jax.config import Config
from alexnet_jax.fidelity.comparison import Choice, Point

TRANSFORMS = "references/classification/presets.py"


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
                    "2012 code": "convdata_jpeg.py:72-73",
                    "Caffe": "create_imagenet.sh:16-18",
                    "torchvision": TRANSFORMS,
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
                {"paper": "P2", "2012 code": "make-data.py:32-41", "torchvision": TRANSFORMS},
            ),
            Choice(
                "stretch", "both sides, aspect ratio lost", {"Caffe": "create_imagenet.sh:41-42"}
            ),
        ),
        "Caffe's script resizes both sides",
    ),
    Point(
        "resize filter",
        ("data.filter",),
        (
            Choice("antialias", "average of all pixels that shrink", {"torchvision": TRANSFORMS}),
            Choice("bilinear", "between the four nearest pixels", {"Caffe": "cv::resize"}),
        ),
        "P2 names no filter; both are called bilinear, and differ where images shrink",
    ),
    Point(
        "channel order",
        ("data.channels",),
        (
            Choice(
                "rgb",
                "red, green, blue",
                {"paper": "P2", "2012 code": "make-data.py:32-41", "torchvision": TRANSFORMS},
            ),
            Choice("bgr", "blue, green, red", {"Caffe": "create_imagenet.sh"}),
        ),
        "OpenCV reads images as BGR",
    ),
    Point(
        "crop offsets",
        ("data.crop_offsets",),
        (
            Choice("all-but-last", "32 x 32, all but the last", {"paper": "P4.1"}),
            Choice(
                "all",
                "33 x 33, all (30 x 30 at 227 pixels)",
                {"2012 code": "convdata_jpeg.py:239", "Caffe": "data_transformer.cpp"},
            ),
            Choice(None, "random sizes and shapes", {"torchvision": TRANSFORMS}),
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
                    "Caffe": "train_val.prototxt",
                    "torchvision": TRANSFORMS,
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
                {"paper": "P4.1", "Caffe": "data_transformer.cpp", "torchvision": TRANSFORMS},
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
                {"paper": "P2", "Caffe": "data_transformer.cpp:115"},
            ),
            Choice(
                "image-center",
                "its center, never flipped",
                {"2012 code": "convdata_jpeg.py:95,209-211"},
            ),
            Choice("channel", "mean color", {"torchvision": TRANSFORMS}),
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
            Choice("divided", "/ 255, then / (0.229, 0.224, 0.225)", {"torchvision": TRANSFORMS}),
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
                {"paper": "P4.1", "2012 code": "convdata_jpeg.py:155-179"},
            ),
            Choice(0.0, "none", {"Caffe": "data_transformer.cpp", "torchvision": TRANSFORMS}),
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
                {
                    "paper": "P4.1, 'eigenvalue' read as its root",
                    "2012 code": "convdata_jpeg.py:64-66",
                },
            ),
            Choice("eigenvalue", "the variance", {"text, literally": "P4.1"}),
        ),
        "literally 0.1 would be 1,483 gray levels; in the code it is 12.2, 3.7 and 2.0",
        requires="data.pca_std",
        training_only=True,
    ),
    Point(
        "training divisor",
        ("data.train_divisor",),
        (
            Choice(1.0, "none", {"paper": "P4.1"}),
            Choice(1.1, "training images / 1.1", {"2012 code": "convdata_jpeg.py:179"}),
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
            Choice(68, "the first 68", {"2012 code": "layer-params-145-2010.cfg:170-176"}),
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
                    "2012 code": "convdata_jpeg.py:262, data.py:76-83",
                    "Caffe": "create_imagenet.sh, shuffled",
                },
            ),
            Choice("each-epoch", "every epoch", {"torchvision": "train.py"}),
        ),
        "the paper is silent; in the code the line that permutes is commented out",
        training_only=True,
    ),
)
