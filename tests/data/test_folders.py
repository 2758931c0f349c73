"""Folders as people have them: what is taken for splits and classes, passed over, or refused."""

import json
import os
import struct
import tarfile
import unicodedata
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_jax import main, prepare
from alexnet_jax.config import Config, DataConfig, OptimizerConfig
from alexnet_jax.data import folders
from alexnet_jax.data.array_record import write_array_records
from alexnet_jax.data.class_names import ClassNames
from alexnet_jax.data.folders import list_images
from alexnet_jax.data.images import UnreadableImage, decode
from alexnet_jax.data.layout import OpenedFolders, open_class_folders, open_folders
from alexnet_jax.data.sources import Folder
from alexnet_jax.data.split_names import split_of
from alexnet_jax.data.splits import open_splits
from alexnet_jax.training import run_data
from tests.data.test_images import encode
from tests.data.test_prepare import devkit
from tests.data.test_splits import png

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
CATS = {"cat": 3, "dog": 3}


def make(root: Path, tree: Mapping[str, Any]) -> Path:
    """Write folders (dicts), image folders (numbers of images), and files (bytes or text)."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        if isinstance(content, Mapping):
            make(path, content)
        elif isinstance(content, int):
            make(path, {f"{number}.png": png(number) for number in range(content)})
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def counts(opened: OpenedFolders) -> dict[str, int]:
    return {split: len(source) for split, source in opened.splits.items()}


def refused(root: Path) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]*: [^\n]*; [^\n]*\.$") as caught:
        open_folders(root)
    return str(caught.value)


SPLITS = [
    ({"Training": CATS, "Testing": CATS}, {"train": "Training", "test": "Testing"}),
    ({"Training": CATS, "Test": CATS}, {"train": "Training", "test": "Test"}),
    ({"train": CATS, "valid": CATS, "test": CATS}, {"validation": "valid"}),
    ({"TRAIN": CATS, "VAL": CATS}, {"train": "TRAIN", "validation": "VAL"}),
    ({"train_images": CATS, "val_images": CATS}, {"validation": "val_images"}),
    ({"training_set": CATS, "val_set": CATS, "test_set": CATS}, {"test": "test_set"}),
    ({"TrainingSet": CATS, "TestSet": CATS}, {"train": "TrainingSet"}),
    ({"trainset": CATS, "testset": CATS}, {"train": "trainset", "test": "testset"}),
    ({"train2017": CATS, "val2017": CATS}, {"validation": "val2017"}),
    ({"01-train": CATS, "02-dev": CATS}, {"validation": "02-dev"}),
    ({"train": CATS, "dev": CATS, "eval": CATS}, {"validation": "dev", "test": "eval"}),
    ({"train": CATS, "evaluation": CATS}, {"validation": "evaluation"}),
    ({"train": CATS, "train_masks": CATS}, {"train": "train"}),
    ({"ILSVRC2012_img_train": CATS, "ILSVRC2012_img_val": CATS}, {"train": "ILSVRC2012_img_train"}),
    (
        {"seg_train": {"seg_train": CATS}, "seg_test": {"seg_test": CATS}, "seg_pred": 2},
        {"train": "seg_train/seg_train", "test": "seg_test/seg_test"},
    ),
    ({"training_set": {"training_set": CATS}}, {"train": "training_set/training_set"}),
    ({"archive": {"d": {"train": CATS, "val": CATS}}}, {"train": "archive/d/train"}),
    ({"d": {"train": CATS}, "__MACOSX": {"d": CATS}}, {"train": "d/train"}),
    ({"Data": {"train": CATS}, "Annotations": {"val": {"0.xml": ""}}}, {"train": "Data/train"}),
]


@pytest.mark.parametrize(("tree", "expected"), SPLITS, ids=lambda value: "-".join(value))
def test_folders_that_are_splits_are_taken_as_such(tmp_path: Path, tree, expected):
    splits, notes = open_folders(make(tmp_path / "d", tree))
    for split, path in expected.items():
        assert splits[split].root == tmp_path / "d" / path
        assert splits[split].class_names == ("cat", "dog")
        assert len(splits[split]) == 6
        assert f"{split} is {path}" in notes[0]
    assert notes[0].startswith(f"{tmp_path / 'd'}: ")


@pytest.mark.parametrize(
    "name", ["cat", "bullet train", "test tube", "training shoe", "dev board", "x", "val val test"]
)
def test_other_names_are_no_splits(name: str):
    assert split_of(name) is None


CLASSES = [
    ({"bus": 3, "car": 3, "train": 3}, "d", ("bus", "car", "train")),
    ({"bullet train": 3, "test tube": 3}, "d", ("bullet train", "test tube")),
    ({"flowers": {"daisy": 3, "rose": 3}}, "d/flowers", ("daisy", "rose")),
    ({"a": {"b": {"daisy": 3, "rose": 3}}}, "d/a/b", ("daisy", "rose")),
    ({"flowers": {"daisy": 3, "rose": 3}, "cover.png": png(1)}, "d/flowers", ("daisy", "rose")),
    ({"cat": {"images": 3}, "dog": {"images": 3}}, "d", ("cat", "dog")),
    ({"cat": {"big": 3, "small": 2}, "dog": 3}, "d", ("cat", "dog")),
]


@pytest.mark.parametrize(("tree", "root", "names"), CLASSES, ids=lambda value: str(value)[:40])
def test_folders_that_are_classes_are_taken_as_such(tmp_path: Path, tree, root, names):
    splits, notes = open_folders(make(tmp_path / "d", tree))
    assert splits["train"].root == tmp_path / root
    assert splits["train"].class_names == names
    assert ", ".join(names) in notes[0]
    if "cover.png" in tree:
        assert any("1 image beside" in note and "cover.png" in note for note in notes)


REFUSED = [
    # Split folders under names that say nothing, and others whose folders are no classes.
    ({"part1": CATS, "part2": CATS}, ["part1, part2", "cat, dog", "rename"]),
    ({"sick": {"images": 2, "masks": 2}, "well": {"images": 2, "masks": 2}}, ["images, masks"]),
    ({"cat": {"train": 2, "test": 2}, "dog": {"train": 2}}, ["cat, dog", "train/CLASS/"]),
    ({"train_a": CATS, "test_a": CATS, "train_b": CATS, "test_b": CATS}, ["several", "train_a"]),
    ({"train": CATS, "bus": 3, "car": 3}, ["train", "bus, car", "name "]),
    ({"val": CATS, "test": CATS}, ["training needs", "test, val", "add train"]),
    ({"cat": 3, "dog": 3, "test": 3}, ["test", "cat, dog", "rename"]),
    ({"train": CATS, "val": CATS, "valid": CATS}, ["both val and valid", "remove one"]),
    ({"train": 4, "test": 4}, ["4 images and no class folders", "CSV"]),
    ({"train": {"images": 4}}, ["4 images and no class folders", "CSV"]),
    ({"train": CATS, "val": 8}, ["/val: ", "8 images and no class folders", "CSV"]),
    ({"train": CATS, "val": {"images": 8}}, ["/val: ", "8 images and no class folders"]),
    ({"0.png": png(0), "1.png": png(1)}, ["2 images and no class folders"]),
    ({"cat": 3, "dog": {"labels.txt": ""}}, ["/dog: ", "no images", "1 files .txt"]),
    ({"cat": 3, "dog": {"0.HEIC": HEIC, "1.heic": HEIC}}, ["/dog: ", "2 HEIC", "convert to JPEG"]),
    ({"cat": 3, "dog": {"0.nef": b"II*\0", "1.jxl": b""}}, ["1 JPEG XL", "raw format"]),
    ({"train": CATS, "val": {"cat": 1, "dgo": 1}}, ["no class dgo", "dog is like dgo"]),
]


REFUSED += [
    ({images: 2, masks: 2}, [f"images and their masks ({images}, {masks})", "rename"])
    for images, masks in (
        ("images", "masks"),
        ("imgs", "mask"),
        ("JPEGImages", "SegmentationClass"),
        ("JPEGImages", "SegmentationObject"),
        ("train_images", "train_masks"),
        ("Images", "Annotations"),
        ("images", "labels"),
        ("images", "annotation"),
        ("original_images", "label_images_semantic"),
    )
]
REFUSED += [
    ({"train": {"images": 2, "masks": 2}, "val": CATS}, ["/train: ", "(images, masks)"]),
    ({"images": CATS, "masks": CATS}, ["and their masks (images, masks)", "/images if "]),
    ({"images": 2, "labels": {"0.txt": ""}}, ["images and their annotations (images, labels)"]),
    ({"a": {"images": 2, "masks": 2}, "b": {"images": 2}}, ["a holds", "masks", "move "]),
    ({"a": 2, "b": 2, "dataset": {"a": 2, "b": 2}}, ["dataset", "(a, b)", "move or remove"]),
    ({"a": 2, "b": 2, "old": {"x": {"A": 2, "b": 2}}}, ["old/x", "(A, b)", "move or remove"]),
    ({"train": {**CATS, "validation": CATS}}, ["/train: ", "validation", "(cat, dog)", "name one"]),
]


@pytest.mark.parametrize(("tree", "parts"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_told_or_read_is_refused(tmp_path: Path, tree, parts):
    message = refused(make(tmp_path / "d", tree))
    assert str(tmp_path / "d") in message
    for part in parts:
        assert part in message


def test_a_test_split_without_labels_is_noted_and_not_used(tmp_path: Path):
    splits, notes = open_folders(make(tmp_path, {"train": CATS, "test": 8}))
    assert [*splits] == ["train"]
    (note,) = [note for note in notes if note.startswith(f"{tmp_path}/test: ")]
    assert "8 images and no class folders" in note


@pytest.mark.parametrize("system", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN"])
def test_folders_and_files_of_systems_are_passed_over(tmp_path: Path, system: str):
    make(tmp_path, CATS)
    make(tmp_path / "cat" / system, {"0.png": {"SYNOPHOTO_THUMB_M.jpg": png(9)}, "9.png": png(9)})
    make(tmp_path / system, {"x.png": png(9)})
    make(tmp_path / "dog", {"._0.png": b"x", "Thumbs.db": b"x", "0.png~": png(0)})
    (train,), notes = [*open_folders(tmp_path).splits.values()], open_folders(tmp_path).notes
    assert train.class_names == ("cat", "dog")
    assert len(train) == 6
    (note,) = [note for note in notes if "systems and tools" in note]
    assert f"2 {system}" in note
    listing = list_images(tmp_path)
    assert len(listing.files) == 6
    assert any(f"2 {system}" in note for note in listing.notes)


def test_hidden_folders_and_loose_images_are_counted_and_mentioned(tmp_path: Path):
    make(tmp_path, {"train": {**CATS, ".net": 2, "a.png": png(0), "b.png": png(1)}, "val": CATS})
    make(tmp_path, {"c.png": png(2), "train/cat/.d.png": png(3), "train/cat/note.txt": ""})
    opened = open_folders(tmp_path)
    notes = opened.notes
    assert counts(opened) == {"train": 6, "validation": 6}
    for where, part in (
        (tmp_path / "train", "the hidden folder .net with 2 images"),
        (tmp_path / "train", "2 images beside its folders (a.png, b.png)"),
        (tmp_path / "train", "hidden files: 1 (cat/.d.png)"),
        (tmp_path / "train", "not images by their suffix: 1 (1 .txt)"),
        (tmp_path, "1 image beside its folders (c.png)"),
    ):
        assert [note for note in notes if note.startswith(f"{where}: ") and part in note], part


@pytest.mark.parametrize(
    "names",
    [
        ["mask", "no mask"],
        ["label", "gt"],
        ["image", "text"],
        ["with_mask", "images"],
        ["photos", "art"],
    ],
)
def test_names_like_those_of_images_or_masks_alone_are_classes(tmp_path: Path, names):
    splits, _ = open_folders(make(tmp_path, dict.fromkeys(names, 2)))
    assert {*splits["train"].class_names} == {*names}


def test_links_to_folders_above_are_passed_over_and_counted(tmp_path: Path):
    make(tmp_path / "d", CATS)
    make(tmp_path / "outside", {"9.png": png(9)})
    (tmp_path / "d" / "loop").symlink_to(".")
    (tmp_path / "d" / "cat" / "up").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "dog" / "more").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(tmp_path / "d")  # above it as it is reached
    splits, notes = open_folders(tmp_path / "d")
    assert splits["train"].class_names == ("cat", "dog")
    assert splits["train"].labels().tolist() == [0] * 3 + [1] * 4
    (note,) = [note for note in notes if "above it" in note]
    assert "3 (loop, cat/up, dog/more/back)" in note


def test_broken_links_are_named_and_are_no_images_beside_folders(tmp_path: Path):
    make(tmp_path, CATS)
    for name in ("emu", "x.png", "cat/y.png", "cat/more"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    (tmp_path / "self").symlink_to("self")
    opened = open_folders(tmp_path)
    (note,) = [note for note in opened.notes if "broken links" in note]
    assert "5 (emu, self, x.png ...)" in note
    assert not any("beside its folders" in note or "lead out" in note for note in opened.notes)
    assert counts(opened) == {"train": 7}  # the missing image is unreadable, and not left out
    (note,) = [note for note in list_images(tmp_path / "cat").notes if "broken links" in note]
    assert "2 (more, y.png)" in note


@pytest.mark.parametrize("inner", [".", "inner", "cat"])
def test_splits_that_are_one_folder_are_refused(tmp_path: Path, inner: str):
    make(tmp_path, {"train": CATS})
    if inner != ".":
        (tmp_path / "val").mkdir()
    (tmp_path / "val" / inner).symlink_to(tmp_path / "train")
    message = refused(tmp_path)
    for part in ("train", "val", "same folder", "images of its own"):
        assert part in message


def test_one_class_may_be_written_in_several_ways(tmp_path: Path):
    make(tmp_path / "train", {DECOMPOSED: 2, "Dog": 2})
    make(tmp_path / "val", {COMPOSED: 1, "dog ": 1})
    splits, notes = open_folders(tmp_path)
    assert not any("without images" in note for note in notes)
    assert splits["train"].class_names == ("Dog", COMPOSED)
    assert splits["validation"].labels().tolist() == [0, 1]
    assert any("dog  for Dog" in note for note in notes)
    make(tmp_path / "train", {COMPOSED: 3})  # beside the other in one folder
    splits, notes = open_folders(tmp_path)
    assert splits["train"].labels().tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert any("composed" in note for note in notes)


def test_a_class_folder_of_validation_may_be_empty_and_is_named(tmp_path: Path):
    _, notes = open_folders(make(tmp_path, {"train": CATS, "val": {"cat": 2, "dog": 0}}))
    assert f"{tmp_path}/val: class folders without images: dog." in notes


def test_classes_that_differ_in_case_are_two_and_mentioned(tmp_path: Path):
    splits, notes = open_folders(make(tmp_path, {"a": 2, "A": 2, "b": 2}))
    assert splits["train"].class_names == ("A", "a", "b")
    assert any("differ in case" in note and "A, a" in note for note in notes)
    names = ClassNames(["A", "a", "b"])
    assert [names.find(name) for name in ("A", "a", "B", "c")] == [0, 1, 2, None]


def test_a_copy_with_decomposed_names_is_the_same_data(tmp_path: Path):
    names = ["\u00e9cu", "zoo"]  # decomposed, the first would be sorted before "ea"
    for form in ("NFC", "NFD"):
        for name in names:
            files = {"\u00e9.png": png(0), "ea.png": png(1), "f.png": png(2)}
            make(
                tmp_path / form / unicodedata.normalize(form, name),
                {unicodedata.normalize(form, file): content for file, content in files.items()},
            )
    composed, decomposed = (Folder(tmp_path / form) for form in ("NFC", "NFD"))
    assert composed.fingerprint() == decomposed.fingerprint()
    assert composed.inventory() == decomposed.inventory()
    order = [[int(s[i]["image"][0, 0, 0]) for i in range(6)] for s in (composed, decomposed)]
    assert order[0] == order[1]


FLAT = {f"ILSVRC2012_val_{number:08d}.png": png(number) for number in range(1, 5)}
BY_NAME = dict(zip(FLAT, (1, 0, 1, 1), strict=True))  # n02 n01 n02 n02
LINES = [f"{name},n0{label + 1}" for name, label in BY_NAME.items()]
STEMS = [line.replace(".png", "") for line in LINES]
TABLES = {
    "val/labels.csv": "filename,label\n" + "\n".join(LINES),
    "val.csv": "\ufeffid;class\n" + "\n".join(STEMS).replace(",", ";"),
    "val_labels.tsv": "\n".join(LINES).replace(",", "\t"),
    "labels.csv": "n,image,label\n" + "\n".join(f"{n},val/{line}" for n, line in enumerate(LINES)),
    "LOC_val_solution.csv": "ImageId,PredictionString\n"
    + "\n".join(f"{line} 85 1 499 272 {line[-3:]} 0 0 9 9" for line in STEMS),
    "val/val_annotations.txt": "\n".join(f"{line}\t0\t32\t44\t62" for line in LINES).replace(
        ",", "\t"
    ),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("nested", [False, True])
def test_flat_images_are_sorted_by_a_table(tmp_path: Path, name: str, nested: bool):
    root = tmp_path / "Data" / "CLS-LOC" if name == "LOC_val_solution.csv" else tmp_path
    flat = {"images": FLAT} if nested else FLAT
    make(root, {"train": {"n01": 2, "n02": 2}, "val": flat})
    # Neither the table of another split nor an example for competitors counts.
    make(root, {"train.csv": TABLES["val.csv"].replace("n02", "n01"), "sample_submission.csv": ""})
    make(tmp_path, {name: TABLES[name]})
    splits, notes = open_folders(root)
    validation = splits["validation"]
    assert [Path(validation.describe(n)).name for n in range(4)] == [*FLAT]
    assert validation.labels().tolist() == [*BY_NAME.values()]
    assert any("4 images labeled by" in note and Path(name).name in note for note in notes)


@pytest.mark.parametrize("packed", [True, False])
def test_flat_images_are_sorted_by_the_development_kit(tmp_path: Path, packed: bool):
    make(tmp_path, {"train": {"n01": 2, "n02": 2, "n03": 2}, "val": FLAT})
    kit = devkit([1, 2, 3, 1])  # n03 n01 n02 n03
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(kit)
    if not packed:
        with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    splits, notes = open_folders(tmp_path)
    assert splits["validation"].labels().tolist() == [2, 0, 1, 2]
    assert any("ILSVRC2012_devkit_t12" in note for note in notes)


def test_flat_training_images_get_the_classes_of_their_table(tmp_path: Path):
    make(tmp_path, {"train": FLAT, "test": 2, "labels.csv": "id,breed\n" + "\n".join(STEMS)})
    splits, _ = open_folders(tmp_path)
    assert splits["train"].class_names == ("n01", "n02")
    assert splits["train"].labels().tolist() == [*BY_NAME.values()]


def test_tables_that_do_not_fit_are_refused_or_not_used(tmp_path: Path):
    make(tmp_path, {"train": {"n01": 2, "n02": 2}, "val": FLAT})
    table = tmp_path / "val.csv"
    table.write_text("filename,label\n" + "\n".join(LINES).replace("n01", "n07"))
    message = refused(tmp_path)
    assert str(table) in message
    assert "n07" in message
    assert "n01, n02" in message
    table.write_text("filename,label\n" + "\n".join([*LINES, LINES[0].replace("n02", "n01")]))
    assert "several labels" in refused(tmp_path)
    table.write_text("filename,label\nother.png,n01\n")
    assert "4 images and no class folders" in refused(tmp_path)
    table.write_text("filename,label\n" + "\n".join(LINES[:3]))
    splits, notes = open_folders(tmp_path)
    assert len(splits["validation"]) == 3
    assert any("does not list: 1" in note for note in notes)


def test_tables_are_part_of_the_fingerprint(tmp_path: Path):
    make(tmp_path, {"train": {"n01": 2, "n02": 2}, "val": FLAT, "val.csv": TABLES["val.csv"]})
    before = open_folders(tmp_path).splits["validation"].fingerprint()
    (tmp_path / "val.csv").write_text(TABLES["val.csv"].replace("n01", "n02"))
    assert open_folders(tmp_path).splits["validation"].fingerprint() != before


def test_folders_for_a_network_follow_the_same_rules(tmp_path: Path):
    names = ["n01 tench", "n02 goldfish", DECOMPOSED]
    root = make(tmp_path / "d", {"inner": {"n02": 2, COMPOSED: 1, "@eaDir": 3, "x.png": png(0)}})
    source = open_class_folders(root, names, "images")
    assert source.labels().tolist() == [1, 1, 2]
    assert "inner" in source.notes[0]
    assert any("1 image beside" in note for note in source.notes)
    make(tmp_path / "s", {"Training": {"n01": 1}, "Testing": {"n01": 1}})
    flat = make(tmp_path / "flat" / "val", FLAT)
    for path, parts in (
        (tmp_path / "s", ["holds the splits", f"name {tmp_path}/s/"]),
        (flat, ["holds 4 images and no class folders"]),
        (make(tmp_path / "other", {"n01": 1, "n09": 1}), ["1 class folders (n09)", "rename"]),
    ):
        with pytest.raises(ValueError, match=r"^images ") as caught:
            open_class_folders(path, names, "images")
        for part in parts:
            assert part in str(caught.value)
    (tmp_path / "flat" / "val.csv").write_text(TABLES["val.csv"])
    assert open_class_folders(flat, names, "images").labels().tolist() == [*BY_NAME.values()]


def test_each_folder_is_listed_once_and_no_file_is_opened(tmp_path: Path, monkeypatch):
    make(tmp_path, {"train": {**CATS, "emu": {"young": 2}}, "val": CATS, "test": CATS})
    listed, scandir = [], os.scandir
    monkeypatch.setattr(folders.os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(Path, "stat", lambda *_, **__: pytest.fail("a file was looked at"))
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("a file was opened"))
    open_folders(tmp_path)
    assert sorted(listed) == sorted({*listed})
    assert len(listed) == 1 + 3 + 3 * 2 + 2


def twelve_bits(gray: np.ndarray) -> bytes:
    """Return a TIFF file of 12 bits a pixel, which Pillow reads and does not write."""
    height, width = gray.shape
    bits = "".join(f"{value:012b}" for value in gray.ravel())
    pixels = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return tiff(pixels, height, width, 12)


def tiff(pixels: bytes, height: int, width: int, bits: int, **changes: int) -> bytes:
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: changes.get("photometric", 1)}
    tags |= {273: 8, 277: 1, 278: height, 279: len(pixels), 339: changes.get("sample", 1)}
    tags |= {254: 1} if changes.get("reduced") else {}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


def png_48(gray: np.ndarray) -> bytes:
    """Return a PNG file of 16 bits a color, which Pillow reads and does not write."""
    height, width = gray.shape
    rows = b"".join(b"\0" + np.repeat(row, 3).tobytes() for row in gray)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),)
    chunks += ((b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


RAMP = np.linspace(0, 1, 256).reshape(16, 16)


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_gray_is_scaled_by_its_bits(bits: int):
    exact = np.round(RAMP * (2**bits - 1)).astype(np.uint64)
    encoded = (
        twelve_bits(exact)
        if bits == 12
        else tiff(exact.astype(f"<u{bits // 8}").tobytes(), 16, 16, bits)
    )
    expected = np.round(RAMP * 255)
    np.testing.assert_allclose(decode(encoded)[..., 0], expected, rtol=0, atol=1)
    assert decode(encoded).max() == 255
    if bits == 16:
        inverted = tiff(exact.astype("<u2").tobytes(), 16, 16, bits, photometric=0)
        np.testing.assert_array_equal(decode(inverted), 255 - decode(encoded))


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (tiff((RAMP * 4095).astype("<u2").tobytes(), 16, 16, 16), "12 bits of the 16 .*; scale"),
        (encode((RAMP * 255).astype(np.uint16)), "8 bits of the 16"),
        (encode((RAMP * 16383).astype(np.uint16)), "14 bits of the 16"),
        (png_48((RAMP * 4095).astype(">u2")), "12 bits of the 16"),
        (tiff((RAMP * 255).astype("<u4").tobytes(), 16, 16, 32), "8 bits of the 32"),
        (tiff((RAMP * 255).astype("<i2").tobytes(), 16, 16, 16, sample=2), "signed 16-bit"),
        (tiff((RAMP * 255).astype("<i4").tobytes(), 16, 16, 32, sample=2), "signed 32-bit"),
        (tiff(RAMP.astype("<f4").tobytes(), 16, 16, 32, sample=3), "floating-point"),
        (tiff((RAMP * 255).astype("u1").tobytes(), 16, 16, 8, reduced=1), "raw format.*thumbnail"),
        (HEIC, "HEIC.*convert to JPEG"),
        (b"\xff\x0a" + bytes(99), "JPEG XL.*convert to JPEG"),
        (b"\0\0\0\x20ftypcrx " + bytes(99), "raw format.*convert to JPEG"),
        (b"8BPB" + bytes(99), "image editor.*convert to JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS; run git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page; download"),
        (b"PK\x03\x04" + bytes(99), "archive; unpack"),
    ],
)
def test_pixels_and_formats_that_are_not_read_say_so(encoded: bytes, reason: str):
    with pytest.raises(UnreadableImage, match=reason):
        decode(encoded)


def test_black_is_black():
    assert decode(encode(np.zeros((4, 4), np.uint16))).max() == 0
    assert decode(png_48(np.zeros((4, 4), ">u2"))).max() == 0
    assert decode(png_48((RAMP * 65535).astype(">u2"))).max() == 255


def small(path: Path, **changes: Any) -> DataConfig:
    return DataConfig(source="folder", path=str(path), image_size=8, crop=8, **changes)


def test_a_class_of_no_readable_image_is_refused_once_they_are_read(tmp_path: Path, capsys):
    make(tmp_path / "d", {"cat": 4, "dog": {"0.jpg": HEIC, "1.jpg": b"x"}, "emu": 4})
    splits = open_splits(small(tmp_path / "d"), seed=0)
    config = Config(data=small(tmp_path / "d"), optimizer=OptimizerConfig(batch_size=4))
    with pytest.raises(ValueError, match=r"1 class \(dog\) can be read, .*; .* convert") as caught:
        run_data.read_data(config, splits)
    assert f"{tmp_path}/d/dog/" in str(caught.value)
    # What was taken for what comes first: reading may take long.
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'd'}: its folders are taken for 3")
    assert prepare.main(["--from", str(tmp_path / "d"), "--to", str(tmp_path / "to")]) == 2
    assert "images of class dog can be read" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_formats_that_are_not_read_are_unreadable_images_beside_others(tmp_path: Path):
    make(tmp_path, {"cat": {"0.png": png(0), "1.heic": HEIC}, "dog": 2})
    source = open_folders(tmp_path).splits["train"]
    assert len(source) == 4
    with pytest.raises(UnreadableImage, match="HEIC"):
        source[1]


def test_the_command_line_says_what_was_taken(tmp_path: Path, capsys):
    make(tmp_path, {"train": CATS, "val": 8})
    arguments = ["--preset", "photos", "--data.path", str(tmp_path)]
    assert main.main(["--workdir", str(tmp_path / "run"), *arguments]) == 2
    error = capsys.readouterr().err
    assert f"--data.path {tmp_path}/val: " in error
    assert "8 images and no class folders" in error
    assert prepare.main(["--from", str(tmp_path), "--to", str(tmp_path / "to")]) == 2
    assert f"--from {tmp_path}/val: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_names_in_shards_are_those_of_the_folders(tmp_path: Path, capsys):
    make(tmp_path / "d", {"Training": {DECOMPOSED: 2, "dog": 2}, "Testing": {COMPOSED: 2}})
    arguments = ["--to", str(tmp_path / "to"), "--image-size", "16", "--processes", "1"]
    assert prepare.main(["--from", str(tmp_path / "d"), *arguments]) == 0
    assert "train is Training, test is Testing" in capsys.readouterr().out
    assert json.loads((tmp_path / "to" / "classes.json").read_text()) == [COMPOSED, "dog"]


def test_shards_of_splits_go_by_the_same_names(tmp_path: Path):
    records = [(png(value), value % 2) for value in range(4)]
    for name in ("train", "valid"):
        write_array_records(tmp_path, name, records, ["x", "y"])
    config = DataConfig(source="arrayrecord", path=str(tmp_path), image_size=8, crop=8)
    splits = open_splits(config, seed=0)
    assert (len(splits.train), len(splits.validation)) == (4, 4)
    assert splits.notes[0] == f"{tmp_path}: train is train, validation is valid."
    write_array_records(tmp_path, "val", records, ["x", "y"])
    with pytest.raises(ValueError, match=r"val and valid for the validation .*; remove one"):
        open_splits(config, seed=0)


def test_numbers_below_classes_that_are_numbers_are_no_copies(tmp_path):
    make(tmp_path, {"1": {"1": 2, "2": 2}, "2": {"1": 2, "3": 2}, "3": {"4": 2, "5": 2}})
    splits, _ = open_folders(tmp_path)
    assert splits["train"].class_names == ("1", "2", "3")
    assert len(splits["train"]) == 12
