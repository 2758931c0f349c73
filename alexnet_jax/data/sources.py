"""The protocol of a source of labeled images, and the simplest one: a folder of class folders."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np

from alexnet_jax.data.images import UnreadableImage, decode, list_images, open_image, subfolders
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


class Folder:
    """A folder of class folders that hold images at any depth; classes and files are sorted.

    With `class_names`, labels follow it: other class folders are an error, missing ones are empty.
    Without it, a class folder without images is an error. `num_ignored` counts the files that are
    not images by their suffix. Links are followed; `links_out` lists those that lead out of the
    root, as "link -> target".
    """

    def __init__(self, root: Path, class_names: Sequence[str] | None = None):
        self.root = Path(root)
        folders = subfolders(self.root)
        self.class_names = tuple(folders if class_names is None else class_names)
        if unknown := sorted(set(folders) - set(self.class_names)):
            raise ValueError(
                f"{self.root}: the training split has no class {', '.join(unknown)}; add training "
                "images of it, or remove its folder here."
            )
        self.num_ignored = 0
        self.links_out: list[str] = []
        self._files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.class_names):
            files = self._scan(self.root / name) if name in folders else []
            if not files and class_names is None:
                raise ValueError(
                    f"{self.root / name}: this class folder contains no images; add images, or "
                    "remove the folder."
                )
            self._files += files
            labels += [label] * len(files)
        self._labels = np.array(labels, np.int64)

    def _scan(self, folder: Path) -> list[Path]:
        listing = list_images(folder)
        self.num_ignored += listing.num_ignored
        root = os.path.realpath(self.root)
        for link in [folder, *listing.links]:
            target = os.path.realpath(link)
            if link.is_symlink() and not Path(target).is_relative_to(root):
                self.links_out.append(f"{link} -> {target}")
        return listing.files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        return {"image": open_image(self._files[index]), "label": int(self._labels[index])}

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n]."""
        return self._labels

    def describe(self, index: int) -> str:
        """Return the path of the file."""
        return printable(self._files[index])

    def fingerprint(self) -> str:
        """Digest the class names and the paths below the root, in order."""
        return digest(self.class_names, self._names())

    def inventory(self) -> dict[str, int]:
        """Return the bytes of every file by its path below the root; -1 for a missing one."""
        return file_sizes(dict(zip(self._names(), self._files, strict=True)))

    def _names(self) -> list[str]:
        start = len((self.root / "_").as_posix()) - 1  # "." is no part of the paths below it
        return [path.as_posix()[start:] for path in self._files]


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
