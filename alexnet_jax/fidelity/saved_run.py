"""What lies in a run's folder beside its configuration: where weights came from, what images are.

A configuration may say no more than that mean and scale came along with somebody's weights
(`data.statistics` is `init`); statistics.npz has the numbers.
"""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet_jax.config import Config, unflatten
from alexnet_jax.data.statistics import PUBLISHED

CONFIG, STATISTICS = "config.json", "statistics.npz"
OWNERS = {"imagenet": "Krizhevsky's", "caffe": "Caffe's", "torchvision": "torchvision's"}
NEAR = 1e-4  # of the numbers: float32 has 7 digits


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run as its folder has it; `statistics` and `mean` of `config` are what images undergo."""

    config: Config
    class_names: list[str]
    imported: str  # name of the file that its weights came from; "" where they were trained here
    mean_color: tuple[float, ...]  # gray levels, RGB; empty where there are no statistics
    scale: tuple[float, ...]  # an image less the mean is multiplied by it
    origin: str  # of the mean, as a clause


def read_saved_run(workdir: Path) -> SavedRun:
    """Return what the folder of a run says; a ValueError where it has no readable config.json."""
    try:
        about: dict[str, Any] = json.loads((workdir / CONFIG).read_text())
        config, names = unflatten(about["config"]), list(about["class_names"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"--workdir {workdir}: it has no readable {CONFIG} ({error}); name the folder of a run."
        ) from error
    imported = str(about.get("imported", ""))
    if not (workdir / STATISTICS).exists():
        return SavedRun(config, names, imported, (), (), "")
    image, color, scale = _constants(workdir)
    owner = _owner(color, scale)
    data = dataclasses.replace(config.data, statistics=_statistics(owner, scale))
    if np.ptp(image, axis=(0, 1)).max() == 0:  # one color wherever it is cut out
        data = dataclasses.replace(data, mean="channel")
    computed = config.data.statistics == "computed" and not imported
    origin = "of its training images" if computed else "which came with the weights"
    return SavedRun(
        dataclasses.replace(config, data=data),
        names,
        imported,
        tuple(color.tolist()),
        tuple(scale.tolist()),
        OWNERS[owner] if owner else origin,
    )


def _constants(workdir: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean image, mean color and scale."""
    try:
        with np.load(workdir / STATISTICS, allow_pickle=False) as file:
            image, color, scale = (file[n] for n in ("mean_image", "mean_color", "scale"))
        if (image.ndim, *color.shape, *scale.shape) != (3, 3, 3):
            raise ValueError(f"shapes {image.shape}, {color.shape}, {scale.shape}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"--workdir {workdir}: its {STATISTICS} cannot be read ({error}); copy the run again."
        ) from error
    return image, color, scale


def _owner(color: np.ndarray, scale: np.ndarray) -> Literal["imagenet", "caffe", "torchvision", ""]:
    """Return who has published this mean color with this scale."""
    for name in ("imagenet", "caffe", "torchvision"):
        mean, deviation = PUBLISHED[name]
        if np.allclose(color, mean, rtol=NEAR) and _divides(scale, deviation):
            return name
    return ""


def _statistics(owner: Any, scale: np.ndarray) -> Any:
    """Return the value of `data.statistics` that stands for these; `init` where none does."""
    if owner:
        return owner
    if _divides(scale, PUBLISHED["torchvision"][1]):
        return "torchvision"
    return "computed" if _divides(scale, (1.0, 1.0, 1.0)) else "init"


def _divides(scale: np.ndarray, deviation: tuple[float, ...]) -> bool:
    return np.allclose(scale * np.array(deviation), 1, rtol=NEAR)
