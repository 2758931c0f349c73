"""Which classes are taken for which: a table of all for some classes, the worst pairs for any."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_jax.plots.class_labels import short

# Numbers of classes up to which shares are printed, all pairs are a table, they are a picture.
MAX_NUMBERED, MAX_TABLE, MAX_PICTURE = 25, 130, 2000
PAIRS = 20  # of classes, and classes, that are listed


def table(label: np.ndarray, best: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the rows of the confusion matrix for the template; K up to 130.

    Args:
        label: true classes, int [N].
        best: most probable classes, int [N].
        class_names: K of them.
    """
    counts = _counts(label, best, len(class_names))
    totals = counts.sum(axis=1).tolist()
    return {
        "numbered": len(class_names) <= MAX_NUMBERED,
        "short": [short(name) for name in class_names],
        "rows": [
            {"name": name, "total": total, "counts": row}
            for name, total, row in zip(class_names, totals, counts.tolist(), strict=True)
        ],
    }


def picture(label: np.ndarray, best: np.ndarray, number: int) -> np.ndarray:
    """Return the matrix as a picture, uint8 [K, K, 4]: more opaque, a larger share of the row."""
    counts = _counts(label, best, number)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((number, number, 4), np.uint8)
    pixels[..., :3] = (47, 111, 179)
    # Single images of a class with many would not be seen in proportion.
    pixels[..., 3] = np.where(counts, np.rint(255 * (0.15 + 0.85 * np.sqrt(shares))), 0)
    return pixels


def worst_pairs(label: np.ndarray, best: np.ndarray, class_names: Sequence[str]) -> list[Any]:
    """Return the most frequent confusions: true and predicted class, count, total, share."""
    wrong = label != best
    totals = np.bincount(label, minlength=len(class_names))
    number = len(class_names)
    pairs, counts = np.unique(
        label[wrong].astype(np.int64) * number + best[wrong], return_counts=True
    )
    rows = [
        {
            "true": class_names[pair // number],
            "predicted": class_names[pair % number],
            "count": count,
            "total": int(totals[pair // number]),
        }
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["count"], row["total"]))[:PAIRS]


def worst_classes(label: np.ndarray, best: np.ndarray, class_names: Sequence[str]) -> list[Any]:
    """Return the classes with the highest error: name, number of images, error."""
    totals = np.bincount(label, minlength=len(class_names))
    wrong = np.bincount(label[label != best], minlength=len(class_names))
    rows = [
        {"name": class_names[number], "count": int(totals[number]), "wrong": int(wrong[number])}
        for number in np.flatnonzero(wrong).tolist()
    ]
    return sorted(rows, key=lambda row: (-row["wrong"] / row["count"], -row["count"]))[:PAIRS]


def _counts(label: np.ndarray, best: np.ndarray, number: int) -> np.ndarray:
    return np.bincount(label * number + best, minlength=number**2).reshape(number, number)
