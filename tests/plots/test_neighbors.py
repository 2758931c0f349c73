"""The figure of neighbors tells right from wrong where classes are known."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from alexnet_jax import retrieve
from alexnet_jax.data.class_names import ClassNames
from alexnet_jax.plots import neighbors, palette
from alexnet_jax.plots.neighbors import Line, Neighbor
from alexnet_jax.plots.text import width_of

BLANK = np.zeros((4, 4, 3), np.uint8)


def texts(axes, name):
    return [text.get_text() for text in axes.texts if text.get_gid() == name]


def test_each_image_has_its_class_file_and_distance():
    near = [
        Neighbor(BLANK, "0001.jpg", 0.5, "ants", is_right=True),
        Neighbor(BLANK, "0002.jpg", 12.3456, "bees", is_right=False),
        Neighbor(BLANK, "0003.jpg", 13),
    ]
    figure = neighbors.draw([Line(BLANK, "photo.jpg", near, "ants")], "Nearest of 9.")
    query, right, wrong, unknown = figure.axes
    assert [texts(axes, "class") for axes in figure.axes] == [
        ["ants"],
        ["✓ ants"],
        ["✗ bees"],
        [],
    ]
    assert [texts(axes, "distance") for axes in figure.axes] == [
        [],
        ["0.5000"],
        ["12.35"],
        ["13.00"],
    ]
    assert texts(query, "file") == ["photo.jpg"]
    assert to_hex(right.spines["top"].get_edgecolor()) == palette.RIGHT
    assert to_hex(wrong.spines["top"].get_edgecolor()) == palette.WRONG
    assert right.spines["top"].get_linestyle() != wrong.spines["top"].get_linestyle()
    assert not unknown.spines["top"].get_visible()
    assert [text.get_text()[0] for text in figure.legends[0].texts] == ["✓", "✗"]
    assert figure.texts[0].get_text() == "Nearest of 9."


def test_without_classes_there_is_no_legend():
    figure = neighbors.draw([Line(BLANK, "photo.jpg", [Neighbor(BLANK, "a.jpg", 1)])])
    assert not figure.legends


def test_long_names_are_shortened_in_the_middle_and_fit():
    name = "a_photograph_with_a_very_long_name_0773.jpg"
    figure = neighbors.draw([Line(BLANK, name, [Neighbor(BLANK, name, 1, "c" * 60 + "1", True)])])
    for axes in figure.axes:
        (file,) = texts(axes, "file")
        assert file.startswith("a_ph")
        assert file.endswith("773.jpg")
        assert width_of(file, 7) <= 72 * neighbors.SIDE
    (class_name,) = texts(figure.axes[1], "class")
    assert class_name.endswith("c1")
    assert width_of(class_name, 8) <= 72 * neighbors.SIDE


@pytest.fixture
def root(tmp_path):
    for name in ("ants/1.png", "Bees/1.png", "loose.png"):
        path = tmp_path / "searched" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return tmp_path / "searched"


def marks(query: Path, root: Path) -> list[bool | None]:
    found = [(root / name, 1.0) for name in ("ants/1.png", "Bees/1.png", "loose.png")]
    line = retrieve._line(retrieve.Neighbors(query, found), ClassNames(["Bees", "ants"]), root)
    return [near.is_right for near in line.neighbors]


def test_the_class_of_an_image_is_its_folder(root):
    assert marks(root.parent / "test" / "ants" / "9.png", root) == [True, False, None]
    assert marks(root.parent / "test" / "bees" / "9.png", root) == [False, True, None]
    assert marks(root.parent / "photos" / "9.png", root) == [None, None, None]
    assert marks(root / "9.png", root) == [None, None, None]


def test_the_query_itself_is_no_find(root):
    assert marks(root / "ants" / "1.png", root) == [None, False, None]
