"""Prepared shards: of a toy ILSVRC, class folders and TFDS; interrupted, damaged, verified."""

import concurrent.futures
import contextlib
import dataclasses
import errno
import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from alexnet_jax import main, prepare
from alexnet_jax.config import Config, DataConfig, OptimizerConfig
from alexnet_jax.data import imagenet, statistics
from alexnet_jax.data.array_record import ArrayRecords, write_shard
from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import decode, encode
from alexnet_jax.data.shards import manifest as shard_manifest
from alexnet_jax.data.shards import plan, writer
from alexnet_jax.data.splits import open_splits
from alexnet_jax.storage.lock import hold_lock
from alexnet_jax.training import run_data
from tests.data.test_splits import fill, tiny_tfds

SYNSETS = {1: "n03", 2: "n01", 3: "n02"}  # devkit's numbers, which do not follow the names


def jpeg(seed: int, mode: str = "RGB", format: str = "JPEG") -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (5, 6, len(mode)), np.uint8)
    picture = Image.fromarray(pixels, mode="CMYK") if mode == "CMYK" else Image.fromarray(pixels)
    file = io.BytesIO()
    picture.resize((30, 24)).save(file, format)
    return file.getvalue()


def tar(files: Mapping[str, bytes], mode: str = "w:") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def synset_tar(synset: str, images: int, seed: int) -> bytes:
    return tar({f"{synset}_{n}.JPEG": jpeg(seed + n) for n in range(images)})


def devkit(truth: list[int], images: int = 5) -> bytes:
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
    kinds += [("num_children", "f8"), ("num_train_images", "f8")]
    rows = [(n, s, f"word {s}, other", "g", 0, images) for n, s in SYNSETS.items()]
    rows.append((4, "n00", "above them all", "g", 3, 0))
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    root = "ILSVRC2012_devkit_t12"
    lines = "".join(f"{number}\n" for number in truth).encode()
    files = {f"{root}/{imagenet.META}": meta.getvalue(), f"{root}/{imagenet.TRUTH}": lines}
    return tar({f"{root}/readme.txt": b"x", **files}, "w:gz")


def toy(root: Path, images: int = 5, truth: tuple[int, ...] = (1, 2, 3, 1)) -> Path:
    """Write the three archives; training has `images` for each of three classes."""
    root.mkdir()
    inner = {
        f"{synset}.tar": synset_tar(synset, images, 100 * number)
        for number, synset in SYNSETS.items()
    }
    (root / imagenet.TRAIN).write_bytes(tar(inner))
    named = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(n) for n in range(len(truth), 0, -1)}
    (root / imagenet.VALIDATION).write_bytes(tar(named))
    (root / imagenet.DEVKIT).write_bytes(devkit(list(truth), images))
    return root


def run(source: Path | None, to: Path, *more: str) -> int:
    given = [] if source is None else ["--from", str(source)]
    size = [] if "--verify" in more else ["--image-size", "16", "--processes", "1"]
    return prepare.main([*given, "--to", str(to), *size, *more])


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def data(root: Path, **changes) -> DataConfig:
    return DataConfig(source="arrayrecord", path=str(root), image_size=16, crop=16, **changes)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer, "MIN_RECORDS", 4)


def test_ilsvrc_archives_become_shards_that_training_reads(tmp_path: Path, capsys):
    to = tmp_path / "shards"
    assert run(toy(tmp_path / "ilsvrc"), to, "--encoding", "raw") == 0
    output = capsys.readouterr().out
    assert "3 classes; images: train 15, validation 4." in output
    assert "19 images to write to 5 shards of 16 pixels, raw: about 672.6 kB " in output
    splits = open_splits(data(to), seed=0)
    assert splits.class_names == tuple(f"{s} word {s}, other" for s in ("n01", "n02", "n03"))
    # The ground truth 1, 2, 3, 1 in the devkit's numbers: n03, n01, n02, n03; sorted by class.
    for index, (label, number) in enumerate(((0, 2), (1, 3), (2, 1), (2, 4))):
        record = splits.validation[index]
        assert record["label"] == label
        np.testing.assert_array_equal(record["image"], resize_center(decode(jpeg(number)), 16))
    assert [splits.train[n]["label"] for n in range(15)] == [0] * 5 + [1] * 5 + [2] * 5
    expected = resize_center(decode(jpeg(200 + 3)), 16)  # n01, the devkit's second
    np.testing.assert_array_equal(splits.train[3]["image"], expected)
    assert not [path for path in to.iterdir() if path.name.startswith(".")]


def test_archives_can_be_pickled_and_have_labels(tmp_path: Path):
    sources, notes = imagenet.open_ilsvrc(toy(tmp_path / "ilsvrc"))
    assert notes == ()
    train = sources["train"]
    assert isinstance(train, imagenet.TarImages)
    assert train.labels().tolist() == [0] * 5 + [1] * 5 + [2] * 5
    copy = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(copy[7]["image"], train[7]["image"])
    assert copy.fingerprint() == train.fingerprint()
    assert copy.describe(7) == f"{tmp_path}/ilsvrc/{imagenet.TRAIN}:n02_2.JPEG"


def test_missing_images_are_noted(tmp_path: Path):
    root = toy(tmp_path / "ilsvrc")
    (root / imagenet.DEVKIT).write_bytes(devkit([1, 2, 3, 1, 1], images=6))
    _, notes = imagenet.open_ilsvrc(root)
    train, validation = notes
    assert train.startswith(f"{root / imagenet.TRAIN}: has 15 images of 3 classes, ")
    assert f"{imagenet.DEVKIT} lists 18 of 3; 3 classes differ" in train
    assert validation.startswith(f"{root / imagenet.VALIDATION}: has 4 images, ")
    assert f"{imagenet.DEVKIT} labels 5" in validation


def test_archives_and_the_same_images_in_folders_become_the_same_records(tmp_path: Path):
    archives = toy(tmp_path / "ilsvrc")
    for number, synset in SYNSETS.items():
        folder = tmp_path / "folders" / "train" / f"{synset} word {synset}, other"
        folder.mkdir(parents=True)
        for n in range(5):
            (folder / f"{synset}_{n}.JPEG").write_bytes(jpeg(100 * number + n))
    (archives / imagenet.VALIDATION).unlink()
    assert run(archives, tmp_path / "a") == run(tmp_path / "folders", tmp_path / "b") == 0
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a.pop("manifest.json") != b.pop("manifest.json")
    assert a == b


def test_links_and_paths_in_archives_are_not_followed(tmp_path: Path, capsys):
    root = toy(tmp_path / "ilsvrc")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:") as archive:
        for name in (
            "../../n01_0.JPEG",
            "/n01_1.JPEG",
            "n01_png.JPEG",
            "n01_cmyk.JPEG",
            "n02_9.JPEG",
        ):
            kinds = {"n01_png.JPEG": ("RGB", "PNG"), "n01_cmyk.JPEG": ("CMYK", "JPEG")}
            encoded = jpeg(1, *kinds.get(name, ("RGB", "JPEG")))
            member = tarfile.TarInfo(name)
            member.size = len(encoded)
            archive.addfile(member, io.BytesIO(encoded))
        for name, kind in (("n01_a.JPEG", tarfile.SYMTYPE), ("n01_b.JPEG", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("n01_broken.JPEG")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    inner = {"n01.tar": content.getvalue(), "n02.tar": synset_tar("n02", 5, 300)}
    inner["n03.tar"] = synset_tar("n03", 5, 100)
    (root / imagenet.TRAIN).write_bytes(tar(inner))
    before = set(tmp_path.rglob("*"))
    assert run(root, tmp_path / "to") == 0
    assert {path for path in tmp_path.rglob("*") if tmp_path / "to" not in path.parents} == {
        *before,
        tmp_path / "to",
    }
    output = capsys.readouterr().out
    assert "skipped 2 unreadable, see unreadable.txt" in output
    reasons = (tmp_path / "to" / plan.UNREADABLE).read_text().splitlines()
    assert [reason.split(": ")[0].rpartition(":")[2] for reason in reasons] == [
        "n02_9.JPEG",
        "n01_broken.JPEG",
    ]
    assert "another class" in reasons[0]
    assert len(open_splits(data(tmp_path / "to"), seed=0).train) == 14


@pytest.mark.parametrize("cut", [700, 5000, -9000])
def test_a_truncated_archive_is_refused(tmp_path: Path, capsys, cut: int):
    root = toy(tmp_path / "ilsvrc")
    whole = (root / imagenet.TRAIN).read_bytes()
    (root / imagenet.TRAIN).write_bytes(whole[:cut])
    assert run(root, tmp_path / "to") == 2
    error = capsys.readouterr().err
    assert f"{root / imagenet.TRAIN}: " in error
    assert "compare its checksum" in error
    assert not (tmp_path / "to").exists()


def test_a_damaged_header_is_not_the_end_of_an_archive(tmp_path: Path, capsys):
    root = toy(tmp_path / "ilsvrc")
    damaged = bytearray((root / imagenet.VALIDATION).read_bytes())
    damaged[damaged.index(b"ILSVRC2012_val_00000002")] ^= 1
    (root / imagenet.VALIDATION).write_bytes(damaged)
    assert run(root, tmp_path / "to") == 2
    assert "damaged header at byte" in capsys.readouterr().err


def test_archives_that_do_not_fit_together_are_refused(tmp_path: Path, capsys):
    root = toy(tmp_path / "ilsvrc", truth=(1, 4))
    assert run(root, tmp_path / "to") == 2
    error = capsys.readouterr().err
    assert f"{root / imagenet.VALIDATION}: " in error
    assert f"class 4 of {imagenet.DEVKIT} (unknown there)" in error
    (root / imagenet.DEVKIT).write_bytes(b"no archive")
    assert run(root, tmp_path / "to") == 2
    assert f"{imagenet.DEVKIT}: not a gzip file; the archive is damaged" in capsys.readouterr().err
    (root / imagenet.DEVKIT).unlink()
    assert run(root, tmp_path / "to") == 2
    error = capsys.readouterr().err
    assert f"{root / imagenet.VALIDATION}: " in error
    assert "remove the validation images" in error
    (root / imagenet.VALIDATION).unlink()
    assert run(root, tmp_path / "to") == 0
    assert f"{root}: has no {imagenet.DEVKIT}, so classes are named by synset" in (
        capsys.readouterr().out
    )


def test_interrupted_and_resumed_it_writes_the_same_bytes(tmp_path: Path, capsys, monkeypatch):
    root = toy(tmp_path / "ilsvrc")
    assert run(root, tmp_path / "whole") == 0
    left, wait = [9], concurrent.futures.wait

    def full(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shard")
        return encode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "encode", full)
        # Three shards have failed when the first is looked at.
        patch.setattr(concurrent.futures, "wait", lambda futures, *_: wait(futures))
        assert run(root, tmp_path / "again") == 2
    error = capsys.readouterr().err
    assert "train.array_record-00002-of-00004: No space left on device; free some space" in error
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "again").glob("train*")}
    assert len(kept) == 2
    del kept["train.array_record-00001-of-00004"]
    (tmp_path / "again" / "train.array_record-00001-of-00004").write_bytes(b"short")
    with pytest.raises(
        ValueError, match=r"of 4 shards like train.array_record-00000-of-00004, 2 are missing"
    ):
        open_splits(data(tmp_path / "again"), seed=0)
    assert run(root, tmp_path / "again", "--verify") == 2  # both
    assert "--verify: " in capsys.readouterr().err
    assert run(None, tmp_path / "again", "--verify") == 2
    assert f"{tmp_path / 'again'}: has no {shard_manifest.MANIFEST}" in capsys.readouterr().err
    assert run(root, tmp_path / "again", "--encoding", "raw") == 2
    error = capsys.readouterr().err
    assert f"--to {tmp_path / 'again'}: " in error
    assert "(encoding jpeg, now raw); " in error
    (tmp_path / "again" / ".train.array_record-00002-of-00004.partial").write_bytes(b"torn")
    assert run(root, tmp_path / "again") == 0
    assert "15 images to write to 4 shards" in capsys.readouterr().out
    assert (
        kept.items()
        <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "again").iterdir()}.items()
    )
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_of_two_at_once_one_is_told_so_and_the_other_is_not_disturbed(
    tmp_path: Path, capsys, monkeypatch
):
    root, to = toy(tmp_path / "ilsvrc"), tmp_path / "to"
    assert run(root, tmp_path / "whole") == 0
    begin, refused = plan.Preparation.begin, []

    def meanwhile(self: plan.Preparation):
        begin(self)
        # Other settings: a second one that got further would change the plan of the first.
        refused.append(run(root, to, "--encoding", "raw"))

    with monkeypatch.context() as patch:
        patch.setattr(plan.Preparation, "begin", meanwhile)
        capsys.readouterr()
        assert run(root, to) == 0
    assert refused == [2]
    output = capsys.readouterr()
    assert f"--to {to / shard_manifest.PROGRESS}: process {os.getpid()} on " in output.err
    assert output.out.count("images to write") == 1  # the other has not even read the archives
    assert contents(to) == contents(tmp_path / "whole")


def test_the_lock_of_a_killed_process_does_not_block(tmp_path: Path, capsys):
    root, to = toy(tmp_path / "ilsvrc"), tmp_path / "to"
    (to / shard_manifest.PROGRESS).mkdir(parents=True)
    (to / shard_manifest.PROGRESS / "lock").write_text("process 1 on elsewhere\n")
    assert run(root, to) == 0
    assert not (to / shard_manifest.PROGRESS).exists()
    assert capsys.readouterr().err == ""


def test_a_lock_whose_file_was_removed_by_the_holder_before_is_void(tmp_path: Path, monkeypatch):
    @contextlib.contextmanager
    def late(folder, name):
        with hold_lock(folder, name):
            (folder / "lock").unlink()
            yield

    monkeypatch.setattr(shard_manifest, "hold_lock", late)
    with (
        pytest.raises(ValueError, match="^to .*just finished there; rerun"),
        shard_manifest.hold_progress(tmp_path / "to"),
    ):
        pytest.fail("two would write")


def test_verify_reports_changes_and_the_command_repairs_them(tmp_path: Path, capsys):
    root, to = toy(tmp_path / "ilsvrc"), tmp_path / "to"
    assert run(root, to) == 0
    whole = contents(to)
    capsys.readouterr()
    assert run(None, to, "--verify") == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{to}: verified")
    assert "images train 15, validation 4; 7 files" in output
    shard = to / "train.array_record-00001-of-00004"
    flipped = bytearray(shard.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    shard.write_bytes(flipped)
    (to / "statistics.npz").unlink()
    (to / "train.array_record-00004-of-00004").write_bytes(b"")
    assert run(None, to, "--verify") == 2
    output = capsys.readouterr().err
    assert f"{to}: 3 of 7 files differ from {shard_manifest.MANIFEST}" in output
    assert "train.array_record-00001-of-00004 (other content)" in output
    assert "statistics.npz (missing)" in output
    assert "train.array_record-00004-of-00004 (not in manifest.json)" in output
    shard.unlink()
    (to / "train.array_record-00004-of-00004").unlink()
    assert run(root, to) == 0
    assert contents(to) == whole
    assert run(None, to, "--verify") == 0


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_prepared_statistics_are_those_that_a_run_would_compute(tmp_path: Path, encoding: str):
    folders = tmp_path / "folders"
    for split in ("train", "val"):
        for name in ("a", "b"):
            (folders / split / name).mkdir(parents=True)
            for n in range(4):
                (folders / split / name / f"{n}.jpg").write_bytes(jpeg(n + 10 * len(name)))
    assert run(folders, tmp_path / "to", "--encoding", encoding) == 0
    splits = open_splits(data(tmp_path / "to"), seed=0)
    known = splits.statistics
    assert known is not None
    found, unreadable = statistics.compute_statistics(splits.train, 1)
    assert unreadable == {}
    for name, value in vars(found).items():
        np.testing.assert_array_equal(vars(known)[name], value, err_msg=name)
    # Of other pixels nothing is known, nor of another size, nor where a shard has changed.
    assert open_splits(DataConfig(source="folder", path=str(folders)), seed=0).statistics is None
    smaller = DataConfig(source="arrayrecord", path=str(tmp_path / "to"), image_size=8, crop=8)
    assert open_splits(smaller, seed=0).statistics is None
    path = tmp_path / "to" / shard_manifest.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["files"]["validation.array_record-00000-of-00002"]["bytes"] += 1
    path.write_text(json.dumps(manifest))
    assert open_splits(data(tmp_path / "to"), seed=0).statistics is None
    path.write_text(path.read_text()[:-1])
    with pytest.raises(ValueError, match=r"manifest\.json: is damaged; remove it"):
        open_splits(data(tmp_path / "to"), seed=0)


@pytest.mark.parametrize("kind", ["computed", "imagenet"])
def test_a_run_does_not_read_prepared_images_beforehand(tmp_path, monkeypatch, capsys, kind):
    for split in ("train", "val"):
        fill(tmp_path / "folders" / split, {"a": 4, "b": 4})
    assert run(tmp_path / "folders", tmp_path / "to", "--image-size", "40") == 0
    of = dataclasses.replace(data(tmp_path / "to"), image_size=40, crop=36, statistics=kind)
    config = Config(data=of, optimizer=OptimizerConfig(batch_size=4))
    splits = run_data.open_splits(config)
    before = run_data.read_data(config, dataclasses.replace(splits, statistics=None))
    monkeypatch.setattr(ArrayRecords, "__getitem__", lambda *_: pytest.fail("an image was read"))
    after = run_data.read_data(config, run_data.open_splits(config))
    assert f"{tmp_path / 'to'}: prepared" in capsys.readouterr().out
    assert after.fingerprints == before.fingerprints
    for name, value in before.statistics.items():
        np.testing.assert_array_equal(after.statistics[name], value, err_msg=name)


def test_prepared_statistics_are_not_used_if_validation_is_held_out(tmp_path: Path):
    fill(tmp_path / "folders", {"a": 6, "b": 6})
    assert run(tmp_path / "folders", tmp_path / "to") == 0
    splits = open_splits(data(tmp_path / "to", validation_fraction=0.5), seed=0)
    assert len(splits.train) == 6
    assert splits.statistics is None


def test_several_processes_write_the_bytes_that_one_writes(tmp_path: Path):
    tiny_tfds(tmp_path / "tfds")
    for processes in ("1", "2"):
        name = ["--name", "tiny_grays", "--processes", processes]
        assert run(tmp_path / "tfds", tmp_path / processes, *name) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_disk_without_space_is_refused_before_anything_is_written(tmp_path, capsys, monkeypatch):
    fill(tmp_path / "folders", {"a": 6, "b": 6})
    usage = shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert run(tmp_path / "folders", tmp_path / "to", "--encoding", "raw") == 2
    output = capsys.readouterr().err
    assert f"--to {tmp_path / 'to'}: 12 images" in output
    assert "404.1 kB (0.9 kB each), and 5.0 kB are free; " in output
    assert "--encoding jpeg, a smaller --image-size" in output
    assert not (tmp_path / "to").exists()


def test_a_shard_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="shard") as raised:
            write_shard(tmp_path / "shard", [(bytes(1000), 0)] * 300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_bad_arguments_get_a_sentence(tmp_path: Path, capsys):
    fill(tmp_path / "folders", {"a": 2, "b": 2})
    fill(tmp_path / "one", {"cat": 2})
    one = tmp_path / "one"
    for arguments, option, remedy in (
        ([], "--from: ", "or add --verify"),
        (["--from", "x", "--verify"], "--verify: ", "leave --from and --name out"),
        (["--from", str(tmp_path / "none")], f"--from {tmp_path / 'none'}: ", "correct the path"),
        (["--from", str(tmp_path), "--name", "none"], "TFDS none: ", "correct --name and --from."),
        (["--from", str(one)], f"--from {one}: has one class only (cat)", "name the"),
        (["--from", str(tmp_path / "folders"), "--processes", "-1"], "--processes -1: ", "try 0"),
        (["--from", str(tmp_path / "folders"), "--image-size", "0"], "--image-size 0: ", "try 256"),
    ):
        assert prepare.main(["--to", str(tmp_path / "to"), *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"alexnet_jax: {option}")
        assert remedy in error.partition("; ")[2]
    assert prepare.main(["--to", str(tmp_path), "--from", str(tmp_path / "folders")]) == 2
    assert f"--to {tmp_path}: " in capsys.readouterr().err


def test_a_source_without_readable_images_is_refused(tmp_path: Path, capsys):
    for name in ("a", "b"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        (tmp_path / "folders" / name / "0.jpg").write_bytes(b"none")
    assert run(tmp_path / "folders", tmp_path / "to") == 2
    assert "None of the training images of class a" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes_and_trains(tmp_path: Path, capsys):
    for number in range(2):
        folder = tmp_path / "folders" / "train" / f"class {number}"
        folder.mkdir(parents=True)
        for n in range(550):
            (folder / f"{n}.jpg").write_bytes(jpeg(1000 * number + n))
    shutil.copytree(tmp_path / "folders" / "train", tmp_path / "folders" / "val")
    command = [sys.executable, "-m", "alexnet_jax.prepare"]
    command += ["--from", str(tmp_path / "folders"), "--image-size", "40", "--processes", "2"]
    subprocess.run([*command, "--to", str(tmp_path / "whole")], check=True)
    codes = []
    for signal_number, shards in ((signal.SIGKILL, 1), (signal.SIGTERM, 3), (signal.SIGINT, 6)):
        process = subprocess.Popen([*command, "--to", str(tmp_path / "killed")])
        while process.poll() is None:
            if len(list((tmp_path / "killed").glob("*array_record*"))) >= shards:
                process.send_signal(signal_number)
                break
            time.sleep(0.002)
        codes.append(process.wait(30))
    assert codes == [-signal.SIGKILL, -signal.SIGTERM, 130]
    subprocess.run([*command, "--to", str(tmp_path / "killed")], check=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    arguments = ["--data.source", "arrayrecord", "--data.path", str(tmp_path / "killed")]
    arguments += ["--data.image-size", "40", "--data.crop", "36", "--model.width", "0.05"]
    arguments += ["--mesh.towers", "1", "--mesh.data", "1", "--schedule.epochs", "1"]
    arguments += ["--workdir", str(tmp_path / "run")]
    assert main.main(arguments) == 0
    assert f"{tmp_path / 'killed'}: prepared" in capsys.readouterr().out
    with (
        np.load(tmp_path / "run" / "statistics.npz") as used,
        np.load(tmp_path / "killed" / "statistics.npz") as kept,
    ):
        np.testing.assert_array_equal(used["mean_image"], kept["mean_image"])
