"""Bad data: hostile files, links out of the folder, inconsistent shards."""

import io
import json
import logging
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.config import DataConfig
from alexnet_jax.data import images
from alexnet_jax.data.array_record import ArrayRecords, write_array_records
from alexnet_jax.data.images import UnreadableImage, decode, encode, read_image
from alexnet_jax.data.pipeline import evaluation_batches, num_unreadable, training_batches
from alexnet_jax.data.sources import Folder
from alexnet_jax.data.splits import open_splits
from alexnet_jax.data.wrappers import Monitored, without
from alexnet_jax.main import main
from alexnet_jax.training import loop

SCRIPT = Path(__file__).parents[2] / "experiments" / "reliability" / "mutated_images.py"
NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, row: int, *extra: bytes, bits: int = 8, color: int = 2) -> bytes:
    """Write a black PNG of `row` bytes a row, with more chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    packer = zlib.compressobj()
    pixels = b"".join([packer.compress(bytes(row + 1)) for _ in range(height)] + [packer.flush()])
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def progressive(size: int, more: int) -> bytes:
    """Write a progressive JPEG whose last scan comes `more` times again."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * more + b"\xff\xd9"


BOMBS = {
    "50,000 x 50,000 pixels": (
        lambda: png(50_000, 50_000, 6_250, bits=1, color=0),
        "suspiciously many pixels",
    ),
    "text": (
        lambda: png(4, 4, 12, chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(100_000_000)))),
        "Decompressed data too large",
    ),
    "color profile": (
        lambda: png(4, 4, 12, chunk(b"iCCP", b"c\0\0" + zlib.compress(bytes(100_000_000)))),
        "Decompressed data too large",
    ),
    "many texts": (
        lambda: png(4, 4, 12, chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(1_000_000))) * 300),
        "Too much memory used in text chunks",
    ),
    "scans": (lambda: progressive(2_000, 3_000), r"suspiciously many scans \(3010, limit 100\)"),
    "PostScript": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n",
        "PostScript",
    ),
}

IN_LITTLE_MEMORY = """
import resource, sys, time
from alexnet_jax.data.images import UnreadableImage, decode
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
for name in sys.argv[1:]:
    began, encoded = time.perf_counter(), open(name, "rb").read()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        print("loaded", decode(encoded).shape)
    except UnreadableImage as error:
        print(error)
    print(time.perf_counter() - began)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


def test_bombs_are_refused_at_once_and_in_little_memory(tmp_path):
    files = []
    for number, (make, _) in enumerate(BOMBS.values()):
        files.append(tmp_path / f"{number}")
        files[-1].write_bytes(make())
        assert files[-1].stat().st_size < 2**20
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, *map(str, files)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * len(BOMBS)
    for number, (name, (_, reason)) in enumerate(BOMBS.items()):
        outcome, seconds, mebibytes = lines[3 * number :][:3]
        assert re.search(reason, outcome), (name, outcome)
        assert float(seconds) < 5, name
        assert float(mebibytes) < 200, name


def test_scans_are_counted_only_inside_the_image():
    assert decode(progressive(16, 20)).shape == (16, 16, 3)
    with pytest.raises(UnreadableImage, match="scans"):
        decode(progressive(16, 200))
    # Markers after the image (a phone's video) or in a comment are not scans.
    assert decode(progressive(16, 0) + b"\xff\xda" * 5_000).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("marker", "number"),
    [(b"\xff\xda", 5_000), (b"\xff\xda", 32_000), (b"\xff\xda\0\2", 16_000)],
)
def test_scan_markers_in_a_comment_are_not_counted(marker: bytes, number: int):
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", comment=marker * number)
    assert buffer.getvalue().count(b"\xff\xda") > number
    assert decode(buffer.getvalue()).shape == (24, 24, 3)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of four images."""
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "data" / name / f"{number}.ppm").write_bytes(encode(NOISE, "raw"))
    return tmp_path / "data"


def test_pipes_devices_and_enormous_files_are_not_read(folder):
    os.mkfifo(folder / "cat" / "pipe.jpg")  # which would be waited for
    (folder / "cat" / "zero.jpg").symlink_to("/dev/zero")  # which never ends
    (folder / "cat" / "circle.jpg").symlink_to("circle.jpg")
    with (folder / "cat" / "large.jpg").open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)  # of zeros, which take no room on the disk
    read = Folder(folder)
    named = {Path(read.describe(index)).name: index for index in range(len(read))}
    for name, reason in (
        ("pipe.jpg", "not a regular file"),
        ("zero.jpg", "not a regular file"),
        ("circle.jpg", "Too many levels of symbolic links"),
        ("large.jpg", r"suspiciously large \(536,870,913 bytes, limit 536,870,912\)"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            read[named[name]]
        with pytest.raises(ValueError, match=reason):
            read_image(folder / "cat" / name)


def test_links_out_of_the_folder_are_followed_and_noted(folder, tmp_path):
    config = DataConfig(source="folder", path=str(folder), image_size=24, crop=24)
    inside = folder / "cat" / "again.ppm"
    inside.symlink_to(folder / "dog" / "0.ppm")
    assert not any("followed links" in note for note in open_splits(config, 0).notes)
    away = tmp_path / "away"
    away.mkdir()
    (away / "0.ppm").write_bytes(encode(NOISE, "raw"))
    (folder / "cat" / "9.ppm").symlink_to(away / "0.ppm")
    link = f"{folder / 'cat' / '9.ppm'} -> {away / '0.ppm'}"
    (note,) = [note for note in open_splits(config, 0).notes if "followed links" in note]
    assert note.startswith(f"{folder}: ")
    assert f"links that lead out of it: 1, first {link}" in note
    (folder / "elk").symlink_to(away)
    (folder / "dog" / "up").symlink_to(Path("..") / ".." / "away")
    assert Folder(folder).links_out == [
        link,
        f"{folder / 'dog' / 'up'} -> {away}",
        f"{folder / 'elk'} -> {away}",
    ]
    (note,) = [note for note in open_splits(config, 0).notes if "followed links" in note]
    assert f"links that lead out of it: 3, first {link}" in note


def test_a_class_name_does_not_climb_out_of_the_folder(folder):
    climbing = Folder(folder / "cat", ["..", "../dog"])
    assert len(climbing) == 0


class Failing:
    """A source of which some records are unreadable from now on."""

    class_names = ("a", "b")

    def __init__(self, bad: int):
        self.bad = bad

    def __len__(self) -> int:
        return 250

    def __getitem__(self, index: int):
        if index < self.bad:
            raise UnreadableImage("torn")
        return {"image": NOISE, "label": index % 2}

    def describe(self, index: int) -> str:
        return f"{index}.jpg"

    def fingerprint(self) -> str:
        return ""


def test_records_that_become_unreadable_are_counted_and_the_first_are_named(caplog):
    caplog.set_level(logging.WARNING)
    source = Monitored(Failing(bad=25))
    config = DataConfig(image_size=24, crop=24, threads=0)
    batches = training_batches(source, config, 0, 250)
    assert (next(batches)["index"] >= 25).all()
    batches.close()
    list(evaluation_batches(source, config, 8))
    assert num_unreadable(source) == 25
    messages = [record.getMessage() for record in caplog.records]
    assert sum(".jpg is unreadable" in line and "torn" in line for line in messages) == 10
    assert len(messages) == 11
    assert ".jpg" not in messages[10]
    assert num_unreadable(Monitored(Failing(bad=0))) == 0


def test_a_source_that_is_not_monitored_has_no_memory_between_readers(caplog):
    caplog.set_level(logging.WARNING)
    source, config = Failing(bad=2), DataConfig(image_size=24, crop=24, threads=0)
    for _ in range(2):
        list(evaluation_batches(source, config, 8))
    assert len(caplog.records) == 4
    assert num_unreadable(source) == 0
    kept = without(Monitored(source), {0})
    list(evaluation_batches(kept, config, 8))
    assert num_unreadable(kept) == 1


def test_a_run_stops_if_more_than_a_tenth_becomes_unreadable():
    config = DataConfig(image_size=24, crop=24, threads=0)
    with pytest.raises(ValueError, match=r"^26 of 250 images .*at most 10%.*resume"):
        next(training_batches(Failing(bad=26), config, 0, 250))
    with pytest.raises(ValueError, match="^26 of 250 images .* 25.jpg"):
        list(evaluation_batches(Failing(bad=250), config, 8))


def test_a_run_that_is_to_stop_stops_at_the_first_unreadable_record():
    config = DataConfig(image_size=24, crop=24, unreadable="stop")
    with pytest.raises(ValueError, match=r"data\.unreadable stop: 0\.jpg .*\(torn\); restore it"):
        next(training_batches(Failing(bad=1), config, 0, 250))
    with pytest.raises(ValueError, match=r"data\.unreadable stop: 0\.jpg"):
        next(evaluation_batches(Failing(bad=1), config, 8))


TINY = (
    "--data.source folder --data.image-size 40 --data.crop 36 --data.cache-gib 0 --seed 3 "
    "--model.width 0.05 --optimizer.batch-size 3 --schedule.epochs 2 --mesh.towers 1 --mesh.data 1 "
    "--log.figures False --process.large-pages False --process.compilation-cache="
)


@pytest.mark.slow
def test_a_run_reports_what_became_unreadable_while_it_ran(folder, tmp_path, monkeypatch, capsys):
    begin = loop.begin

    def begin_and_spoil(*arguments):
        begun = begin(*arguments)
        (folder / "cat" / "1.ppm").unlink()
        (folder / "dog" / "2.ppm").write_bytes(b"P6")
        return begun

    monkeypatch.setattr(loop, "begin", begin_and_spoil)
    assert (
        main([*TINY.split(), "--workdir", str(tmp_path / "run"), "--data.path", str(folder)]) == 0
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    unreadable = summary["became_unreadable"]
    assert sum(unreadable.values()) == 2
    output = capsys.readouterr()
    (line,) = [line for line in output.out.splitlines() if "epoch   2" in line]
    assert f"{unreadable['train']} training images" in line
    warnings = [line for line in output.err.splitlines() if ".ppm is unreadable" in line]
    assert len(warnings) == 2
    assert all(line.startswith("alexnet_jax: ") for line in warnings)


def squares(side: int, number: int = 4) -> list[tuple[bytes, int]]:
    pixels = np.zeros((side, side, 3), np.uint8)
    return [(encode(pixels, "raw" if label else "jpeg"), label % 2) for label in range(number)]


def write(root: Path, split: str, side: int, classes: tuple[str, ...] = ("a", "b")) -> Path:
    write_array_records(root, split, squares(side), classes)
    return root / f"{split}-00000.array_record"


def test_shards_of_unequal_size_are_refused(tmp_path):
    write(tmp_path, "train", 24)
    write(tmp_path / "other", "train", 32).rename(tmp_path / "train-00001.array_record")
    with pytest.raises(
        ValueError,
        match=r"train-00000.array_record: .*24 pixels, train-00001.array_record of 32; .*again",
    ):
        ArrayRecords(tmp_path, "train")
    (tmp_path / "train-00001.array_record").unlink()
    assert ArrayRecords(tmp_path, "train").side == 24
    write(tmp_path, "validation", 32)
    config = DataConfig(source="arrayrecord", path=str(tmp_path), image_size=24, crop=24)
    with pytest.raises(
        ValueError, match=f"^{re.escape(str(tmp_path))}: .*train 24, validation 32 pixels; .*again"
    ):
        open_splits(config, 0)


def test_images_that_are_not_squares_may_have_any_size(tmp_path):
    wide = encode(np.zeros((24, 32, 3), np.uint8), "raw")
    write_array_records(tmp_path, "train", [(wide, 0), *squares(16)], ["a", "b"])
    write(tmp_path / "other", "train", 32).rename(tmp_path / "train-00001.array_record")
    assert ArrayRecords(tmp_path, "train").side is None


def test_a_split_keeps_the_classes_of_the_folder_that_it_is_written_to(tmp_path):
    write(tmp_path, "train", 24)
    with pytest.raises(ValueError, match="classes.json: .*another folder"):
        write(tmp_path, "validation", 24, classes=("b", "a"))
    assert json.loads((tmp_path / "classes.json").read_text()) == ["a", "b"]
    assert [path.name for path in tmp_path.glob("val*")] == []


def test_a_shard_missing_from_a_set_is_reported(tmp_path):
    for number in (0, 1, 3):
        name = f"train.array_record-{number:05d}-of-00004"
        write(tmp_path / "other", "train", 24).rename(tmp_path / name)
    (tmp_path / "other" / "classes.json").rename(tmp_path / "classes.json")
    with pytest.raises(
        ValueError, match="of 4 shards like .* 1 are missing, first number 2; .*again"
    ):
        ArrayRecords(tmp_path, "train")


def test_the_inventory_has_every_file_and_its_size(folder, tmp_path):
    config = DataConfig(source="folder", path=str(folder), image_size=24, crop=24)
    (folder / "cat" / "1.ppm").write_bytes(b"12345")
    splits = open_splits(config, 0)
    (folder / "dog" / "2.ppm").unlink()
    files = splits.inventory()
    assert len(files) == 8
    assert files["train/cat/1.ppm"] == 5
    assert files["train/dog/2.ppm"] == -1
    assert files["train/dog/3.ppm"] == len(encode(NOISE, "raw"))
    path = write(tmp_path / "shards", "train", 24)
    config = DataConfig(source="arrayrecord", path=str(path.parent), image_size=24, crop=24)
    splits = open_splits(config, 0)
    assert splits.inventory() == {f"train/{path.name}": path.stat().st_size}
    path.unlink()  # or where there is no file system, as in TFDS's buckets
    assert splits.inventory() == {f"train/{path.name}": -1}
    assert open_splits(DataConfig(), 0).inventory() == {}


def mutate(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), "--files", str(folder), *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=170)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((200, 150)).save(root / f"{number}.png")
    return root


@pytest.mark.slow
def test_500_damaged_files_load_or_are_reported(pictures):
    done = mutate(pictures, "--number", "500", "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    total = next(line for line in done.stdout.splitlines() if line.startswith("| all | 500 |"))
    loaded, reported, *failures = (int(cell) for cell in total.split("|")[3:8])
    assert loaded + reported == 500
    assert min(loaded, reported) > 100
    assert failures == [0, 0, 0]


@pytest.mark.slow
def test_a_file_that_takes_too_long_is_counted_and_the_next_are_read(pictures):
    done = mutate(pictures, "--number", "3", "--seconds", "0.000001")
    assert done.returncode == 1
    assert "| all | 3 | 0 | 0 | 0 | 0 | 3 |" in done.stdout
