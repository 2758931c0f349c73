"""A pinned path stays with its folder, whatever the folder is called and wherever it goes."""

import os
from pathlib import Path

import pytest

from alexnet_jax.storage import pinned as module
from alexnet_jax.storage.pinned import pinned

READ_OTHERWISE = ["[run 1] small", "st*r", "q?", "back\\slash", "gs:", os.fsdecode(b"no\xff utf-8")]


@pytest.mark.parametrize("name", READ_OTHERWISE)
def test_the_path_holds_nothing_of_the_name(tmp_path, name):
    folder = tmp_path / name / "inner"
    folder.mkdir(parents=True)
    with pinned(folder) as path:
        assert not module.READ_OTHERWISE.search(str(path))
        (path / "a").write_text("text")
    assert (folder / "a").read_text() == "text"
    assert not path.exists()


def test_a_moved_folder_is_followed_and_its_old_path_not_made_again(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    with pinned(folder) as path:
        folder.rename(tmp_path / "new")
        (path / "a" / "b").mkdir(parents=True)
    assert (tmp_path / "new" / "a" / "b").is_dir()
    assert not folder.exists()


def test_nothing_can_be_written_to_a_deleted_folder(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    with pinned(folder) as path:
        folder.rmdir()
        with pytest.raises(FileNotFoundError):
            (path / "a").mkdir()
    assert not folder.exists()


def test_without_such_paths_the_name_has_to_be_plain(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DESCRIPTORS", tmp_path / "missing")
    for number, name in enumerate(READ_OTHERWISE):
        folder = tmp_path / name / "inner"
        folder.mkdir(parents=True)
        with pytest.raises(ValueError, match=r"workdir .* must not hold .*use a folder"):
            pinned(folder).__enter__()
        plain = tmp_path / f"plain {number}, é"
        plain.mkdir()
        with pinned(plain) as path:
            assert path == plain


def test_no_descriptor_is_left_open(tmp_path):
    before = len([*module.DESCRIPTORS.iterdir()])
    with pinned(tmp_path):
        assert len([*module.DESCRIPTORS.iterdir()]) == before + 1
    assert len([*module.DESCRIPTORS.iterdir()]) == before


def test_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    with pinned(Path("here")) as path:
        monkeypatch.chdir("/")
        (path / "a").touch()
    assert (tmp_path / "here" / "a").exists()
