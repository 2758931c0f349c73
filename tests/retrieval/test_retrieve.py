"""Nearest neighbors against brute force; an index that is kept, continued and never stale."""

import json
import os
import re

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from alexnet_jax import retrieve
from alexnet_jax.inference import network as network_loading
from alexnet_jax.model import towers
from alexnet_jax.retrieval import features, index
from alexnet_jax.retrieval.nearest import BLOCK, nearest
from alexnet_jax.storage import lock
from tests import untrained

pytestmark = pytest.mark.usefixtures("quick_compilation")


def brute_force(points, queries, count):
    """Return numbers and distances from all differences, float64."""
    apart = points.astype(np.float64)[None] - queries.astype(np.float64)[:, None]
    distances = np.sqrt((apart**2).sum(-1))
    numbers = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return numbers, np.take_along_axis(distances, numbers, 1)


def check(points, queries, count):
    numbers, distances = nearest(points, queries, count)
    expected, apart = brute_force(points, queries, count)
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_allclose(distances, apart, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("number", [1, 5, BLOCK, 2 * BLOCK + 7])
def test_neighbors_are_those_of_brute_force(number):
    rng = np.random.default_rng(number)
    points = np.maximum(rng.normal(size=(number, 96)), 0).astype(np.float32)
    check(points, np.maximum(rng.normal(size=(5, 96)), 0).astype(np.float32), 6)


def test_neighbors_that_float32_cannot_tell_apart_by_products():
    rng = np.random.default_rng(0)
    points = (1000 + rng.normal(0, 0.01, (700, 64))).astype(np.float32)
    queries = points[:3] + rng.normal(0, 0.01, (3, 64)).astype(np.float32)
    squares = (points**2).sum(1)[None] - 2 * queries @ points.T + (queries**2).sum(1)[:, None]
    expected, _ = brute_force(points, queries, 6)
    assert (np.argsort(squares, 1)[:, :6] != expected).any()  # as the products alone have it
    check(points, queries, 6)


def test_equal_points_come_in_their_order():
    points = np.tile(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32), (600, 1))
    numbers, distances = nearest(points, np.zeros((1, 2), np.float32), 3)
    assert numbers.tolist() == [[1, 3, 5]]
    assert distances.tolist() == [[0, 0, 0]]
    check(points, points[:2], 700)


def test_points_are_read_from_a_mapped_file(tmp_path):
    points = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    np.save(tmp_path / "points.npy", points)
    check(np.load(tmp_path / "points.npy", mmap_mode="r"), points[[599, 0]], 4)


@pytest.mark.parametrize(
    ("width", "count", "message"),
    [(7, 6, r"queries \[2, 7\]: .*\[3, 8\]; take"), (8, 0, "count 0: .*; try 6")],
)
def test_points_and_queries_of_other_networks_are_refused(width, count, message):
    with pytest.raises(ValueError, match=message):
        nearest(np.zeros((3, 8), np.float32), np.zeros((2, width), np.float32), count)


def paint(path, seed):
    """Write a picture of its own colors and texture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((90, 80)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        paint(tmp_path / "images" / f"{'ab'[number % 2]}" / f"{number:02}.png", number)
    return tmp_path / "images"


@pytest.fixture(scope="module")
def compiled(network):
    return features.Extractor(network)


class Watched:
    """An extractor that records which files it reads, and can be interrupted."""

    def __init__(self, extractor, batches=None):
        self.extractor, self.batches = extractor, batches
        self.names = []

    def __call__(self, files):
        for number, batch in enumerate(self.extractor(files)):
            if number == self.batches:
                raise KeyboardInterrupt
            self.names += [files[n].name for n in [*batch.numbers, *batch.reasons]]
            yield batch


@pytest.fixture
def build(network, compiled, folder, tmp_path):
    """Return a function that builds the index; it returns index, names of files read, and log."""

    def make(batches=None, network=network):
        watched, lines = Watched(compiled, batches), []
        try:
            built = index.build(network, watched, folder, tmp_path / "index", lines.append)
        except KeyboardInterrupt:
            built = None
        return built, sorted(watched.names), " ".join(lines)

    return make


def check_features(built, network, folder):
    """Compare each row with the features that the network itself computes for that file."""
    expected = relu7(network, [folder / name for name in built.names])
    np.testing.assert_allclose(built.features, expected, atol=1e-4 * expected.max())


def relu7(network, files):
    return np.array(network.features(network.preprocess(files), "relu7")["relu7"])


def test_an_index_is_built_once(build, network, folder):
    built, names, log = build()
    assert len(names) == len(built.names) == 40
    assert log.endswith(": 40 files to read.")
    assert built.features.shape == (40, features.width(network, features.retrieval_recipe(network)))
    assert isinstance(built.features, np.memmap)
    assert np.ptp(built.features, axis=0).max() > 0.1 * np.abs(built.features).max()
    check_features(built, network, folder)
    again, names, log = build()
    assert names == []
    assert log.endswith(": 40 files are up to date, 0 to read.")
    np.testing.assert_array_equal(again.features, built.features)


def test_only_what_has_changed_is_read_again(build, network, folder):
    build()
    (folder / "a/04.png").unlink()
    paint(folder / "b/05.png", 100)
    paint(folder / "c/new.png", 101)
    built, names, log = build()
    assert names == ["05.png", "new.png"]
    assert log.endswith(": 38 files are up to date, 2 to read.")
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    assert sorted(built.names) == names
    check_features(built, network, folder)


def test_one_file_of_features_is_left(build, folder, tmp_path):
    build()
    (folder / "a/04.png").unlink()
    build()
    assert len(list((tmp_path / "index").glob("features-*.npy"))) == 1


def test_other_weights_read_all_again(build, tmp_path):
    first, *_ = build()
    before = np.array(first.features)
    other = untrained.make(tmp_path / "other", seed=1)
    other = network_loading.load_network(other, towers.make_mesh(towers=1, data=1, batch=1))
    _, names, log = build(network=other)
    assert len(names) == 40
    assert log.endswith(": 40 files to read (the index is of another network).")
    # The old index, which is still mapped, has not changed.
    np.testing.assert_array_equal(first.features, before)


def test_an_interrupted_build_continues(build, network, folder):
    built, first, _ = build(batches=1)
    assert built is None
    assert len(first) == features.BATCH
    built, rest, log = build()
    assert len(rest) == 40 - features.BATCH
    assert not {*first} & {*rest}
    assert log.endswith(f": {features.BATCH} files are up to date, {len(rest)} to read.")
    check_features(built, network, folder)


def test_rows_that_a_killed_build_left_do_not_count(build, network, folder, tmp_path):
    built, *_ = build(batches=1)
    path = tmp_path / "index/features-0.npy"
    with path.open("ab") as file:
        file.write(b"\x7f" * 12345)  # more than a row, after those that index.json lists
    built, *_ = build()
    check_features(built, network, folder)
    assert np.load(path).shape == (40, features.width(network, features.retrieval_recipe(network)))


@pytest.mark.parametrize("what", ["features-0.npy", "index.json"])
def test_a_damaged_index_is_rebuilt(build, what, tmp_path):
    build()
    path = tmp_path / "index" / what
    os.truncate(path, path.stat().st_size // 2)
    built, names, log = build()
    assert len(built.names) == len(names) == 40
    assert what in log


def test_a_file_that_is_not_an_image_is_tried_once(build, folder):
    (folder / "a/torn.jpg").write_bytes(b"no image")
    built, names, _ = build()
    assert "torn.jpg" in names
    assert list(built.unreadable) == ["a/torn.jpg"]
    assert "no image format" in built.unreadable["a/torn.jpg"]
    built, names, _ = build()
    assert names == []
    assert list(built.unreadable) == ["a/torn.jpg"]
    paint(folder / "a/torn.jpg", 7)
    built, names, _ = build()
    assert names == ["torn.jpg"]
    assert not built.unreadable
    assert "a/torn.jpg" in built.names


def test_a_folder_of_unreadable_files_alone(build, folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="images .*: .*40 files.*; name the folder to search"):
        build()


def test_two_processes_do_not_build_one_index(build, tmp_path):
    (tmp_path / "index").mkdir()
    with (
        lock.hold_lock(tmp_path / "index"),
        pytest.raises(ValueError, match="index .* is writing"),
    ):
        build()


def test_a_full_disk_is_detected_before(build, monkeypatch):
    usage = index.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        ValueError, match=r"index .*/index: needs .* MiB, and 0 are free; free some space"
    ):
        build()


def run(*arguments):
    return retrieve.main([str(argument) for argument in arguments])


def test_the_command_finds_and_draws(workdir, network, folder, tmp_path, capsys):
    query = paint(tmp_path / "query.png", 3)  # as 03.png
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"no image")
    options = ["--workdir", workdir, "--images", folder, "--json", "--top", 4]
    panel = tmp_path / "panel.png"
    assert run(query, torn, folder / "b/07.png", *options, "--save", panel) == 1
    printed = capsys.readouterr()
    assert f"{torn}: no image format known to Pillow" in printed.err
    first, second = (json.loads(line) for line in printed.out.splitlines())
    assert first["file"] == str(query)
    assert first["neighbors"][0] == {"file": str(folder / "b/03.png"), "distance": 0}
    assert second["neighbors"][0]["file"] == str(folder / "b/07.png")
    files = sorted(folder.rglob("*.png"))
    rows = relu7(network, [*files, query])
    numbers, distances = brute_force(rows[:-1], rows[-1:], 4)
    assert [near["file"] for near in first["neighbors"]] == [str(files[n]) for n in numbers[0]]
    apart = [near["distance"] for near in first["neighbors"]]
    np.testing.assert_allclose(apart, distances[0], rtol=1e-3, atol=1e-3)
    assert matplotlib.image.imread(panel).shape[1] > 600
    # The index is kept.
    assert run(query, *options) == 0
    assert "40 files are up to date, 0 to read" in capsys.readouterr().err
    assert run(*options) == 0
    assert capsys.readouterr().out == ""


def test_without_json_there_is_a_line_for_each_neighbor(workdir, folder, tmp_path, capsys):
    options = ["--workdir", workdir, "--images", folder, "--index", tmp_path / "elsewhere"]
    assert run(folder / "a/02.png", *options) == 0
    name, *lines = capsys.readouterr().out.splitlines()
    assert name == str(folder / "a/02.png")
    assert len(lines) == 6
    assert lines[0].split() == ["0.000", str(folder / "a/02.png")]
    assert (tmp_path / "elsewhere" / index.TABLE).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "{tmp}/none"], "--images {tmp}/none: .*; name the folder to search"),
        (["--images", "{tmp}"], "--images {tmp}: .*; name the folder to search"),
        (["--images", "{tmp}/a.txt"], "--images {tmp}/a.txt: .*file; name the folder to search"),
        (["--images", "{tmp}", "--top", "0"], "--top 0: .*; try 6"),
        (["--images", "{tmp}", "--save", "a.jpg", "{tmp}/b"], "--save a.jpg: .*; try a.png"),
        (["--images", "{tmp}", "--save", "a.png"], "--save a.png: .*query images.*; name some"),
        (["--images", "{tmp}", "{tmp}"], "{tmp}: .*; name other paths"),
        ([], ".*--images"),
    ],
)
def test_the_command_refuses_in_a_sentence(arguments, message, workdir, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("")
    assert run("--workdir", workdir, *[a.format(tmp=tmp_path) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert re.match("alexnet_jax: " + message.format(tmp=tmp_path), printed.err), printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
