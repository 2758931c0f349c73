"""Text in pictures: drawn literally, and in a font that has its letters where one is installed.

Class and file names are anybody's text. Matplotlib would read `$5$` as a formula and fail on
`$\\x$`, and its font has no Chinese.
"""

import contextlib
import functools
import itertools
import logging
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, ParamSpec

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from alexnet_jax.storage.names import printable

LOGGER = logging.getLogger(__name__)
SHOWN = 5  # letters that a warning names
EM = 100  # points, for measuring
# Matplotlib's own fonts of boxes, and those whose numbers are not of the letters they draw.
NOT_FOR_TEXT = ("Last Resort", "cm", "STIXNonUnicode", "STIXSize")
P = ParamSpec("P")
Weight = Literal["normal", "bold"]


def literal(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Return a function that draws as `draw` does, with the text of the figure literal."""

    @functools.wraps(draw)
    def draw_literally(*args: P.args, **kwargs: P.kwargs) -> Figure:
        figure = draw(*args, **kwargs)
        make_literal(figure)
        return figure

    return draw_literally


def make_literal(figure: Figure) -> None:
    """Draw the text of a figure as it is: no formulas, no control characters, in fonts with it.

    Warns in one sentence of letters that no installed font has.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    for text in texts:
        text.set_parse_math(False)
        text.set_text(printable(text.get_text(), keep="\n"))
    letters = {letter for text in texts for letter in text.get_text() if letter.isprintable()}
    default = mpl.rcParams["font.family"]
    missing = letters - _letters(font_manager.findfont(font_manager.FontProperties()))
    fallbacks, missing = _fallbacks(frozenset(missing)) if missing else ((), frozenset())
    for text in texts if fallbacks else ():
        if not text.get_text().isascii():
            text.set_fontfamily([*default, *fallbacks])
    if missing:
        _warn_of(missing)


def width_of(line: str, size: float, weight: Weight = "normal") -> float:
    """Return the width of a line of literal text in points, but for rounding to whole pixels."""
    return size * sum(_advance(letter, weight) for letter in line)


def fitted(
    line: object, width: float, size: float, end: float = 0, weight: Weight = "normal"
) -> str:
    """Return a line of literal text shortened to a width, "…" standing for what is left out.

    Args:
        line: a name, made `printable`.
        width: in points.
        size: of the font, in points.
        end: share of the width that the end of the line gets: 0 cuts it off, 0.5 cuts out the
            middle.
        weight: of the font.
    """
    text = printable(line)
    widths = [width_of(letter, size, weight) for letter in text]
    if sum(widths) <= width:
        return text
    room = width - width_of("…", size, weight)
    first = _fitting(widths, room * (1 - end))
    last = _fitting(widths[::-1], room * end)
    return f"{text[:first]}…{text[len(text) - last :]}"


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Return the lines of a text broken at spaces; a word that is wider than a line is `fitted`.

    `width` and the `size` of the font are in points.
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(fitted(word, width, size, end=0.5))
    return lines


def _fitting(widths: Sequence[float], room: float) -> int:
    """Return how many of the widths fit into a room."""
    return sum(total <= room for total in itertools.accumulate(widths))


@functools.cache
def _advance(letter: str, weight: Weight) -> float:
    """Return the width of a letter in ems; of one that the default font lacks, an estimate."""
    font = FT2Font(font_manager.findfont(font_manager.FontProperties(weight=weight)))
    if ord(letter) in font.get_charmap():
        font.set_size(EM, 72)
        return font.load_char(ord(letter)).linearHoriAdvance / 65536 / EM
    if unicodedata.combining(letter):
        return 0.0
    return 1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.7


@contextlib.contextmanager
def each_letter_not_named() -> Iterator[None]:
    """Leave out Matplotlib's warnings while it draws, one a letter: `make_literal` gave one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


@functools.cache  # a run has several pictures with the same names
def _warn_of(missing: frozenset[str]) -> None:
    some = " ".join(sorted(missing)[:SHOWN])
    LOGGER.warning(
        "No installed font has %d of the letters in the picture (%s%s), and boxes are drawn in "
        "their place; install a font that has them, such as Noto Sans CJK, and draw again.",
        *(len(missing), some, " ..." if len(missing) > SHOWN else ""),
    )


@functools.cache
def _fallbacks(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return installed fonts that have as many of the letters as any, and the letters in none."""
    families: list[str] = []
    missing = set(letters)
    for family, path in _installed():
        if not missing:
            break
        if found := missing & _letters(path):
            families.append(family)
            missing -= found
    return tuple(families), frozenset(missing)


def _installed() -> Iterator[tuple[str, str]]:
    """Yield family and file of the installed fonts, upright regular ones, sans serif first."""
    fonts = [
        font
        for font in font_manager.fontManager.ttflist
        if font.style == "normal"
        and font.weight in (400, "normal", "regular", "book")
        and not font.name.startswith(NOT_FOR_TEXT)
    ]
    seen = set()
    for font in sorted(fonts, key=lambda font: ("sans" not in font.name.lower(), font.name)):
        if font.name not in seen and Path(font.fname).exists():
            seen.add(font.name)
            yield font.name, font.fname


@functools.cache
def _letters(path: str) -> frozenset[str]:
    """Return the letters that a font file can draw; none of one that holds bitmaps alone."""
    try:
        font = FT2Font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()
