"""Photographs with the maps that explain a class; what the two towers add is told apart."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.explanations.photographs import Explanation
from alexnet_jax.explanations.scores import Score
from alexnet_jax.plots.class_labels import short
from alexnet_jax.plots.text import literal

ROWS = 8  # photographs in a picture
CLASSES = 5  # bars of a photograph
EXPLAINED, OTHER = "#ffaaaa", "#aaaaff"  # bars, as in `predictions.py`
# Inches, except FONT and MAX_LENGTH.
SIDE, GAP, EDGE, ABOVE, BELOW = 1.6, 0.1, 0.1, 0.22, 0.34
FONT = 7
MAX_LENGTH = 28  # of a file name, characters
OPACITY = 0.85  # of the strongest values over the photograph
CLIPPED = 99.5  # percentile of a gradient's values that is drawn as the largest


@literal
def draw(explanations: Sequence[Explanation], layer: str, score: Score = "logit") -> Figure:
    """Draw a row for each photograph: its classes, and its maps side by side.

    Red speaks for the class, whose bar is red, and blue against it. Each map has its own scale;
    what the towers add to Grad-CAM is on the scale of the total.

    Args:
        explanations: of one network by the same methods.
        layer: of Grad-CAM.
        score: of the class, what is explained.

    Raises:
        ValueError: there are none.
    """
    if not explanations:
        raise ValueError("explanations []: must have at least one photograph; name one.")
    panels = [_panels(each, layer, score) for each in explanations]
    columns = 2 + len(panels[0])
    cell = ABOVE + SIDE + BELOW
    width = EDGE * 2 + columns * (SIDE + GAP) - GAP
    height = EDGE * 2 + len(explanations) * cell
    figure = Figure(figsize=(width, height))
    for row, (each, maps) in enumerate(zip(explanations, panels, strict=True)):

        def axes(column: int, row: int = row) -> Axes:
            left = EDGE + column * (SIDE + GAP)
            bottom = height - EDGE - row * cell - ABOVE - SIDE
            box = (left / width, bottom / height, SIDE / width, SIDE / height)
            return figure.add_axes(box)

        _show(axes(0), each.image, _file_name(each), "")
        _draw_bars(axes(1), each)
        for column, (title, picture, caption) in enumerate(maps, start=2):
            _show(axes(column), picture, title, caption)
    return figure


def _panels(each: Explanation, layer: str, score: Score) -> list[tuple[str, np.ndarray, str]]:
    """Return title, picture and caption of each map."""
    panels = []
    if "occlusion" in each.maps:
        drops = each.maps["occlusion"]
        caption = f"drop of the {score}\n{drops.min():.3g} to {drops.max():.3g}"
        panels.append(("occlusion", _over(each.image, drops, np.abs(drops).max()), caption))
    if "gradient" in each.maps:
        values = each.maps["gradient"]
        largest = np.percentile(values, CLIPPED)
        heat = mpl.colormaps["inferno"](_scaled(values, largest))[..., :3]
        panels.append(("gradient", heat, f"absolute value\n0 to {values.max():.3g}"))
    if "gradcam" in each.maps:
        cam = each.maps["gradcam"]
        parts = [] if each.towers is None else list(each.towers)
        largest = max(float(np.abs(values).max()) for values in [cam, *parts])
        caption = f"both towers\n0 to {cam.max():.3g}" if parts else f"0 to {cam.max():.3g}"
        panels.append((f"Grad-CAM {layer}", _over(each.image, cam, largest), caption))
        for number, part in enumerate(parts):
            caption = f"what it adds\n{part.min():.3g} to {part.max():.3g}"
            panels.append((f"tower {number}", _over(each.image, part, largest), caption))
    return panels


def _scaled(values: np.ndarray, largest: float) -> np.ndarray:
    return np.clip(values / max(float(largest), np.finfo(np.float32).tiny), -1, 1)


def _over(image: np.ndarray, values: np.ndarray, largest: float) -> np.ndarray:
    """Return the gray photograph under a map, red above zero and blue below, [h, w, 3]."""
    scaled = _scaled(values, largest)
    color = mpl.colormaps["bwr"]((np.sign(scaled) + 1) / 2)[..., :3]
    gray = np.repeat(image.mean(axis=-1, keepdims=True) / 255, 3, axis=-1)
    opacity = OPACITY * np.abs(scaled)[..., None]
    return np.clip(opacity * color + (1 - opacity) * gray, 0, 1)


def _file_name(each: Explanation) -> str:
    name = each.file.name
    half = MAX_LENGTH // 2
    return name if len(name) <= MAX_LENGTH else f"{name[: half - 1]}…{name[-half:]}"


def _show(axes: Axes, picture: np.ndarray, title: str, caption: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=FONT, pad=3)
    axes.set_xlabel(caption, fontsize=FONT - 1, labelpad=2)


def _draw_bars(axes: Axes, each: Explanation) -> None:
    """Draw the most probable classes; the last gives way to the explained one if need be."""
    best = np.argsort(-each.probabilities, kind="stable")[:CLASSES]
    if each.label not in best:
        best = np.append(best[: CLASSES - 1], each.label)
    colors = [EXPLAINED if number == each.label else OTHER for number in best]
    axes.barh(range(len(best)), each.probabilities[best], height=0.85, color=colors)
    for position, number in enumerate(best):
        text = f"{each.probabilities[number]:.1%} {short(each.class_names[number])}"
        axes.text(0.03, position, text, va="center", fontsize=FONT, clip_on=True)
    axes.set(xlim=(0, 1), ylim=(CLASSES - 0.4, -0.6), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(f"why {short(each.class_names[each.label])}?", fontsize=FONT, pad=3)
    legend = "its bar is red; in the maps\nred speaks for it, blue against"
    axes.set_xlabel(legend, fontsize=FONT - 1, labelpad=2)
