"""Files are written whole or not at all, and are on the disk before they get their names."""

import errno
import json
import os

import pytest

from alexnet_jax.storage import atomic
from alexnet_jax.storage.digest import digest, file_sha256


def test_a_file_is_replaced_and_nothing_is_left(tmp_path):
    path = tmp_path / "a.json"
    atomic.write_json(path, {"old": 1})
    atomic.write_json(path, {"new": "é"})
    assert json.loads(path.read_text()) == {"new": "é"}
    assert [*tmp_path.iterdir()] == [path]


def test_a_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a"
    atomic.write_text(path, "old")

    def fail():
        with atomic.replacing(path) as partial:
            partial.write_text("half of the n")
            assert partial.name.startswith(".")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "a", []
    fsync = os.fsync

    def watch(descriptor):
        synced.append((os.fstat(descriptor).st_ino, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    atomic.write_bytes(path, b"content")
    assert (path.stat().st_ino, False) in synced


def test_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    assert file_sha256(tmp_path / "a") == known
    assert digest("a", [1, 2]) == digest("a", (1, 2)) != digest("a", [2, 1])
    assert len(digest()) == 16


def test_a_full_disk_is_named_by_the_file_that_did_not_fit(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left") as caught, atomic.replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]
