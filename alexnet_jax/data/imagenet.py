"""ILSVRC-2012 as it is downloaded: images read where they lie in the tar files, none unpacked."""

import contextlib
import dataclasses
import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from alexnet_jax.data.images import UnreadableImage, decode
from alexnet_jax.data.sources import LARGEST, Record, Source
from alexnet_jax.storage.digest import digest

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
LONGEST = 100  # characters of a file name that are kept, to name the file in reports


class TarImages:
    """The images in a tar file, each read from its place there; links and paths mean nothing.

    `why_not` says what is wrong with an image whose label is -1.
    """

    def __init__(
        self, path: Path, files: "_Files", class_names: Sequence[str], why_not: str
    ) -> None:
        self._path, self._files, self._why_not = path, files, why_not
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self._files.labels)

    def __getitem__(self, index: int) -> Record:
        label, size = int(self._files.labels[index]), int(self._files.sizes[index])
        if label < 0:
            raise UnreadableImage(self._why_not)
        if size > LARGEST:
            raise UnreadableImage(f"suspiciously large ({size:,} bytes, limit {LARGEST:,})")
        with self._path.open("rb") as file:
            file.seek(int(self._files.offsets[index]))
            encoded = file.read(size)
        return {"image": decode(encoded), "label": label}

    def labels(self) -> np.ndarray:
        """Return the label of every image, int64 [n]; -1 for one that has none."""
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


@dataclasses.dataclass(frozen=True)
class _Files:
    """As arrays, which processes are handed cheaply: there are 1,281,167."""

    names: np.ndarray  # bytes [n]
    offsets: np.ndarray  # int64 [n], from the start of the archive
    sizes: np.ndarray  # int64 [n], bytes
    labels: np.ndarray  # int64 [n]

    @classmethod
    def of(cls, found: Sequence[tuple[str, int, int, int]]) -> "_Files":
        """Return the files of (name, offset, size, label) in the order of labels, then of names."""
        found = sorted(found, key=lambda file: (file[3], file[0]))
        names = [name.encode(errors="surrogateescape")[:LONGEST] for name, *_ in found]
        numbers = np.array([file[1:] for file in found], np.int64).reshape(-1, 3)
        return cls(np.array(names, "S"), *np.ascontiguousarray(numbers.T))


@dataclasses.dataclass(frozen=True)
class Devkit:
    """What the development kit knows."""

    synsets: Mapping[int, str]  # by its own numbers
    words: Mapping[str, str]  # by synset
    images: Mapping[str, int]  # training images by synset
    truth: Sequence[int]  # its own numbers of the validation images, in the order of their names


def is_ilsvrc(root: Path) -> bool:
    """Return whether a folder holds one of the archives."""
    return any((Path(root) / name).exists() for name in (TRAIN, VALIDATION))


def open_ilsvrc(root: Path) -> tuple[dict[str, Source], tuple[str, ...]]:
    """Return the splits train and validation of the archives in a folder, and notes for the log.

    Classes are the synsets of the training archive, sorted, each followed by its words where the
    development kit is there; validation needs it. Raises ValueError for archives that are damaged,
    not whole, or do not fit together.
    """
    root = Path(root)
    if not (root / TRAIN).exists():
        raise ValueError(f"{root}: it holds no {TRAIN}; training needs it: put it there.")
    devkit = read_devkit(root / DEVKIT) if (root / DEVKIT).exists() else None
    if devkit is None and (root / VALIDATION).exists():
        raise ValueError(
            f"{root / VALIDATION}: what its images show stands in {DEVKIT}; put that beside it, "
            "or move the validation images away."
        )
    synsets, found = _scan_train(root / TRAIN)
    words = devkit.words if devkit else {}
    names = [f"{synset} {words.get(synset, '')}".strip() for synset in synsets]
    mislabeled = "it is named after another class than the archive that it lies in"
    train = TarImages(root / TRAIN, _Files.of(found), names, mislabeled)
    if devkit is None:
        return {"train": train}, (f"{root}: there is no {DEVKIT}: classes are called by synset.",)
    notes = _compare(root / TRAIN, train.labels(), synsets, devkit)
    if not (root / VALIDATION).exists():
        return {"train": train}, (*notes, f"{root}: there is no {VALIDATION}.")
    labeled = _scan_validation(root / VALIDATION, synsets, devkit)
    unnumbered = f"its name gives no number from 1 to {len(devkit.truth)}"
    validation = TarImages(root / VALIDATION, _Files.of(labeled), names, unnumbered)
    if len(validation) != len(devkit.truth):
        known = f"{len(validation):,} images, and {DEVKIT} knows {len(devkit.truth):,}"
        notes = (*notes, f"{root / VALIDATION}: it holds {known}.")
    return {"train": train, "validation": validation}, notes


def _compare(
    path: Path, labels: np.ndarray, synsets: Sequence[str], devkit: Devkit
) -> tuple[str, ...]:
    """Return a note where there are other numbers of training images than the kit says."""
    counts = np.bincount(labels[labels >= 0], minlength=len(synsets)).tolist()
    here = dict(zip(synsets, counts, strict=True))
    known = {synset: devkit.images[synset] for synset in devkit.synsets.values()}
    if here == known:
        return ()
    others = sum(here.get(synset) != known.get(synset) for synset in {*here, *known})
    held = f"{sum(counts):,} images of {len(here):,} classes"
    expected = f"{sum(known.values()):,} of {len(known):,}"
    return (f"{path}: it holds {held}, {DEVKIT} knows {expected}; {others:,} classes differ.",)


def _scan_train(path: Path) -> tuple[list[str], list[tuple[str, int, int, int]]]:
    """Return the sorted synsets, and (name, offset, size, label) of every file."""
    with _archive(path) as outer:
        inner = sorted(_regular(outer), key=lambda member: member.name)
        synsets = [Path(member.name).stem for member in inner]
        if len(set(synsets)) < len(synsets):
            raise ValueError(f"{path}: it holds a class twice; fetch it again.")
        found = []
        # disable=None: no bar where stderr is no terminal.
        for label, member in enumerate(
            tqdm(inner, desc="finding images", unit="class", disable=None)
        ):
            file = outer.extractfile(member)
            assert file is not None  # of a regular file
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for image in _regular(archive):
                    own = Path(image.name).name.startswith(f"{synsets[label]}_")
                    if image.offset_data + image.size > member.size:
                        raise tarfile.ReadError(f"{member.name} is cut off")
                    offset = member.offset_data + image.offset_data
                    found.append((image.name, offset, image.size, label if own else -1))
    return synsets, found


def _scan_validation(
    path: Path, synsets: Sequence[str], devkit: Devkit
) -> list[tuple[str, int, int, int]]:
    """Return (name, offset, size, label) of every file."""
    labels = {synset: label for label, synset in enumerate(synsets)}
    truth = []
    for number in devkit.truth:
        synset = devkit.synsets.get(number)
        if synset not in labels:
            raise ValueError(
                f"{path}: an image shows class {number} of {DEVKIT} ({synset or 'unknown there'}), "
                f"which {TRAIN} has no images of; take archives that belong together."
            )
        truth.append(labels[synset])
    with _archive(path) as archive:
        found = []
        for image in _regular(archive):
            number = re.search(r"_(\d{1,9})\.\w+$", image.name)
            known = number is not None and 1 <= int(number[1]) <= len(truth)
            label = truth[int(number[1]) - 1] if number and known else -1
            found.append((image.name, image.offset_data, image.size, label))
    return found


def read_devkit(path: Path) -> Devkit:
    """Return what the development kit knows; ValueError where it is none, or damaged."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            meta, truth = _member(archive, META), _member(archive, TRUTH)
        return Devkit(*_synsets(meta), truth=[int(line) for line in truth.split()])
    # MATLAB's files are read by code that raises anything.
    except Exception as error:
        raise _damaged(path, error) from error


def _synsets(meta: bytes) -> tuple[dict[int, str], dict[str, str], dict[str, int]]:
    """Return the fields of a Devkit that meta.mat has; of classes, not of what is above them."""
    import scipy.io  # JAX needs SciPy too, so it is there; imported by nobody who has no devkit

    read = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])
    synsets, words, images = {}, {}, {}
    for row in np.atleast_1d(read["synsets"]):
        if int(row["num_children"]) == 0:
            synset = str(row["WNID"])
            synsets[int(row["ILSVRC2012_ID"])] = synset
            words[synset] = str(row["words"])
            images[synset] = int(row["num_train_images"])
    return synsets, words, images


def _member(archive: tarfile.TarFile, ending: str) -> bytes:
    for member in _regular(archive):
        if member.name.endswith(ending) and member.size <= LARGEST:
            file = archive.extractfile(member)
            assert file is not None  # of a regular file
            return file.read()
    raise tarfile.ReadError(f"it holds no {ending}")


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an uncompressed tar; ValueError where it or what is read from it is damaged."""
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(path, error) from error


def _regular(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files; raise a TarError where the archive does not end as one."""
    for member in archive:
        if member.isreg() and not member.issparse():
            yield member
    # To tarfile a damaged header is the end.
    place: int = archive.offset
    file = archive.fileobj
    assert file is not None
    file.seek(place)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"damaged header at byte {place:,}")


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = str(error) or type(error).__name__
    return ValueError(
        f"{path}: {reason}; the archive is damaged or not whole: compare its checksum with the "
        "published one, and fetch it again."
    )
