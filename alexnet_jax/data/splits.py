"""The train, validation and test splits of a run, with images resized as its configuration says.

To add a data source: write a class with the methods of `sources.Source` (and of `Labeled` if
validation may be held out of it, of `Stored` if it is stored in files), a function `_open_...`
below that opens its splits, an entry in SOURCES, and the name in `config.DataConfig.source`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from alexnet_jax.config import DataConfig, invalid
from alexnet_jax.data.array_record import ArrayRecords, find_shards
from alexnet_jax.data.class_names import check_class_names
from alexnet_jax.data.layout import open_folders
from alexnet_jax.data.shards import manifest as shard_manifest
from alexnet_jax.data.sources import Labeled, Source, Stored
from alexnet_jax.data.split_names import SPLIT_OF_WORD, split_of
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.data.synthetic import SIZES, Synthetic
from alexnet_jax.data.wrappers import Cached, Monitored, Resized, Subset

NOTABLE = 0.1  # difference of what is held out from what was asked for, as a fraction of that


@dataclasses.dataclass(frozen=True)
class Splits:
    """What a run trains on, evaluates during training, and scores once at the end."""

    train: Source
    validation: Source
    test: Source | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...]  # sentences for the log: how the splits were made, what was ignored
    # Returns the bytes of every file that was opened, by split/name; files that change later show.
    inventory: Callable[[], dict[str, int]] = dict
    # Of the training split, if it is a prepared one, of which every image has been read.
    statistics: Statistics | None = None

    def by_name(self) -> dict[str, Source]:
        """Return the splits that there are: train, validation and perhaps test."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}


class OpenedSource(NamedTuple):
    """The splits that a source has, with images of any size."""

    name: str  # for messages
    splits: Mapping[str, Source]  # "train", perhaps "validation" and "test"
    notes: tuple[str, ...]


def open_splits(config: DataConfig, seed: int) -> Splits:
    """Open the data set of a run; images are uint8 [S, S, 3], S = `config.image_size`.

    If the source has no validation split, a fraction of each class of its training split is held
    out (or, if the fraction is 0, the test split is used as the validation split).

    Raises:
        ValueError: the source is missing or empty, has one class, or its splits disagree.
    """
    return make_splits(open_source(config), config, seed)


def make_splits(opened: OpenedSource, config: DataConfig, seed: int) -> Splits:
    """Return the splits of a run from those that a source has; see `open_splits`."""
    train, validation, test = (opened.splits.get(s) for s in ("train", "validation", "test"))
    assert train is not None  # `_select_splits`
    notes, class_names = opened.notes, train.class_names
    if len(class_names) < 2:
        raise ValueError(
            f"{opened.name}: has one class only ({', '.join(class_names)}), and a classifier needs "
            "two or more; add another."
        )
    if validation is None:
        train, validation, test, note = _hold_out(train, test, config, seed, opened.name)
        notes = (*notes, note)
    used = {"train": train, "validation": validation, "test": test}
    squares = _squares({split: s for split, s in used.items() if s is not None}, config)
    counts = ", ".join(f"{split} {len(source):,}" for split, source in squares.items())
    statistics = None
    if config.source == "arrayrecord":
        statistics = shard_manifest.load_statistics(Path(config.path), squares, config.image_size)
    if statistics:
        notes = (*notes, f"{opened.name}: prepared, so its images are not read beforehand.")
    return Splits(
        squares["train"],
        squares["validation"],
        squares.get("test"),
        class_names,
        (*notes, f"{opened.name}: {len(class_names):,} classes; images: {counts}."),
        lambda: _inventory(opened.splits),
        statistics,
    )


def given_source(sources: Mapping[str, Source]) -> OpenedSource:
    """Return the splits that a program gives, as `open_source` returns them.

    Raises:
        ValueError: there is no split train, another name, an empty split, what is no source, names
            of classes that cannot be told apart, or classes differ.
    """
    if not isinstance(sources, Mapping):
        rule = "must be a dict of sources by split"
        raise invalid("splits", type(sources).__name__, rule, 'use {"train": Pairs(...)}')
    for split, source in sources.items():
        if not hasattr(source, "class_names"):
            rule = "must be a source with class_names"
            raise invalid(f"splits[{split!r}]", type(source).__name__, rule, "use Pairs(...)")
    if unknown := sorted(set(sources) - {"train", "validation", "test"}):
        rule = "must be train, validation or test"
        raise invalid("splits", ", ".join(unknown), rule, "name the splits so")
    if "train" not in sources:
        raise invalid("splits", ", ".join(sources), "must have train", "add splits['train']")
    classes = sources["train"].class_names
    for split, source in sources.items():
        check_class_names(source.class_names)
        if not len(source):
            raise invalid("splits", split, "must hold images", "add some, or leave it out")
        if source.class_names != classes:
            rule = "must have the class names of train, in the same order"
            raise invalid("splits", split, rule, "use the same class_names for all")
    return OpenedSource("splits", sources, ())


def open_source(config: DataConfig) -> OpenedSource:
    """Open the splits that a source has; raises ValueError as `open_splits` does."""
    kind = SOURCES[config.source]
    for field in ("path", "name"):
        value, is_required = getattr(config, field), field in kind.required
        if is_required and not value:
            rule = f"is required by data.source={config.source}"
            raise invalid(f"data.{field}", "''", rule, _REQUIRED[field])
        if value and field in kind.unused:
            rule = f"is not used by data.source={config.source}"
            raise invalid(f"data.{field}", value, rule, kind.unused[field])
    opened = kind.open(config)
    for split, source in opened.splits.items():
        if not len(source):
            raise ValueError(
                f"{opened.name}: its {split} split contains no images; add some, or remove the "
                "split (train is required)."
            )
    return opened


def stratify(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a fraction of each class, drawn by `seed`: indices (kept, held out), both sorted.

    Of a class of two or more, at least one is held out and one is kept; a single one is kept.
    """
    rng = np.random.default_rng(seed)
    is_held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        number = min(max(round(fraction * len(members)), 1), len(members) - 1)
        is_held_out[members[:number]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _hold_out(
    train: Source, test: Source | None, config: DataConfig, seed: int, name: str
) -> tuple[Source, Source, Source | None, str]:
    """Return the splits train, validation and test of a source without validation, and a note."""
    fraction = config.validation_fraction
    if fraction == 0 and test is None:
        rule = f"{name} has neither a validation nor a test split, and training evaluates on one"
        raise invalid("data.validation_fraction", 0, rule, "try 0.1")
    if fraction == 0 and test is not None:
        note = f"{name}: has no validation split and none is held out; training evaluates on test."
        return train, test, None, note
    kept, held_out = stratify(cast(Labeled, train).labels(), fraction, seed)
    if not len(held_out):
        raise ValueError(
            f"{name}: has one image per class, and a class needs two or more to hold one out; "
            "add images, or a validation split."
        )
    note = (
        f"{name}: has no validation split; a fraction of {fraction:g} of each class of its "
        f"training images, drawn with seed {seed}, is held out for validation"
    )
    expected = fraction * (len(kept) + len(held_out))
    if abs(len(held_out) - expected) > NOTABLE * expected:
        share = len(held_out) / (len(kept) + len(held_out))
        note += (
            f": {len(held_out):,} images, which are {share:.0%}, as every class with two or more "
            "gives at least one, and whole ones"
        )
    note += "."
    return Subset(train, kept), Subset(train, held_out), test, note


def _squares(sources: Mapping[str, Source], config: DataConfig) -> dict[str, Source]:
    """Resize the splits, and cache each one that fits in the memory that the earlier ones leave."""
    squares, size, free_bytes = {}, config.image_size, config.cache_gib * 2**30
    for split, source in sources.items():
        if not (isinstance(source, Synthetic) and source[0]["image"].shape[0] == size):
            source = Resized(source, config)
            num_bytes = len(source) * size * size * 3
            if num_bytes <= free_bytes:
                source = Cached(source, size)
                free_bytes -= num_bytes
        squares[split] = Monitored(source)
    return squares


def _inventory(sources: Mapping[str, Source]) -> dict[str, int]:
    return {
        f"{split}/{name}": size
        for split, source in sources.items()
        if isinstance(source, Stored)
        for name, size in source.inventory().items()
    }


def _open_given(_: DataConfig) -> OpenedSource:
    rule = "the images were given by a program, train_and_evaluate(..., splits=...)"
    raise invalid(
        "data.source", "given", rule, "call it from there; evaluate also takes images=FOLDER"
    )


def _open_synthetic(_: DataConfig) -> OpenedSource:
    return OpenedSource("The synthetic data set", {name: Synthetic(name) for name in SIZES}, ())


def _open_folder(config: DataConfig) -> OpenedSource:
    root = Path(config.path)
    splits, notes = open_folders(root)
    return OpenedSource(str(root), dict(splits), notes)


def _open_array_records(config: DataConfig) -> OpenedSource:
    root = Path(config.path)
    if not root.is_dir():
        rule = "is a file" if root.is_file() else "does not exist"
        raise invalid("data.path", root, rule, "name the folder of the shards")
    names = [word for word in SPLIT_OF_WORD if find_shards(root, word)]
    present, notes = _select_splits(names, str(root), "write its shards")
    splits = {split: ArrayRecords(root, name) for split, name in present.items()}
    sides = {split: source.side for split, source in splits.items() if source.side}
    if len(set(sides.values())) > 1:
        listed = ", ".join(f"{split} {side}" for split, side in sides.items())
        raise ValueError(
            f"{root}: the squares of its splits must have one size, but are of {listed} pixels; "
            "prepare them again."
        )
    return OpenedSource(str(root), splits, notes)


def _open_tfds(config: DataConfig) -> OpenedSource:
    # Imported for this source alone: Colab's protobuf is too old for the generated code of its own
    # tensorflow-metadata. Then TFDS logs the error and is imported without its contents.
    import tensorflow_datasets

    if not hasattr(tensorflow_datasets, "core"):
        raise invalid(
            *("data.source", "tfds", "tensorflow_datasets cannot be imported, its error is above"),
            "on Colab run pip install tensorflow-metadata==1.17.3 and restart the runtime",
        )
    from alexnet_jax.data.tfds import Tfds, open_tfds

    builder = open_tfds(config.name, config.path)
    name = f"TFDS {builder.info.full_name}"
    present, notes = _select_splits(list(builder.info.splits), name, "prepare it")
    splits = {split: Tfds(builder, own_name) for split, own_name in present.items()}
    if "test" in splits and not splits["test"].labeled:
        del splits["test"]
        notes = (*notes, f"{name}: ignored its test split, it has no labels.")
    return OpenedSource(name, splits, notes)


def _select_splits(
    names: Sequence[str], source: str, remedy: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the splits among `names`, train first, with their names in the source, and notes."""
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    ignored = []
    for name in names:
        split = split_of(name)
        (ignored if split is None else found[split]).append(name)
    for split, several in found.items():
        if len(several) > 1:
            listed = " and ".join(several)
            raise ValueError(f"{source}: has {listed} for the {split} split; remove one of them.")
    present = {split: named[0] for split, named in found.items() if named}
    if "train" not in present:
        raise ValueError(
            f"{source}: training needs a split train, and of train, validation and test it has "
            f"{', '.join(present) or 'none'}; {remedy}."
        )
    note = f"{source}: ignored what is not one of the splits: {', '.join(ignored)}."
    taken = ", ".join(f"{split} is {name}" for split, name in present.items())
    return present, (f"{source}: {taken}.", *((note,) if ignored else ()))


@dataclasses.dataclass(frozen=True)
class SourceKind:
    """How a value of `data.source` opens its splits."""

    open: Callable[[DataConfig], OpenedSource]
    required: tuple[str, ...] = ()  # of data.path and data.name
    unused: Mapping[str, str] = dataclasses.field(default_factory=dict)  # field: what to do instead


_REQUIRED = {"path": "name the folder", "name": "name the data set"}
_NO_NAME = {"name": "add data.source=tfds, only TFDS data sets have names"}
_NO_PATH = {"path": "to train on these files add preset=photos, or data.source=folder"}

SOURCES = {
    "synthetic": SourceKind(_open_synthetic, unused={**_NO_PATH, **_NO_NAME}),
    "folder": SourceKind(_open_folder, required=("path",), unused=_NO_NAME),
    "arrayrecord": SourceKind(_open_array_records, required=("path",), unused=_NO_NAME),
    "tfds": SourceKind(_open_tfds, required=("name",)),
    "given": SourceKind(_open_given),
}
