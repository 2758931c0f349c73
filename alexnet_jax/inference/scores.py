"""Scores: by class, next to the paper's Table 2 if they compare, and as a printed table."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_jax.config import DataConfig
from alexnet_jax.storage.digest import digest
from alexnet_jax.storage.names import printable

if TYPE_CHECKING:
    from alexnet_jax.inference.ensemble import Predictions

ILSVRC_2012 = "1c414e085623e7f4"  # digest of the sorted list of its 1,000 synsets
CLASSES, IMAGES_PER_CLASS, IMAGE_SIZE, CROPS = 1000, 50, 256, (224, 227)
TOP5_FROM = 6  # classes; with five or fewer the top-5 error is always 0


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row of Table 2 (section 6): errors on ILSVRC-2012's validation images, fractions."""

    name: str
    top1_error: float
    top5_error: float


# By number of networks, each trained on ILSVRC-2012 alone, ten views of each image.
TABLE_2 = {1: PaperRow("1 CNN", 0.407, 0.182), 5: PaperRow("5 CNNs", 0.381, 0.164)}


def comparable_row(
    class_names: Sequence[str],
    images_by_class: np.ndarray,
    networks: Sequence[DataConfig],
    views: int,
) -> tuple[PaperRow | None, str]:
    """Return the row of the paper that a score compares with, or None, and a sentence on why.

    Args:
        class_names: of the networks.
        images_by_class: number of images scored, int [K].
        networks: the preprocessing of each.
        views: of each image.
    """
    if reason := _difference(class_names, images_by_class, networks, views):
        return None, f"The paper's Table 2 does not compare: {reason}."
    return TABLE_2[len(networks)], (
        f"The paper's row compares if these are the validation images of ILSVRC-2012, and none was "
        f"trained on: checked are only the classes and their {IMAGES_PER_CLASS} images each."
    )


def _difference(
    class_names: Sequence[str],
    images_by_class: np.ndarray,
    networks: Sequence[DataConfig],
    views: int,
) -> str:
    """Return how a score differs from those of Table 2, "" if it does not."""
    if digest(sorted(name.partition(" ")[0] for name in class_names)) != ILSVRC_2012:
        count = f"{len(class_names):,} " if len(class_names) != CLASSES else ""
        return f"it has the 1,000 classes of ILSVRC-2012, and these are {count}others"
    if (images_by_class != IMAGES_PER_CLASS).any():
        return (
            "it has all 50,000 validation images of ILSVRC-2012, "
            f"{IMAGES_PER_CLASS} of each class, and these are {images_by_class.sum():,}"
        )
    if views != 10:
        return "it has ten views of each image, and this is one; evaluate ten"
    for data in networks:
        if (data.image_size, data.resize) != (IMAGE_SIZE, "shorter-side") or data.crop not in CROPS:
            return (
                "its views are 224 pixels of a center square of 256, and these are "
                f"{data.crop} of {data.image_size} (data.resize {data.resize})"
            )
    if len(networks) not in TABLE_2:
        return f"it has 1 network and 5, and these are {len(networks)}"
    return ""


def per_class(predictions: "Predictions", class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each class with images its errors and its most frequent confusion, worst first."""
    rows = []
    for label in np.unique(predictions.label).tolist():
        members = predictions.label == label
        confusions = np.bincount(predictions.best[members], minlength=len(class_names))
        confusions[label] = 0
        most = int(confusions.argmax())
        rows.append(
            {
                "class": class_names[label],
                "count": int(members.sum()),
                "top1_error": float(predictions.top1_error[members].mean()),
                "top5_error": float(predictions.top5_error[members].mean()),
                "taken_for": class_names[most] if confusions[most] else None,
                "taken_for_count": int(confusions[most]),
            }
        )
    return sorted(rows, key=lambda row: -row["top1_error"])


def format_scores(scores: Mapping[str, Any]) -> str:
    """Return the table and the notes that `evaluate` prints for the scores it computed."""
    top5 = scores["classes"] >= TOP5_FROM
    views = "ten views" if scores["views"] == 10 else "center view"
    unreadable = f" ({scores['unreadable']:,} more are unreadable)" if scores["unreadable"] else ""
    images, classes = f"{scores['count']:,} images{unreadable}", f"{scores['classes']:,} classes"
    lines = [
        printable(f"{scores['of']}: {images}, {classes}, {views}"),
        *_aligned([*_network_rows(scores, top5), *_paper_rows(scores)]),
        scores["about_paper"],
    ]
    if scores.get("searched_on", "validation") != "validation":
        lines.append(
            f"No file of {scores['searched_on']}, where the weights were searched, is among those "
            "scored; copies, and images that were trained on, are not detected."
        )
    if "per_class" in scores:
        lines += ["", *_aligned(_class_rows(scores["per_class"], top5))]
    if "confusion" in scores:
        lines.append(printable(f"Confusion matrix: {scores['confusion']}"))
    return "\n".join(lines)


def _network_rows(scores: Mapping[str, Any], top5: bool) -> list[list[str]]:
    members = scores.get("members")
    rows = [["", "top-1 error", *(["top-5 error"] if top5 else []), "loss (nats)"]]
    rows[0] += ["weight"] if members else []
    for network, weight in zip(members or [scores], scores.get("weights", [None]), strict=True):
        row = _row(f"{network['workdir']}, step {network['step']:,}", network, top5)
        rows.append(row + ([f"{weight:.3f}"] if members else []))
    if members and "searched_on" in scores:
        rows.append(_row("average, equal weights", scores["average"], top5))
        where = f"{scores['searched_on']}, {scores['searched_on_count']:,} images"
        rows.append(_row(f"average, weights searched on {where}", scores, top5))
    elif members:
        rows.append(_row(f"average of {len(members)}", scores, top5))
    return rows


def _paper_rows(scores: Mapping[str, Any]) -> list[list[str]]:
    if not (paper := scores["paper"]):
        return []
    # As the paper prints them: to a tenth of a percent.
    errors = [f"{paper['top1_error']:.1%}", f"{paper['top5_error']:.1%}"]
    return [[f"Krizhevsky et al. 2012, {paper['name']}", *errors]]


def _row(name: str, scores: Mapping[str, Any], top5: bool) -> list[str]:
    errors = [scores["top1_error"], *([scores["top5_error"]] if top5 else [])]
    return [name, *(f"{error:.2%}" for error in errors), f"{scores['loss']:.4f}"]


def _class_rows(classes: Sequence[Mapping[str, Any]], top5: bool) -> list[list[str]]:
    rows = [["class", "images", "top-1 error", *(["top-5 error"] if top5 else []), "taken for"]]
    for row in classes:
        errors = [row["top1_error"], *([row["top5_error"]] if top5 else [])]
        confusion = f"{row['taken_for']} ({row['taken_for_count']})" if row["taken_for"] else ""
        cells = [f"{error:.1%}" for error in errors]
        rows.append([row["class"], f"{row['count']:,}", *cells, confusion])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines of columns, the first aligned left and the others right."""
    width = max(map(len, rows))
    full = [[*map(printable, row), *[""] * (width - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return [
        "  ".join(
            cell.rjust(size) if column else cell.ljust(size)
            for column, (cell, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in full
    ]
