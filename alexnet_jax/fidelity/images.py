"""Points on which the networks called AlexNet differ: what is done to images."""

from alexnet_jax.config import Config
from alexnet_jax.fidelity.comparison import Choice, Point

TRANSFORMS = "references/classification/presets.py"


def _mean(config: Config) -> str:
    # Nobody's mean image is among what is published (PUBLISHED in data/statistics.py).
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
        "room for crops; all agree",
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
            Choice("stretch", "both sides, shape lost", {"Caffe": "create_imagenet.sh:41-42"}),
        ),
        "Caffe's script sets both sides",
    ),
    Point(
        "resize filter",
        ("data.filter",),
        (
            Choice("antialias", "over all pixels that become one", {"torchvision": TRANSFORMS}),
            Choice("bilinear", "between the four nearest pixels", {"Caffe": "cv::resize"}),
        ),
        "P2 names none; both are called bilinear, and differ where images shrink",
    ),
    Point(
        "order of colors",
        ("data.channels",),
        (
            Choice(
                "rgb",
                "red, green, blue",
                {"paper": "P2", "2012 code": "make-data.py:32-41", "torchvision": TRANSFORMS},
            ),
            Choice("bgr", "blue, green, red", {"Caffe": "create_imagenet.sh"}),
        ),
        "OpenCV reads them so",
    ),
    Point(
        "crop offsets",
        ("data.crop_offsets",),
        (
            Choice("all-but-last", "32 x 32, all but the last places", {"paper": "P4.1"}),
            Choice(
                "all",
                "33 x 33, all places (30 x 30 at 227)",
                {"2012 code": "convdata_jpeg.py:239", "Caffe": "data_transformer.cpp"},
            ),
            Choice(None, "random sizes and shapes", {"torchvision": TRANSFORMS}),
        ),
        "P4.1 counts 2,048 = 32 x 32 x 2 variants; the code's range ends at 32 inclusive: 2,178",
        training=True,
    ),
    Point(
        "mirrored",
        ("data.horizontal_flip",),
        (
            Choice(
                True,
                "half of them",
                {
                    "paper": "P4.1",
                    "2012 code": "convdata_jpeg.py:244",
                    "Caffe": "train_val.prototxt",
                    "torchvision": TRANSFORMS,
                },
            ),
        ),
        "all agree",
        training=True,
    ),
    Point(
        "images that share a crop",
        ("data.images_per_crop",),
        (
            Choice(
                1,
                "none: one each",
                {"paper": "P4.1", "Caffe": "data_transformer.cpp", "torchvision": TRANSFORMS},
            ),
            Choice(32, "32 in a row", {"2012 code": "convdata_jpeg.py:77,238-246"}),
        ),
        "the code crops 32 at once; 1 varies more",
        training=True,
    ),
    Point(
        "mean",
        ("data.mean", "data.statistics"),
        (
            Choice(
                "image",
                "an image, aligned with the crop",
                {"paper": "P2", "Caffe": "data_transformer.cpp:115"},
            ),
            Choice(
                "image-center",
                "its center, whatever crop and mirror",
                {"2012 code": "convdata_jpeg.py:95,209-211"},
            ),
            Choice("channel", "one color", {"torchvision": TRANSFORMS}),
        ),
        "P2 takes it from each pixel of the image; the code cut it out once",
        of=_mean,
    ),
    Point(
        "image scale",
        ("data.statistics",),
        (
            Choice(
                "gray levels",
                "0 to 255 less the mean",
                {
                    "paper": "P2",
                    "2012 code": "convdata_jpeg.py:209-211",
                    "Caffe": "data_transformer.cpp:115",
                },
            ),
            Choice("divided", "/ 255, then / (.229, .224, .225)", {"torchvision": TRANSFORMS}),
        ),
        "weights want the scale that they were trained with: it is saved with them",
        of=_scale,
    ),
    Point(
        "lighting",
        ("data.pca_std",),
        (
            Choice(
                0.1,
                ".1 along the axes of color",
                {"paper": "P4.1", "2012 code": "convdata_jpeg.py:155-179"},
            ),
            Choice(0.0, "none", {"Caffe": "data_transformer.cpp", "torchvision": TRANSFORMS}),
        ),
        "P4.1 gives it more than 1 point of top-1 error",
        training=True,
    ),
    Point(
        "unit of lighting",
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
        "literally .1 would be 1,483 gray levels; the code's are 12.2, 3.7 and 2.0",
        needs="data.pca_std",
        training=True,
    ),
    Point(
        "division",
        ("data.train_divisor",),
        (
            Choice(1.0, "none", {"paper": "P4.1"}),
            Choice(1.1, "training images / 1.1", {"2012 code": "convdata_jpeg.py:179"}),
        ),
        "1 + .1, in training only: test images are a tenth louder",
        needs="data.pca_std",
        training=True,
    ),
    Point(
        "end of lighting",
        ("data.pca_epochs",),
        (
            Choice(0, "with training", {"paper": "P4.1"}),
            Choice(68, "after 68 epochs", {"2012 code": "layer-params-145-2010.cfg:170-176"}),
        ),
        "switched off by hand in 2012, and not in the text",
        needs="data.pca_std",
        training=True,
    ),
    Point(
        "order of images",
        ("data.shuffle",),
        (
            Choice(
                "once",
                "shuffled once, then the same",
                {
                    "2012 code": "convdata_jpeg.py:262, data.py:76-83",
                    "Caffe": "create_imagenet.sh, --shuffle",
                },
            ),
            Choice("each-epoch", "anew in every epoch", {"torchvision": "train.py"}),
        ),
        "P says nothing; the code has the line that permutes, commented out",
        training=True,
    ),
)
