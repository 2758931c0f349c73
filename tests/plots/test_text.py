"""Text in pictures is literal: formulas, control characters, letters that fonts lack."""

import importlib
import pkgutil
import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from alexnet_jax import plots
from alexnet_jax.plots import confusion, feature_maps, neighbors, predictions, text
from alexnet_jax.plots.tiles import save

# Each would be an error or another text as a formula.
NAMES = ["$", "$$", "$x_1^2$", r"$\notacommand$", r"a_b^c \d", "caf\udce9", "a\x1b[31m\nred"]
SHOWN = ["$", "$$", "$x_1^2$", r"$\notacommand$", r"a_b^c \d", r"caf\xe9", r"a\x1b[31m\nred"]


@pytest.fixture(autouse=True)
def each_test_warns_anew():
    text._warn_of.cache_clear()
    text._fallbacks.cache_clear()


def texts(figure: Figure) -> list[str]:
    FigureCanvasAgg(figure).draw()  # as in a notebook; a formula that is none would fail here
    drawn = [item for item in figure.findobj(Text) if isinstance(item, Text)]
    formulas = [item for item in drawn if {"$", "\\"} & {*item.get_text()}]
    assert not any(item.get_parse_math() for item in formulas)
    return [item.get_text() for item in drawn]


def test_class_names_are_drawn_literally(tmp_path):
    count = len(NAMES)
    labels = np.arange(count)
    shares = np.eye(count)
    images = np.zeros((count, 8, 8, 3), np.uint8)
    assert {*SHOWN} <= {*texts(confusion.draw(labels, labels, NAMES))}
    panel = predictions.draw(images, shares, labels, NAMES)
    assert {*SHOWN, *(f"✓ {name}" for name in SHOWN)} <= {*texts(panel)}
    save(panel, tmp_path / "panel.png")
    save(panel, tmp_path / "panel.svg")
    save(panel, tmp_path / "panel.pdf")


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_file_names_are_drawn_literally(number, tmp_path):
    name, shown = NAMES[number], SHOWN[number]
    blank = np.zeros((8, 8, 3), np.uint8)
    near = neighbors.Neighbor(blank, "a.jpg", 1.5, name, is_right=True)
    drawn = neighbors.draw([neighbors.Line(blank, name, [near])])
    assert {shown, f"✓ {shown}"} <= {*texts(drawn)}
    maps = feature_maps.draw(np.zeros((4, 4, 2), np.float32), f"conv1 of {name}", True)
    assert f"conv1 of {shown}" in texts(maps)
    save(maps, tmp_path / "maps.png")


def test_every_figure_is_drawn_literally():
    modules = [importlib.import_module(f"{plots.__name__}.{m.name}") for m in PLOTS]
    drawing = [module for module in modules if hasattr(module, "draw")]
    assert len(drawing) >= 9
    for module in drawing:
        assert module.draw.__code__ is text.literal(lambda: Figure()).__code__, module.__name__


PLOTS = list(pkgutil.iter_modules(plots.__path__))


def letters_of(name: str) -> set[str]:
    return {*map(chr, FT2Font(font_manager.findfont(name)).get_charmap())}


def figure_with(*lines: str) -> Figure:
    figure = Figure()
    for line in lines:
        figure.text(0.5, 0.5, line)
    text.make_literal(figure)
    return figure


def test_letters_are_drawn_in_an_installed_font_that_has_them(caplog):
    # STIXGeneral comes with Matplotlib and stands for a Chinese font.
    lacking = letters_of("STIXGeneral") - letters_of("DejaVu Sans")
    letter = min(letter for letter in lacking if letter.isalpha())
    figure = figure_with(f"a {letter}", "plain")
    first, second = figure.texts
    assert "STIXGeneral" in first.get_fontfamily()
    assert "STIXGeneral" not in second.get_fontfamily()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib would warn of a letter that it lacks
        FigureCanvasAgg(figure).draw()
    assert not caplog.records


def test_letters_that_no_font_has_are_said_in_one_sentence(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_installed", lambda: iter(()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of Matplotlib: one a letter and picture
        for number in range(2):
            save(figure_with("翘头剪", "直剪止血钳", "plain"), tmp_path / f"{number}.png")
        assert text.width_of("翘头剪", 9) > 0
    (record,) = caplog.records
    assert "7 of the letters" in record.getMessage()
    assert "install a font" in record.getMessage()
