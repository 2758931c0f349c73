"""The splits that a run reads, every image a square of the size that the configuration asks for."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

import numpy as np

from alexnet_jax.config import DataConfig
from alexnet_jax.data.array_record import ArrayRecords, Tfds, find_shards, open_tfds
from alexnet_jax.data.shards import manifest as shard_manifest
from alexnet_jax.data.sources import Folder, Labeled, Source, Stored, subfolders
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.data.synthetic import Synthetic
from alexnet_jax.data.wrappers import Cached, Resized, Subset

# What the splits of a source may be called; training looks at the validation split.
NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Splits:
    """What a run trains on, looks at while it trains, and scores once at the end."""

    train: Source
    validation: Source
    test: Source | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...]  # sentences for the log: how the splits came about, what was left aside
    # The bytes of every file that was opened, by split/name; what changes when a file does.
    inventory: Callable[[], dict[str, int]] = dict
    # Of the training split, where `data.prepare` left them: then it has read every image, too.
    statistics: Statistics | None = None


def open_splits(config: DataConfig, seed: int) -> Splits:
    """Open the data set of a run; images come as uint8 [S, S, 3], S = `config.image_size`.

    Where the source has no validation split, a share of each class of its training split is held
    out (or, at a fraction of 0, its test split is looked at instead). Raises ValueError for a
    source that is missing, empty, of one class, or whose splits disagree.
    """
    where, sources, notes = open_sources(config)
    train, validation, test = sources["train"], sources.get("validation"), sources.get("test")
    names = train.class_names
    if len(names) < 2:
        raise ValueError(
            f"{where}: it has one class only ({', '.join(names)}); a classifier needs two or more: "
            "add another."
        )
    if validation is None:
        train, validation, test, note = _hold_out(train, test, config, seed, where)
        notes = (*notes, note)
    chosen = {"train": train, "validation": validation, "test": test}
    squares = _squares({name: s for name, s in chosen.items() if s is not None}, config)
    counts = ", ".join(f"{split} {len(source):,}" for split, source in squares.items())
    known = None
    if config.source == "arrayrecord":
        known = shard_manifest.load_statistics(Path(config.path), squares, config.image_size)
    if known:
        notes = (*notes, f"{where}: prepared, so its images are not read beforehand.")
    return Splits(
        squares["train"],
        squares["validation"],
        squares.get("test"),
        names,
        (*notes, f"{where}: {len(names):,} classes; images: {counts}."),
        lambda: _inventory(sources),
        known,
    )


def open_sources(config: DataConfig) -> "Opened":
    """Open the splits that a source has, as they are; see `open_splits` for what it raises."""
    _check_address(config)
    where, sources, notes = _OPENERS[config.source](config)
    for split, source in sources.items():
        if not len(source):
            raise ValueError(
                f"{where}: its {split} split holds no images; every split needs some: add them, or "
                "remove the split (train must stay)."
            )
    return where, sources, notes


def _inventory(sources: dict[str, Source]) -> dict[str, int]:
    return {
        f"{split}/{name}": size
        for split, source in sources.items()
        if isinstance(source, Stored)
        for name, size in source.inventory().items()
    }


def _check_address(config: DataConfig) -> None:
    """Raise a ValueError where a source needs a folder or a name, or where none is read."""
    if config.source == "synthetic" and config.path:
        raise ValueError(
            f"--data.path {config.path}: the embedded data set is drawn and lies nowhere; to train "
            "on what lies there add --preset photos, or --data.source folder, arrayrecord or tfds."
        )
    if config.source != "tfds" and config.name:
        raise ValueError(
            f"--data.name {config.name}: only TFDS data sets have names; add --data.source tfds."
        )
    if config.source in ("folder", "arrayrecord") and not config.path:
        option, remedy = "--data.path", "name the folder"
    elif config.source == "tfds" and not config.name:
        option, remedy = "--data.name", "name the data set"
    else:
        return
    raise ValueError(f"{option} '': it is needed by --data.source {config.source}; {remedy}.")


def stratify(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a fraction of each class, drawn by `seed`: indices (kept, held out), both sorted.

    Of a class of two or more, at least one is held out and one is kept; a single one is kept.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: min(max(round(fraction * len(members)), 1), len(members) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _hold_out(
    train: Source, test: Source | None, config: DataConfig, seed: int, where: str
) -> tuple[Source, Source, Source | None, str]:
    """Return the splits train, validation and test of a source without validation, and a note."""
    fraction = config.validation_fraction
    if fraction == 0 and test is None:
        raise ValueError(
            f"--data.validation-fraction 0: {where} has neither a validation nor a test split, and "
            "training looks at one; hold out a share such as 0.1."
        )
    if fraction == 0 and test is not None:
        note = "It has no validation split, and none is held out: training looks at the test split."
        return train, test, None, f"{where}: {note}"
    kept, held = stratify(cast(Labeled, train).labels(), fraction, seed)
    if not len(held):
        raise ValueError(
            f"{where}: it has one image a class; validation is held out of classes of two or more: "
            "add images, or a validation split."
        )
    note = (
        f"{where}: it has no validation split: a fraction of {fraction:g} of each class of its "
        f"training images, drawn with seed {seed}, is held out for validation."
    )
    return Subset(train, kept), Subset(train, held), test, note


def _squares(sources: dict[str, Source], config: DataConfig) -> dict[str, Source]:
    """Resize the splits, and keep in memory those that still fit beside the ones before them."""
    squares, size, free = {}, config.image_size, config.cache_gib * 2**30
    for split, source in sources.items():
        if isinstance(source, Synthetic) and source[0]["image"].shape[0] == size:
            squares[split] = source  # of the right size already, and it keeps its images itself
            continue
        squares[split] = Resized(source, config)
        needed = len(source) * size * size * 3
        if needed <= free:
            squares[split] = Cached(squares[split], size)
            free -= needed
    return squares


Opened = tuple[str, dict[str, Source], tuple[str, ...]]  # where, sources by split, notes


def _synthetic(_: DataConfig) -> Opened:
    splits = ("train", "validation", "test")
    return "The embedded data set", {name: Synthetic(name) for name in splits}, ()


def _folder(config: DataConfig) -> Opened:
    root = Path(config.path)
    names = subfolders(root)
    if not names:
        raise ValueError(
            f"{root}: it holds no class folders; the images of each class lie in a folder of its "
            "own: sort them so."
        )
    if not set(names) & set(NAMES):
        if {name.lower() for name in names} <= set(NAMES):
            raise ValueError(
                f"{root}: it holds {', '.join(names)}; splits are named in small letters: rename "
                "them."
            )
        folder = Folder(root)
        return str(root), {"train": folder}, _remarks(folder)
    present = _present(names, str(root), "add it, or rename the folders if these are classes")
    train = Folder(root / "train")
    folders = {"train": train}
    for split, name in present.items():
        if split != "train":
            folders[split] = Folder(root / name, train.class_names)
    notes = sum((_remarks(folder) for folder in folders.values()), ())
    if others := [name for name in names if name not in NAMES]:
        note = f"{root}: ignored what is no split by its name: {', '.join(others)}."
        notes = (*notes, note)
    return str(root), dict(folders), notes


def _remarks(folder: Folder) -> tuple[str, ...]:
    remarks, out = [], folder.links_out
    if folder.ignored:
        left = f"left aside what is no image by its name, {folder.ignored:,} in all"
        remarks.append(f"{folder.root}: {left}.")
    if out:
        links = f"{len(out):,} links lead" if len(out) > 1 else "a link leads"
        remarks.append(
            f"{folder.root}: {links} out of it, and what is there counts: {out[0]}"
            f"{', ...' if len(out) > 1 else ''}."
        )
    return tuple(remarks)


def _array_records(config: DataConfig) -> Opened:
    root = Path(config.path)
    subfolders(root)  # refuses a folder that is missing or closed
    found = [name for name in NAMES if find_shards(root, name)]
    sources = _open(found, str(root), lambda name: ArrayRecords(root, name), "write its shards")
    sides = {
        split: s.side for split, s in sources.items() if isinstance(s, ArrayRecords) and s.side
    }
    if len(set(sides.values())) > 1:
        each = ", ".join(f"{split} of {side}" for split, side in sides.items())
        raise ValueError(
            f"{root}: its splits hold squares of unequal sides, {each} pixels; the splits of a "
            "data set are prepared alike: write them anew."
        )
    return str(root), sources, ()


def _tfds(config: DataConfig) -> Opened:
    builder = open_tfds(config.name, config.path)
    where = f"TFDS {builder.info.full_name}"
    sources = _open(
        list(builder.info.splits), where, lambda name: Tfds(builder, name), "prepare it"
    )
    test = sources.get("test")
    if isinstance(test, Tfds) and not test.labeled:
        del sources["test"]
        return where, sources, (f"{where}: its test split has no labels and is not used.",)
    return where, sources, ()


def _open(
    found: Collection[str], where: str, open_split: Callable[[str], Source], remedy: str
) -> dict[str, Source]:
    present = _present(found, where, remedy)
    return {split: open_split(name) for split, name in present.items()}


def _present(found: Collection[str], where: str, remedy: str) -> dict[str, str]:
    """Return the splits that a source has, train first, with their names there."""
    known = [name for name in NAMES if name in found]
    if "train" not in known:
        raise ValueError(
            f"{where}: of the splits {', '.join(NAMES)} it holds {', '.join(known) or 'none'}; "
            f"training needs train: {remedy}."
        )
    if {"val", "validation"} <= set(known):
        raise ValueError(
            f"{where}: it holds both val and validation; training looks at one: remove the other."
        )
    return {NAMES[name]: name for name in known}


_OPENERS: dict[str, Callable[[DataConfig], Opened]] = {
    "synthetic": _synthetic,
    "folder": _folder,
    "arrayrecord": _array_records,
    "tfds": _tfds,
}
