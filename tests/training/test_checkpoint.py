"""A checkpoint that is not as it was saved is never used, and never lost."""

import errno
import random
import re
import shutil
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.cli.errors import run_command
from alexnet_jax.main import Command
from alexnet_jax.storage import lock
from alexnet_jax.training import checkpoint_digests
from alexnet_jax.training.checkpoint import FOLDER, FORMAT, CheckpointData, Checkpoints
from alexnet_jax.training.metrics import MetricsWriter
from alexnet_jax.training.state import TrainState

pytestmark = pytest.mark.usefixtures("quick_compilation")

META, METRICS = "meta/metadata", "metrics/metrics"  # files of a checkpoint, by Orbax
ERRORS = {10: 0.25, 20: 0.5, 30: None}  # of the checkpoints of `kept`: best, one but last, last


def saved(value):
    kernel = np.random.default_rng(value).normal(size=(64, 50))
    params = {"w": jnp.asarray(kernel, jnp.float32), "b": jnp.full(7, value, jnp.float32)}
    velocity = jax.tree.map(lambda x: -x, params)
    state = TrainState(jnp.array(value), {"params": params}, {"velocity": velocity})
    return CheckpointData(state, {"mean": np.full(3, value, np.float32)}, {"value": value})


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("kept")
    with Checkpoints(workdir) as checkpoints:
        for step, error in ERRORS.items():
            checkpoints.save(step, saved(step), error)
    return workdir


@pytest.fixture
def workdir(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    return tmp_path / "run"


def steps(workdir):
    return sorted(path.name for path in (workdir / FOLDER).iterdir())


def files(workdir, step=30):
    folder = workdir / FOLDER / str(step)
    names = (str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file())
    return [folder / name for name in names if name not in checkpoint_digests.UNREAD]


def largest(workdir, step=30):
    return max(files(workdir, step), key=lambda path: path.stat().st_size)


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def contents(folder):
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in found}


def check_restored(checkpoints, step):
    assert checkpoints.meta(step) == {"value": step}
    state = checkpoints.state(step, saved(0).state)
    jax.tree.map(np.testing.assert_array_equal, state, saved(step).state)


@pytest.mark.parametrize(
    "part", ["state", "statistics", "meta", "metrics", checkpoint_digests.NAME]
)
def test_a_flipped_byte_in_any_file_is_noticed(workdir, part):
    rng = random.Random(0)
    flipped = [p for p in files(workdir) if part in p.relative_to(workdir / FOLDER / "30").parts]
    assert flipped
    for path in flipped:
        before = path.read_bytes()
        for _ in range(3):
            flip(path, rng)
            assert checkpoint_digests.find_corruption(workdir / FOLDER / "30") != "", path
            path.write_bytes(before)
        assert checkpoint_digests.find_corruption(workdir / FOLDER / "30") == ""


def test_files_without_digests_are_never_read(workdir):
    for name in checkpoint_digests.UNREAD:
        (workdir / FOLDER / "30" / name).write_bytes(b"\xff{nonsense")
    with Checkpoints(workdir) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (30, 10)
        check_restored(checkpoints, 30)


FAULTS = {
    "truncated": (
        lambda run: largest(run).write_bytes(largest(run).read_bytes()[:1000]),
        r"state/\S+ has 1,000 bytes and had [\d,]+",
    ),
    "flipped": (
        lambda run: flip(largest(run), random.Random(1)),
        r"state/\S+ has changed \D+",
    ),
    "removed": (lambda run: largest(run).unlink(), r"state/\S+ is missing"),
    "meta": (
        lambda run: flip(run / FOLDER / "30" / META, random.Random(2)),
        r"meta/metadata has changed \D+",
    ),
    "error": (
        lambda run: (run / FOLDER / "30" / METRICS).write_text('{"top1_error": 0.'),
        r"metrics/metrics has 17 bytes and had 24",
    ),
    "no manifest": (
        lambda run: (run / FOLDER / "30" / checkpoint_digests.NAME).unlink(),
        "manifest.json is missing",
    ),
    "torn manifest": (
        lambda run: (run / FOLDER / "30" / checkpoint_digests.NAME).write_text('{"files": {'),
        "manifest.json cannot be read",
    ),
    "emptied": (
        lambda run: [shutil.rmtree(p) for p in (run / FOLDER / "30").iterdir() if p.is_dir()],
        r"meta/\S+ is missing",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_checkpoint_is_quarantined_and_the_one_before_is_used(workdir, name, capsys):
    damage, fault = FAULTS[name]
    damage(workdir)
    damaged = contents(workdir / FOLDER / "30")
    with Checkpoints(workdir) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (20, 10)
        check_restored(checkpoints, 20)
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(
            rf"{workdir}: .* step 30 is damaged \({fault}\) .*checkpoints/30\.damaged; .*step 20.*",
            line,
        )
        checkpoints.save(30, saved(30), None)  # the run reaches this step again
        checkpoints.wait()
        assert checkpoints.latest() == 30
    assert contents(workdir / FOLDER / "30.damaged") == damaged
    assert steps(workdir) == ["10", "20", "30", "30.damaged"]
    with Checkpoints(workdir) as checkpoints:
        check_restored(checkpoints, 30)
    assert capsys.readouterr().err == ""


def test_quarantined_checkpoints_stay_when_it_happens_again(workdir):
    for _ in range(2):
        flip(largest(workdir), random.Random(0))
        with Checkpoints(workdir) as checkpoints:
            checkpoints.save(30, saved(30), None)
    assert steps(workdir) == ["10", "20", "30", "30.damaged", "30.damaged.2"]


def test_the_best_one_damaged(workdir, capsys):
    flip(largest(workdir, 10), random.Random(0))
    with Checkpoints(workdir) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (30, 20)
    (line,) = capsys.readouterr().err.splitlines()
    assert "step 10 is damaged" in line
    assert re.search(r"checkpoints/10\.damaged; .* step 30", line)


def test_a_save_that_was_cut_short_is_removed(workdir, capsys):
    left = workdir / FOLDER / "40.orbax-checkpoint-tmp"
    shutil.copytree(workdir / FOLDER / "30", left)
    largest(workdir, left.name).write_bytes(b"")
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest() == 30
        checkpoints.save(40, saved(40), None)
        checkpoints.wait()
        check_restored(checkpoints, 40)
    assert steps(workdir) == ["10", "30", "40"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("read_only", [False, True])
def test_if_none_is_intact_nothing_is_changed(workdir, read_only):
    for step in ERRORS:
        flip(largest(workdir, step), random.Random(step))
    before = contents(workdir / FOLDER)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"workdir {workdir}: ") as refused:
            Checkpoints(workdir, read_only)
        assert all(f"step {step}: state/" in str(refused.value) for step in ERRORS)
        assert "restore checkpoints from a backup" in str(refused.value)
        assert contents(workdir / FOLDER) == before
    with lock.hold_lock(workdir):
        pass  # a refusal does not keep it


def test_a_reader_skips_damaged_checkpoints_and_changes_nothing(workdir, capsys):
    (workdir / FOLDER / "10" / METRICS).write_text('{"top1_error": 0.')
    flip(largest(workdir, 30), random.Random(0))
    before = contents(workdir)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (20, 20)
        check_restored(checkpoints, 20)
    said = capsys.readouterr().err.splitlines()
    assert re.findall(r"step \d+ is damaged", "\n".join(said)) == [
        "step 10 is damaged",
        "step 30 is damaged",
    ]
    assert all("step 20" in line for line in said)
    assert contents(workdir) == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("number", [2, FORMAT + 1])
def test_another_format_is_refused_in_a_sentence(tmp_path, monkeypatch, number, read_only):
    with monkeypatch.context() as patch:
        patch.setattr("alexnet_jax.training.checkpoint.FORMAT", number)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(5, saved(5), None)
    with (
        Checkpoints(tmp_path, read_only) as checkpoints,
        pytest.raises(ValueError, match=rf"workdir {tmp_path}: .*format {number}.* reads {FORMAT}"),
    ):
        checkpoints.meta(5)
    assert steps(tmp_path) == ["5"]


def test_saving_does_not_wait_for_the_digests(tmp_path, monkeypatch):
    let, write = threading.Event(), checkpoint_digests.write

    def wait(folder):
        assert let.wait(60)
        write(folder)

    monkeypatch.setattr(checkpoint_digests, "write", wait)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, saved(5), None)
        assert not (tmp_path / FOLDER / "5").exists()  # not before its digests
        let.set()
        checkpoints.wait()
        assert checkpoint_digests.find_corruption(tmp_path / FOLDER / "5") == ""


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


FULL = r"workdir .* step 40 .*\(No space left on device\); .*free disk space"


def test_a_full_disk_leaves_the_checkpoints_before(workdir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_digests, "write", full)

        def save():
            with Checkpoints(workdir) as checkpoints:
                checkpoints.save(40, saved(40), None)

        with pytest.raises(ValueError, match=FULL):
            save()
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest() == 30
        check_restored(checkpoints, 30)
        checkpoints.save(40, saved(40), None)
    assert steps(workdir) == ["10", "30", "40"]


def test_a_full_disk_is_reported_once_and_before_the_next_save(workdir, monkeypatch):
    monkeypatch.setattr(checkpoint_digests, "write", full)

    def train():
        with Checkpoints(workdir) as checkpoints:
            checkpoints.save(40, saved(40), None)
            for _ in range(1000):
                checkpoints.check()
                time.sleep(0.01)
            pytest.fail("the save has failed long ago")

    with pytest.raises(ValueError, match=FULL):
        train()


def test_an_error_of_the_run_is_not_hidden_by_a_save_that_fails(workdir, monkeypatch):
    monkeypatch.setattr(checkpoint_digests, "write", full)

    def train():
        with Checkpoints(workdir) as checkpoints:
            checkpoints.save(40, saved(40), None)
            raise FloatingPointError("the loss is nan")

    with pytest.raises(FloatingPointError):
        train()
    with lock.hold_lock(workdir):
        pass


def test_metrics_on_a_full_disk(tmp_path, capsys):
    def train():
        with MetricsWriter(tmp_path, 0) as writer:
            writer._file.close()
            (tmp_path / "metrics.jsonl").unlink()
            (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
            writer._file = Path("/dev/full").open("w")  # noqa: SIM115
            writer.train(1, 0.1, loss=1.0)

    assert run_command(train, Command, "") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"alexnet_jax: {tmp_path / 'metrics.jsonl'}: No space left on device; ")
    assert "free some space" in line


def test_one_process_writes_to_a_folder(workdir):
    with (
        Checkpoints(workdir),
        pytest.raises(
            ValueError, match=r"workdir .*: process \d+ on \S+ is writing .*; wait until"
        ),
    ):
        Checkpoints(workdir)
    with Checkpoints(workdir):
        with Checkpoints(workdir, read_only=True) as reader:
            assert reader.latest() == 30
        with pytest.raises(ValueError, match="is writing to"):
            Checkpoints(workdir)  # a reader that has gone took no lock with it
