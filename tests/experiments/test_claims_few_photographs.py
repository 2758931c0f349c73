"""The experiment on few photographs: its parts, its record, and a tiny run of it."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.config import Config, flatten
from alexnet_jax.data.splits import stratify
from alexnet_jax.presets import FITTED, fit_to_images

pytestmark = pytest.mark.usefixtures("quick_compilation")

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "claims"
SCHEDULE = ("schedule.epochs", "schedule.milestones")
RECORD = EXPERIMENTS.parent / "records" / "few_photographs.jsonl"


@pytest.fixture
def few(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("few_photographs")


def recorded():
    return [json.loads(line) for line in RECORD.read_text().splitlines()]


def listed(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*.png"))


def test_parts_are_drawn_by_the_seeded_rule_and_share_no_class_with_the_others(
    few, photos, tmp_path
):
    part = few.Part("a", classes=2, photographs=4)
    first = part.link(photos, tmp_path)
    assert len(listed(first / "train")) == 8
    assert len(listed(first / "test")) == 6  # all of the two classes
    for path in first.rglob("*.png"):
        assert path.read_bytes() == (photos / path.relative_to(first)).read_bytes()
    assert listed(part.link(photos, tmp_path / "again")) == listed(first)
    assert listed(part.link(photos, tmp_path)) == listed(first)  # a second call adds nothing
    more = few.Part("b", classes=2, photographs=9).link(photos, tmp_path)
    assert {*listed(first)} < {*listed(more)}
    rest = few.Part("c", classes=1, photographs=4, first=2).link(photos, tmp_path)
    classes = [{path.name for path in (folder / "train").iterdir()} for folder in (first, rest)]
    assert classes[0] | classes[1] == {"amber", "beige", "coral"}
    assert not classes[0] & classes[1]


def test_what_is_tuned_starts_from_other_classes(few):
    others = few.PARTS[few.SETTINGS[few.ORIGIN].part]
    for setting in few.SETTINGS.values():
        if setting.tuned:
            part = few.PARTS[setting.part]
            assert part.first + part.classes <= others.first
    assert others.first + others.classes == 101
    for name in ("150", "180", "360", "1000", "3030"):
        assert few.PARTS[name].classes * few.PARTS[name].photographs == int(name)


def test_committed_runs_have_the_settings_of_the_experiment(few):
    runs, fields = recorded(), flatten(Config())
    assert runs
    for run in runs:
        setting = few.SETTINGS[run["setting"]]
        part = few.PARTS[setting.part]
        assert run["classes"] == part.classes
        assert run["settings"].keys() <= fields.keys()
        if setting.config.preset not in FITTED:
            continue
        labels = np.repeat(np.arange(part.classes), part.photographs)
        kept, _ = stratify(labels, Config().data.validation_fraction, run["seed"])
        config = fit_to_images(setting.config, len(kept), setting.given)
        expected = flatten(config)
        sizes = () if setting.tuned else ("data.image_size", "data.crop", "model.width")
        for name in (*sizes, "optimizer.batch_size", *SCHEDULE):
            assert run["settings"].get(name, fields[name]) == expected[name], run["setting"]
        assert run["epochs"] == config.schedule.epochs


def test_the_table_is_made_from_the_record(few, tmp_path):
    path = tmp_path / "record.jsonl"
    for seed, error in enumerate((0.5, 0.6)):
        line = {"what": "run", "setting": "small, 150", "seed": seed, "classes": 10, "steps": 1504}
        line |= {"seconds": 60, "test": {"top1_error": error, "count": 155}}
        few.record.append(path, line)
    (row,) = few.table(path).splitlines()[2:]
    assert row == "| small, 150 | 10 | 155 | 1504 | 55.00 ± 63.53 | 50.0, 60.0 | 1.0 |"


@pytest.mark.slow
def test_it_runs(few, photos, tmp_path, monkeypatch, capsys):
    for name, first, classes in (("150", 0, 2), ("180", 0, 2), ("others", 1, 2)):
        monkeypatch.setitem(few.PARTS, name, few.Part(name, classes, 9, first))
    args = few.experiment.Arguments(tmp_path, photos, (0,), smoke=True)
    few.main(args)
    printed = capsys.readouterr().out
    assert "| finetune, 180 | 2 |" in printed
    record = args.record.read_text()
    few.main(args)  # nothing is trained again
    assert args.record.read_text() == record
