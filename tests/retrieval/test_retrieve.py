"""Nearest neighbors against brute force; an index that is kept, resumed and never stale."""

import json
import os

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


@pytest.mark.parametrize(("width", "count"), [(7, 6), (8, 0)])
def test_points_and_queries_of_other_networks_are_refused(width, count):
    with pytest.raises(ValueError, match=r"nearest of \(3, 8\) to \(2,"):
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
def workdir(tmp_path_factory):
    return untrained.make(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture(scope="module")
def network(workdir):
    return network_loading.load_network(workdir, towers.make_mesh(towers=1, data=1, batch=1))


@pytest.fixture(scope="module")
def compiled(network):
    return features.Extractor(network)


class Watched:
    """An extractor that notes which files it is shown, and can be interrupted."""

    def __init__(self, extractor, batches=None):
        self.extractor, self.batches = extractor, batches
        self.seen = []

    def __call__(self, files):
        for number, batch in enumerate(self.extractor(files)):
            if number == self.batches:
                raise KeyboardInterrupt
            self.seen += [files[n].name for n in [*batch.numbers, *batch.reasons]]
            yield batch


@pytest.fixture
def build(network, compiled, folder, tmp_path):
    """Return a function that builds the index; it returns what was seen and said."""

    def make(batches=None, network=network):
        watched, said = Watched(compiled, batches), []
        try:
            found = index.build(network, watched, folder, tmp_path / "index", said.append)
        except KeyboardInterrupt:
            found = None
        return found, sorted(watched.seen), " ".join(said)

    return make


def check_features(found, network, folder):
    """Check each row against the network's own word for that file."""
    expected = relu7(network, [folder / name for name in found.names])
    np.testing.assert_allclose(found.features, expected, atol=1e-4 * expected.max())


def relu7(network, files):
    return np.array(network.features(network.prepare(files), "relu7")["relu7"])


def test_an_index_is_built_once(build, network, folder):
    found, seen, said = build()
    assert len(seen) == len(found.names) == 40
    assert said.endswith("40 files are to be seen.")
    assert found.features.shape == (40, features.width(network))
    assert isinstance(found.features, np.memmap)
    assert np.ptp(found.features, axis=0).max() > 0.1 * np.abs(found.features).max()
    check_features(found, network, folder)
    again, seen, said = build()
    assert seen == []
    assert said.endswith("all 40 files are in it.")
    np.testing.assert_array_equal(again.features, found.features)


def test_only_what_has_changed_is_seen_again(build, network, folder):
    build()
    (folder / "a/04.png").unlink()
    paint(folder / "b/05.png", 100)
    paint(folder / "c/new.png", 101)
    found, seen, said = build()
    assert seen == ["05.png", "new.png"]
    assert said.endswith("38 files are in it, 2 are to be seen.")
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    assert sorted(found.names) == names
    check_features(found, network, folder)


def test_one_file_of_features_is_left(build, folder, tmp_path):
    build()
    (folder / "a/04.png").unlink()
    build()
    assert len(list((tmp_path / "index").glob("features-*.npy"))) == 1


def test_other_weights_see_all_again(build, tmp_path):
    first, *_ = build()
    before = np.array(first.features)
    other = untrained.make(tmp_path / "other", seed=1)
    other = network_loading.load_network(other, towers.make_mesh(towers=1, data=1, batch=1))
    _, seen, said = build(network=other)
    assert len(seen) == 40
    assert said.endswith(": the network is another one than the index was made with.")
    # What is still mapped is as it was.
    np.testing.assert_array_equal(first.features, before)


def test_a_build_that_was_interrupted_goes_on(build, network, folder):
    found, first, _ = build(batches=1)
    assert found is None
    assert len(first) == features.BATCH
    found, rest, said = build()
    assert len(rest) == 40 - features.BATCH
    assert not {*first} & {*rest}
    assert said.endswith(f"{features.BATCH} files are in it, {len(rest)} are to be seen.")
    check_features(found, network, folder)


def test_rows_that_a_killed_build_left_do_not_count(build, network, folder, tmp_path):
    found, *_ = build(batches=1)
    path = tmp_path / "index/features-0.npy"
    with path.open("ab") as file:
        file.write(b"\x7f" * 12345)  # a row and more, behind what index.json knows of
    found, *_ = build()
    check_features(found, network, folder)
    assert np.load(path).shape == (40, features.width(network))


@pytest.mark.parametrize("what", ["features-0.npy", "index.json"])
def test_a_damaged_index_is_built_anew(build, what, tmp_path):
    build()
    path = tmp_path / "index" / what
    os.truncate(path, path.stat().st_size // 2)
    found, seen, said = build()
    assert len(found.names) == len(seen) == 40
    assert what in said


def test_what_is_no_image_is_tried_once(build, folder):
    (folder / "a/torn.jpg").write_bytes(b"no image")
    found, seen, _ = build()
    assert "torn.jpg" in seen
    assert list(found.unreadable) == ["a/torn.jpg"]
    assert "no image format" in found.unreadable["a/torn.jpg"]
    found, seen, _ = build()
    assert seen == []
    assert list(found.unreadable) == ["a/torn.jpg"]
    paint(folder / "a/torn.jpg", 7)
    found, seen, _ = build()
    assert seen == ["torn.jpg"]
    assert not found.unreadable
    assert "a/torn.jpg" in found.names


def test_a_folder_of_nothing_but_torn_files(build, folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="of 40 files none holds an image"):
        build()


def test_two_processes_do_not_build_one_index(build, tmp_path):
    (tmp_path / "index").mkdir()
    with (
        lock.hold_lock(tmp_path / "index"),
        pytest.raises(ValueError, match="--index .* is writing"),
    ):
        build()


def test_a_full_disk_is_noticed_before(build, monkeypatch):
    usage = index.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"MiB are needed there and 0 are free; make room"):
        build()


def run(*arguments):
    return retrieve.main([str(argument) for argument in arguments])


def test_the_command_finds_and_draws(workdir, network, folder, tmp_path, capsys):
    query = paint(tmp_path / "query.png", 3)  # as 03.png
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"no image")
    wanted = ["--workdir", workdir, "--images", folder, "--json", "--top", 4]
    panel = tmp_path / "panel.png"
    assert run(query, torn, folder / "b/07.png", *wanted, "--save", panel) == 1
    said = capsys.readouterr()
    assert f"{torn}: no image format known to Pillow" in said.err
    first, second = (json.loads(line) for line in said.out.splitlines())
    assert first["file"] == str(query)
    assert first["neighbors"][0] == {"file": str(folder / "b/03.png"), "distance": 0}
    assert second["neighbors"][0]["file"] == str(folder / "b/07.png")
    files = sorted(folder.rglob("*.png"))
    rows = relu7(network, [*files, query])
    numbers, distances = brute_force(rows[:-1], rows[-1:], 4)
    assert [near["file"] for near in first["neighbors"]] == [str(files[n]) for n in numbers[0]]
    found = [near["distance"] for near in first["neighbors"]]
    np.testing.assert_allclose(found, distances[0], rtol=1e-3, atol=1e-3)
    assert matplotlib.image.imread(panel).shape[1] > 600
    # The index is where it was, and the panel is not needed again.
    assert run(query, *wanted) == 0
    assert "all 40 files are in it" in capsys.readouterr().err
    assert run(*wanted) == 0
    assert capsys.readouterr().out == ""


def test_without_json_there_is_a_line_for_each_neighbor(workdir, folder, tmp_path, capsys):
    asked = ["--workdir", workdir, "--images", folder, "--index", tmp_path / "elsewhere"]
    assert run(folder / "a/02.png", *asked) == 0
    name, *lines = capsys.readouterr().out.splitlines()
    assert name == str(folder / "a/02.png")
    assert len(lines) == 6
    assert lines[0].split() == ["0.000", str(folder / "a/02.png")]
    assert (tmp_path / "elsewhere" / index.TABLE).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "{tmp}/none"], "--images {tmp}/none: there is no such folder; name"),
        (["--images", "{tmp}"], "--images {tmp}: it holds no images; name the folder"),
        (["--images", "{tmp}/a.txt"], "--images {tmp}/a.txt: it is a file; name the folder"),
        (["--images", "{tmp}", "--top", "0"], "--top 0: it is at least 1 neighbor; try 6."),
        (["--images", "{tmp}", "--save", "a.jpg"], "--save a.jpg: it is the name of a picture, in"),
        (["--images", "{tmp}", "{tmp}"], "{tmp}: no images there; name others."),
        ([], "images"),
    ],
)
def test_the_command_refuses_in_a_sentence(arguments, said, workdir, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("")
    assert run("--workdir", workdir, *[a.format(tmp=tmp_path) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert said.format(tmp=tmp_path) in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
