"""The experiments on Caltech-101: tiny runs of each, and their arithmetic on small records."""

import importlib
import json
import math
import re
from pathlib import Path

import pytest

from alexnet_jax.config import Config, flatten

pytestmark = pytest.mark.usefixtures("quick_compilation")

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "claims"
RECORDS = EXPERIMENTS.parent / "records"
CURVES = ("two_towers_vs_half", "depth", "dropout", "crops_and_mirrors", "lighting")
OTHERS = ("paper_vs_source2012", "ensemble_of_seeds", "towers_specialize")
LN_101 = math.log(101)


@pytest.fixture
def experiment(monkeypatch):
    """Return a function that imports an experiment, whose siblings are on sys.path."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Return one folder for all experiments, which share the runs of the baseline."""
    return tmp_path_factory.mktemp("claims")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OTHERS, *CURVES])
def test_it_runs(name, experiment, photos, workdir, capsys):
    module, caltech_baseline = experiment(name), experiment("caltech_baseline")
    seeds = (0, 1) if name == "ensemble_of_seeds" else (0,)
    args = caltech_baseline.Arguments(workdir, photos, seeds, smoke=True)
    module.main(args)
    printed = capsys.readouterr().out
    assert "| --- |" in printed
    assert (workdir / "smoke" / f"{name}.png").stat().st_size > 10_000
    record = args.record.read_text()
    for setting in list(module.SETTINGS)[:2]:
        assert caltech_baseline.runs(args.record, setting), setting
    # Again, and without seeds: the same tables from the record, and nothing is trained.
    for again in (seeds, ()):
        module.main(caltech_baseline.Arguments(workdir, photos, again, smoke=True))
        out = capsys.readouterr().out
        assert "| --- |" in out
        assert all(paragraph in printed for paragraph in out.split("\n\n"))
        assert f": {workdir}" not in out  # "SETTING, seed 0: FOLDER"
    assert args.record.read_text() == record


def test_a_record_of_other_settings_is_rejected_before_training(experiment, photos, tmp_path):
    caltech_baseline, record = experiment("caltech_baseline"), experiment("record")
    args = caltech_baseline.Arguments(tmp_path, photos, (0, 1))
    settings = {
        "a": caltech_baseline.setting(),
        "b": caltech_baseline.setting({"data.horizontal_flip": False}),
    }
    line = {"what": "run", "setting": "b", "seed": 1, "settings": {"schedule.epochs": 3}}
    record.append(args.record, line)
    with pytest.raises(ValueError, match=r"setting b, seed 1\).*schedule\.epochs 3, not 40"):
        caltech_baseline.train(settings, args)
    assert [path.name for path in tmp_path.iterdir()] == [record.NAME]


def test_diverged_runs_are_listed_and_excluded_from_means(experiment, tmp_path, capsys):
    caltech_baseline, record = experiment("caltech_baseline"), experiment("record")
    path = tmp_path / record.NAME
    key = {"what": "run", "setting": "a"}
    seen = {"train": {"loss": [1.5]}, "validation": {"top1_error": [0.5], "top5_error": [0.25]}}
    record.append(path, {**key, "seed": 1, "diverged": "the loss is nan"})
    record.append(path, {**key, "seed": 0, **seen})
    assert [run["seed"] for run in caltech_baseline.runs(path, "a")] == [0]
    caltech_baseline.print_table(caltech_baseline.table(["a"], path), path)
    printed = capsys.readouterr().out
    assert "| a | 1.50 | 50.00 | 50.00 | 25.00 |  |" in printed
    assert "Diverged: a, seed 1: the loss is nan" in printed


@pytest.mark.parametrize(
    ("seeds", "message"),
    [((0, 1, 0), "0: .*; give each seed once"), ((-1,), "-1: .* at least 0 .*; try 0")],
)
def test_invalid_seeds_are_rejected(seeds, message, experiment, tmp_path):
    with pytest.raises(ValueError, match=f"seeds {message}"):
        experiment("experiment").Arguments(tmp_path, seeds=seeds)


def recorded_runs():
    """Return the lines of runs in the committed record."""
    lines = (RECORDS / "caltech.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["what"] == "run"]


def test_committed_records_name_fields_of_the_config():
    fields = flatten(Config())
    runs = recorded_runs()
    assert runs
    for run in runs:
        assert run["settings"].keys() <= fields.keys()


def test_committed_runs_have_the_settings_of_the_experiments(experiment):
    baseline, record = experiment("caltech_baseline"), experiment("record")
    settings = dict(experiment("dropout").AT_BEST_RATES)
    for name in (*CURVES, *OTHERS):
        settings |= experiment(name).SETTINGS
    for run in recorded_runs():
        fields = baseline.changed_fields(settings[run["setting"]])
        key = {"what": "run", "setting": run["setting"], "seed": run["seed"]}
        assert record.has(RECORDS / "caltech.jsonl", fields, **key)


def changed(config, other):
    """Return the fields in which two configurations differ."""
    other = flatten(other)
    return {name for name, value in flatten(config).items() if value != other[name]}


@pytest.mark.parametrize("name", [*CURVES, *OTHERS[1:]])
def test_all_settings_have_the_same_budget(name, experiment):
    module, caltech_baseline = experiment(name), experiment("caltech_baseline")
    settings = list(module.SETTINGS.items())
    assert settings[0] == (caltech_baseline.NAME, caltech_baseline.setting())
    for setting, config in settings[1:]:
        differs = changed(config, caltech_baseline.setting())
        assert differs, setting
        assert not {field for field in differs if field.startswith(("optimizer", "schedule"))}


def test_one_difference_at_a_time(experiment):
    module = experiment("paper_vs_source2012")
    paper, code = module.SETTINGS["paper"], module.SETTINGS["source2012"]
    assert (paper.model.conv345_init_std, code.model.conv345_init_std) == (0.01, 0.03)
    assert paper.schedule.epochs == code.schedule.epochs == module.EPOCHS
    for name, field in module.DIFFERENCES.items():
        assert changed(module.FROM_PAPER[f"paper, {name}"], paper) == {field}
        assert changed(module.FROM_CODE[f"source2012 without {name}"], code) == {field}
        assert changed(module.FROM_PAPER["paper, all four"], code).isdisjoint({field})


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([4.8, 4.7, 4.62], None),
        ([4.8, LN_101 - 0.1, 4.0], 2),
        ([4.6, LN_101 - 0.1 + 0.3, LN_101 - 0.1 - 0.1], 2.75),  # three quarters of the way
        ([4.0, 3.9, 3.8], 1),
    ],
)
def test_when_a_run_has_left(losses, expected, experiment):
    run = {"classes": 101, "train": {"epoch": [1, 2, 3], "loss": losses}}
    left = experiment("paper_vs_source2012").left_after(run)
    assert left == (None if expected is None else pytest.approx(expected))


def line(setting, seed, loss, top1):
    """Return a finished run of two epochs."""
    return {
        "what": "run",
        "setting": setting,
        "seed": seed,
        "classes": 101,
        "train": {"epoch": [1, 2], "loss": [4.7, loss], "top1_error": [0.99, 0.98]},
        "validation": {
            "epoch": [2],
            "loss": [4.0],
            "top1_error": [top1],
            "top5_error": [top1 / 2],
        },
    }


def test_the_table_compares_seed_by_seed(experiment, tmp_path):
    record, caltech_baseline = experiment("record"), experiment("caltech_baseline")
    path = tmp_path / "record.jsonl"
    # Seeds differ by 20 points, settings always by 1: only paired differences resolve that.
    for seed, top1 in enumerate((0.4, 0.5, 0.6)):
        record.append(path, line("a", seed, 3.0, top1))
        record.append(path, line("b", seed, 2.0, top1 + 0.01))
    table = caltech_baseline.table(["a", "b", "not run"], path)
    a = "| a | 3.00 ± 0.00 | 50.00 ± 24.84 | 40.00, 50.00, 60.00 | 25.00 ± 12.42 |  |"
    assert a in table
    assert "| +1.00 (+1.00 to +1.00) |" in table
    assert "not run" not in table


def test_a_report_needs_a_run_beside_the_baseline(experiment, tmp_path):
    record, caltech_baseline = experiment("record"), experiment("caltech_baseline")
    path = tmp_path / "record.jsonl"
    record.append(path, line("a", 0, 3.0, 0.5))
    with pytest.raises(record.NoRuns, match="no run of b, c; run at least one seed"):
        caltech_baseline.report(["a", "b", "c"], path)
    record.append(path, line("c", 0, 3.0, 0.5))
    assert caltech_baseline.report(["a", "b", "c"], path) == caltech_baseline.table("ac", path)


def test_each_setting_is_compared_with_both_presets(experiment, tmp_path):
    record, module = experiment("record"), experiment("paper_vs_source2012")
    path = tmp_path / "record.jsonl"
    losses = {"paper": 4.6, "paper, 0.03 in conv3-5": 4.0, "source2012": 3.9}
    for seed in (0, 1):
        for name, loss in {**losses, "source2012 without spatial norm": 4.1}.items():
            record.append(path, line(name, seed, loss, 0.9))
    paper, std, code, without = module.table(path).splitlines()[2:]
    assert paper == "| paper | -, - | 4.60 ± 0.00 |  | +0.70 (+0.70 to +0.70) | 90.00 ± 0.00 |"
    assert "| 1.3, 1.3 | 4.00 ± 0.00 | -0.60 (-0.60 to -0.60) | +0.10 (+0.10 to +0.10) |" in std
    assert "| 1.2, 1.2 | 3.90 ± 0.00 | -0.70 (-0.70 to -0.70) |  |" in code
    assert "| 4.10 ± 0.00 | -0.50 (-0.50 to -0.50) | +0.20 (+0.20 to +0.20) |" in without


def test_sets_of_networks(experiment, tmp_path):
    record, module = experiment("record"), experiment("ensemble_of_seeds")
    path = tmp_path / "record.jsonl"
    scores = {"loss": 2.0, "top1_error": 0.6, "top5_error": 0.4}
    gained = {"top1_error_gained": [-0.05, 0.01, 1692], "top5_error_gained": [-0.01, 0.02, 1692]}
    for number in (0, 1):
        record.append(path, {"what": "average", "seeds": [number], **scores})
    better = scores | {"top1_error": 0.55}
    record.append(path, {"what": "average", "seeds": [0, 1], **better, **gained})
    record.append(path, {"what": "average", "seeds": [0], **scores})  # a duplicate counts once
    assert "| 1 | 2 | 60.00 (60.00 to 60.00) |" in module.table(path)
    assert "| 2 | 1 | 55.00 | 40.00 | 2.00 |" in module.table(path)
    first, second = module.gains(path)
    assert "-5.00, 95 % interval -6.00 to -4.00 (over 1,692 images)" in first
    assert "not resolved" in second


def test_tower_differences_over_seeds(experiment, tmp_path):
    record, module = experiment("record"), experiment("towers_specialize")
    path = tmp_path / "record.jsonl"
    for name, apart in zip(module.SETTINGS, (0.3, 0.1), strict=True):
        for seed, sign in enumerate((1, -1)):  # the color is in tower 0, then in tower 1
            color, form = 0.5 + sign * apart / 2, 0.5 - sign * apart / 2
            measures = {
                measure: {
                    "towers": [value, 1 - value],
                    "difference": apart + 0.02 * seed,
                    "p_value": 0.001,
                    "differs": apart > 0.2,
                    "noise": 0.6,
                }
                for measure, value in (("color", color), ("orientation", form))
            }
            key = {"what": "towers", "setting": name, "seed": seed}
            record.append(path, {**key, **measures})
    summary = "\n".join(module.summary(path))
    assert re.search(r"color, caltech_baseline: .*0\.31 ± 0\.13; .* in 2 of 2 runs", summary)
    assert re.search(rf"color, {module.CONTROL}: .*0\.11 ± 0\.13; .* in 0 of 2 runs", summary)
    assert re.search(r"color: .*control: \+0\.20", summary)
    assert "less orientation in 2 of 2 runs; it is tower 0 in 1" in summary
