"""What a source of labeled images offers, and the plainest one: a folder of class folders."""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np

from alexnet_jax.data.images import UnreadableImage, decode
from alexnet_jax.storage.digest import digest

# Endings of files that lie among photographs and are none; anything else is tried.
NO_IMAGES = frozenset(
    (".csv", ".db", ".htm", ".html", ".ini", ".json", ".mat", ".md", ".npy", ".npz")
    + (".pdf", ".txt", ".xml", ".yaml", ".yml", ".zip")
)
LARGEST = 2**29  # bytes of an image file, which is read whole; photographs have a hundredth of that


class Record(TypedDict):
    """One labeled image."""

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


@runtime_checkable
class Stored(Protocol):
    """A source that lies in files."""

    def inventory(self) -> dict[str, int]:
        """Return the bytes of every file by its name below the root; -1 for one that is gone."""
        ...


class Labeled(Source, Protocol):
    """A source that tells its labels without decoding the images."""

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n]; -1 for one that cannot be read."""
        ...


class Folder:
    """A folder of class folders, each holding images at any depth: classes, then files, sorted.

    With `class_names` given, labels follow it, other class folders are an error and missing ones
    are none; without it, a class folder that holds no images is an error. `ignored` counts the
    files that are no images by their name; hidden files are passed over. Links are followed, and
    `links_out` has those that lead out of the root, as "link -> where".
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
        self.links_out: list[str] = []
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
        found = _images_below(folder)
        self.ignored += found.ignored
        root = os.path.realpath(self.root)
        for link in [folder, *found.links]:
            target = os.path.realpath(link)
            if link.is_symlink() and not Path(target).is_relative_to(root):
                self.links_out.append(f"{link} -> {target}")
        return found.files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        return {"image": open_image(self._files[index]), "label": int(self._labels[index])}

    def labels(self) -> np.ndarray:
        """Return the label of every record, int64 [n]."""
        return self._labels

    def describe(self, index: int) -> str:
        """Return the path of the file."""
        return str(self._files[index])

    def fingerprint(self) -> str:
        """Digest the class names and the paths below the root, in order."""
        return digest(self.class_names, self._names())

    def inventory(self) -> dict[str, int]:
        """Return the bytes of every file by its path below the root; -1 for one that is gone."""
        return sizes(dict(zip(self._names(), self._files, strict=True)))

    def _names(self) -> list[str]:
        start = len((self.root / "_").as_posix()) - 1  # "." is no part of the paths below it
        return [path.as_posix()[start:] for path in self._files]


def sizes(files: Mapping[str, Path]) -> dict[str, int]:
    """Return the bytes of files by their names; -1 for one that is gone, or in no file system."""
    found = dict.fromkeys(files, -1)
    for name, path in files.items():
        with contextlib.suppress(OSError):
            found[name] = path.stat().st_size
    return found


def image_files(path: Path) -> list[Path]:
    """Return the image files in a folder, at any depth, sorted; or the file itself."""
    return _images_below(path).files if path.is_dir() else [path]


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
        return open_image(Path(image))
    except UnreadableImage as error:
        raise ValueError(f"{image}: {error}; give files that hold images.") from error


def open_image(path: Path) -> np.ndarray:
    """Return the picture in a file, uint8 [H, W, 3]; UnreadableImage says why there is none."""
    try:
        encoded = _read(path)
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    return decode(encoded)


def _read(path: Path) -> bytes:
    """Return what a file holds; a pipe would be waited for, and a device may never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("it is no regular file")
    if status.st_size > LARGEST:
        raise UnreadableImage(f"suspiciously large ({status.st_size:,} bytes, limit {LARGEST:,})")
    return path.read_bytes()


@dataclasses.dataclass(frozen=True)
class _Found:
    files: list[Path]
    links: list[Path]
    ignored: int  # files that are no images by their name


def _images_below(folder: Path) -> _Found:
    """List the images below a folder.

    A folder that links lead to again counts once; what is hidden is passed over.
    """
    files, links, ignored, seen, waiting = [], [], 0, set(), [str(folder)]
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        shown = [entry for entry in _entries(here) if not entry.name.startswith(".")]
        links += [Path(entry.path) for entry in shown if entry.is_symlink()]
        folders = [entry.path for entry in shown if _is_folder(entry)]
        waiting += sorted(folders, reverse=True)
        others = [Path(entry.path) for entry in shown if not _is_folder(entry)]
        images = [path for path in others if path.suffix.lower() not in NO_IMAGES]
        ignored += len(others) - len(images)
        files += images
    return _Found(sorted(files), links, ignored)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise _refusal(error) from error


def subfolders(root: Path) -> list[str]:
    """Return the sorted names of the folders in `root`, hidden ones left out.

    Raises ValueError where `root` is missing or may not be read.
    """
    entries = _entries(str(root))
    return sorted(e.name for e in entries if _is_folder(e) and not e.name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into what is closed: whoever reads it says so
        return False


def _refusal(error: OSError) -> ValueError:
    return ValueError(
        f"{error.filename}: {error.strerror}; images are read from a folder that exists and may be "
        "read: correct the path or the permissions."
    )
