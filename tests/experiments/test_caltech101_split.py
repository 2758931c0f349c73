"""The split of Caltech-101: its list, and the folder made of it."""

import json
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "claims"))

import caltech101_split as split


def listed():
    return [json.loads(line) for line in split.SPLIT.read_text().splitlines()]


def test_the_list_has_30_images_of_each_class_and_up_to_20_others():
    classes = listed()
    assert len({line["class"] for line in classes}) == len(classes) == 101
    for line in classes:
        train, test = set(line["train"]), set(line["test"])
        assert len(train) == len(line["train"]) == 30
        assert 1 <= len(test) == len(line["test"]) <= 20
        assert not train & test
    assert sum(len(line["test"]) for line in classes) == 1692


@pytest.fixture
def categories(tmp_path, monkeypatch):
    """Return a folder of three images, of which the list has two."""
    folder = tmp_path / "101_ObjectCategories"
    for name in ("ant/image_0001.jpg", "ant/image_0002.jpg", "BACKGROUND_Google/image_0001.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    file = tmp_path / "split.jsonl"
    file.write_text('{"class": "ant", "train": [2], "test": [1]}\n')
    monkeypatch.setattr(split.copies, "__defaults__", (file,))
    return folder


def test_images_are_copied_and_compared_with_the_measured_ones(
    categories, tmp_path, monkeypatch, capsys
):
    split.make(split.Arguments(categories, tmp_path / "a"))
    copied = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg")}
    assert copied == {Path("train/ant/image_0002.jpg"), Path("test/ant/image_0001.jpg")}
    assert "2 images, not byte for byte" in capsys.readouterr().out
    images = [target for _, target in split.copies(categories, tmp_path / "a")]
    monkeypatch.setattr(split, "MEASURED", split.digest(images))
    split.make(split.Arguments(categories, tmp_path / "b"))
    assert "2 images, byte for byte the measured ones" in capsys.readouterr().out
    assert split.digest(images) != split.digest(images[::-1])


def test_a_wrong_folder_is_rejected_before_anything_is_copied(categories, tmp_path):
    (categories / "ant" / "image_0001.jpg").unlink()
    with pytest.raises(ValueError, match=r"categories .*: 1 of 2 images .*image_0001\.jpg; give"):
        split.make(split.Arguments(categories, tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="to .*: exists; give"):
        split.make(split.Arguments(categories, tmp_path))


def test_the_measured_images_are_those_of_the_list(real_data):
    """The archive of the measured folder has exactly the files that the list names."""
    with tarfile.open(real_data / "caltech101.tar") as archive:
        measured = {member.name for member in archive if member.isfile()}
    named = {
        f"caltech101/{part}/{line['class']}/image_{number:04d}.jpg"
        for line in listed()
        for part in split.SPLITS
        for number in line[part]
    }
    assert named == measured
