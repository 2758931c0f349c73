"""Labeled images for a network: a split of its own run, or a folder of class folders."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from alexnet_jax.config import invalid
from alexnet_jax.data import splits as data_splits
from alexnet_jax.data.images import image_files, subfolders
from alexnet_jax.data.sources import Folder, Source
from alexnet_jax.data.wrappers import Relabeled, Resized, without
from alexnet_jax.inference.network import Network
from alexnet_jax.training.resume import check_fingerprints
from alexnet_jax.training.run_data import fingerprints

Split = Literal["train", "validation", "test"]
SHOWN = 5  # unknown class folders named in a message


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
    splits = data_splits.open_splits(data, network.config.seed)
    check_fingerprints(network.meta["data"], fingerprints(splits), network.workdir)
    source = getattr(splits, split)
    if source is None:
        rule = f"the data of {network.workdir} has no such split"
        raise invalid("split", split, rule, "use split=validation")
    return without(source, {int(index) for index in network.meta["unreadable"].get(split, {})})


def num_unreadable_at_start(network: Network, split: Split) -> int:
    """Return how many images `open_split` leaves out, unreadable when the run started."""
    return len(network.meta.get("unreadable", {}).get(split, {}))


def label_by_name(class_names: Sequence[str]) -> dict[str, int]:
    """Return class numbers by class name, or by a part of it that tells all classes apart.

    Such parts are the first words, as synsets are, and the text before the first comma. A name that
    several classes have is left out.
    """
    labels: dict[str, int] = {}
    for part in (lambda name: name.split()[0], lambda name: name.partition(",")[0].strip()):
        parts = {part(name): label for label, name in enumerate(class_names) if name.strip()}
        labels |= parts if len(parts) == len(class_names) else {}
    count = collections.Counter(class_names)
    labels |= {name: label for label, name in enumerate(class_names)}
    return {name: label for name, label in labels.items() if count[name] < 2}


def open_image_folder(network: Network, root: Path, name: str = "images") -> Source:
    """Return the images in a folder of class folders, labeled with the network's class numbers.

    Args:
        network: whose class names, or their first words, the class folders have.
        root: the folder.
        name: of the argument that named the folder, for messages.

    Raises:
        ValueError: there are no class folders, or one is not named after a class.
    """
    if not root.is_dir():
        raise invalid(name, root, "must be a folder that exists", "correct the path")
    folders = subfolders(root)
    if not folders:
        raise invalid(
            name,
            root,
            f"must hold a folder for each class, and holds {len(image_files(root))} images",
            "name the folder that holds the class folders",
        )
    labels = label_by_name(network.class_names)
    unknown = [folder for folder in folders if folder not in labels]
    if splits := [folder for folder in unknown if folder in data_splits.SPLIT_NAMES]:
        remedy = f"name {' or '.join(str(Path(root) / folder) for folder in splits)}"
        raise invalid(name, root, f"holds the splits {', '.join(splits)}", remedy)
    if twice := [folder for folder in unknown if folder in network.class_names]:
        numbers = [n for n, known in enumerate(network.class_names) if known == twice[0]]
        rule = f"{twice[0]} is the name of several classes, {', '.join(map(str, numbers))}"
        remedy = "import the network with class names that differ, and name the folders after them"
        raise invalid(name, root, rule, remedy)
    if unknown:
        shown = ", ".join(unknown[:SHOWN]) + (" ..." if len(unknown) > SHOWN else "")
        known = ", ".join(network.class_names[:3])
        raise invalid(
            name,
            root,
            f"{len(unknown)} class folders ({shown}) are not classes of the network ({known} ...)",
            "rename them, or import the network with its class names",
        )
    source = Folder(root)
    numbers = [labels[folder] for folder in source.class_names]
    return Resized(Relabeled(source, numbers, network.class_names), network.config.data)
