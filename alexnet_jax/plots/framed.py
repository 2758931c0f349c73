"""What figures of many photographs share: frames for right and wrong, a caption, a legend."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from alexnet_jax.plots.palette import QUIET, RIGHT, RIGHT_SYMBOL, WRONG, WRONG_SYMBOL
from alexnet_jax.plots.text import fitted, width_of, wrapped

SIZE = 9  # of fonts
LINE, EDGE = 0.2, 0.08  # inches: of text; at the edges of a figure
TEXT_SHARE = 0.96  # of the width; letters start at whole pixels, which makes some lines longer
HANDLE, SPACE = 3.0, 1.5  # widths in a legend in font sizes: a handle, the space between entries


def check_mark(is_right: bool | None) -> str:
    """Return the symbol before a class; none where it is unknown whether it is right."""
    return "" if is_right is None else f"{RIGHT_SYMBOL if is_right else WRONG_SYMBOL} "


def frame(axes: Axes, is_right: bool | None) -> None:
    """Put a frame around an image: green, solid if right; vermilion, dashed if wrong."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(is_right is not None)
    if is_right is not None:
        axes.spines[:].set(color=RIGHT if is_right else WRONG, linewidth=2)
        axes.spines[:].set_linestyle("-" if is_right else (0, (4, 1.5)))


def mark_handles(names: Mapping[bool, str], present: Iterable[bool]) -> list[Patch]:
    """Return legend entries for those of right (True) and wrong (False) that are present."""
    patches = {
        True: Patch(facecolor="none", edgecolor=RIGHT, linewidth=1.8),
        False: Patch(facecolor="none", edgecolor=WRONG, linewidth=1.8, linestyle=(0, (2, 1))),
    }
    for key, patch in patches.items():
        patch.set_label(check_mark(key) + names[key])
    return [patches[key] for key in sorted({*present}, reverse=True)]


def draw_caption(figure: Figure, caption: str, top: float) -> float:
    """Write a caption from `top` inches upward; return its height in inches.

    The figure has to grow by that height before it is drawn: the caption is placed from its top.
    """
    lines = wrapped(caption, 72 * TEXT_SHARE * (figure.get_figwidth() - 2 * EDGE), SIZE)
    if not lines:
        return EDGE
    height = LINE * len(lines) + 2 * EDGE
    total, width = top + height, figure.get_figwidth()
    for number, line in enumerate(lines):
        y = 1 - (EDGE + LINE * number) / total
        figure.text(EDGE / width, y, line, va="top", fontsize=SIZE, gid="caption", color=QUIET)
    return height


def draw_legend(figure: Figure, handles: Sequence[Artist]) -> float:
    """Draw a legend at the lower edge in as many columns as fit; return its height in inches."""
    if not handles:
        return EDGE
    room = 72 * figure.get_figwidth()
    labels = [str(handle.get_label()) for handle in handles]
    columns = len(handles)
    while columns > 1 and _legend_width(labels, columns) > room:
        columns -= 1
    labels = [fitted(label, room - SIZE * HANDLE, SIZE) for label in labels]
    figure.legend(
        handles=handles,
        labels=labels,
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=SIZE,
        columnspacing=SPACE,
        borderaxespad=0.2,
    )
    return LINE * -(-len(handles) // columns) + 2 * EDGE


def _legend_width(labels: Sequence[str], columns: int) -> float:
    """Return about the width of a legend in points; Matplotlib fills its columns one by one."""
    rows = -(-len(labels) // columns)
    widest = [
        max(width_of(label, SIZE) for label in labels[start : start + rows])
        for start in range(0, len(labels), rows)
    ]
    return sum(widest) + SIZE * (HANDLE + SPACE) * len(widest)
