"""Labels of images that lie in one folder without class folders, from a file beside them.

Read are tables with a column of file names and one of labels (`filename,label`; Kaggle's
LOC_val_solution.csv; Tiny ImageNet's val_annotations.txt), and the ground truth of the development
kit of ILSVRC-2012.
"""

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_jax.data.class_names import ClassNames, normalize
from alexnet_jax.data.folders import some

if TYPE_CHECKING:
    from alexnet_jax.data.imagenet import Devkit

MAX_BYTES = 2**28  # of a table; ImageNet's largest has 60 MB
MAX_COLUMNS = 64
# Columns by their names in the first line, in lower case.
LABEL_COLUMNS = (
    *("label", "class", "class_name", "classname", "class_label", "category", "category_name"),
    *("species", "breed", "synset", "wnid", "target", "labels", "classes", "predictionstring"),
    *("label_name", "name", "y", "tag", "diagnosis", "dx"),
)
# Columns that say which images are for what; the labels of all are taken.
SPLIT_COLUMNS = ("split", "subset", "set", "partition", "usage", "fold", "is_valid")
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
DEVKIT, UNPACKED = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12/data"
PARENTS = 3  # folders above, where Kaggle's ImageNet has its tables
KAGGLE_TABLES = ("LOC_val_solution.csv",)


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of the files in a folder."""

    path: Path  # of the table
    class_names: tuple[str, ...]
    by_file: Mapping[str, int]  # by file name
    num_unlisted: int  # files without a label
    column: str = ""  # that has the labels, if the table names its columns
    ignored: tuple[str, ...] = ()  # columns that divide the images, which is not done

    def describe(self) -> str:
        """Return the table, and its column, for a note."""
        column = f", column {self.column}" if self.column else ""
        unused = f" (its column {some(self.ignored)} is not used)" if self.ignored else ""
        return f"{self.path}{column}{unused}"


def labels_from_tables(
    paths: Sequence[Path], files: Sequence[str], class_names: Sequence[str] | None
) -> Labels | None:
    """Return the labels of files from the table that lists them; None if none does.

    Args:
        paths: of the tables.
        files: names in one folder.
        class_names: of the training split; None: the labels of the table are the classes.

    Raises:
        ValueError: a table lists these files, but with labels that are no classes, or twice; it
            does not say which column has the labels; or two tables do not agree.
    """
    found, unclear = [], []
    for path in paths:
        try:
            found.append(_from_table(path, files, class_names))
        except _UnclearTable as error:
            unclear.append(error)
    first, *others = [*filter(None, found), None]
    if first is None and unclear:
        raise unclear[0]
    for other in filter(None, others):
        if first and _named_labels(first) != _named_labels(other):
            raise ValueError(
                f"{other.path}: does not give the images the labels that {first.path} gives them; "
                "leave one of the two there."
            )
    return first


class _UnclearTable(ValueError):
    """A table lists the images, and does not say which of its columns has the labels."""


def _named_labels(labels: Labels) -> dict[str, str]:
    return {file: labels.class_names[label] for file, label in labels.by_file.items()}


def labels_from_devkit(
    places: Sequence[Path], files: Sequence[str], class_names: Sequence[str]
) -> Labels | None:
    """Return the labels of ILSVRC-2012's validation images from its development kit.

    The kit is looked for, packed or unpacked, in some folders and above them.

    Raises:
        ValueError: the kit is damaged, or an image is of none of the classes.
    """
    from alexnet_jax.data.imagenet import read_devkit, read_unpacked_devkit

    for place in _with_parents(places):
        if (place / DEVKIT).is_file():
            return _by_number(place / DEVKIT, read_devkit(place / DEVKIT), files, class_names)
        for folder in (place, place / UNPACKED):
            if (folder / TRUTH).is_file() and (folder / META).is_file():
                return _by_number(folder / TRUTH, read_unpacked_devkit(folder), files, class_names)
    return None


def find_tables(places: Sequence[Path]) -> list[Path]:
    """Return the files in some folders that may be tables of labels, and Kaggle's above them."""
    paths: dict[Path, None] = {}
    for place in places:
        for name in _names(place):
            lower = name.lower()
            is_text = lower.endswith(".txt") and ("annot" in lower or "label" in lower)
            if (lower.endswith((".csv", ".tsv")) or is_text) and "submission" not in lower:
                paths[place / name] = None
    for place in _with_parents(places):
        paths |= {place / name: None for name in KAGGLE_TABLES if (place / name).is_file()}
    return [path for path in paths if path.is_file() and path.stat().st_size <= MAX_BYTES]


def _names(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):  # a folder above may be closed to us
        return sorted(path.name for path in folder.iterdir())
    return []


def _with_parents(places: Sequence[Path]) -> Iterator[Path]:
    yield from places
    if places:
        yield from list(places[-1].absolute().parents)[:PARENTS]


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        text = file.read()
    first = text.partition("\n")[0]
    delimiter = max("\t,;", key=first.count)
    if not first.count(delimiter):
        return [line.split() for line in text.splitlines() if line.strip()]
    try:
        reader = csv.reader(text.splitlines(), delimiter=delimiter)
        return [[cell.strip() for cell in row[:MAX_COLUMNS]] for row in reader if any(row)]
    except csv.Error:
        return []


def _from_table(
    path: Path, files: Sequence[str], class_names: Sequence[str] | None
) -> Labels | None:
    rows = _rows(path)
    width = min(map(len, rows), default=0)
    names = _file_keys(files)
    # The column that lists most of the files: numbers may be names of files and classes alike.
    listed = [
        len({names[key] for row in rows if (key := _base(row[c])) in names}) for c in range(width)
    ]
    if width < 2 or not max(listed):
        return None
    file_column = listed.index(max(listed))
    header, body = [], rows
    if _base(rows[0][file_column]) not in names:
        header, body = [cell.lower() for cell in rows[0][:width]], rows[1:]
    body = [row for row in body if _base(row[file_column]) in names]
    columns = _label_columns(header, width, file_column)
    if class_names is None:
        column = _training_column(path, header, body, columns)
        class_names = sorted({normalize(row[column]) for row in body} - {""})
    else:
        known = ClassNames(class_names)
        fitting = [c for c in columns if all(_label(row[c], known) is not None for row in body)]
        if not fitting and not _named(header):
            return None
        column = fitting[0] if fitting else columns[0]
    labels = _labels(path, body, (file_column, column), names, len(files), class_names)
    ignored = tuple(name for i, name in enumerate(header) if name in SPLIT_COLUMNS and i != column)
    return dataclasses.replace(labels, column=header[column] if header else "", ignored=ignored)


def _training_column(
    path: Path, header: Sequence[str], body: Sequence[Sequence[str]], columns: Sequence[int]
) -> int:
    """Return the column of labels, where no classes are known that they could be compared with."""
    if named := [column for column in _named(header) if column in columns]:
        return named[0]
    # Of a single other column, unless it is a measurement or number of something else.
    if len(columns) == 1 and not (header and all(_is_number(row[columns[0]]) for row in body)):
        return columns[0]
    listed = f" ({some([header[column] for column in columns])})" if header else ""
    raise _UnclearTable(
        f"{path}: lists the images, and does not say which column{listed} has their labels; call "
        "that column label, or remove the table."
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _labels(
    path: Path,
    body: Sequence[Sequence[str]],
    columns: tuple[int, int],
    names: Mapping[str, str],
    total: int,
    class_names: Sequence[str],
) -> Labels:
    known, by_file = ClassNames(class_names), {}
    unknown, twice = [], []
    for row in body:
        file, text = names[_base(row[columns[0]])], row[columns[1]]
        label = _label(text, known)
        if not text:
            continue  # as if it were not listed
        if label is None:
            unknown.append(text)
        elif by_file.setdefault(file, label) != label:
            twice.append(file)
    if unknown:
        raise ValueError(
            f"{path}: its labels {some(dict.fromkeys(unknown))} are not names of the class folders "
            f"of the training split ({some(class_names)}); write those names."
        )
    if twice:
        raise ValueError(
            f"{path}: lists {some(dict.fromkeys(twice))} with several labels; leave one for each."
        )
    return Labels(path, tuple(class_names), by_file, total - len(by_file))


def _file_keys(files: Sequence[str]) -> dict[str, str]:
    """Return files by the names that a table may have for them: with their suffix and without."""
    stems = {name.removesuffix(Path(name).suffix): name for name in files}
    return {
        normalize(key): name for key, name in (stems | dict(zip(files, files, strict=True))).items()
    }


def _base(cell: str) -> str:
    return normalize(re.split(r"[/\\]", cell)[-1])


def _named(header: Sequence[str]) -> list[int]:
    """Return the columns that a header says to be labels."""
    return [header.index(name) for name in LABEL_COLUMNS if name in header]


def _label_columns(header: Sequence[str], width: int, file_column: int) -> list[int]:
    """Return the columns that may hold labels, likely ones first."""
    columns = dict.fromkeys([*_named(header), *range(width)])
    return [column for column in columns if column != file_column]


def _label(cell: str, classes: ClassNames) -> int | None:
    """Return the class of a cell: its name, or its first word (Kaggle adds boxes to that)."""
    label = classes.find(cell, by_part=True)
    words = cell.split()
    return classes.find(words[0], by_part=True) if label is None and words else label


def _by_number(
    path: Path, kit: "Devkit", files: Sequence[str], class_names: Sequence[str]
) -> Labels | None:
    """Return the labels of files whose names end in the number of a line of the ground truth."""
    known, by_file = ClassNames(class_names), {}
    for file in files:
        match = re.search(r"_(\d{1,9})\.\w+$", file)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(kit.truth):
            continue
        synset = kit.synsets.get(kit.truth[number - 1], "")
        label = known.find(synset, by_part=True)
        if label is None:
            raise ValueError(
                f"{path}: {file} is of class {synset or 'unknown'}, no class folder of the "
                "training split; add its training images, or remove the image."
            )
        by_file[file] = label
    num_unlisted = len(files) - len(by_file)
    return Labels(path, tuple(class_names), by_file, num_unlisted) if by_file else None
