"""Curves of a run for the page, thinned so that a long run makes no long page."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST = 2000  # points of a curve, about
TABLE_ROWS = 200  # epochs in the table, about

Record = dict[str, Any]


def chart_data(metrics: Sequence[Record], top5: bool) -> list[dict[str, Any]]:
    """Return charts for curves.js: title, format, and series of epoch, step and value.

    A value that is null was not finite. A chart without any record is left out.

    Args:
        metrics: records of metrics.jsonl.
        top5: whether the top-5 error says anything: with five classes or fewer it is always 0.
    """
    by_split: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in metrics:
        if record.get("epoch") is not None:
            by_split.setdefault(record.get("split", ""), []).append(record)
    train, validation, test = (by_split[name] for name in ("train", "validation", "test"))
    charts: list[dict[str, Any]] = []
    for name, title, kind in (("loss", "Loss", "nats"), ("top1_error", "Top-1 error", "percent")):
        records = _series(train, name)
        series = [
            _as_json("training, each record", "faint", 0, *thin(*records)),
            _as_json("training, mean of the epoch", "line", 0, *thin(*_epoch_means(*records))),
            _as_json("validation", "line", 1, *thin(*_series(validation, name))),
            _as_json("test", "points", 1, *thin(*_series(test, name))),
        ]
        if name == "top1_error" and top5:
            series.append(
                _as_json(
                    "validation, top-5", "dashed", 2, *thin(*_series(validation, "top5_error"))
                )
            )
        charts.append({"id": name, "title": title, "format": kind, "series": series})
    for name, title, kind in (
        ("learning_rate", "Learning rate", "rate"),
        ("images_per_second", "Images per second", "count"),
    ):
        points = thin(*_series(train, name))
        series = [_as_json(title.lower(), "plain", 0, *points)]
        charts.append({"id": name, "title": title, "format": kind, "series": series})
    for chart in charts:
        chart["series"] = [one for one in chart["series"] if one["x"]]
    return [chart for chart in charts if chart["series"]]


def thin(x: np.ndarray, step: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return a curve with at most about 2,000 points that looks the same.

    Of each of 1,000 parts the lowest and the highest value stay, and a NaN if there is one.
    """
    if len(y) <= MOST:
        return x, step, y
    keep = {0, len(y) - 1}
    edges = np.linspace(0, len(y), MOST // 2 + 1).astype(int)
    for start, end in itertools.pairwise(edges.tolist()):
        part = y[start:end]
        missing = np.isnan(part)
        if missing.any():
            keep.add(start + int(missing.argmax()))
        if not missing.all():
            keep |= {start + int(np.nanargmin(part)), start + int(np.nanargmax(part))}
    rows = np.array(sorted(keep))
    return x[rows], step[rows], y[rows]


def is_thinned(metrics: Sequence[Record]) -> bool:
    """Return whether `chart_data` leaves out points of some curve."""
    return len(metrics) > MOST


def epoch_table(metrics: Sequence[Record]) -> list[Record]:
    """Return the values at the end of each epoch, of a long run about 200 of them.

    They are the means over the training records of an epoch, and the evaluation after it.
    """
    train = [record for record in metrics if record.get("split") == "train"]
    columns = {name: _epoch_means(*_series(train, name)) for name in ("loss", "top1_error")}
    rates = {int(np.ceil(r["epoch"])): r.get("learning_rate") for r in train if _has_epoch(r)}
    rows: dict[int, Record] = {}
    for name, (epochs, _, values) in columns.items():
        for epoch, value in zip(np.ceil(epochs).astype(int).tolist(), values, strict=True):
            row = rows.setdefault(epoch, {"epoch": epoch, "learning_rate": rates.get(epoch)})
            row[name] = None if np.isnan(value) else float(value)
    for record in metrics:
        if record.get("split") == "validation" and _has_epoch(record):
            row = rows.setdefault(int(np.ceil(record["epoch"])), {"epoch": int(record["epoch"])})
            row["validation"] = record
    ordered = [rows[epoch] for epoch in sorted(rows)]
    every = -(-len(ordered) // TABLE_ROWS)
    return ordered[::-1][::every][::-1] if every > 1 else ordered  # with the last


def _has_epoch(record: Record) -> bool:
    return record.get("epoch") is not None


def _series(records: Sequence[Record], name: str) -> tuple[np.ndarray, ...]:
    """Return epochs, steps and values of the records that have `name`, NaN for null."""
    rows = [(r["epoch"], r["step"], r[name]) for r in records if name in r and _has_epoch(r)]
    x, step, y = np.array(rows, float).reshape(-1, 3).T
    return x, step, y


def _epoch_means(x: np.ndarray, step: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return for each epoch its last position and step, and the mean of its finite values."""
    if not len(x):
        return x, step, y
    epochs = np.ceil(x)  # 2.4 and 3.0 are both in the third epoch
    steps = np.maximum(np.diff(step, prepend=0), 1e-9)  # that a record covers
    weights = np.where(np.isnan(y), 0, steps)
    _, inverse = np.unique(epochs, return_inverse=True)
    total = np.bincount(inverse, weights)
    sums = np.bincount(inverse, weights * np.nan_to_num(y))
    means = np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)
    last = len(inverse) - 1 - np.unique(inverse[::-1], return_index=True)[1]
    return x[last], step[last], means


def _as_json(
    name: str, kind: str, color: int, x: np.ndarray, step: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "color": color,
        "x": [float(f"{value:.7g}") for value in x],
        "step": [int(value) for value in step],
        "y": [float(f"{value:.6g}") if np.isfinite(value) else None for value in y],
    }
