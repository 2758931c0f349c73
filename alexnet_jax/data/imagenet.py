"""ILSVRC-2012 as downloaded: images are read inside the tar archives, which are not unpacked."""

import contextlib
import dataclasses
import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from tqdm import tqdm

from alexnet_jax.data import tar
from alexnet_jax.data.images import UnreadableImage, check_file_size, decode
from alexnet_jax.data.meta_mat import read_synsets
from alexnet_jax.data.sources import Record, Source
from alexnet_jax.storage.digest import digest

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
MAX_DEVKIT = (
    2**26
)  # bytes of the development kit when unpacked; the published one has 2.5 MB packed
MAX_NAME = 100  # bytes of a file name that are kept for messages


class TarImages:
    """The images in a tar file, each read at its offset; links and paths are not followed.

    `unlabeled` is the reason given for an image whose label is -1.
    """

    def __init__(
        self, path: Path, files: "_Files", class_names: Sequence[str], unlabeled: str
    ) -> None:
        self._path, self._files, self._unlabeled = path, files, unlabeled
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self._files.labels)

    def __getitem__(self, index: int) -> Record:
        label, size = int(self._files.labels[index]), int(self._files.sizes[index])
        if label < 0:
            raise UnreadableImage(self._unlabeled)
        check_file_size(size)
        with self._path.open("rb") as file:
            file.seek(int(self._files.offsets[index]))
            encoded = file.read(size)
        return {"image": decode(encoded), "label": label}

    def labels(self) -> np.ndarray:
        """Return the label of every image, int64 [n]; -1 for one without."""
        return self._files.labels

    def describe(self, index: int) -> str:
        """Return archive:file."""
        return f"{self._path}:{self._files.names[index].decode(errors='replace')}"

    def fingerprint(self) -> str:
        """Digest the class names, and the names, labels and sizes of the files."""
        files = self._files
        names = [name.decode(errors="replace") for name in files.names]
        return digest(self.class_names, names, files.labels.tolist(), files.sizes.tolist())

    def inventory(self) -> dict[str, int]:
        """Return the bytes of the archive by its name."""
        return {self._path.name: self._path.stat().st_size}


class _File(NamedTuple):
    """A file in a tar archive."""

    name: str
    offset: int  # bytes from the start of the archive
    size: int  # bytes
    label: int  # -1: none


@dataclasses.dataclass(frozen=True)
class _Files:
    """Files as arrays, which are passed to processes cheaply: there are 1,281,167."""

    names: np.ndarray  # bytes [n]
    offsets: np.ndarray  # int64 [n], from the start of the archive
    sizes: np.ndarray  # int64 [n], bytes
    labels: np.ndarray  # int64 [n]

    @classmethod
    def of(cls, files: Sequence[_File]) -> "_Files":
        """Return files in the order of labels, then of names."""
        files = sorted(files, key=lambda file: (file.label, file.name))
        names = [file.name.encode(errors="surrogateescape")[:MAX_NAME] for file in files]
        numbers = np.array([file[1:] for file in files], np.int64).reshape(-1, 3)
        return cls(np.array(names, "S"), *np.ascontiguousarray(numbers.T))


@dataclasses.dataclass(frozen=True)
class Devkit:
    """The content of the development kit."""

    synsets: Mapping[int, str]  # by the kit's class numbers
    words: Mapping[str, str]  # by synset
    images: Mapping[str, int]  # number of training images by synset
    truth: Sequence[int]  # class numbers of the validation images, in the order of their names


def is_ilsvrc(root: Path) -> bool:
    """Return whether a folder contains one of the archives."""
    return any((Path(root) / name).exists() for name in (TRAIN, VALIDATION))


def open_ilsvrc(root: Path) -> tuple[dict[str, Source], tuple[str, ...]]:
    """Return the splits train and validation of the archives in a folder, and notes for the log.

    Classes are the synsets of the training archive, sorted; each is followed by its words if the
    development kit is present, which the validation split requires.

    Raises:
        ValueError: archives are damaged, incomplete, or do not belong together.
    """
    root = Path(root)
    if not (root / TRAIN).exists():
        raise ValueError(f"{root}: has no {TRAIN}, which training needs; put it there.")
    devkit = read_devkit(root / DEVKIT) if (root / DEVKIT).exists() else None
    if devkit is None and (root / VALIDATION).exists():
        raise ValueError(
            f"{root / VALIDATION}: its labels are in {DEVKIT}, which is missing; put that into the "
            "same folder, or remove the validation images."
        )
    synsets, train_files = _scan_train(root / TRAIN)
    words = devkit.words if devkit else {}
    names = [f"{synset} {words.get(synset, '')}".strip() for synset in synsets]
    mislabeled = "its name has another class than the archive that contains it"
    train = TarImages(root / TRAIN, _Files.of(train_files), names, mislabeled)
    if devkit is None:
        return {"train": train}, (f"{root}: has no {DEVKIT}, so classes are named by synset.",)
    notes = _compare_counts(root / TRAIN, train.labels(), synsets, devkit)
    if not (root / VALIDATION).exists():
        return {"train": train}, (*notes, f"{root}: has no {VALIDATION}.")
    validation_files = _scan_validation(root / VALIDATION, synsets, devkit)
    unnumbered = f"its name has no number from 1 to {len(devkit.truth)}"
    validation = TarImages(root / VALIDATION, _Files.of(validation_files), names, unnumbered)
    if len(validation) != len(devkit.truth):
        counts = f"{len(validation):,} images, and {DEVKIT} labels {len(devkit.truth):,}"
        notes = (*notes, f"{root / VALIDATION}: has {counts}.")
    return {"train": train, "validation": validation}, notes


def _compare_counts(
    path: Path, labels: np.ndarray, synsets: Sequence[str], devkit: Devkit
) -> tuple[str, ...]:
    """Return a note if the numbers of training images differ from those of the kit."""
    counts = np.bincount(labels[labels >= 0], minlength=len(synsets)).tolist()
    present = dict(zip(synsets, counts, strict=True))
    expected = {synset: devkit.images[synset] for synset in devkit.synsets.values()}
    if present == expected:
        return ()
    num_different = sum(present.get(s) != expected.get(s) for s in {*present, *expected})
    first = f"has {sum(counts):,} images of {len(present):,} classes"
    second = f"{DEVKIT} lists {sum(expected.values()):,} of {len(expected):,}"
    return (f"{path}: {first}, {second}; {num_different:,} classes differ.",)


def _scan_train(path: Path) -> tuple[list[str], list[_File]]:
    """Return the sorted synsets, and every file."""
    with _open_archive(path) as (outer, outer_size):
        members = sorted(tar.regular_files(outer, 0, outer_size))
        synsets = [Path(member.name).stem for member in members]
        if len(set(synsets)) < len(synsets):
            raise ValueError(f"{path}: contains a class twice; download it again.")
        files = []
        # disable=None: no bar if stderr is not a terminal.
        for label, member in enumerate(
            tqdm(members, desc="listing images", unit="class", disable=None)
        ):
            try:
                for name, offset, size in tar.regular_files(outer, member.offset, member.size):
                    is_labeled = Path(name).name.startswith(f"{synsets[label]}_")
                    offset += member.offset
                    files.append(_File(name, offset, size, label if is_labeled else -1))
            except tarfile.ReadError as error:
                raise tarfile.ReadError(f"{member.name}: {error}") from error
    return synsets, files


def _scan_validation(path: Path, synsets: Sequence[str], devkit: Devkit) -> list[_File]:
    """Return every file."""
    labels = {synset: label for label, synset in enumerate(synsets)}
    truth = []
    for number in devkit.truth:
        synset = devkit.synsets.get(number)
        if synset not in labels:
            raise ValueError(
                f"{path}: has an image of class {number} of {DEVKIT} ({synset or 'unknown there'}) "
                f"and {TRAIN} has no images of it; use archives that belong together."
            )
        truth.append(labels[synset])
    with _open_archive(path) as (archive, archive_size):
        files = []
        for name, offset, size in tar.regular_files(archive, 0, archive_size):
            match = re.search(r"_(\d{1,9})\.\w+$", name)
            number = int(match[1]) if match else 0
            label = truth[number - 1] if 1 <= number <= len(truth) else -1
            files.append(_File(name, offset, size, label))
    return files


def read_devkit(path: Path) -> Devkit:
    """Read the development kit; ValueError if the file is damaged or another one."""
    try:
        with path.open("rb") as packed, gzip.open(packed) as file:
            if packed.read(2) != b"\x1f\x8b":
                raise ValueError("not a gzip file")
            packed.seek(0)
            unpacked = file.read(MAX_DEVKIT + 1)
        if len(unpacked) > MAX_DEVKIT:
            raise ValueError(f"unpacked it has more than {MAX_DEVKIT:,} bytes")
        return _devkit(_member(unpacked, META), _member(unpacked, TRUTH))
    except (tarfile.ReadError, OSError, EOFError, zlib.error, ValueError) as error:
        raise _damaged(path, error) from error


def read_unpacked_devkit(folder: Path) -> Devkit:
    """Read the development kit from its unpacked folder `data`, as `read_devkit` does."""
    try:
        meta, truth = ((folder / Path(name).name).read_bytes() for name in (META, TRUTH))
        return _devkit(meta, truth)
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error


def _devkit(meta: bytes, truth: bytes) -> Devkit:
    classes = read_synsets(meta)
    return Devkit(
        synsets={synset.number: synset.wnid for synset in classes},
        words={synset.wnid: synset.words for synset in classes},
        images={synset.wnid: synset.images for synset in classes},
        truth=_numbers(truth),
    )


def _member(archive: bytes, ending: str) -> bytes:
    for name, offset, size in tar.regular_files(io.BytesIO(archive), 0, len(archive)):
        if name.endswith(ending):
            return archive[offset : offset + size]
    raise tarfile.ReadError(f"contains no {ending}")


def _numbers(text: bytes) -> list[int]:
    lines = text.split()
    if wrong := [line for line in lines if not (line.isdigit() and len(line) < 10)]:
        raise ValueError(f"{TRUTH} has {wrong[0][:20]!r} in place of the number of a class")
    return [int(line) for line in lines]


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open an uncompressed tar file of so many bytes; ValueError if it is damaged."""
    try:
        with path.open("rb") as file:
            yield file, path.stat().st_size
    except tarfile.ReadError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = str(error) or type(error).__name__
    return ValueError(
        f"{path}: {reason}; the archive is damaged or incomplete: compare its checksum with the "
        "published one, and download it again."
    )
