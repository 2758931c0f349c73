"""Query images that are in the index are not read again, and have the same neighbors."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import retrieve
from alexnet_jax.retrieval import features, index

NUMBER = features.BATCH + 9  # more than one batch


def paint(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(coarse).resize((90, 80)).save(path)
    return path


@pytest.fixture(scope="module", params=["euclidean", "cosine"])
def distance(request):
    return request.param


@pytest.fixture(scope="module")
def extractor(network, distance):
    unit_length = distance == "cosine"
    recipe = features.retrieval_recipe(network, unit_length=unit_length)
    return recipe, features.Extractor(network, recipe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos") / "images"
    for number in range(NUMBER):
        paint(root / "ab"[number % 2] / f"{number:02}.png", number)
    (root / "a" / "10torn.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def built(network, extractor, folder, tmp_path_factory):
    recipe, extract = extractor
    place = tmp_path_factory.mktemp("index")
    return index.build(network, extract, folder, place, lambda _: None, recipe)


class Watched:
    def __init__(self, extract):
        self.extract, self.files = extract, []

    def __call__(self, files):
        self.files += files
        return self.extract(files)


def results(extractor, built, files, distance):
    """Return all neighbors, and which files were read for them."""
    watched = Watched(extractor[1])
    found = list(retrieve.search(watched, built, files, 5, distance))
    return found, watched.files


def anew(extractor, built, files, distance, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(index.Index, "find", lambda _, files: [None] * len(files))
        found, read = results(extractor, built, files, distance)
    assert read == files
    return found


def test_a_folder_that_is_the_index_is_not_read_again(
    extractor, built, folder, distance, monkeypatch
):
    files = sorted(folder.rglob("*.png"))
    assert len(files) == NUMBER + 1
    found, read = results(extractor, built, files, distance)
    assert read == []
    # To the last bit, also where a file was in another row of its batch.
    assert found == anew(extractor, built, files, distance, monkeypatch)
    assert [neighbors.file for neighbors in found] == files
    for neighbors in found:
        if "torn" in neighbors.file.name:
            assert "no image format" in neighbors.error
        else:
            assert neighbors.images[0] == (neighbors.file, 0)


@pytest.mark.parametrize("how", ["relative", "link", "dots"])
def test_a_file_is_found_by_any_path(
    how, extractor, built, folder, distance, tmp_path, monkeypatch
):
    if how == "relative":
        monkeypatch.chdir(folder.parent)
        root = folder.relative_to(folder.parent)
    elif how == "link":
        root = tmp_path / "link"
        root.symlink_to(folder)
    else:
        root = folder / ".." / folder.name
    files = [root / "a" / "00.png", root / "b" / "01.png", root / "a" / "10torn.png"]
    found, read = results(extractor, built, files, distance)
    assert read == []
    assert [neighbors.file for neighbors in found] == files
    assert found[0].images[0] == (folder / "a" / "00.png", 0)


def test_other_files_are_read_and_the_order_is_kept(
    extractor, built, folder, distance, tmp_path, monkeypatch
):
    others = [paint(tmp_path / f"{number}.png", 1000 + number) for number in range(NUMBER)]
    others[3].write_bytes(b"no image either")
    same_name = tmp_path / "a" / "00.png"
    same_name.parent.mkdir()
    shutil.copy(folder / "b" / "01.png", same_name)
    files = []
    for number, other in enumerate(others):
        files += [folder / "ab"[number % 2] / f"{number:02}.png", other]
    files.insert(30, same_name)
    found, read = results(extractor, built, files, distance)
    assert read == [file for file in files if tmp_path in file.parents]
    assert [neighbors.file for neighbors in found] == files
    assert found == anew(extractor, built, files, distance, monkeypatch)
    assert found[30].images[0][0] == folder / "b" / "01.png"


def test_a_changed_file_has_new_neighbors(network, extractor, folder, distance, tmp_path):
    root = shutil.copytree(folder, tmp_path / "copy")
    recipe, extract = extractor

    def neighbors():
        place = tmp_path / "index"
        built = index.build(network, extract, root, place, lambda _: None, recipe)
        return results(extractor, built, [root / "a" / "00.png"], distance)

    before, read = neighbors()
    assert read == []
    shutil.copy(root / "b" / "05.png", root / "a" / "00.png")
    os.utime(root / "a" / "00.png", (1, 1))
    after, read = neighbors()
    assert read == []
    assert after != before
    assert {file.name for file, _ in after[0].images[:2]} == {"00.png", "05.png"}
