"""Folders that are no classes: the parts of a data set, and the folders of runs."""

import pytest

from alexnet_jax.config import DataConfig
from alexnet_jax.data.folders import list_images
from alexnet_jax.data.layout import open_class_folders, open_folders
from alexnet_jax.data.splits import open_splits
from alexnet_jax.main import main
from tests.data.test_folders import make

pytestmark = pytest.mark.usefixtures("quick_compilation")

CATS = {"cat": 3, "dog": 3}
RUN = {"config.json": "{}", "checkpoints": {"0": {"state": {"x": "y"}}}, "figures": 2}
RUN |= {"metrics.jsonl": "", "summary.json": "{}"}


@pytest.mark.parametrize(
    "names",
    [
        ("part1", "part2"),
        ("Part_A", "Part_B", "Part_C"),
        ("batch-01", "batch-02"),
        ("images_set1", "images_set2"),
        ("archive", "archive (1)"),
        ("datasetA", "datasetB"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(tmp_path, names):
    classes = iter(("cat", "dog", "owl"))
    root = make(tmp_path / "data", {name: {next(classes): 3} for name in names})
    with pytest.raises(ValueError, match=rf"^data\.path {root}: .*cat, dog.*; move the class") as e:
        open_folders(root)
    assert all(name in str(e.value) for name in names)


@pytest.mark.parametrize(
    "tree",
    [
        {"part1": 3, "part2": 3},  # images in them: classes
        {"part1": {"take": 3}, "cat": {"take": 3}},
        {"engine part": {"a": 3}, "body part": {"b": 3}},
        {"1": {"a": 3}, "2": {"b": 3}},
        {"alice": {"cat": 3}, "bob": {"dog": 3}},
    ],
)
def test_other_folders_of_folders_are_classes(tmp_path, tree):
    opened = open_folders(make(tmp_path / "data", tree))
    assert opened.splits["train"].class_names == tuple(sorted(tree))


@pytest.mark.parametrize(
    "tree",
    [{**CATS, "run": RUN}, {**CATS, "runs": {"a": RUN, "b": RUN}}, {"train": {**CATS, "r": RUN}}],
)
def test_runs_among_the_images_are_passed_over(tmp_path, tree):
    root = make(tmp_path / "data", tree)
    opened = open_folders(root)
    assert opened.splits["train"].class_names == ("cat", "dog")
    assert len(opened.splits["train"]) == 6
    (note,) = [note for note in opened.notes if "folders of runs" in note]
    assert "1 (r" in note


def test_runs_beside_splits_and_in_other_commands(tmp_path):
    root = make(tmp_path / "data", {"train": CATS, "test": CATS, "run": RUN})
    opened = open_folders(root)
    assert {*opened.splits} == {"train", "test"}
    assert any("folders of runs: 1 (run)" in note for note in opened.notes)
    listing = list_images(make(tmp_path / "more", {**CATS, "run": RUN}))
    assert len(listing.files) == 6
    assert any("folders of runs" in note for note in listing.notes)
    source = open_class_folders(tmp_path / "more", ("cat", "dog"), "images")
    assert len(source) == 6


def test_a_class_of_some_runs_and_images_is_one(tmp_path):
    root = make(tmp_path / "data", {"a": {"run": RUN, "photos": 2}, "b": 2})
    opened = open_folders(root)
    assert opened.splits["train"].class_names == ("a", "b")
    assert len(opened.splits["train"]) == 4


def test_a_run_inside_its_own_images_resumes(tmp_path, capsys):
    root = make(tmp_path / "data", {"cat": 5, "dog": 5})
    arguments = [
        "--workdir",
        str(root / "runs" / "a"),
        "--preset",
        "photos",
        "--data.path",
        str(root),
    ]
    arguments += ["--data.image-size", "40", "--data.crop", "36", "--model.width", "0.02"]
    arguments += ["--optimizer.batch-size", "4", "--mesh.towers", "1", "--mesh.data", "1"]
    arguments += ["--log.figures", "False"]
    assert main([*arguments, "--schedule.epochs", "1"]) == 0
    assert main(["--workdir", str(root / "runs" / "a"), "--schedule.epochs", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Resumed after step 2" in printed
    assert "2 classes (cat, dog)" in printed


@pytest.mark.parametrize(
    ("images", "fraction", "number"), [(5, 0.1, 4), (2, 0.1, 4), (14, 0.1, 4), (3, 0.5, 8)]
)
def test_what_is_held_out_is_said_where_it_is_not_the_fraction(tmp_path, images, fraction, number):
    root = make(tmp_path / "data", dict.fromkeys("abcd", images))
    splits = open_splits(
        DataConfig(
            source="folder", path=str(root), image_size=8, crop=8, validation_fraction=fraction
        ),
        0,
    )
    assert len(splits.validation) == number
    (note,) = [note for note in splits.notes if "held out" in note]
    assert f": {number} images, which are {number / (4 * images):.0%}" in note


def test_nothing_is_said_where_the_fraction_is_kept(tmp_path):
    root = make(tmp_path / "data", {"a": 10, "b": 20})
    config = DataConfig(source="folder", path=str(root), image_size=8, crop=8)
    (note,) = [note for note in open_splits(config, 0).notes if "held out" in note]
    assert note.endswith("is held out for validation.")
