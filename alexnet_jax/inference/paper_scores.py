"""The numbers of the paper's Table 2, and whether a score of ours may stand beside one of them."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from alexnet_jax.config import DataConfig

# SHA-256 of the 1,000 synsets of ILSVRC-2012, sorted, one a line.
ILSVRC_2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
CLASSES, IMAGES_EACH, SIZE, CROPS = 1000, 50, 256, (224, 227)


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of Table 2 (P6): errors on the validation images of ILSVRC-2012, fractions."""

    name: str
    top1_error: float
    top5_error: float


# By the number of networks, each trained on ILSVRC-2012 alone, ten views of each image.
TABLE_2 = {1: Published("1 CNN", 0.407, 0.182), 5: Published("5 CNNs", 0.381, 0.164)}


def comparable_row(
    class_names: Sequence[str],
    images_by_class: np.ndarray,
    networks: Sequence[DataConfig],
    views: int,
) -> tuple[Published | None, str]:
    """Return the row of the paper that may stand beside a score, or None, and a sentence on why.

    Args:
        class_names: that the networks tell apart.
        images_by_class: how many were scored, int [K].
        networks: what each of them does to images.
        views: of each image.
    """
    synsets = sorted(name.partition(" ")[0] for name in class_names)
    if hashlib.sha256("\n".join(synsets).encode()).hexdigest() != ILSVRC_2012:
        others = f"these are {len(class_names):,}" if len(synsets) != CLASSES else "these are"
        return None, _none(f"it is about the 1,000 classes of ILSVRC-2012, and {others} others")
    if (images_by_class != IMAGES_EACH).any():
        return None, _none(
            "it is about all 50,000 validation images of ILSVRC-2012, "
            f"{IMAGES_EACH} of each class, and these are {images_by_class.sum():,}"
        )
    if views != 10:
        return None, _none("it has ten views of each image, and this is one: add --views 10")
    for data in networks:
        if (data.image_size, data.resize) != (SIZE, "shorter-side") or data.crop not in CROPS:
            return None, _none(
                "its views are 224 pixels of a center square of 256, and these are "
                f"{data.crop} of {data.image_size} (--data.resize {data.resize})"
            )
    if len(networks) not in TABLE_2:
        return None, _none(f"it has 1 network and 5, and these are {len(networks)}")
    said = (
        "The paper's row is beside this one as the classes are those of ILSVRC-2012 and there are "
        f"{IMAGES_EACH} images of each, as in its validation set; that they are that set, and not "
        "images trained on, is yours to know."
    )
    return TABLE_2[len(networks)], said


def _none(reason: str) -> str:
    return f"No number of the paper's Table 2 is beside this: {reason}."
