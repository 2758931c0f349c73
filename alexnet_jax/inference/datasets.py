"""Labeled images for a network: a split of its own run, or a folder of class folders."""

import dataclasses
from pathlib import Path
from typing import Literal

from alexnet_jax.config import invalid, is_local
from alexnet_jax.data import splits as data_splits
from alexnet_jax.data.layout import open_class_folders
from alexnet_jax.data.sources import Source
from alexnet_jax.data.wrappers import Resized, without
from alexnet_jax.inference.network import Network
from alexnet_jax.training.resume import check_fingerprints

Split = Literal["train", "validation", "test"]


def open_split(network: Network, split: Split) -> Source:
    """Return the readable images of a split of the run's own data.

    Raises:
        ValueError: the run has no such split, or its data is missing or has changed.
    """
    if "imported" in network.meta:
        raise invalid(
            "workdir",
            network.workdir,
            "has imported weights and no images of its own",
            "name a folder of class folders with images=FOLDER",
        )
    # Each image is read once, so that a cache would only take memory.
    data = dataclasses.replace(network.config.data, cache_gib=0.0)
    if data.path and is_local(data.path) and not Path(data.path).exists():
        rule = f"its images were in {data.path}, which does not exist now"
        remedy = "name the folder where they are with data.path=FOLDER"
        raise invalid("workdir", network.workdir, rule, remedy)
    splits = data_splits.open_splits(data, network.config.seed)
    check_fingerprints(network.meta["data"], splits, network.workdir)
    source = getattr(splits, split)
    if source is None:
        rule = f"the data of {network.workdir} has no such split"
        raise invalid("split", split, rule, "use split=validation")
    return without(source, {int(index) for index in network.meta["unreadable"].get(split, {})})


def with_data_path(network: Network, path: Path) -> Network:
    """Return the network of a run whose images have moved to `path`."""
    data = network.config.data
    if data.source == "synthetic":
        rule = f"the run in {network.workdir} reads no images from a disk"
        raise invalid("data.path", path, rule, "leave it out")
    data = dataclasses.replace(data, path=str(path))
    return dataclasses.replace(network, config=dataclasses.replace(network.config, data=data))


def num_unreadable_at_start(network: Network, split: Split) -> int:
    """Return how many images `open_split` leaves out, unreadable when the run started."""
    return len(network.meta.get("unreadable", {}).get(split, {}))


def open_image_folder(
    network: Network, root: Path, name: str = "images"
) -> tuple[Source, tuple[str, ...]]:
    """Return the images in a folder of class folders, labeled with the network's class numbers.

    Args:
        network: whose class names, or their first words, the class folders have.
        root: the folder.
        name: of the argument that named the folder, for messages.

    Returns:
        the images, and sentences about what was taken for what.

    Raises:
        ValueError: there are no class folders, or one is not named after a class.
    """
    if not root.is_dir():
        raise invalid(name, root, "must be a folder that exists", "correct the path")
    source = open_class_folders(root, network.class_names, name)
    if not len(source):
        raise invalid(name, root, "holds no images", "name the folder of the class folders")
    return Resized(source, network.config.data), source.notes
