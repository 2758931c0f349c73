"""Color and orientation of the first layer's filters, a point for each."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from alexnet_jax.analysis.tower_specialization import Measure, Specialization
from alexnet_jax.plots.palette import TOWERS
from alexnet_jax.plots.text import literal

MARKERS = ("o", "s")
BINS = 20


@literal
def draw(measured: Specialization) -> Figure:
    """Draw color against orientation of every filter, with histograms of each tower.

    Solid lines are the means of the towers, dotted lines those of noise; their values are
    below.
    """
    figure = Figure(figsize=(6.4, 6), layout="constrained")
    grid = figure.subplots(
        2, 2, height_ratios=(1, 3.2), width_ratios=(3.2, 1), sharex="col", sharey="row"
    )
    above, corner, middle, right = grid.flat
    corner.set_axis_off()
    for tower, (color, marker) in enumerate(zip(TOWERS, MARKERS, strict=True)):
        x, y = measured.color.towers[tower], measured.orientation.towers[tower]
        middle.scatter(
            x, y, color=color, marker=marker, s=22, alpha=0.75, label=f"tower {tower}", gid="tower"
        )
    middle.set(xlim=(0, 1), ylim=(0, 1))
    middle.set_xlabel("share of the filter's energy that is color")
    middle.set_ylabel("orientation: 0 none, 1 a grating")
    _histograms(above, measured.color, horizontal=False)
    _histograms(right, measured.orientation, horizontal=True)
    handles = [
        *middle.get_legend_handles_labels()[0],
        Line2D([], [], color="dimgray", label="mean"),
        Line2D([], [], color="gray", linestyle=":", label="noise"),
    ]
    corner.legend(handles=handles, loc="center", frameon=False)
    figure.suptitle("The filters of conv1 by tower", fontsize=11)
    caption = "\n".join(_means(measure) for measure in (measured.color, measured.orientation))
    figure.supxlabel(caption, fontsize=9)
    for axes in (above, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _histograms(axes: Axes, measure: Measure, horizontal: bool) -> None:
    line = axes.axhline if horizontal else axes.axvline
    for values, color in zip(measure.towers, TOWERS, strict=True):
        axes.hist(
            values,
            np.linspace(0, 1, BINS + 1).tolist(),
            color=color,
            alpha=0.5,
            orientation="horizontal" if horizontal else "vertical",
        )
        line(float(values.mean()), color=color, linewidth=1.5)
    line(measure.noise, color="gray", linestyle=":", linewidth=1)
    (axes.set_xlabel if horizontal else axes.set_ylabel)("filters")
    counts = axes.xaxis if horizontal else axes.yaxis
    counts.set_major_locator(MaxNLocator(3, integer=True))


def _means(measure: Measure) -> str:
    """Return the means that the lines show, and how likely such a difference is by chance."""
    first, second = measure.means
    return (
        f"mean {measure.name}: {first:.2f} in tower 0, {second:.2f} in tower 1, "
        f"{measure.noise:.2f} in noise; p = {measure.p_value:.2g}"
    )
