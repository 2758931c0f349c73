"""The images of a run: its readable splits, and the statistics of the training split."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from alexnet_jax.config import Config, DataConfig, invalid
from alexnet_jax.data import splits as data_splits
from alexnet_jax.data import statistics
from alexnet_jax.data.sources import Labeled, Source
from alexnet_jax.data.splits import Splits
from alexnet_jax.data.wrappers import without
from alexnet_jax.training import processes
from alexnet_jax.training.stopping import StopCheck, no_check

# Reasons by split, then by number of the record, as text because it is kept as JSON.
Unreadable = dict[str, dict[str, str]]
SHOWN = 10  # unreadable files named in the log
UNREADABLE = "unreadable.txt"  # names all of them


@dataclasses.dataclass(frozen=True)
class RunData:
    """The readable images of a run, and what is known about its training split."""

    splits: Splits
    fingerprints: Mapping[str, str]  # of each split as it was opened
    unreadable: Unreadable
    statistics: Mapping[str, np.ndarray]  # the fields of `statistics.Statistics`


def open_splits(config: Config, given: Mapping[str, Source] | None = None) -> Splits:
    """Open the splits that a run reads, or use those given; ValueError if they fill no batch."""
    if given is None:
        splits = data_splits.open_splits(config.data, config.seed)
    else:
        opened = data_splits.given_source(given)
        splits = data_splits.make_splits(opened, config.data, config.seed)
    check_batch_size(config.optimizer.batch_size, len(splits.train))
    return splits


def check_batch_size(batch_size: int, images: int) -> None:
    """Raise a ValueError if there are fewer training images than a batch holds."""
    if images < batch_size:
        raise invalid(
            "optimizer.batch_size",
            batch_size,
            f"must be at most the number of training images, {images}",
            f"try {2 ** (images.bit_length() - 1)}",
        )


def fingerprints(splits: Splits) -> dict[str, str]:
    """Return for each split a digest of its file names, its classes and how it was split off."""
    return {name: source.fingerprint() for name, source in splits.by_name().items()}


def read_data(
    config: Config,
    splits: Splits,
    inherited: Mapping[str, np.ndarray] | None = None,
    check_stop: StopCheck = no_check,
) -> RunData:
    """Read the splits of a new run once, for statistics and unreadable files.

    Args:
        config: of the run.
        splits: from `open_splits`.
        inherited: statistics of the run that this one starts from, if there is one.
        check_stop: called between images.

    Raises:
        ValueError: the source cannot be trained on, or a file is unreadable and
            data.unreadable=stop.
    """
    _print_notes(splits)
    # By one process for all: what each of them sees of a disk, or computes, might differ.
    known, unreadable = processes.broadcast_from_main(
        "read data", lambda: _read(config.data, splits, check_stop)
    )
    if config.data.statistics == "init":
        known = _inherited(inherited, config.data)
    _check_classes(splits, unreadable.get("train", {}))
    return _run_data(config, splits, fingerprints(splits), unreadable, known)


def restore_data(
    config: Config, splits: Splits, meta: Mapping[str, Any], known: Mapping[str, np.ndarray]
) -> RunData:
    """Return what `read_data` returned when the run began, from the parts of a checkpoint.

    Args:
        config: of the run.
        splits: from `open_splits`.
        meta: plain part of the checkpoint, with "data" and "unreadable".
        known: its statistics.
    """
    _print_notes(splits)
    return _run_data(config, splits, meta["data"], meta["unreadable"], known)


def _print_notes(splits: Splits) -> None:
    """Print what was taken for what: first of all, as reading the images may take long."""
    for note in splits.notes:
        processes.print_from_main(note)


def _check_classes(splits: Splits, unreadable: Mapping[str, str]) -> None:
    """Raise a ValueError if no training image of a class can be read."""
    if not unreadable:
        return
    labels = cast(Labeled, splits.train).labels()
    readable = np.delete(labels, [int(index) for index in unreadable])
    lost = sorted({*labels[labels >= 0].tolist()} - {*readable.tolist()})
    if lost:
        names = ", ".join(splits.class_names[label] for label in lost[:SHOWN])
        first = next(r for i, r in unreadable.items() if labels[int(i)] == lost[0])
        classes = f"{len(lost):,} class{'es' * (len(lost) != 1)} ({names})"
        raise ValueError(
            f"None of the training images of {classes} can be read, first {first}; replace or "
            "convert the images, or remove the classes."
        )


def _run_data(
    config: Config,
    splits: Splits,
    digests: Mapping[str, str],
    unreadable: Unreadable,
    known: Mapping[str, np.ndarray],
) -> RunData:
    _report(unreadable, config)
    return RunData(_readable(splits, unreadable), digests, unreadable, known)


def _read(
    config: DataConfig, splits: Splits, check_stop: StopCheck
) -> tuple[Mapping[str, np.ndarray], Unreadable]:
    """Return the statistics, unless they come from another run, and what is unreadable."""
    known, unreadable = {}, {}
    if config.statistics == "computed" and splits.statistics is not None:
        known = vars(splits.statistics)
    elif config.statistics == "computed":
        computed, unreadable["train"] = statistics.compute_statistics(
            splits.train, config.threads, check_stop=check_stop
        )
        known = vars(computed)
    elif config.statistics in statistics.PUBLISHED:
        known = vars(statistics.published(config.statistics, config.image_size))
    for name, source in splits.by_name().items():
        if name not in unreadable and splits.statistics is None:
            unreadable[name] = statistics.find_unreadable(
                source, name, config.threads, check_stop=check_stop
            )
    return known, {
        name: {str(index): reason for index, reason in reasons.items()}
        for name, reasons in unreadable.items()
    }


def _inherited(
    known: Mapping[str, np.ndarray] | None, config: DataConfig
) -> Mapping[str, np.ndarray]:
    if known is None:
        raise invalid("data.statistics", "init", "must be given with init_from", "use computed")
    side = len(known["mean_image"])
    if config.mean != "channel" and side != config.image_size:
        raise invalid(
            "data.image_size",
            config.image_size,
            f"must be {side}, the side of the mean image that comes with init_from",
            f"use {side}, or add data.mean=channel",
        )
    return known


def _report(unreadable: Unreadable, config: Config) -> None:
    reasons = list_reasons(unreadable)
    if not reasons:
        return
    if config.data.unreadable == "stop":
        rule = f"{len(reasons)} images are unreadable ({'; '.join(reasons)})"
        raise invalid("data.unreadable", "stop", rule, "repair or remove them, or use skip")
    rest = [f"all of them: {UNREADABLE} in the run's folder"] if len(reasons) > SHOWN else []
    lines = [f"{len(reasons)} images are unreadable and skipped:", *reasons[:SHOWN], *rest]
    processes.print_from_main("\n  ".join(lines))


def list_reasons(unreadable: Unreadable) -> list[str]:
    """Return a line for each unreadable image: its split, its name, and why."""
    return [
        f"{split}: {reason}"
        for split, by_record in unreadable.items()
        for reason in by_record.values()
    ]


def _readable(splits: Splits, unreadable: Unreadable) -> Splits:
    readable: dict[str, Any] = {
        name: without(splits.by_name()[name], {int(index) for index in reasons})
        for name, reasons in unreadable.items()
        if reasons
    }
    for name, source in readable.items():
        if not len(source):
            raise ValueError(f"None of the {name} images can be read; check the files.")
    return dataclasses.replace(splits, **readable)
