"""A run's folder may have any name, be moved while it is written, and be read while it changes."""

import os
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.training import checkpoint, checkpoint_digests
from alexnet_jax.training.checkpoint import (
    FOLDER,
    REMOVED,
    CheckpointData,
    Checkpoints,
    read_checkpoints,
)
from alexnet_jax.training.metrics import METRICS, MetricsWriter
from alexnet_jax.training.state import TrainState
from alexnet_jax.weights import run_folder

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = ["[run 1] small", "a]b", "st*r", "q?", "back\\slash", "gs:", os.fsdecode(b"no\xff utf-8")]


def saved(value):
    params = {"w": jnp.full((64, 50), value, jnp.float32)}
    state = TrainState(jnp.array(value), {"params": params}, {"velocity": params})
    return CheckpointData(state, {"mean": np.full(3, value, np.float32)}, {"value": value})


def check_restored(checkpoints, step):
    state = checkpoints.state(step, saved(0).state)
    jax.tree.map(np.testing.assert_array_equal, state, saved(step).state)


def entries(workdir):
    return sorted(path.name for path in (workdir / FOLDER).iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_keeps_what_it_gets(tmp_path, name):
    workdir = tmp_path / name / "run"
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(1, saved(1), 0.5)
        checkpoints.wait()
        checkpoints.read_back(1, saved(1).state)
    for read_only in (False, True):
        with Checkpoints(workdir, read_only) as checkpoints:
            assert (checkpoints.latest(), checkpoints.error(1)) == (1, 0.5)
            check_restored(checkpoints, 1)


def test_a_remote_store_is_refused_and_no_folder_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"workdir gs:/bucket/a: .*local"):
        Checkpoints(Path("gs://bucket/a"))
    assert not [*tmp_path.iterdir()]


def test_what_is_not_what_was_saved_is_noticed_when_read_back(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved(1), None)
        checkpoints.wait()
        with pytest.raises(ValueError, match=r"workdir .*step 1 .*read back; use a folder"):
            checkpoints.read_back(1, saved(2).state)


@pytest.mark.parametrize("root", checkpoint_digests.ROOTS)
def test_a_checkpoint_without_a_root_is_not_whole(tmp_path, root, capsys):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, saved(step), 0.5)
    folder = tmp_path / FOLDER / "2"
    (folder / root).unlink()
    with pytest.raises(ValueError, match=root):
        checkpoint_digests.write(folder)
    # As if Orbax had left it out before the digests were written.
    names = checkpoint_digests.ROOTS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_digests, "ROOTS", ())
        checkpoint_digests.write(folder)
    assert names == checkpoint_digests.ROOTS
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 1
    assert f"step 2 is damaged ({root} is missing)" in capsys.readouterr().err


def move(workdir):
    workdir.rename(workdir.with_name("moved"))


def delete(workdir):
    shutil.rmtree(workdir)


def replace(workdir):
    shutil.copytree(workdir, workdir.with_name("copy"))
    move(workdir)
    workdir.with_name("copy").rename(workdir)


def lose_checkpoints(workdir):
    shutil.rmtree(workdir / FOLDER)


def unlock(workdir):
    (workdir / "lock").unlink()


def save_then(change, workdir):
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(1, saved(1), None)
        checkpoints.wait()
        change(workdir)
        checkpoints.save(2, saved(2), None)


@pytest.mark.parametrize("change", [move, delete, replace, lose_checkpoints, unlock])
def test_a_folder_that_has_gone_is_noticed_before_the_next_save(tmp_path, change):
    workdir = tmp_path / "run"
    gone = rf"workdir {workdir}: was moved, deleted or replaced .*; put it back, or name where"
    with pytest.raises(ValueError, match=gone):
        save_then(change, workdir)
    assert not (workdir / FOLDER / "2").exists()
    if change in (move, delete):
        assert not workdir.exists()
    if change is move:
        with Checkpoints(tmp_path / "moved") as checkpoints:
            check_restored(checkpoints, 1)


@pytest.mark.parametrize("change", [move, delete])
def test_a_folder_that_goes_during_a_save_is_not_made_again(tmp_path, monkeypatch, change):
    workdir, begun, go_on = tmp_path / "run", threading.Event(), threading.Event()
    write = checkpoint_digests.write

    def wait(folder):
        begun.set()
        assert go_on.wait(60)
        write(folder)

    def save():
        with Checkpoints(workdir) as checkpoints:
            checkpoints.save(1, saved(1), None)
            assert begun.wait(60)
            change(workdir)
            go_on.set()
            checkpoints.wait()
            checkpoints.check_in_place()

    monkeypatch.setattr(checkpoint_digests, "write", wait)
    with pytest.raises(ValueError, match=rf"workdir {workdir}: was moved, deleted or replaced"):
        save()
    assert not workdir.exists()
    if change is move:  # the save went where the folder is
        with Checkpoints(tmp_path / "moved") as checkpoints:
            check_restored(checkpoints, 1)


@pytest.mark.parametrize("change", [move, delete, replace])
@pytest.mark.parametrize("act", ["train", "flush"])
def test_metrics_are_not_written_where_nobody_finds_them(tmp_path, change, act):
    workdir = tmp_path / "run"
    workdir.mkdir()

    def record():
        with MetricsWriter(workdir, 0) as writer:
            writer.train(1, 0.1, loss=1.0)
            change(workdir)
            if act == "train":
                writer.train(2, 0.2, loss=1.0)
            else:
                writer.flush()

    with pytest.raises(ValueError, match=rf"workdir {workdir}: was moved, .*{METRICS}"):
        record()
    assert workdir.exists() == (change is replace)


def test_a_removal_that_was_cut_short_is_finished(tmp_path, capsys):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, saved(step), 0.5)
    left = tmp_path / FOLDER / REMOVED / "1"
    shutil.copytree(tmp_path / FOLDER / "1", left)
    shutil.rmtree(left / "state")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.latest() == 2
        check_restored(checkpoints, 1)
    assert left.exists()  # a reader changes nothing
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 2
        assert entries(tmp_path) == ["1", "2"]
        checkpoints.save(3, saved(3), 0.75)
        checkpoints.save(4, saved(4), 0.75)
    assert entries(tmp_path) == ["1", "3", "4"] or entries(tmp_path) == ["2", "3", "4"]
    assert capsys.readouterr().err == ""


def test_a_checkpoint_is_whole_until_its_name_has_gone(tmp_path, monkeypatch):
    seen = []
    rmtree = shutil.rmtree

    def watch(path, **kwargs):
        names = [p for p in (tmp_path / FOLDER).iterdir() if p.name.isdigit()]
        seen.append([checkpoint_digests.find_corruption(p) for p in names])
        rmtree(path, **kwargs)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", watch)
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, saved(step), None)
    assert entries(tmp_path) == ["3", "4"]
    assert len(seen) >= 4
    assert not any(map(any, seen))


def test_a_reader_begins_again_if_what_it_reads_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PAUSE", 0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved(1), None)
    reads = []

    def read(reader):
        reads.append(step := reader.latest())
        if len(reads) == 1:  # the run goes on meanwhile
            with Checkpoints(tmp_path) as checkpoints:
                for later in (2, 3):
                    checkpoints.save(later, saved(later), None)
        return reader.statistics(step)["mean"][0]

    assert read_checkpoints(tmp_path, "workdir", read) == 3
    assert reads == [1, 3]


def test_a_reader_gives_up_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PAUSE", 0)
    monkeypatch.setattr(checkpoint, "READS", 2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved(1), None)

    def read(reader):
        step = reader.latest()
        (tmp_path / FOLDER / str(step)).rename(tmp_path / FOLDER / str(step + 1))
        return reader.statistics(step)

    with pytest.raises(ValueError, match=r"init_from .* replaced 2 times .*; repeat this later"):
        read_checkpoints(tmp_path, "init_from", read)


def test_an_error_of_reading_is_raised_at_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved(1), None)
    reads = []

    def read(reader):
        reads.append(reader.latest())
        raise KeyError("of the reader")

    with pytest.raises(KeyError):
        read_checkpoints(tmp_path, "workdir", read)
    assert reads == [1]


def test_what_a_killed_import_leaves_is_no_run(tmp_path):
    left = tmp_path / FOLDER / "0.orbax-checkpoint-tmp" / "state"
    left.mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}")
    run_folder.check_empty(tmp_path)
    for entry in ("0", "0.superseded", "0.damaged"):
        (tmp_path / FOLDER / entry).mkdir()
        with pytest.raises(ValueError, match=rf"workdir {tmp_path}: holds a run already"):
            run_folder.check_empty(tmp_path)
        (tmp_path / FOLDER / entry).rmdir()
    (tmp_path / METRICS).touch()
    with pytest.raises(ValueError, match="holds a run already"):
        run_folder.check_empty(tmp_path)
