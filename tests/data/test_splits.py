"""Sources, how they are split, what they refuse; on small image files."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from alexnet_jax.config import DataConfig
from alexnet_jax.data import array_record, synthetic
from alexnet_jax.data.array_record import ArrayRecords, write_array_records
from alexnet_jax.data.images import Encoding, UnreadableImage, encode
from alexnet_jax.data.sources import Folder, Source
from alexnet_jax.data.splits import Splits, open_splits, stratify
from alexnet_jax.data.statistics import find_unreadable
from alexnet_jax.data.synthetic import Synthetic
from alexnet_jax.data.tfds import Tfds, open_tfds
from alexnet_jax.data.wrappers import Cached, Monitored, Resized, Subset, without


def png(value: int, size: tuple[int, int] = (12, 9)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Write class folders of images, each image of another gray; return `root`."""
    value = first
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:02d}.JPEG").write_bytes(png(value))
            value += 1
    return root


def config(path: Path, **changes) -> DataConfig:
    return DataConfig(source="folder", path=str(path), image_size=8, crop=8, **changes)


def values(source: Source | None) -> list[int]:
    """The gray that tells each image from the others."""
    assert source is not None
    return [int(source[index]["image"][0, 0, 0]) for index in range(len(source))]


def labels(source: Source) -> list[int]:
    return [source[index]["label"] for index in range(len(source))]


def test_folder_reads_sorted_classes_and_files_at_any_depth(tmp_path: Path):
    fill(tmp_path, {"dog": 2, "cat": 1})
    (tmp_path / "cat" / "young" / "asleep").mkdir(parents=True)
    (tmp_path / "cat" / "young" / "asleep" / "no_ending").write_bytes(png(7))
    for hidden in (".hidden", "._00.JPEG", ".git/00.JPEG"):
        (tmp_path / "cat" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "cat" / hidden).write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "dog" / "notes.TXT").write_text("no image")
    folder = Folder(tmp_path)
    assert folder.class_names == ("cat", "dog")
    assert labels(folder) == folder.labels().tolist() == [0, 0, 1, 1]
    assert values(folder) == [2, 7, 0, 1]
    assert folder.describe(1) == str(tmp_path / "cat" / "young" / "asleep" / "no_ending")
    assert any("not images by their suffix: 1 (1 .txt)" in note for note in folder.notes)
    assert folder[0]["image"].shape == (9, 12, 3)


def test_links_that_lead_back_are_followed_once(tmp_path: Path):
    fill(tmp_path / "data", {"a": 2})
    fill(tmp_path / "elsewhere", {"b": 3}, first=10)
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data" / "a")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "data" / "b" / "99.png").symlink_to(tmp_path / "nowhere.png")
    folder = Folder(tmp_path / "data")
    assert folder.labels().tolist() == [0, 0, 1, 1, 1, 1]
    with pytest.raises(UnreadableImage, match="No such file"):
        folder[5]


def test_an_unreadable_file_gives_its_reason_and_its_path(tmp_path: Path):
    fill(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "00.JPEG").write_bytes(png(0)[:40])
    (tmp_path / "b" / "00.JPEG").unlink()
    (tmp_path / "b" / "00.JPEG").mkdir()
    (tmp_path / "b" / "01.JPEG").write_bytes(png(0))
    folder = Folder(tmp_path)
    with pytest.raises(UnreadableImage):
        folder[0]
    assert folder.describe(0) == str(tmp_path / "a" / "00.JPEG")
    (tmp_path / "b" / "01.JPEG").unlink()
    with pytest.raises(UnreadableImage, match="No such file or directory"):
        folder[1]


def test_train_val_and_test_are_taken_as_they_are(tmp_path: Path):
    for split, first in (("train", 0), ("val", 100), ("test", 200)):
        fill(tmp_path / split, {"a": 2, "b": 3}, first)
    splits = open_splits(config(tmp_path), seed=0)
    assert values(splits.train) == [0, 1, 2, 3, 4]
    assert values(splits.validation) == [100, 101, 102, 103, 104]
    assert values(splits.test) == [200, 201, 202, 203, 204]
    assert splits.class_names == ("a", "b")
    taken, note = splits.notes
    assert taken == f"{tmp_path}: train is train, validation is val, test is test."
    assert note.startswith(f"{tmp_path}: 2 classes")
    assert "train 5, validation 5, test 5" in note


def test_folders_that_are_not_splits_are_noted(tmp_path: Path):
    for split in ("train", "val", "extra", "more"):
        fill(tmp_path / split, {"a": 2, "b": 3})
    splits = open_splits(config(tmp_path), seed=0)
    _, ignored, counts = splits.notes
    assert ignored.startswith(f"{tmp_path}: ")
    assert ignored.endswith(": extra, more.")
    assert "train 5, validation 5." in counts


def test_labels_follow_the_training_classes_where_validation_lacks_one(tmp_path: Path):
    fill(tmp_path / "train", {"a": 1, "b": 1, "c": 1})
    fill(tmp_path / "validation", {"c": 1, "b": 1})
    splits = open_splits(config(tmp_path), seed=0)
    assert labels(splits.validation) == [1, 2]
    assert splits.validation.class_names == ("a", "b", "c")
    assert splits.test is None


def test_validation_is_held_out_of_train_and_test_stays_test(tmp_path: Path):
    fill(tmp_path / "train", {"a": 20, "b": 10, "c": 2, "d": 1})
    fill(tmp_path / "test", {"a": 1, "b": 1}, 200)
    splits = open_splits(config(tmp_path, validation_fraction=0.3), seed=5)
    assert values(splits.test) == [200, 201]
    assert sorted(values(splits.train) + values(splits.validation)) == list(range(33))
    assert np.bincount(labels(splits.validation), minlength=4).tolist() == [6, 3, 1, 0]
    _, held_out, counts = splits.notes
    assert held_out.startswith(f"{tmp_path}: ")
    assert "0.3" in held_out
    assert "seed 5" in held_out
    assert counts.startswith(f"{tmp_path}: 4 classes")
    assert "train 23, validation 10, test 2" in counts
    again, other = (open_splits(config(tmp_path, validation_fraction=0.3), seed=s) for s in (5, 6))
    assert values(again.validation) == values(splits.validation)
    assert values(other.validation) != values(splits.validation)


def test_with_nothing_held_out_training_evaluates_on_test_and_a_note_tells(tmp_path: Path):
    fill(tmp_path / "train", {"a": 2, "b": 2})
    fill(tmp_path / "test", {"a": 1, "b": 1}, 200)
    splits = open_splits(config(tmp_path, validation_fraction=0), seed=0)
    assert values(splits.train) == [0, 1, 2, 3]
    assert values(splits.validation) == [200, 201]
    assert splits.test is None
    assert splits.notes[1].startswith(f"{tmp_path}: ")
    assert "evaluates on test" in splits.notes[1]


def test_a_folder_of_classes_alone_is_split(tmp_path: Path):
    fill(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "labels.csv").write_text("")
    splits = open_splits(config(tmp_path), seed=0)
    assert (len(splits.train), len(splits.validation), splits.test) == (18, 2, None)
    assert sorted(values(splits.train) + values(splits.validation)) == list(range(20))
    assert splits.notes[0] == f"{tmp_path}: its folders are taken for 2 classes (a, b)."
    assert splits.notes[1].startswith(f"{tmp_path}: ignored")
    assert splits.notes[1].endswith(": 1 (1 .csv).")
    with pytest.raises(ValueError, match=r"^data\.validation_fraction 0: .*; try 0\.1\.$"):
        open_splits(config(tmp_path, validation_fraction=0), seed=0)


def test_stratify_counts_and_keeps_every_class():
    kept, held = stratify(np.repeat([0, 1, 2, 3], [100, 7, 2, 1]), 0.1, seed=0)
    assert sorted([*kept, *held]) == list(range(110))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    assert [((held >= a) & (held < b)).sum() for a, b in ((0, 100), (100, 107), (107, 109))] == [
        10,
        1,
        1,
    ]
    kept, held = stratify(np.repeat([0, 1], 4), 0.99, seed=0)
    assert (kept < 4).sum() == (kept >= 4).sum() == 1


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder without read permission; a test that runs as root gives up its rights."""
    folder = fill(tmp_path / "closed", {"a": 1, "b": 1})
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o700)


def test_a_folder_without_permission_is_refused(closed: Path):
    with pytest.raises(ValueError, match="data.path .*closed: Permission denied; .* permissions"):
        open_splits(config(closed), seed=0)


def message(path: Path, **changes) -> str:
    with pytest.raises(ValueError, match=r"^[^;]*: [^;]*; .*\.$") as caught:  # value: rule; remedy.
        open_splits(config(path, **changes), seed=0)
    text = str(caught.value)
    assert "\n" not in text
    assert text.removeprefix("data.path ").startswith(str(path))
    assert "--" not in text
    return text


def test_refusals_give_the_value_the_rule_and_the_remedy(tmp_path: Path):
    assert message(tmp_path / "missing").startswith(f"data.path {tmp_path / 'missing'}: ")
    (tmp_path / "empty").mkdir()
    assert "must contain a folder for each class" in message(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    assert "Not a directory" in message(tmp_path / "file")
    fill(tmp_path / "one", {"cat": 3})
    assert "one class only (cat)" in message(tmp_path / "one")
    fill(tmp_path / "hollow", {"a": 2, "b": 0})
    assert message(tmp_path / "hollow").startswith(f"{tmp_path / 'hollow' / 'b'}: ")
    fill(tmp_path / "singles", {"a": 1, "b": 1})
    assert "one image per class" in message(tmp_path / "singles")
    fill(tmp_path / "headless" / "val", {"a": 1, "b": 1})
    assert "it has val; add train" in message(tmp_path / "headless")


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"source": "folder"}, r"data\.path '': .*data\.source=folder; name the folder"),
        ({"source": "arrayrecord"}, r"data\.path '': .*data\.source=arrayrecord; name the folder"),
        ({"source": "tfds"}, r"data\.name '': .*data\.source=tfds; name the data set"),
        ({"path": "x"}, r"data\.path x: .*data\.source=synthetic; .*preset=photos"),
        ({"name": "mnist"}, r"data\.name mnist: .*; add data\.source=tfds"),
        (
            {"source": "folder", "path": "x", "name": "mnist"},
            r"data\.name mnist: .*data\.source=folder; add data\.source=tfds",
        ),
    ],
)
def test_path_and_name_have_to_fit_the_source(fields: dict[str, Any], refusal: str):
    with pytest.raises(ValueError, match=f"^{refusal}"):
        open_splits(DataConfig(**fields), seed=0)


def test_splits_that_disagree_are_refused(tmp_path: Path):
    fill(tmp_path / "extra" / "train", {"a": 2, "b": 2})
    fill(tmp_path / "extra" / "val", {"a": 1, "emu": 1, "yak": 1})
    assert "no class emu, yak" in message(tmp_path / "extra")
    fill(tmp_path / "twice" / "train", {"a": 2, "b": 2})
    fill(tmp_path / "twice" / "val", {"a": 1})
    fill(tmp_path / "twice" / "validation", {"a": 1})
    assert "both val and validation for the validation split; remove" in message(tmp_path / "twice")
    fill(tmp_path / "bare" / "train", {"a": 2, "b": 2})
    (tmp_path / "bare" / "test").mkdir()
    assert "test split contains no images" in message(tmp_path / "bare")
    (tmp_path / "void" / "train").mkdir(parents=True)
    assert "train split contains no images" in message(tmp_path / "void")


def test_array_records_come_back_over_several_shards(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(array_record, "RECORDS_PER_SHARD", 4)
    images = [(png(value, (5, 4)), value % 3) for value in range(10)]
    write_array_records(tmp_path, "train", images, ["x", "y", "z"])
    write_array_records(tmp_path, "val", images[:3], ["x", "y", "z"])
    write_array_records(tmp_path, "test", images[5:], ["x", "y", "z"])
    source = ArrayRecords(tmp_path, "train")
    assert values(source) == list(range(10))
    assert labels(source) == source.labels().tolist() == [value % 3 for value in range(10)]
    assert source.describe(9) == f"{tmp_path / 'train-00002.array_record'}:1"
    splits = open_splits(
        DataConfig(source="arrayrecord", path=str(tmp_path), image_size=8, crop=8), seed=0
    )
    assert (values(splits.validation), values(splits.test)) == ([0, 1, 2], [5, 6, 7, 8, 9])
    assert splits.class_names == ("x", "y", "z")


@pytest.mark.parametrize(("encoding", "tolerance"), [("raw", 0), ("jpeg", 3)])
def test_pixels_are_written_and_read(tmp_path: Path, encoding: Encoding, tolerance: int):
    gray = np.arange(0, 250, 10, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(gray, (25, 16, 16, 3))
    records = [(encode(image, encoding), index % 2) for index, image in enumerate(images)]
    write_array_records(tmp_path, "train", records, ["x", "y"])
    source = ArrayRecords(tmp_path, "train")
    assert labels(source) == [index % 2 for index in range(25)]
    read = np.stack([source[index]["image"] for index in range(25)])
    np.testing.assert_allclose(read.astype(int), images, rtol=0, atol=tolerance)


def test_a_truncated_raw_record_affects_no_other(tmp_path: Path):
    raw = encode(np.zeros((8, 8, 3), np.uint8), "raw")
    write_array_records(tmp_path, "train", [(raw, 0), (raw[:-1], 1), (raw, 1)], ["x", "y"])
    source = ArrayRecords(tmp_path, "train")
    assert source[0]["image"].shape == source[2]["image"].shape == (8, 8, 3)
    with pytest.raises(UnreadableImage, match="damaged: .*truncated"):
        source[1]


def array_records(path: Path, **changes) -> Splits:
    return open_splits(
        DataConfig(source="arrayrecord", path=str(path), image_size=8, crop=8, **changes), seed=0
    )


def test_array_records_are_split_and_refused_as_folders_are(tmp_path: Path):
    with pytest.raises(ValueError, match="has none; write its shards"):
        array_records(tmp_path)
    images = [(png(value), value % 2) for value in range(20)]
    write_array_records(tmp_path, "train", images, ["x", "y"])
    splits = array_records(tmp_path, validation_fraction=0.2)
    assert np.bincount(labels(splits.validation)).tolist() == [2, 2]
    assert sorted(values(splits.train) + values(splits.validation)) == list(range(20))
    (tmp_path / "classes.json").write_text(json.dumps(["x"]))
    with pytest.raises(ValueError, match=r"one class only \(x\)"):
        array_records(tmp_path)
    with pytest.raises(UnreadableImage, match="label 1 .* 1 classes"):
        ArrayRecords(tmp_path, "train")[1]
    (tmp_path / "classes.json").unlink()
    with pytest.raises(ValueError, match=r"classes\.json.* write them again"):
        array_records(tmp_path)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_shards_without_records_are_refused(tmp_path: Path, split: str):
    for name in ("train", "val", "test"):
        write_array_records(tmp_path, name, [(png(1), 0), (png(2), 1)], ["x", "y"])
    ArrayRecordWriter(str(tmp_path / f"{split}-00000.array_record"), "group_size:1").close()
    name = "validation" if split == "val" else split
    with pytest.raises(ValueError, match=f"{name} split contains no images; add"):
        array_records(tmp_path)


def damage(shard: Path, image: bytes) -> None:
    """Overwrite the start of an image in a shard."""
    whole = bytearray(shard.read_bytes())
    start = whole.index(image)
    whole[start : start + 8] = bytes(8)
    shard.write_bytes(whole)


def test_a_damaged_record_affects_no_other(tmp_path: Path):
    write_array_records(tmp_path, "train", [(png(value), value % 2) for value in range(8)], "xy")
    damage(tmp_path / "train-00000.array_record", png(2))
    source = ArrayRecords(tmp_path, "train")
    assert source.labels().tolist() == [0, 1, -1, 1, 0, 1, 0, 1]
    with pytest.raises(UnreadableImage, match="damaged shard: "):
        source[2]
    splits = array_records(tmp_path)
    assert sorted([*unreadable(splits.train), *unreadable(splits.validation)]) == [2]


def unreadable(source: Source) -> list[int]:
    """The numbers in their files of the records that cannot be read."""
    found = find_unreadable(source, "train", threads=1, progress=False)
    return [int(source.describe(index).rsplit(":", 1)[1]) for index in found]


CLASSES = tfds.features.ClassLabel(names=["even", "odd"])


def tiny_tfds(
    data_dir: Path,
    test_label: int | None = None,
    label_feature: Any = CLASSES,
    others: dict[str, tuple[Any, Any]] | None = None,
) -> Path:
    """Prepare a TFDS data set of 8 + 4 encoded images, without TensorFlow; return its folder.

    `others` holds further features, each with the value that it has in every record.
    """
    others = others or {}
    with tfds.core.registered.skip_registration():

        class TinyGrays(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": label_feature,
                    **{name: feature for name, (feature, _) in others.items()},
                }
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, _):
                return {"train": self._examples(8), "test": self._examples(4, test_label)}

            def _generate_examples(self):
                raise NotImplementedError

            def _examples(self, number: int, label: int | None = None):
                for value in range(number):
                    yield (
                        value,
                        {
                            "image": io.BytesIO(png(value)),
                            "label": value % 2 if label is None else label,
                            **{name: made for name, (_, made) in others.items()},
                        },
                    )

        TinyGrays(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir / "tiny_grays" / "1.0.0"


def tfds_config(data_dir: Path, name: str = "tiny_grays") -> DataConfig:
    return DataConfig(source="tfds", name=name, path=str(data_dir), image_size=8, crop=8)


def test_prepared_tfds_data_are_read_without_tensorflow(tmp_path: Path):
    tiny_tfds(tmp_path)
    splits = open_splits(tfds_config(tmp_path), seed=0)
    assert splits.class_names == ("even", "odd")
    assert sorted(values(splits.train) + values(splits.validation)) == list(range(8))
    assert np.bincount(labels(splits.validation)).tolist() == [1, 1]
    for source in (splits.train, splits.validation, splits.test):
        assert source is not None
        assert labels(source) == [value % 2 for value in values(source)]
    assert splits.test is not None
    assert splits.test.describe(3) == "tiny_grays/1.0.0:test:3"


def test_a_tfds_test_split_without_labels_is_not_used(tmp_path: Path):
    tiny_tfds(tmp_path, test_label=-1)
    splits = open_splits(tfds_config(tmp_path), seed=0)
    assert splits.test is None
    assert splits.notes[1].startswith("TFDS tiny_grays/1.0.0: ignored its test split")


def test_of_tfds_records_image_and_label_alone_are_decoded(tmp_path: Path):
    image = tfds.features.Image()
    others = {
        "mask": (image, b"no image"),
        "views": (tfds.features.Sequence({"image": image}), [{"image": b"none either"}]),
    }
    tiny_tfds(tmp_path, others=others)
    splits = open_splits(tfds_config(tmp_path), seed=0)
    assert sorted(values(splits.test)) == list(range(4))


@pytest.mark.parametrize("index", [0, 1])  # the first tells whether the split has labels
def test_a_damaged_tfds_record_affects_no_other(tmp_path: Path, index: int):
    shard = tiny_tfds(tmp_path) / "tiny_grays-test.array_record-00000-of-00001"
    source = open_splits(tfds_config(tmp_path), seed=0).test
    assert source is not None
    expected = labels(source)
    damage(shard, png(values(source)[index]))
    damaged = open_splits(tfds_config(tmp_path), seed=0).test
    assert damaged is not None
    assert unreadable(damaged) == [index]
    with pytest.raises(UnreadableImage, match="damaged shard: "):
        damaged[index]
    expected[index] = -1
    assert Tfds(open_tfds("tiny_grays", str(tmp_path)), "test").labels().tolist() == expected


def test_tfds_labels_that_are_no_classes_are_refused(tmp_path: Path):
    tiny_tfds(tmp_path, label_feature=tfds.features.Scalar(np.int64))
    with pytest.raises(ValueError, match="'label': Scalar.* label a ClassLabel: use a data set"):
        open_splits(tfds_config(tmp_path), seed=0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_tfds_split_without_records_is_refused(tmp_path: Path, split: str):
    info = tiny_tfds(tmp_path) / "dataset_info.json"
    content = json.loads(info.read_text())
    next(s for s in content["splits"] if s["name"] == split)["shardLengths"] = ["0"]
    info.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{split} split contains no images; add"):
        open_splits(tfds_config(tmp_path), seed=0)


@pytest.mark.parametrize("name", ["no_such_data", "mnist", "tiny_grays:9.0.0"])
def test_tfds_data_that_are_not_prepared_are_refused(tmp_path: Path, name: str):
    tiny_tfds(tmp_path)
    with pytest.raises(ValueError, match=rf"^TFDS {name}: .*; prepare it .*data\.path\.$"):
        open_splits(tfds_config(tmp_path, name), seed=0)


def test_tfds_that_cannot_be_imported_is_refused(tmp_path: Path, monkeypatch):
    tiny_tfds(tmp_path)
    monkeypatch.delattr(tfds, "core")
    with pytest.raises(ValueError, match=r"^data\.source tfds: .*; .* tensorflow-metadata==.*\.$"):
        open_splits(tfds_config(tmp_path), seed=0)


def test_tfds_data_in_another_format_are_refused(tmp_path: Path):
    tiny_tfds(tmp_path)
    info = tmp_path / "tiny_grays" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for path in info.parent.glob("*array_record*"):
        path.rename(str(path).replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="TFRECORD.*; prepare it with file_format="):
        open_splits(tfds_config(tmp_path), seed=0)


def test_the_synthetic_data_set_is_opened_at_its_own_size_and_at_others():
    splits = open_splits(DataConfig(image_size=72, crop=64), seed=0)
    assert [len(source) for source in (splits.train, splits.validation)] == [4000, 1000]
    assert splits.test is not None
    assert splits.train[5]["image"].shape == (72, 72, 3)
    small = open_splits(DataConfig(image_size=24, crop=24), seed=0)
    assert small.train[5]["image"].shape == (24, 24, 3)
    assert small.train[5]["label"] == splits.train[5]["label"]


class Counted:
    """Three gray images of 6 x 4; counts how often each is read, and fails at the second."""

    class_names = ("a", "b")

    def __init__(self):
        self.reads = [0, 0, 0]

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int):
        self.reads[index] += 1
        if index == 1:
            raise UnreadableImage("torn")
        return {"image": np.full((4, 6, 3), 10 * index, np.uint8), "label": index % 2}

    def describe(self, index: int) -> str:
        return f"file {index}"

    def fingerprint(self) -> str:
        return "counted"


def test_cached_records_are_read_once_and_cannot_be_changed():
    counted = Counted()
    cached = Cached(Resized(counted, DataConfig(image_size=4, crop=4)), 4)
    for _ in range(3):
        assert (cached[2]["image"] == 20).all()
        with pytest.raises(UnreadableImage):
            cached[1]
    assert counted.reads == [0, 3, 1]
    with pytest.raises(ValueError, match="read-only"):
        cached[2]["image"][0] = 1


def unmonitored(source: Source | None) -> Source:
    assert isinstance(source, Monitored)
    return source.source


def test_splits_are_cached_if_they_fit(tmp_path: Path):
    fill(tmp_path / "train", {"a": 40, "b": 40})
    fill(tmp_path / "val", {"a": 1, "b": 1})
    few = 10 * 8 * 8 * 3 / 2**30  # GiB of ten images
    splits = open_splits(config(tmp_path, cache_gib=few), seed=0)
    assert isinstance(unmonitored(splits.train), Resized)
    assert isinstance(unmonitored(splits.validation), Cached)
    assert values(splits.train) == list(range(80))


def test_the_cache_is_shared_by_all_splits(tmp_path: Path):
    for split, images in (("train", 6), ("val", 5), ("test", 4)):
        fill(tmp_path / split, {"a": images // 2, "b": images - images // 2})
    ten = 10 * 8 * 8 * 3 / 2**30  # GiB: train and test, each split alone, but not all three
    splits = open_splits(config(tmp_path, cache_gib=ten), seed=0)
    sources = (splits.train, splits.validation, splits.test)
    assert [isinstance(unmonitored(source), Cached) for source in sources] == [True, False, True]


def rename(root: Path) -> None:
    (root / "a" / "00.JPEG").rename(root / "a" / "0.JPEG")


def add(root: Path) -> None:
    shutil.copy(root / "a" / "00.JPEG", root / "a" / "99.JPEG")


def remove(root: Path) -> None:
    (root / "b" / "03.JPEG").unlink()


def move(root: Path) -> None:
    (root / "a" / "09.JPEG").rename(root / "b" / "09.JPEG")


def rename_class(root: Path) -> None:
    (root / "b").rename(root / "c")


@pytest.mark.parametrize("change", [rename, add, remove, move, rename_class])
def test_the_fingerprint_of_a_folder_changes_with_its_files(
    tmp_path: Path, change: Callable[[Path], None]
):
    fill(tmp_path, {"a": 10, "b": 4})
    before = Folder(tmp_path).fingerprint()
    old = open_splits(config(tmp_path), seed=0)
    change(tmp_path)
    assert Folder(tmp_path).fingerprint() != before
    new = open_splits(config(tmp_path), seed=0)
    assert new.train.fingerprint() != old.train.fingerprint()
    assert new.validation.fingerprint() != old.validation.fingerprint()


def test_the_fingerprint_of_a_folder_does_not_depend_on_its_location_or_file_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = Folder(fill(tmp_path / "here", {"a": 2, "b": 1})).fingerprint()
    there = tmp_path / "there" / "deeper"
    there.parent.mkdir()
    (tmp_path / "here").rename(there)
    (there / "b" / "00.JPEG").write_bytes(b"")
    assert len(before) == 16
    assert int(before, 16) >= 0
    assert Folder(there).fingerprint() == before
    for place, root in ((there, "."), (there.parent, "deeper"), (there / "a", "..")):
        monkeypatch.chdir(place)
        assert Folder(Path(root)).fingerprint() == before
    assert Folder(there, ["a", "b", "c"]).fingerprint() != before


def test_the_fingerprint_of_a_split_depends_on_its_members_alone(tmp_path: Path):
    fill(tmp_path, {"a": 10, "b": 10})
    cached, plain, other = (
        open_splits(config(tmp_path, cache_gib=gib), seed=seed)
        for gib, seed in ((1, 0), (0, 0), (1, 1))
    )
    assert isinstance(unmonitored(cached.train), Cached)
    assert isinstance(unmonitored(plain.train), Resized)
    assert cached.train.fingerprint() == plain.train.fingerprint()
    different = {s.fingerprint() for s in (cached.train, cached.validation, other.train)}
    assert len(different) == 3


def test_the_fingerprint_of_shards_follows_names_counts_and_classes(tmp_path: Path):
    def write(name: str, number: int = 4, classes: str = "xy", split: str = "train") -> str:
        images = [(png(value), value % 2) for value in range(number)]
        write_array_records(tmp_path / name, split, images, classes)
        return ArrayRecords(tmp_path / name, split).fingerprint()

    before = write("one")
    assert write("two") == before
    path = tmp_path / "two" / "train-00000.array_record"
    path.rename(path.with_name("train-00001.array_record"))
    renamed = ArrayRecords(tmp_path / "two", "train").fingerprint()
    others = {renamed, write("three", 5), write("four", classes="xz"), write("one", split="val")}
    assert len(others - {before}) == 4


def test_the_fingerprint_of_tfds_data_does_not_depend_on_its_location(tmp_path: Path):
    tiny_tfds(tmp_path / "here")
    before = open_splits(tfds_config(tmp_path / "here"), seed=0)
    (tmp_path / "here").rename(tmp_path / "there")
    after = open_splits(tfds_config(tmp_path / "there"), seed=0)
    assert before.test is not None
    assert after.test is not None
    assert after.train.fingerprint() == before.train.fingerprint()
    assert after.test.fingerprint() == before.test.fingerprint() != before.train.fingerprint()
    # Fewer records, other classes, another version: each is seen.
    folder = tmp_path / "there" / "tiny_grays" / "1.0.0"
    info, classes = folder / "dataset_info.json", folder / "label.labels.txt"
    seen = [after.test.fingerprint()]
    for file, old, new in (
        (info, '"4"', '"3"'),
        (classes, "odd", "uneven"),
        (info, ".0.0", ".0.1"),
    ):
        file.write_text(file.read_text().replace(old, new))
        if new == ".0.1":
            folder.rename(folder.with_name("1.0.1"))
        changed = open_splits(tfds_config(tmp_path / "there"), seed=0).test
        assert changed is not None
        seen.append(changed.fingerprint())
    assert len(set(seen)) == 4


def test_the_fingerprint_of_the_synthetic_data_set_is_its_seed_and_split(monkeypatch):
    before = [Synthetic(split).fingerprint() for split in ("train", "validation", "test")]
    assert len(set(before)) == 3
    assert (
        Resized(Synthetic("train"), DataConfig(image_size=24, crop=24)).fingerprint() == before[0]
    )
    monkeypatch.setattr(synthetic, "SEED", 2013)
    assert Synthetic("train").fingerprint() not in before


def test_subsets_keep_number_and_name_of_their_records():
    source = Counted()
    assert without(source, {}) is source
    left = without(source, {1: "torn"})
    assert isinstance(left, Subset)
    assert left.indices.tolist() == [0, 2]
    assert [left.describe(index) for index in range(len(left))] == ["file 0", "file 2"]
    assert left[1]["image"][0, 0, 0] == 20
