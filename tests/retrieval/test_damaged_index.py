"""A damaged index is computed again, never believed."""

import json
import shutil
import unittest.mock
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.retrieval import index
from alexnet_jax.retrieval.features import Features, Recipe


def extract(paths):
    """Yield features that tell the files apart."""
    rows = np.array([[int(path.stem), 1] for path in paths], np.float32)
    yield Features(list(range(len(paths))), {"fc7": rows}, {})


def build(folder, network="a"):
    lines = []
    with (
        unittest.mock.patch.object(index, "fingerprint", return_value=network),
        unittest.mock.patch.object(index, "width", return_value=2),
    ):
        network_of_no_use: Any = None
        built = index.build(
            *(network_of_no_use, extract, folder / "images", folder / "index", lines.append),
            Recipe(("fc7",)),
        )
    assert {n: row[0] for n, row in zip(built.names, built.features, strict=True)} == {
        "0.png": 0,
        "1.png": 1,
        "2.png": 2,
    }
    return lines[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    (folder / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / "images" / f"{number}.png")
    assert "3 files to read" in build(folder)
    assert "0 to read" in build(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    return tmp_path / "a"


TABLES = {
    "a generation that is text": {"generation": "../../x"},
    "a generation that is true": {"generation": True},
    "a generation below 0": {"generation": -1},
    "a generation of 400 digits": {"generation": 10**400},
    "no rows": {"rows": None},
    "rows that are numbers": {"rows": [1, 2, 3]},
    "short rows": {"rows": [["0.png"]]},
    "rows of a text": {"rows": "abc"},
    "names that are lists": {"rows": [[["0.png"], 1, 2]]},
    "names that are numbers": {"rows": [[0, 1, 2]]},
    "a name twice": {"rows": [["0.png", 1, 2], ["0.png", 1, 2], ["1.png", 1, 2]]},
    "unreadable files that are a number": {"unreadable": 3},
}


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES)
def test_a_damaged_table(change, folder):
    path = folder / "index" / index.TABLE
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | change))
    assert f"3 files to read ({index.TABLE} is damaged)" in build(folder)
    assert "0 to read" in build(folder)


@pytest.mark.parametrize("key", ["generation", "network", "rows", "unreadable"])
def test_a_table_that_lacks_something(key, folder):
    path = folder / "index" / index.TABLE
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    assert "3 files to read (" in build(folder)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "\0", '{"format": 1', "[]", "null", "3"])
def test_a_table_that_is_no_table(text, folder):
    (folder / "index" / index.TABLE).write_text(text)
    assert "3 files to read (" in build(folder)


def test_a_name_twice_does_not_shift_the_rows(folder):
    path = folder / "index" / index.TABLE
    content = json.loads(path.read_text())
    content["rows"].insert(0, content["rows"][0])
    path.write_text(json.dumps(content))
    rows = np.array([[0, 1], [0, 1], [1, 1], [2, 1]], np.float32)
    np.save(folder / "index" / f"features-{content['generation']}.npy", rows)
    build(folder)


FEATURES = {
    "of another type": np.zeros((3, 2), np.float64),
    "of integers": np.zeros((3, 2), np.int32),
    "of fewer rows": np.zeros((2, 2), np.float32),
    "of another width": np.zeros((3, 3), np.float32),
    "in columns": np.zeros((3, 2), np.float32, order="F"),
}


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_features_of_another_kind(features, folder):
    (path,) = (folder / "index").glob("features-*.npy")
    np.save(path, features)
    assert f"3 files to read ({path.name} is damaged)" in build(folder)


@pytest.mark.parametrize(("start", "end"), [(b"", -4), (b"", 60), (b"PK\3\4", None)])
def test_features_that_are_damaged(start, end, folder):
    (path,) = (folder / "index").glob("features-*.npy")
    path.write_bytes(start + path.read_bytes()[:end])
    assert f"3 files to read ({path.name} is damaged)" in build(folder)


@pytest.mark.parametrize(
    "header", [b"{'descr': '''", b"(" * 90, b"{'descr': '<f4', 'shape': (9**9**9"]
)
def test_headers_that_are_damaged(header, folder):
    (path,) = (folder / "index").glob("features-*.npy")
    data = bytearray(path.read_bytes())
    data[10 : 10 + len(header)] = header
    path.write_bytes(bytes(data))
    assert f"3 files to read ({path.name} is damaged)" in build(folder)
