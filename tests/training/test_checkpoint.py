"""A checkpoint that is not as it was saved is never used, and never lost."""

import errno
import json
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
from alexnet_jax.training.metrics import Writer
from alexnet_jax.training.state import TrainState

pytestmark = pytest.mark.usefixtures("quick_compilation")

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


@pytest.mark.parametrize("part", ["state", "constants", "meta", "metrics", checkpoint_digests.NAME])
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


def test_what_no_digest_is_kept_of_is_never_read(workdir):
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
        r"state/\S+ has other bytes than were saved",
    ),
    "removed": (lambda run: largest(run).unlink(), r"state/\S+ is missing"),
    "meta": (
        lambda run: flip(run / FOLDER / "30" / checkpoint_digests.META, random.Random(2)),
        "meta/metadata has other bytes than were saved",
    ),
    "error": (
        lambda run: (run / FOLDER / "30" / checkpoint_digests.METRICS).write_text(
            '{"top1_error": 0.'
        ),
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
        r"constants/\S+ is missing",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_takes_its_place(
    workdir, name, capsys
):
    damage, fault = FAULTS[name]
    damage(workdir)
    damaged = contents(workdir / FOLDER / "30")
    with Checkpoints(workdir) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (20, 10)
        check_restored(checkpoints, 20)
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(
            rf"{workdir}: the checkpoint of step 30 is damaged \({fault}\) and set aside as "
            r"checkpoints/30\.damaged; the newest whole one, of step 20, is used\.",
            line,
        )
        checkpoints.save(30, saved(30), None)  # the run comes by again
        checkpoints.wait()
        assert checkpoints.latest() == 30
    assert contents(workdir / FOLDER / "30.damaged") == damaged
    assert steps(workdir) == ["10", "20", "30", "30.damaged"]
    with Checkpoints(workdir) as checkpoints:
        check_restored(checkpoints, 30)
    assert capsys.readouterr().err == ""


def test_what_was_set_aside_stays_when_that_happens_again(workdir):
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
    assert line.endswith(
        "set aside as checkpoints/10.damaged; the newest whole one, of step 30, is used."
    )


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
def test_where_none_is_whole_nothing_is_changed(workdir, read_only):
    for step in ERRORS:
        flip(largest(workdir, step), random.Random(step))
    before = contents(workdir / FOLDER)
    for _ in range(2):
        with pytest.raises(ValueError, match="none of its checkpoints is whole") as refused:
            Checkpoints(workdir, read_only)
        assert all(f"step {step}: state/" in str(refused.value) for step in ERRORS)
        assert str(refused.value).endswith(
            "; nothing was changed: copy checkpoints back from where it is whole, or start anew in "
            "another --workdir."
        )
        assert contents(workdir / FOLDER) == before
    with lock.hold_lock(workdir):
        pass  # a refusal does not keep it


def test_a_reader_passes_over_what_is_damaged_and_changes_nothing(workdir, capsys):
    (workdir / FOLDER / "10" / checkpoint_digests.METRICS).write_text('{"top1_error": 0.')
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
    assert all(line.endswith("); the newest whole one, of step 20, is used.") for line in said)
    assert contents(workdir) == before


def as_the_first_version_wrote(workdir):
    for step in ERRORS:
        folder = workdir / FOLDER / str(step)
        (folder / checkpoint_digests.NAME).unlink()
        meta = json.loads((folder / checkpoint_digests.META).read_text())
        del meta["format"]
        (folder / checkpoint_digests.META).write_text(json.dumps(meta))


@pytest.mark.parametrize("read_only", [False, True])
def test_checkpoints_of_the_first_version_are_used_and_that_is_said(workdir, read_only, capsys):
    as_the_first_version_wrote(workdir)
    with Checkpoints(workdir, read_only) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (30, 10)
        check_restored(checkpoints, 30)
    assert capsys.readouterr().err == (
        f"{workdir}: the checkpoint of step 30 is of an older version, which kept no digests; it "
        "looks whole and is used unchecked.\n"
    )


@pytest.mark.parametrize("fault", ["state is missing", "meta/metadata or metrics/metrics cannot"])
def test_checkpoints_of_the_first_version_are_looked_at(workdir, fault, capsys):
    as_the_first_version_wrote(workdir)
    folder = workdir / FOLDER / "30"
    if fault.startswith("state"):
        shutil.rmtree(folder / "state")
    else:
        (folder / checkpoint_digests.META).write_text('{"value": ')
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest() == 20
    assert f"step 30 is damaged ({fault}" in capsys.readouterr().err


def test_a_newer_format_is_refused_in_a_sentence(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("alexnet_jax.training.checkpoint.FORMAT", FORMAT + 1)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(5, saved(5), None)
    for read_only in (False, True):
        with (
            Checkpoints(tmp_path, read_only) as checkpoints,
            pytest.raises(ValueError, match=r"step 5 has format 3, .* reads up to 2: go on with"),
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


FULL = (
    r"the checkpoint of step 40 could not be written \(No space left on device\); those saved "
    r"before it are whole: make room on the disk, and the same command goes on from there\."
)


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


def test_a_full_disk_is_known_before_the_next_save_and_said_once(workdir, monkeypatch):
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
        with Writer(tmp_path, 0) as writer:
            writer._file.close()
            writer._file = Path("/dev/full").open("w")  # noqa: SIM115
            writer.train(1, 0.1, loss=1.0)

    assert run_command(train, Command, "") == 2
    assert capsys.readouterr().err == (
        f"alexnet_jax: {tmp_path / 'metrics.jsonl'}: No space left on device; make room, and give "
        "the same command again.\n"
    )


def test_one_process_writes_to_a_folder(workdir):
    with (
        Checkpoints(workdir),
        pytest.raises(ValueError, match=r"process \d+ on \S+ is writing to it; wait until that"),
    ):
        Checkpoints(workdir)
    with Checkpoints(workdir):
        with Checkpoints(workdir, read_only=True) as reader:
            assert reader.latest() == 30
        with pytest.raises(ValueError, match="is writing to it"):
            Checkpoints(workdir)  # a reader that has gone took no lock with it
