"""Units with the parts of images to which they answer most strongly, a row a unit."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.explanations.patches import Patch, Unit
from alexnet_jax.plots.text import literal

# Inches, except FONT and MAX_LENGTH.
SIDE, GAP, EDGE, NAME, BELOW = 1.1, 0.08, 0.1, 0.95, 0.34
FONT = 7
MAX_LENGTH = 24  # of a file name, characters


@literal
def draw(patches: Mapping[Unit, Sequence[Patch]]) -> Figure:
    """Draw the patches of each unit, strongest first, with the unit's output below.

    A patch is drawn as large as the unit's receptive field is; one that the border clips is
    smaller. Raises ValueError without units or patches.
    """
    if not patches or not all(patches.values()):
        raise ValueError("patches {}: must have at least one for each unit; name units and images.")
    columns, cell = max(map(len, patches.values())), SIDE + BELOW
    width = EDGE * 2 + NAME + columns * (SIDE + GAP) - GAP
    height = EDGE * 2 + len(patches) * cell
    figure = Figure(figsize=(width, height))
    for row, (unit, found) in enumerate(patches.items()):
        bottom = height - EDGE - row * cell - SIDE
        tower = "" if unit.tower is None else f"\ntower {unit.tower}"
        middle = (bottom + SIDE / 2) / height
        figure.text(EDGE / width, middle, f"{unit}{tower}", va="center", fontsize=FONT + 1)
        largest = max(max(patch.image.shape[:2]) for patch in found)
        for column, patch in enumerate(found):
            left = EDGE + NAME + column * (SIDE + GAP)
            box = (left / width, bottom / height, SIDE / width, SIDE / height)
            _show(figure.add_axes(box), patch, largest)
    return figure


def _show(axes: Axes, patch: Patch, largest: int) -> None:
    height, width = patch.image.shape[:2]
    white = np.full((largest, largest, 3), 255, np.uint8)
    top, left = (largest - height) // 2, (largest - width) // 2
    white[top : top + height, left : left + width] = patch.image
    axes.imshow(white, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    name = f"{patch.file.parent.name}/{patch.file.name}"
    half = MAX_LENGTH // 2
    name = name if len(name) <= MAX_LENGTH else f"{name[: half - 1]}…{name[-half:]}"
    axes.set_xlabel(f"{patch.value:#.4g}\n{name}", fontsize=FONT - 1, labelpad=2)
