"""The record of finished runs, against small files and hand calculations."""

import math
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "claims"))

import record


def test_appended_lines_are_finished_runs(tmp_path):
    path = tmp_path / "runs" / record.NAME
    assert record.finished(path) == []
    record.append(path, {"setting": "a", "seed": 0})
    record.append(path, {"setting": "a", "seed": 1, "errors": [0.5]})
    assert record.finished(path, setting="a", seed=1) == [
        {"setting": "a", "seed": 1, "errors": [0.5]}
    ]
    assert record.finished(path, setting="b") == []
    assert record.finished(path, other=None) == []


def test_a_partial_last_line_is_skipped_and_overwritten(tmp_path):
    path = tmp_path / record.NAME
    path.write_text('{"seed": 0}\n{"see')
    assert record.finished(path) == [{"seed": 0}]
    record.append(path, {"seed": 1})
    assert path.read_text() == '{"seed": 0}\n{"seed": 1}\n'


def test_invalid_json_is_rejected(tmp_path):
    path = tmp_path / record.NAME
    path.write_text('{"seed": 0}\nseed 1\n')
    with pytest.raises(ValueError, match=r"record\.jsonl:2: .*JSON"):
        record.finished(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.append(path, {"error": math.nan})
    assert path.read_text() == '{"seed": 0}\nseed 1\n'


def test_a_line_that_is_no_object_is_rejected(tmp_path):
    path = tmp_path / record.NAME
    path.write_text("5\n")
    with pytest.raises(ValueError, match=r"record\.jsonl:1: .*JSON object"):
        record.finished(path)


def test_a_run_with_other_settings_is_not_mistaken_for_this_one(tmp_path):
    path = tmp_path / record.NAME
    settings = {"learning_rate": 0.1, "milestones": (1, 2)}
    record.append(path, {"setting": "a", "seed": 0, "settings": settings})
    assert record.has(path, settings, setting="a", seed=0)
    assert not record.has(path, {"learning_rate": 0.2}, setting="a", seed=1)
    for other, difference in (
        (settings | {"learning_rate": 0.2}, r"learning_rate 0\.1, not 0\.2"),
        (settings | {"width": 1}, "width None, not 1"),
        ({"learning_rate": 0.1}, r"milestones \[1, 2\], not None"),
    ):
        with pytest.raises(ValueError, match=rf"\(setting a, seed 0\).*\({difference}\)"):
            record.has(path, other, setting="a", seed=0)


def test_an_interval_by_hand():
    # For 1, 2, 3: deviation 1; t with two degrees of freedom at 0.975 is 4.3027.
    estimate = record.estimate([1, 2, 3])
    assert estimate[:2] == (2, 1)
    assert estimate.half_width == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert not estimate.resolved
    assert str(estimate) == "2.00 ± 2.48"


def test_one_seed_has_no_interval():
    estimate = record.estimate([2.5])
    assert str(estimate) == "2.50"
    assert not estimate.resolved
    assert record.verdict(estimate) == "+2.50 (one seed: no interval)"
    with pytest.raises(ValueError, match="at least one seed"):
        record.estimate([])


def test_differences_are_paired_by_seed():
    without, with_ = {0: 10.0, 1: 20.0, 2: 30.0, 7: 0.0}, {2: 29.0, 1: 18.9, 0: 9.1}
    difference = record.paired(without, with_)
    assert difference.mean == pytest.approx(-1)
    assert difference.number == 3
    assert record.verdict(difference) == "-1.00, 95 % interval -1.25 to -0.75"
    assert record.verdict(record.estimate([-1, 1])).endswith("not resolved at this scale")


def test_a_difference_in_a_cell():
    assert record.interval(record.estimate([1, 2, 3]), "points", 1) == (
        "+2.0 points (-0.5 to +4.5), not resolved"
    )
    assert record.interval(record.estimate([-1.0, -1.0])) == "-1.00 (-1.00 to -1.00)"
    assert record.interval(record.estimate([2.5])) == "+2.50 (one seed)"


def test_a_table():
    with pytest.raises(ValueError, match="no finished run.*--seeds"):
        record.table(["a", "b"], [])
    assert record.table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
