"""Error and loss over the epochs of a run, after the 2012 plotting code (shownet.py:89-107)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    SymmetricalLogLocator,
)

from alexnet_jax.plots.palette import TRAINING, VALIDATION
from alexnet_jax.plots.text import literal

LOGARITHMIC = 10  # ratio of the largest to the smallest value from which an axis is logarithmic
LABEL = 0.075  # height of a value at the end of a line, as a share of the axis
MAX_DROPS = 8  # that are labeled
NAMES = {"train": "training"}
LEGEND = {"train": "training, augmented: epoch means (faint: records)"}


@dataclasses.dataclass(frozen=True)
class _Curve:
    """One line of an axis."""

    split: str
    color: str
    marker: str  # and style of the line
    size: float  # of the marker, in points
    points: np.ndarray  # [2, n]: epochs and values


@literal
def draw(metrics: Sequence[dict[str, Any]]) -> Figure:
    """Draw top-1 error and loss from the records of metrics.jsonl.

    Training (each record faint, the mean of each epoch solid), validation and test, each with its
    last value; a dotted line marks each drop of the learning rate. An axis is logarithmic if its
    values span a factor of 10, so that small ones can be read. Raises ValueError without any
    record.
    """
    if not metrics:
        raise ValueError("metrics []: must have at least one record; train for some steps first.")
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, name, label in zip(
        figure.subplots(1, 2), ("top1_error", "loss"), ("top-1 error", "loss (nats)"), strict=True
    ):
        _draw_curves(axes, metrics, name, label)
    handles = {
        line.get_label(): line
        for axes in figure.axes
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }
    figure.legend(
        handles=list(handles.values()),
        loc="outside upper center",
        ncols=len(handles),
        frameon=False,
        fontsize=9,
    )
    return figure


def _draw_curves(axes: Axes, metrics: Sequence[dict[str, Any]], name: str, label: str) -> None:
    records = _series(metrics, "train", name)
    axes.plot(
        *records,
        color=TRAINING,
        alpha=0.25,
        linewidth=0.6,
        gid="train records",
        label="_records",
    )
    curves = [
        _Curve("train", TRAINING, ".-", 5, np.asarray(_epoch_means(*records))),
        _Curve("validation", VALIDATION, "s-", 2.6, _series(metrics, "validation", name)),
        _Curve("test", VALIDATION, "D", 6, _series(metrics, "test", name)),
    ]
    curves = [curve for curve in curves if curve.points.size]
    for curve in curves:
        (line,) = axes.plot(*curve.points, curve.marker, color=curve.color, linewidth=1.2)
        line.set(label=LEGEND.get(curve.split, curve.split), gid=curve.split)
        line.set(markersize=curve.size)
        if curve.split == "test":
            line.set_markerfacecolor("none")
    _scale(axes, np.concatenate([records[1], *(curve.points[1] for curve in curves)]), name, label)
    axes.set_xlabel("epochs")
    epochs = np.concatenate([records[0], *(curve.points[0] for curve in curves)])
    last = float(epochs.max(initial=0)) or 1.0  # not that of the values, which may all be NaN
    axes.set_xlim(0, 1.03 * last)
    if last >= 2:
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    _mark_drops(axes, metrics)
    _write_last_values(axes, curves, name)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _scale(axes: Axes, values: np.ndarray, name: str, label: str) -> None:
    """Choose a logarithmic or a linear axis, with room for the markers, and format its numbers."""
    positive = values[np.isfinite(values) & (values > 0)]
    wide = positive.size > 0 and positive.max() >= LOGARITHMIC * positive.min()
    axes.set_ylabel(f"{label}, logarithmic" if wide else label)
    if not wide:
        top = float(positive.max()) if positive.size else 1.0
        axes.set_ylim(0, 1.08 * top)
        if name == "top1_error":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        return
    least, greatest = float(positive.min()), float(positive.max())
    if (values == 0).any():  # an error of none of the images, below the line of the smallest
        axes.set_yscale("symlog", linthresh=least, linscale=0.5)
        axes.set_ylim(-0.1 * least, 1.3 * greatest)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=least, subs=(1,)))
    else:
        axes.set_yscale("log")
        axes.set_ylim(least / 1.3, 1.3 * greatest)
        narrow = greatest < 300 * least
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _axis_number(value, name)))


def _axis_number(value: float, name: str) -> str:
    return f"{100 * value:g}%" if name == "top1_error" else f"{value:g}"


def _write_last_values(axes: Axes, curves: Sequence[_Curve], name: str) -> None:
    """Write the last value of each curve right of the axis, at its height but apart."""
    to_share = axes.transScale + axes.transLimits
    places, texts = [], []
    for curve in curves:
        finite = curve.points[:, np.isfinite(curve.points[1])]
        last = float(curve.points[1, -1])
        height = float(to_share.transform((0, finite[1, -1]))[1]) if finite.size else 0.5
        places.append(min(max(height, 0), 1))
        texts.append((f"{NAMES.get(curve.split, curve.split)} {_value(last, name)}", curve.color))
    for (text, color), height in zip(texts, _apart(places), strict=True):
        axes.annotate(
            text,
            (1, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=color,
            gid="last value",
        )


def _value(value: float, name: str) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite"
    return f"{value:.1%}" if name == "top1_error" else f"{value:#.3g}".rstrip(".")


def _apart(places: Sequence[float]) -> list[float]:
    """Return heights in the same order, at least `LABEL` apart and as near as that allows."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    apart = [places[index] for index in order]
    for number in range(1, len(apart)):
        apart[number] = max(apart[number], apart[number - 1] + LABEL)
    if over := max(0.0, max(apart, default=0) - 1):
        apart[-1] -= over
        for number in range(len(apart) - 2, -1, -1):
            apart[number] = min(apart[number], apart[number + 1] - LABEL)
    return [apart[order.index(index)] for index in range(len(places))]


def _epoch_means(epochs: np.ndarray, values: np.ndarray) -> list[list[float]]:
    """Return the mean position and value of each epoch's records."""
    numbers = np.ceil(epochs)  # 2.4 and 3.0 are both in the third epoch
    # A record covers the steps since the previous one; in a file that was edited maybe none.
    weights = np.maximum(np.diff(epochs, prepend=0), 1e-9)
    return [
        [
            float(np.average(column[numbers == number], weights=weights[numbers == number]))
            for number in np.unique(numbers)
        ]
        for column in (epochs, values)
    ]


def _series(metrics: Sequence[dict[str, Any]], split: str, name: str) -> np.ndarray:
    """Return [2, n]: epochs and values of the records of `split` that have `name`."""
    points = [
        (record["epoch"], record[name])
        for record in metrics
        if record.get("split") == split and None not in (record.get("epoch"), record.get(name))
    ]
    return np.asarray(points, float).reshape(-1, 2).T


def _mark_drops(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    """Mark each drop of the learning rate by a dotted line, with the new rate above the axis."""
    epochs, rates = _series(metrics, "train", "learning_rate")
    drops = [
        # It drops between epochs; the first record with the new one follows some steps later.
        (math.ceil(epoch) - 1, after)
        for epoch, before, after in zip(epochs[1:], rates, rates[1:], strict=False)
        if after < before
    ]
    for number, (end_of_epoch, rate) in enumerate(drops):
        style = {"color": "gray", "linestyle": ":", "linewidth": 1, "gid": "drop"}
        label = "learning rate drops to" if number == 0 else "_drop"
        axes.axvline(end_of_epoch, label=label, **style)
        if len(drops) <= MAX_DROPS or number == len(drops) - 1:
            axes.annotate(
                f"{rate:.2g}",
                (end_of_epoch, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2 + 9 * (number % 2)),  # neighbors would overlap
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
                color="dimgray",
                gid="learning rate",
            )
