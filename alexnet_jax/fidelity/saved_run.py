"""What a run's folder says about its network: configuration, origin of weights, image statistics.

A configuration may only say that mean and scale came with the weights (`data.statistics=init`);
statistics.npz has the numbers.
"""

import dataclasses
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet_jax.config import Config, invalid, unflatten
from alexnet_jax.data.statistics import PUBLISHED
from alexnet_jax.storage.json_objects import read_object
from alexnet_jax.storage.local import check_local

CONFIG, STATISTICS = "config.json", "statistics.npz"
PUBLISHERS = {"imagenet": "Krizhevsky's", "caffe": "Caffe's", "torchvision": "torchvision's"}
TOLERANCE = 1e-4  # relative
# What NumPy and zipfile raise, by where a file is damaged.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, OverflowError, struct.error),
)


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run; `data.statistics` and `data.mean` are replaced by what statistics.npz contains."""

    config: Config
    class_names: list[str]
    imported: str  # name of the file that its weights were imported from; "" if from none
    mean_color: tuple[float, ...]  # gray levels, RGB; empty without statistics
    scale: tuple[float, ...]  # multiplies an image after the mean is subtracted
    origin: str  # of the mean, as a clause
    untrained: tuple[str, ...] = ()  # layers at their initial random values


def read_saved_run(workdir: Path) -> SavedRun:
    """Return the run in a folder; ValueError if config.json or statistics.npz is unreadable."""
    check_local(workdir, "workdir")
    try:
        about = read_object(workdir / CONFIG)
        if not isinstance(about["config"], dict):
            raise ValueError("config must be a JSON object")
        config, names = unflatten(about["config"]), about["class_names"]
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise ValueError("class_names must be names")
    except (OSError, ValueError, KeyError, TypeError) as error:
        rule = f"{CONFIG} cannot be read ({error})"
        raise invalid("workdir", workdir, rule, "name the folder of a run") from error
    imported = str(about.get("imported", ""))
    untrained = tuple(map(str, about.get("untrained", ())))
    if not (workdir / STATISTICS).exists():
        return SavedRun(config, names, imported, (), (), "", untrained)
    image, color, scale = _constants(workdir)
    publisher = _publisher(color, scale)
    data = dataclasses.replace(config.data, statistics=_statistics(publisher, scale))
    if np.ptp(image, axis=(0, 1)).max() == 0:  # a mean color
        data = dataclasses.replace(data, mean="channel")
    computed = config.data.statistics == "computed" and not imported
    origin = "of its training images" if computed else "which came with the weights"
    return SavedRun(
        dataclasses.replace(config, data=data),
        names,
        imported,
        tuple(color.tolist()),
        tuple(scale.tolist()),
        PUBLISHERS[publisher] if publisher else origin,
        untrained,
    )


def _constants(workdir: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean image, mean color and scale."""
    try:
        with np.load(workdir / STATISTICS, allow_pickle=False) as file:
            image, color, scale = (file[n] for n in ("mean_image", "mean_color", "scale"))
        if (image.ndim, *color.shape, *scale.shape) != (3, 3, 3):
            raise ValueError(f"shapes {image.shape}, {color.shape}, {scale.shape}")
        if not all(np.isfinite(values).all() for values in (image, color, scale)):
            raise ValueError("a value is not finite")
    except _UNREADABLE as error:
        rule = f"{STATISTICS} cannot be read ({error})"
        raise invalid("workdir", workdir, rule, "copy the run again") from error
    return image, color, scale


def _publisher(
    color: np.ndarray, scale: np.ndarray
) -> Literal["imagenet", "caffe", "torchvision", ""]:
    """Return who published this mean color with this scale, "" if nobody."""
    for name in ("imagenet", "caffe", "torchvision"):
        mean, deviation = PUBLISHED[name]
        if np.allclose(color, mean, rtol=TOLERANCE) and _is_inverse(scale, deviation):
            return name
    return ""


def _statistics(publisher: Any, scale: np.ndarray) -> Any:
    """Return the value of `data.statistics` for this publisher and scale, `init` if none fits."""
    if publisher:
        return publisher
    if _is_inverse(scale, PUBLISHED["torchvision"][1]):
        return "torchvision"
    return "computed" if _is_inverse(scale, (1.0, 1.0, 1.0)) else "init"


def _is_inverse(scale: np.ndarray, deviation: tuple[float, ...]) -> bool:
    return np.allclose(scale * np.array(deviation), 1, rtol=TOLERANCE)
