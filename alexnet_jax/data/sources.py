"""What a source of labelled images offers, and the plainest one: a folder of class folders."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np

from alexnet_jax.data.decode import UnreadableImage, decode

# Endings of files that lie among photographs and are none; anything else is tried.
NO_IMAGES = frozenset(
    (".csv", ".db", ".htm", ".html", ".ini", ".json", ".mat", ".md", ".npy", ".npz")
    + (".pdf", ".txt", ".xml", ".yaml", ".yml", ".zip")
)


class Record(TypedDict):
    """One labelled image."""

    image: np.ndarray  # uint8 [H, W, 3]
    label: int  # index into class_names


class Source(Protocol):
    """Random access to records; `source[i]` raises UnreadableImage where there is no image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def describe(self, index: int, /) -> str:
        """Say which record this is, for reports: a path, or a file and a number."""
        ...

    def fingerprint(self) -> str:
        """Return what names, number, order and classes of the records decide, not where they lie.

        No file is opened: that one has other contents by the same name goes unnoticed.
        """
        ...


class Labelled(Source, Protocol):
    """A source that tells its labels without decoding the images."""

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n]; -1 for one that cannot be read."""
        ...


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of `parts`, values as JSON knows them."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Folder:
    """A folder of class folders, each holding images at any depth: classes, then files, sorted.

    With `class_names` given, labels follow it, other class folders are an error and missing ones
    are none; without it, a class folder that holds no images is an error. `ignored` counts the
    files that are no images by their name; hidden files are passed over.
    """

    def __init__(self, root: Path, class_names: Sequence[str] | None = None):
        self.root = Path(root)
        folders = subfolders(self.root)
        self.class_names = tuple(folders if class_names is None else class_names)
        if unknown := sorted(set(folders) - set(self.class_names)):
            raise ValueError(
                f"{self.root}: the training split has no class {', '.join(unknown)}; a class needs "
                "training images: add some, or remove its folder here."
            )
        self.ignored = 0
        self._files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.class_names):
            files = self._scan(self.root / name) if name in folders else []
            if not files and class_names is None:
                raise ValueError(
                    f"{self.root / name}: this class folder holds no images; a class needs at "
                    "least one: add images, or remove the folder."
                )
            self._files += files
            labels += [label] * len(files)
        self._labels = np.array(labels, np.int64)

    def _scan(self, folder: Path) -> list[Path]:
        files, ignored = _images_below(folder)
        self.ignored += ignored
        return files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        try:
            encoded = self._files[index].read_bytes()
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        return {"image": decode(encoded), "label": int(self._labels[index])}

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n]."""
        return self._labels

    def describe(self, index: int) -> str:
        """Return the path of the file."""
        return str(self._files[index])

    def fingerprint(self) -> str:
        """Digest the class names and the paths below the root, in order."""
        start = len((self.root / "_").as_posix()) - 1  # "." is no part of the paths below it
        return digest(self.class_names, [path.as_posix()[start:] for path in self._files])


def image_files(path: Path) -> list[Path]:
    """Return the image files in a folder, at any depth, sorted; or the file itself."""
    return _images_below(path)[0] if path.is_dir() else [path]


def read_image(image: Path | str | np.ndarray) -> np.ndarray:
    """Return the picture in a file, or itself, uint8 [H, W, 3]; ValueError where it is none."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"an image of {image.dtype}, {image.shape}: a picture is uint8 [H, W, 3]; give "
                "that, or the name of a file."
            )
        return image
    try:
        return decode(Path(image).read_bytes())
    except (OSError, UnreadableImage) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{image}: {reason}; give files that hold images.") from error


def _images_below(folder: Path) -> tuple[list[Path], int]:
    """List the images below a folder, and count what is none by its name.

    A folder that links lead to again counts once; what is hidden is passed over.
    """
    files, ignored, seen = [], 0, set()
    for here, below, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(here)
        shown = [] if real in seen else [name for name in names if not name.startswith(".")]
        below[:] = [] if real in seen else sorted(n for n in below if not n.startswith("."))
        seen.add(real)
        images = [name for name in shown if Path(name).suffix.lower() not in NO_IMAGES]
        ignored += len(shown) - len(images)
        files += [Path(here, name) for name in images]
    return sorted(files), ignored


def subfolders(root: Path) -> list[str]:
    """Return the sorted names of the folders in `root`, hidden ones left out.

    Raises ValueError where `root` is missing or may not be read.
    """
    try:
        with os.scandir(root) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise _refusal(error) from error


def _refuse(error: OSError) -> None:
    raise _refusal(error) from error


def _refusal(error: OSError) -> ValueError:
    return ValueError(
        f"{error.filename}: {error.strerror}; images are read from a folder that exists and may be "
        "read: correct the path or the permissions."
    )
