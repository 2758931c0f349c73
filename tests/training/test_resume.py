"""A run that was interrupted resumes as if it had not been: bit for bit, or not at all."""

import itertools
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from alexnet_jax.cli import signals
from alexnet_jax.cli.arguments import option_name
from alexnet_jax.config import Config, ModelConfig, OptimizerConfig, flatten
from alexnet_jax.main import main
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.storage import lock
from alexnet_jax.training import data_files, loop, versions
from alexnet_jax.training.checkpoint import CheckpointData, Checkpoints
from alexnet_jax.training.metrics import MetricsWriter, read_metrics
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.resume import check_same_config
from alexnet_jax.training.state import TrainState, abstract_state

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES = 3  # of the photographs
# 30 images in batches of 8: epochs end after steps 4, 8 and 12, and batches run across their ends.
EPOCH_ENDS, BATCH = (4, 8, 12), 8
FLEETING = (
    *("time", "seconds", "images_per_second", "tflop_per_second", "peak_share"),
    "waiting_for_data",
)


@pytest.fixture(scope="module", autouse=True)
def compilations(tmp_path_factory):
    """Keep compiled functions on disk: the runs here compile the same few again and again."""
    folder = tmp_path_factory.mktemp("compiled")
    kept = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in kept}
    for name, value in kept.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def options(photos, **changes):
    """Return the command line of a tiny run; `data_threads=0` changes --data.threads."""
    values = {
        "--data.source": "folder",
        "--data.path": photos,
        "--data.image-size": 40,
        "--data.crop": 36,
        "--model.width": 0.05,
        "--optimizer.batch-size": BATCH,
        "--optimizer.bias-lr-multiplier": 2,
        "--schedule.epochs": 3,
        "--schedule.milestones": 1,
        "--mesh.towers": 2,
        "--mesh.data": 1,
        "--log.every": 1,
        "--log.checkpoint-every": 5,
        "--log.figures": False,
    }
    for name, value in changes.items():
        values[option_name(name.replace("_", ".", 1))] = value
    return [str(part) for pair in values.items() for part in pair]


class Probe:
    """Runs the command, watches which images it trains on, and can cut the power before a step."""

    def __init__(self, monkeypatch, workdir):
        self.workdir = Path(workdir)
        self.order = []  # of each training batch, the numbers of its images
        self.state = None
        self._monkeypatch = monkeypatch

    def run(self, arguments, stop_after=None, spoil=None, ask=math.inf):
        """Return the exit code.

        Args:
            arguments: of the command.
            stop_after: steps after which the power is cut.
            spoil: a step whose images arrive as nonsense.
            ask: as which of the questions whether to stop is answered by yes.
        """
        put, finish, steps = towers.put_batch, loop.finish, 0
        questions = itertools.count(1)

        def watch(batch, mesh):
            nonlocal steps
            if "mask" not in batch:
                if steps == stop_after:
                    raise KeyboardInterrupt
                steps += 1
                self.order.append(batch["index"].tolist())
                if steps == spoil:
                    batch = {**batch, "lighting": np.full_like(batch["lighting"], np.nan)}
            return put(batch, mesh)

        def keep(setup, state, *rest):
            self.state = jax.device_get(state.train)
            return finish(setup, state, *rest)

        with self._monkeypatch.context() as patch:
            patch.setattr(towers, "put_batch", watch)
            patch.setattr(loop, "finish", keep)
            patch.setattr(signals, "stop_requested", lambda: next(questions) >= ask)
            return main(["--workdir", str(self.workdir), *arguments])

    def metrics(self):
        return metrics_of(self.workdir)


def metrics_of(workdir):
    """Return what metrics.jsonl holds but for what no two runs share."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if name not in FLEETING} for line in lines]


def state_at(workdir):
    """Return what the latest checkpoint of the tiny run holds, whole and on the host."""
    architecture = build_architecture(
        ModelConfig(width=0.05, conv345_init_std=0.03, scale_init=True), CLASSES, 36
    )
    tx = paper_sgd(OptimizerConfig())
    _, target = abstract_state(architecture, tx, towers.make_mesh(towers=1, data=1, batch=1), 0)
    with Checkpoints(workdir) as checkpoints:
        latest = checkpoints.latest()
        assert latest is not None
        return jax.device_get(checkpoints.state(latest, target))


def assert_time_adds_up(summary):
    """Check that every part has some time, and that together they are the time of the run."""
    parts = summary["time"]
    assert parts["repeated"] >= 0
    assert all(parts[name] > 0 for name in ("start", "steps", "data", "evaluation", "saving"))
    assert sum(parts.values()) == pytest.approx(summary["seconds"], rel=0.01)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def files_of(workdir):
    return {
        path.relative_to(workdir): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(workdir.rglob("*"))
        if path.is_file() and path.name != lock.NAME  # which names its holder
    }


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def whole(patched, photos, tmp_path_factory):
    """Return three epochs on two devices that nothing interrupted."""
    probe = Probe(patched, tmp_path_factory.mktemp("whole"))
    assert probe.run(options(photos)) == 0
    return probe


@pytest.fixture(scope="module")
def broken(patched, photos, tmp_path_factory):
    """Return the same, interrupted before step 8: the last checkpoint is step 5's."""
    probe = Probe(patched, tmp_path_factory.mktemp("broken"))
    assert probe.run(options(photos), stop_after=7) == 130
    return probe


def copy_of(probe, patched, folder):
    shutil.copytree(probe.workdir, folder / "run")
    return Probe(patched, folder / "run")


def test_the_run_trains_what_it_should(whole):
    lines = whole.metrics()
    assert [line["step"] for line in lines if line["split"] == "train"] == [*range(1, 13)]
    assert [line["step"] for line in lines if line["split"] == "validation"] == [*EPOCH_ENDS]
    assert [line["step"] for line in lines if line["split"] == "test"] == [12]
    for line in lines:
        # Four steps an epoch; the last one reaches some images into the next.
        step = line["step"]
        assert line["epoch"] == pytest.approx(min(step * BATCH / 30, -(-step // 4)))
    rates = [line["learning_rate"] for line in lines if line["split"] == "train"]
    assert rates == pytest.approx([0.01] * 4 + [0.001] * 8)
    speeds = [line for line in read_metrics(whole.workdir) if line["split"] == "train"]
    # The first line is of the first step alone, which includes compilation.
    assert speeds[0]["images_per_second"] is speeds[0]["tflop_per_second"] is None
    flop = [line["tflop_per_second"] / line["images_per_second"] for line in speeds[1:]]
    assert flop == pytest.approx([flop[0]] * 11)
    assert all(line["peak_share"] is None for line in speeds)  # of a CPU
    order = np.concatenate(whole.order)
    assert sorted(order[:30]) == sorted(order[30:60]) == [*range(30)]
    assert not np.array_equal(order[:30], order[30:60])
    assert all(line["count"] == 12 for line in lines if line["split"] == "validation")
    assert lines[-1]["count"] == 9


def test_an_epoch_that_is_announced_is_kept(patched, photos, tmp_path):
    probe = Probe(patched, tmp_path / "run")

    def stop(_, line):
        assert line.startswith("epoch   1")
        assert line.endswith(" images/s")
        raise KeyboardInterrupt

    with patched.context() as patch:
        patch.setattr(MetricsWriter, "print_line", stop)
        assert probe.run(options(photos)) == 130
    with Checkpoints(probe.workdir) as checkpoints:
        assert checkpoints.latest() == 4


def test_interrupted_and_continued_equals_never_interrupted(
    whole, broken, photos, patched, tmp_path
):
    again = copy_of(broken, patched, tmp_path)
    with Checkpoints(again.workdir) as checkpoints:
        assert checkpoints.latest() == 5
    assert [line["step"] for line in again.metrics()] == [1, 2, 3, 4, 4, 5, 6, 7]
    # Threads, prefetching and the rhythm of checkpoints may change: nothing depends on them.
    free = {"data_threads": 0, "data_prefetch": 1, "log_checkpoint_every": 3}
    assert again.run(options(photos, **free)) == 0
    assert broken.order + again.order == whole.order[:7] + whole.order[5:]
    assert_same(again.state, whole.state)
    assert_same(state_at(again.workdir), whole.state)
    assert again.metrics() == whole.metrics()
    summaries = [
        json.loads((probe.workdir / "summary.json").read_text()) for probe in (again, whole)
    ]
    for name in ("validation", "test", "steps"):
        assert summaries[0][name] == summaries[1][name]
    # Steps 6 and 7 were trained twice.
    assert summaries[0]["time"]["repeated"] > summaries[1]["time"]["repeated"] == 0
    for summary in summaries:
        assert_time_adds_up(summary)
    lines = read_metrics(broken.workdir)
    saved, last = (line["seconds"] for line in lines if line["step"] in (5, 7))
    assert 0 < summaries[0]["time"]["repeated"] <= last - saved
    assert summaries[0]["seconds"] > last


def test_stopped_anywhere_and_continued_equals_never_stopped(
    whole, photos, patched, tmp_path, capsys
):
    probe = Probe(patched, tmp_path / "run")
    for ask, saved, place in [
        (1, None, "before everything"),
        (3, None, "while the images are read"),
        (5, 0, "before the first step"),
        (4, 2, "between steps"),
        (5, 4, "during an evaluation"),
        (3, 4, "again in the same"),
        (4, 4, "after it"),
        (13, 12, "during the last evaluation"),
        (4, 12, "during the test"),
    ]:
        assert probe.run(options(photos), ask=ask) == 0, place
        said = capsys.readouterr().out.splitlines()[-1]
        if saved is None:
            assert said.startswith("Stopped before the first step"), place
        else:
            assert said.startswith(f"Stopped after step {saved} of 12"), place
            assert state_at(probe.workdir).step == saved
        assert str(probe.workdir) in said
        again = "the same command starts again" if saved is None else f"--workdir {probe.workdir} "
        assert again in said
        assert not (probe.workdir / "summary.json").exists()
    assert probe.run(options(photos)) == 0
    assert probe.order == whole.order
    assert_same(probe.state, whole.state)
    assert_same(state_at(probe.workdir), whole.state)
    assert probe.metrics() == whole.metrics()
    assert not [*probe.workdir.rglob("*.superseded")]
    summaries = [json.loads((one.workdir / "summary.json").read_text()) for one in (probe, whole)]
    assert_time_adds_up(summaries[0])
    assert summaries[0]["time"]["repeated"] == 0
    for name in ("validation", "test", "steps", "best_step", "best_validation_top1_error"):
        assert summaries[0][name] == summaries[1][name]


def test_stopped_in_an_evaluation_and_later_killed_behind_it(whole, photos, patched, tmp_path):
    probe = Probe(patched, tmp_path / "run")
    assert probe.run(options(photos), ask=9) == 0
    assert state_at(probe.workdir).step == 4

    def die(*_):
        raise KeyboardInterrupt

    with patched.context() as patch:
        patch.setattr(Checkpoints, "save", die)
        assert probe.run(options(photos)) == 130
    looks = [line["step"] for line in probe.metrics() if line["split"] == "validation"]
    assert looks == [4]  # recorded, and not in the checkpoint
    assert probe.run(options(photos)) == 0
    assert probe.metrics() == whole.metrics()


@pytest.mark.parametrize("whole_again", [False, True])
def test_killed_while_a_checkpoint_takes_the_place_of_another(
    whole, photos, patched, tmp_path, whole_again
):
    again = copy_of(whole, patched, tmp_path)
    (again.workdir / "summary.json").unlink()
    folder = again.workdir / "checkpoints"
    if whole_again:
        shutil.copytree(folder / "12", folder / "12.superseded")
    else:
        (folder / "12").rename(folder / "12.superseded")
    assert again.run(options(photos)) == 0
    assert again.order == []
    assert_same(state_at(again.workdir), whole.state)
    assert not [*folder.glob("*.superseded")]


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)], ids=["on one device", "on four"])
def test_saved_on_two_devices_and_resumed(whole, broken, patched, photos, tmp_path, mesh):
    again = copy_of(broken, patched, tmp_path)
    data, tower = mesh
    assert again.run(options(photos, mesh_data=data, mesh_towers=tower)) == 0
    assert again.order == whole.order[5:]
    losses, expected = (
        {line["step"]: line["loss"] for line in probe.metrics() if line["split"] == "train"}
        for probe in (again, whole)
    )
    for step in range(6, 11):
        assert losses[step] == pytest.approx(expected[step], rel=1e-5)


def test_a_finished_run_says_so_and_does_nothing_and_more_epochs_go_on(
    whole, patched, photos, tmp_path, capsys
):
    short = Probe(patched, tmp_path / "short")
    assert short.run(options(photos, schedule_epochs=2)) == 0
    assert len(short.order) == 8
    before = files_of(short.workdir)
    capsys.readouterr()
    assert short.run(options(photos, schedule_epochs=2)) == 0
    said = capsys.readouterr()
    *_, first, last = said.out.splitlines()
    assert first == f"{short.workdir} is finished."
    assert last.startswith("test top-1 error ")
    assert said.err == ""
    assert len(short.order) == 8
    assert files_of(short.workdir) == before
    assert short.run(options(photos, schedule_epochs=3)) == 0
    assert short.order == whole.order
    assert_same(short.state, whole.state)
    lines = [line for line in short.metrics() if (line["split"], line["step"]) != ("test", 8)]
    assert lines == whole.metrics()
    # Killed after the last metrics and before the summary: they are not written twice.
    (short.workdir / "summary.json").unlink()
    lines = short.metrics()
    assert short.run(options(photos, schedule_epochs=3)) == 0
    assert short.metrics() == lines
    assert len(short.order) == 12


def test_a_run_that_changed_is_refused_field_by_field(broken, photos, tmp_path, patched, capsys):
    again = copy_of(broken, patched, tmp_path)
    before = files_of(again.workdir)
    changed = options(
        photos, seed=1, optimizer_batch_size=16, data_horizontal_flip=False, model_width=0.1
    )
    assert again.run(changed) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for difference in (
        "--seed 1 (was 0)",
        "--optimizer.batch-size 16 (was 8)",
        "--data.horizontal-flip False (was True)",
        "--model.width 0.1 (was 0.05)",
    ):
        assert difference in line
    assert line.count(" (was ") == 4
    assert line.startswith(f"alexnet_jax: --workdir {again.workdir}: ")
    assert "use the old values" in line
    assert files_of(again.workdir) == before


@pytest.mark.parametrize("change", ["removed", "renamed", "changed", "renamed, list lost"])
def test_a_run_on_other_images_is_refused(broken, photos, tmp_path, patched, capsys, change):
    again = copy_of(broken, patched, tmp_path)
    shutil.copytree(photos, tmp_path / "photos")
    image = tmp_path / "photos/train/amber/0.png"
    size = image.stat().st_size
    if change == "removed":
        image.unlink()
    elif change == "changed":
        image.write_bytes(image.read_bytes() + b"1234")
    else:  # as many images as before, in another order
        image.rename(image.with_name("99.png"))
    if "lost" in change:
        (again.workdir / data_files.NAME).unlink()
    before = files_of(again.workdir)
    assert again.run(options(tmp_path / "photos")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    expected = {
        "removed": "1 removed (train/amber/0.png); ",
        "renamed": "1 added (train/amber/99.png); 1 removed (train/amber/0.png); ",
        "changed": f"1 changed (train/amber/0.png: {size:,} bytes, now {size + 4:,} bytes)",
        "renamed, list lost": "renamed or moved in train; ",
    }
    assert expected[change] in line
    assert "use the old --data.path" in line
    assert files_of(again.workdir) == before


FREE = {
    "preset": "photos",
    "mesh.towers": 1,
    "mesh.data": 4,
    "distributed.coordinator": "node1:1234",
    "distributed.num_processes": 2,
    "distributed.process_id": 1,
    "distributed.timeout": 30,
    "log.every": 7,
    "log.checkpoint_every": 7,
    "log.figures": False,
    "log.tensorboard": False,
    "schedule.epochs": 91,
    "data.path": "elsewhere",
    "data.threads": 0,
    "data.prefetch": 1,
    "data.cache_gib": 0.0,
    "process.large_pages": False,
    "process.compilation_cache": "",
    "process.deterministic": False,
    "profile.steps": "3:4",
}


def test_other_versions_of_packages_are_named_and_accepted(
    broken, photos, tmp_path, patched, capsys
):
    again = copy_of(broken, patched, tmp_path)
    assert again.run(options(photos), ask=4) == 0
    same = capsys.readouterr()
    assert same.err == ""
    assert "Precision default on cpu: float32 arrays; products in float32." in same.out.splitlines()
    now = versions.package_versions()
    with patched.context() as patch:
        later = now | {"jax": "99.1", "numpy": "98.2", "optax": "97.3", "simplejpeg": "96.4"}
        patch.setattr(versions, "package_versions", lambda: later)
        assert again.run(options(photos), ask=4) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("alexnet_jax: ")
    assert f"jax was {now['jax']} and is 99.1, numpy was {now['numpy']} and is 98.2, " in line
    assert f"simplejpeg was {now['simplejpeg']} and is 96.4; " in line  # pixels of image files
    assert "optax" not in line  # it computes nothing that XLA does not


@pytest.mark.parametrize("field", flatten(Config()))
def test_each_field_is_free_or_refused(field):
    saved = flatten(Config()) | {field: "other"}
    if field in FREE:
        check_same_config(saved, Config(), Path("run"))
    else:
        with pytest.raises(ValueError, match=rf"{field}=.* \(was other\)"):
            check_same_config(saved, Config(), Path("run"))


def test_a_loss_that_is_not_finite_stops_the_run(whole, photos, patched, tmp_path, capsys):
    probe = Probe(patched, tmp_path / "run")
    assert probe.run(options(photos, log_every=20), spoil=7) == 1
    assert len(probe.order) == 8  # step 8 was under way when the loss of step 7 came back
    *_, line = capsys.readouterr().err.splitlines()  # after the warning of few steps
    assert line.startswith("alexnet_jax: step 7: the loss is nan; ")
    assert "checkpoint (step 5)" in line
    report = probe.workdir / "nonfinite.json"
    assert f"{report} names the images of step 7; repeat it with --debug" in line
    assert "--optimizer.learning-rate 0.001" in line
    said = json.loads(report.read_text())
    assert (said["step"], said["reason"], said["checkpoint"]) == (7, "the loss is nan", 5)
    assert said["indices"] == whole.order[6]
    files = sorted(str(path) for path in (photos / "train").rglob("*.png"))
    assert said["records"] == [files[index] for index in whole.order[6]]
    saved = state_at(probe.workdir)
    assert saved.step == 5
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved))
    assert probe.run(options(photos)) == 0  # and it is good: the run goes on from it
    assert_same(probe.state, whole.state)


def test_debug_finds_the_image_that_a_bad_number_comes_from(
    whole, photos, patched, tmp_path, capsys
):
    arguments = options(photos, log_every=20)
    probe = Probe(patched, tmp_path / "run")
    assert probe.run([*arguments, "--debug"], spoil=2) == 1
    *_, line = capsys.readouterr().err.splitlines()  # after the warning of few steps
    files = sorted(str(path) for path in (photos / "train").rglob("*.png"))
    first = ", ".join(files[index] for index in whole.order[1][:3])
    assert (
        "step 2: the loss is nan, and the first non-finite values are in the preprocessed images "
        f"(nan; 31,104 of 31,104 values; of {first} and 5 more); "
    ) in line
    assert "--debug" not in line
    assert probe.run([*arguments, "--debug"]) == 0
    assert probe.order == whole.order[:3] + whole.order


def test_debug_finds_the_layer_that_a_bad_number_comes_from(photos, patched, tmp_path, capsys):
    probe = Probe(patched, tmp_path / "run")
    assert probe.run([*options(photos, optimizer_learning_rate=1e30), "--debug"]) == 1
    assert "the first non-finite values are in the outputs of conv4 (" in capsys.readouterr().err


def test_a_rate_that_is_far_too_high_stops_the_run_at_its_first_bad_step(
    photos, patched, tmp_path, capsys
):
    probe = Probe(patched, tmp_path / "run")
    assert probe.run(options(photos, optimizer_learning_rate=1e30, log_every=20)) == 1
    *_, line = capsys.readouterr().err.splitlines()  # after the warning of few steps
    assert line.startswith("alexnet_jax: step 2: the loss is nan; ")
    assert len(probe.order) == 3
    saved = state_at(probe.workdir)
    assert saved.step == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved))


def test_parameters_that_are_not_finite_are_not_saved(photos, patched, tmp_path, capsys):
    # The first loss is finite; decay then sends every kernel out of float32's range.
    probe = Probe(patched, tmp_path / "run")
    decay = {"optimizer_weight_decay": 1e38, "optimizer_learning_rate": 1e4, "log_every": 20}
    assert probe.run([*options(photos, **decay), "--debug"]) == 1
    *_, line = capsys.readouterr().err.splitlines()  # after the warning of few steps
    assert line.startswith(
        "alexnet_jax: step 1: a parameter is no longer finite, and the first non-finite values are "
        "in the update of the parameters"
    )
    assert len(probe.order) == 2
    with Checkpoints(probe.workdir) as checkpoints:
        assert checkpoints.latest() == 0


def damage(workdir, step):
    """Flip a bit in the middle of the largest file of a checkpoint, its parameters and velocity."""
    files = (workdir / "checkpoints" / str(step)).rglob("*")
    largest = max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    whole, broken, patched, photos, tmp_path, capsys
):
    again = copy_of(broken, patched, tmp_path)
    damage(again.workdir, 5)
    assert again.run(options(photos)) == 0
    said = capsys.readouterr()
    assert re.search(r"step 5 is damaged \(.*\).*checkpoints/5.damaged", said.err)
    assert f"Resumed after step 4, epoch 1, from {again.workdir}." in said.out
    assert again.order == whole.order[4:]
    assert_same(again.state, whole.state)
    assert again.metrics() == whole.metrics()


@pytest.mark.parametrize("loss", ["all damaged", "all removed", "folder removed"])
def test_a_run_whose_checkpoints_are_lost_does_not_restart(
    broken, patched, photos, tmp_path, capsys, loss
):
    again = copy_of(broken, patched, tmp_path)
    if loss == "all damaged":
        for path in (again.workdir / "checkpoints").iterdir():
            damage(again.workdir, path.name)
        expected = "(step 4: "
    else:
        shutil.rmtree(again.workdir / "checkpoints")
        expected = "metrics.jsonl reaches step 7"
        if loss == "all removed":
            (again.workdir / "checkpoints").mkdir()
    before = files_of(again.workdir)
    for _ in range(2):
        assert again.run(options(photos)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"alexnet_jax: --workdir {again.workdir}: ")
        assert expected in line
        assert "restore checkpoints from a backup" in line
    assert files_of(again.workdir) == before
    assert again.order == []


@pytest.mark.slow
def test_a_disk_that_fills_during_a_save(whole, broken, patched, photos, tmp_path):
    again = copy_of(broken, patched, tmp_path)
    checkpoints = again.workdir / "checkpoints"
    before = files_of(checkpoints)

    # Compiled programs would not fit either, and jax warns of each that it cannot keep.
    limited = start(again.workdir, options(photos), None)
    # What can be done to a process without a disk of its own: no file of it may be larger.
    resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    _, said = limited.communicate(timeout=300)
    assert limited.returncode == 2
    (line,) = said.splitlines()
    assert re.search(r"step 8 .*\(File too large\); .*free disk space", line)
    left = files_of(checkpoints)
    assert {path: left[path] for path in before} == before
    assert again.run(options(photos)) == 0
    assert_same(again.state, whole.state)
    assert again.metrics() == whole.metrics()


def test_the_latest_two_and_the_best_checkpoint_are_kept(tmp_path):
    def saved(value):
        state = TrainState(jnp.array(value), {"w": jnp.full(3, value)}, ())
        return CheckpointData(state, {"mean": np.full(3, value)}, {"value": value})

    def kept():
        return sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())

    errors = {0: None, 10: 0.5, 20: 0.25, 30: None, 40: 0.375, 50: 0.5}
    best = {0: None, 10: 10, 20: 20, 30: 20, 40: 20, 50: 20}
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (None, None)
        for step, error in errors.items():
            checkpoints.save(step, saved(step), error)
            checkpoints.wait()
            assert (checkpoints.latest(), checkpoints.best()) == (step, best[step])
            assert kept() == sorted({best[step] or step, step, max(0, step - 10)})
    with Checkpoints(tmp_path) as checkpoints:  # another process knows it too
        assert (checkpoints.latest(), checkpoints.best()) == (50, 20)
        assert [checkpoints.meta(step) for step in (20, 50)] == [{"value": 20}, {"value": 50}]
        checkpoints.save(60, saved(60), 0.125)
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (60, 60)
        assert kept() == [50, 60]
        restored = checkpoints.state(60, saved(0).state)
        assert_same(jax.device_get(restored), jax.device_get(saved(60).state))


def test_a_run_keeps_its_best_checkpoint(whole):
    errors = {
        line["step"]: line["top1_error"]
        for line in whole.metrics()
        if line["split"] == "validation"
    }
    with Checkpoints(whole.workdir) as checkpoints:
        assert checkpoints.latest() == 12
        assert errors[checkpoints.best()] == min(errors.values())


@pytest.mark.slow
def test_killed_and_restarted_equals_never_killed(photos, patched, compilations, tmp_path):
    arguments = options(photos, schedule_epochs=12)
    never = Probe(patched, tmp_path / "never")
    assert never.run(arguments) == 0
    workdir = tmp_path / "killed"
    first = start(workdir, arguments, compilations)
    while last_step(workdir) < 7 and first.poll() is None:
        time.sleep(0.002)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    second = start(workdir, arguments, compilations)
    said, complaints = second.communicate(timeout=300)
    assert (second.returncode, complaints) == (0, "")
    resumed = re.search(r"Resumed after step (\d+), epoch", said)
    assert resumed
    # The save of step 5 may have been under way; it then leaves no trace.
    assert 4 <= int(resumed[1]) < 45
    assert_same(state_at(workdir), never.state)
    assert metrics_of(workdir) == never.metrics()
    assert not [path for path in workdir.rglob("*") if "tmp" in path.name]


def start(workdir, arguments, compilations):
    """Start the command in a process of its own, with as many devices as here.

    Programs are kept in the folder `compilations`; with None, nowhere.
    """
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(jax.device_count()),
        "JAX_ENABLE_COMPILATION_CACHE": str(compilations is not None),
        "JAX_COMPILATION_CACHE_DIR": str(compilations),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "alexnet_jax.main", "--workdir", str(workdir), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def last_step(workdir):
    metrics = workdir / "metrics.jsonl"
    steps = re.findall(r'"step": (\d+)', metrics.read_text()) if metrics.exists() else []
    return int(steps[-1]) if steps else 0


def test_a_run_stopped_in_its_first_step_starts_there(whole, patched, photos, tmp_path):
    probe = Probe(patched, tmp_path / "run")
    assert probe.run(options(photos), stop_after=0) == 130
    with Checkpoints(probe.workdir) as checkpoints:
        assert checkpoints.latest() == 0
    assert probe.run(options(photos)) == 0
    assert_same(probe.state, whole.state)
    assert probe.metrics() == whole.metrics()


def test_an_extra_evaluation_at_the_end_does_not_count_for_the_schedule(patched, photos, tmp_path):
    plateau = {"schedule_kind": "plateau", "schedule_eval_every": 2, "schedule_patience": 1}
    plateau |= {"schedule_min_delta": 0.9}  # only the first evaluation improves
    in_one = Probe(patched, tmp_path / "one")
    assert in_one.run(options(photos, **plateau, schedule_epochs=7)) == 0
    in_two = Probe(patched, tmp_path / "two")
    assert in_two.run(options(photos, **plateau, schedule_epochs=3)) == 0
    assert in_two.run(options(photos, **plateau, schedule_epochs=7)) == 0
    looks = [line["epoch"] for line in in_two.metrics() if line["split"] == "validation"]
    assert looks == [2, 3, 4, 6, 7]
    assert_same(in_two.state, in_one.state)


def test_unreadable_images_are_all_named_and_left_out_again_after_a_resumption(
    patched, photos, tmp_path, capsys
):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    broken = sorted((folder / "train").glob("*/[0-3].png"))
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    probe = Probe(patched, tmp_path / "run")
    assert probe.run(options(folder, schedule_epochs=1)) == 0
    said = capsys.readouterr().out
    assert "12 images are unreadable and skipped:\n" in said
    assert "unreadable.txt" in said
    named = (probe.workdir / "unreadable.txt").read_text().splitlines()
    assert [Path(line.split(": ")[1]) for line in named] == broken
    assert {line.partition(": ")[0] for line in named} <= {"train", "validation"}
    assert sorted(set(np.concatenate(probe.order))) == [*range(18)]
    assert probe.run(options(folder, schedule_epochs=2)) == 0
    assert "12 images are unreadable and skipped:\n" in capsys.readouterr().out
    assert sorted(set(np.concatenate(probe.order))) == [*range(18)]
    assert Probe(patched, tmp_path / "stop").run(options(folder, data_unreadable="stop")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--data.unreadable stop: 12 images" in line


def test_a_run_that_ends_on_a_plateau_says_so(patched, photos, tmp_path, capsys):
    plateau = {"schedule_kind": "plateau", "schedule_patience": 1, "schedule_min_delta": 0.9}
    probe = Probe(patched, tmp_path / "run")
    assert probe.run(options(photos, **plateau, schedule_max_drops=1, schedule_epochs=9)) == 0
    # The first evaluation sets the mark, the second drops the rate, the third ends the run.
    assert (
        "at a plateau after the last drop of the learning rate, after 3 epochs"
        in capsys.readouterr().out
    )
    rates = {
        line["step"]: line["learning_rate"] for line in probe.metrics() if line["split"] == "train"
    }
    assert [rates[step] for step in (8, 9, 12)] == pytest.approx([0.01, 0.001, 0.001])
    assert max(rates) == 12
