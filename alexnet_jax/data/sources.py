"""The protocol of a source of labeled images, and the simplest one: a folder of class folders."""

import collections
import contextlib
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from alexnet_jax.data.class_names import ClassNames, alike, normalize
from alexnet_jax.data.folders import PassedOver, Scan, Tree, some
from alexnet_jax.data.formats import REMEDY, UNREAD_SUFFIXES, suffix
from alexnet_jax.data.images import UnreadableImage, decode, open_image
from alexnet_jax.storage.digest import digest
from alexnet_jax.storage.names import printable


class Record(TypedDict):
    """One labeled image."""

    image: np.ndarray  # uint8 [H, W, 3]
    label: int  # index into class_names


class Source(Protocol):
    """Random access to records; `source[i]` raises UnreadableImage if it holds no image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def describe(self, index: int, /) -> str:
        """Identify a record in messages: by a path, or by a file and a number."""
        ...

    def fingerprint(self) -> str:
        """Digest names, number, order and classes of the records, but not their location.

        No file is opened: changed content under the same name is not detected.
        """
        ...


@runtime_checkable
class Stored(Protocol):
    """A source that is stored in files."""

    def inventory(self) -> dict[str, int]:
        """Return the bytes of every file by its name below the root; -1 for a missing one."""
        ...


class Labeled(Source, Protocol):
    """A source that reads its labels without decoding the images."""

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n]; -1 for an unreadable one."""
        ...


class ImageFiles:
    """Labeled image files below a folder; `notes` says in sentences what was passed over there.

    Names are compared with composed characters, as some file systems decompose them.
    """

    def __init__(
        self, root: Path, class_names: Sequence[str], names: Sequence[str], labels: ArrayLike
    ):
        self.root = Path(root)
        self.class_names = tuple(class_names)
        self.notes: tuple[str, ...] = ()
        self._names = list(names)  # below the root
        self._labels = np.array(labels, np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Record:
        path = self.root / self._names[index]
        return {"image": open_image(path), "label": int(self._labels[index])}

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n]."""
        return self._labels

    def describe(self, index: int) -> str:
        """Return the path of the file."""
        return printable(self.root / self._names[index])

    def fingerprint(self) -> str:
        """Digest the class names, and the paths below the root and their labels, in order."""
        return digest(self.class_names, self._normalized(), self._labels.tolist())

    def inventory(self) -> dict[str, int]:
        """Return the bytes of every file by its path below the root; -1 for a missing one."""
        paths = (self.root / name for name in self._names)
        return file_sizes(dict(zip(self._normalized(), paths, strict=True)))

    def _normalized(self) -> list[str]:
        return list(map(normalize, self._names))


class Folder(ImageFiles):
    """A folder of class folders that hold images at any depth; classes and files are sorted.

    With `class_names`, labels follow it: other class folders are an error, missing ones are empty.
    Without it, a class folder without images is an error. Links are followed, unless they lead to
    a folder above them.

    Args:
        root: the folder.
        class_names: of the training split, or of a network.
        tree: has the names in folders that have been looked into.
        by_part: see `ClassNames.find`.
    """

    def __init__(
        self,
        root: Path,
        class_names: Sequence[str] | None = None,
        tree: Tree | None = None,
        by_part: bool = False,
    ):
        tree, passed, links, top = tree or Tree(), PassedOver(), [], str(root)
        scan = tree.scan(top)
        passed.add(tree, top, scan)
        if is_training := class_names is None:
            class_names = sorted({*map(normalize, scan.folders)})
        labels = _labels_of_folders(top, scan.folders, class_names, by_part)
        by_class: list[list[str]] = [[] for _ in class_names]
        empty = []
        for folder, label in labels.items():
            paths = tree.images(f"{top}/{folder}", passed, links)
            files = [path[len(top) + 1 :] for path in paths]  # below the root
            if is_training:
                _check_class(tree, top, folder, files)
            elif not files:
                empty.append(folder)
            by_class[label] += files
        names = [name for files in by_class for name in sorted(files, key=_order)]
        counts = [len(files) for files in by_class]
        super().__init__(root, class_names, names, np.repeat(np.arange(len(counts)), counts))
        links += [f"{top}/{folder}" for folder in scan.links if folder in labels]
        self.links_out = _find_links_out(self.root, links)
        self.notes = (
            *loose_images(top, scan),
            *_name_notes(top, labels, self.class_names),
            *((f"{top}: class folders without images: {some(empty)}.",) if empty else ()),
            *passed.describe(top),
            *_link_notes(top, self.links_out),
        )


def _find_links_out(root: Path, links: Sequence[str]) -> list[str]:
    """Return the links that lead out of the root, as "link -> target"."""
    real, found = os.path.realpath(root), []
    for link in sorted(links):
        target = os.path.realpath(link)
        if not Path(target).is_relative_to(real):
            found.append(f"{Path(link)} -> {target}")
    return found


def _link_notes(root: str, links: Sequence[str]) -> tuple[str, ...]:
    note = f"{root}: followed links that lead out of it: {len(links):,}, first "
    return (f"{note}{links[0]}.",) if links else ()


def _labels_of_folders(
    root: str, folders: Sequence[str], class_names: Sequence[str], by_part: bool
) -> dict[str, int]:
    """Return the label of each class folder; ValueError if one is not named after a class."""
    known, labels, unknown = ClassNames(class_names), {}, []
    for folder in folders:
        label = known.find(folder, by_part)
        if label is None:
            unknown.append(folder)
        else:
            labels[folder] = label
    if unknown:
        similar = {name: difflib.get_close_matches(name, class_names, n=1) for name in unknown[:3]}
        hints = [f"{found[0]} is like {name}" for name, found in similar.items() if found]
        hint = f" ({', '.join(hints)})" if hints else ""
        raise ValueError(
            f"{root}: the training split has no class {', '.join(unknown)}{hint}; add training "
            "images of it, or remove or rename its folder here."
        )
    return labels


def _check_class(tree: Tree, root: str, folder: str, files: Sequence[str]) -> None:
    """Raise a ValueError if a class folder has no images, or none in a format that is read."""
    unread = collections.Counter(UNREAD_SUFFIXES.get(suffix(name)) for name in files)
    path = Path(root) / folder
    if not files:
        inside = PassedOver()
        tree.images(f"{root}/{folder}", inside, [])
        held = "".join(
            f" (it holds {number:,} files {name or 'without a suffix'})"
            for name, number in inside.non_images.most_common(1)
        )
        raise ValueError(
            f"{path}: this class folder contains no images{held}; add images, or remove the folder."
        )
    if None not in unread:
        kinds = ", ".join(f"{number:,} {name}" for name, number in unread.most_common())
        raise ValueError(
            f"{path}: no image of this class is in a format that is read ({kinds}: "
            f"{some(files)}); {REMEDY}, or remove the folder."
        )


def loose_images(root: str, scan: Scan) -> tuple[str, ...]:
    """Return a note about images that lie beside class folders or splits."""
    images = [name for name in scan.images if name not in scan.broken]
    if not images:
        return ()
    number = f"{len(images):,} image{'s' * (len(images) != 1)}"
    return (f"{root}: passed over {number} beside its folders ({some(images)}).",)


def _name_notes(
    root: str, labels: Mapping[str, int], class_names: Sequence[str]
) -> tuple[str, ...]:
    """Return notes about class folders whose names are nearly those of others."""
    notes, known = [], ClassNames(class_names)
    pairs = [
        f"{name} for {class_names[label]}"
        for name, label in labels.items()
        if not known.has(name, by_part=True)
    ]
    if pairs:
        notes.append(f"took class folders that are written otherwise: {some(pairs)}")
    if similar := alike(sorted({normalize(name) for name in labels})):
        notes.append(f"classes that differ in case or spaces alone: {some(similar)}")
    if len({*map(normalize, labels)}) < len(labels):
        notes.append("class folders that differ only in composed characters are one class")
    return tuple(f"{root}: {note}." for note in notes)


def _order(name: str) -> list[str]:
    """Return what files are sorted by: the parts of their path."""
    return normalize(name).split("/")


# What sources in record files share.


def file_sizes(files: Mapping[str, Path]) -> dict[str, int]:
    """Return the bytes of files by their names; -1 for one that is missing or not local."""
    sizes = dict.fromkeys(files, -1)
    for name, path in files.items():
        with contextlib.suppress(OSError):
            sizes[name] = path.stat().st_size
    return sizes


def decode_record(label: int, encoded: bytes | memoryview, num_classes: int) -> Record:
    """Decode the image of a record; UnreadableImage also for a label that is not a class."""
    if not 0 <= label < num_classes:  # training would not fail on it
        raise UnreadableImage(f"label {label} is not one of the {num_classes} classes")
    return {"image": decode(encoded), "label": label}


def read_labels(read_label: Callable[[int], int], number: int) -> np.ndarray:
    """Return the labels of `number` records, int64 [n]; -1 where `read_label` fails."""
    labels = np.full(number, -1, np.int64)
    for index in range(number):
        with contextlib.suppress(UnreadableImage):
            labels[index] = read_label(index)
    return labels
