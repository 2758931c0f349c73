"""What travels with exported weights, as text: the network, the preprocessing, the class names."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_jax.config import Config, flatten, unflatten
from alexnet_jax.data.statistics import Statistics

MAX_IMAGE_SIZE = 4096  # pixels a side, of a mean image with 200 MB
# Statistics that travel, and their shapes; a mean image is as large as a layer.
_SHAPES = {"mean_color": (3,), "lighting_std": (3,), "lighting_axes": (3, 3), "scale": (3,)}


def export_metadata(
    config: Config, statistics: Statistics, class_names: Sequence[str]
) -> dict[str, str]:
    """Return the metadata of exported weights, without how and on which files they were trained."""
    constants = {name: np.asarray(getattr(statistics, name)).tolist() for name in _SHAPES}
    return {
        "format": "pt",  # expected by readers of .safetensors
        "config": json.dumps(_travels(flatten(config))),
        "statistics": json.dumps(constants),
        "class_names": json.dumps(list(class_names)),
    }


def _travels(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that belong to the weights; paths of the machine do not."""
    sections = ("preset", "data", "model")
    return {
        name: value
        for name, value in fields.items()
        if name.partition(".")[0] in sections and name not in ("data.path", "data.name")
    }


def read_network(metadata: Mapping[str, str]) -> tuple[Config, Statistics]:
    """Return the network and the statistics that `export_metadata` wrote.

    The mean image does not travel, and has the mean color everywhere.

    Raises:
        ValueError: they cannot be read.
    """
    try:
        config = unflatten(_travels(json.loads(metadata["config"])))
        constants = json.loads(metadata["statistics"])
        arrays = {name: np.array(value, np.float32) for name, value in constants.items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != _SHAPES:
            raise ValueError(f"statistics of shapes {shapes}")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("statistics that are not finite")
        side = config.data.image_size
        if side > MAX_IMAGE_SIZE:
            raise ValueError(f"data.image_size {side}, at most {MAX_IMAGE_SIZE}")
        image = np.broadcast_to(arrays["mean_color"], (side, side, 3)).copy()
        statistics = Statistics(mean_image=image, **arrays)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"The file's metadata cannot be read ({reason}); name its network with preset=NAME."
        ) from None
    data = dataclasses.replace(config.data, statistics="init")
    return dataclasses.replace(config, data=data), statistics


def read_class_names(metadata: Mapping[str, str], count: int) -> list[str]:
    """Return the class names in the metadata; "class 0" and so on if there are not `count`.

    Raises:
        ValueError: they cannot be read.
    """
    try:
        names = json.loads(metadata.get("class_names", "[]"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"The class names of the file cannot be read ({error}); give them with "
            "class_names=FILE."
        ) from None
    if isinstance(names, list) and len(names) == count:
        return [str(name) for name in names]
    return [f"class {number}" for number in range(count)]
