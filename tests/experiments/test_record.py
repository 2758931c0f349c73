"""The record of finished runs, against files and sums made by hand."""

import math
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "claims"))

import record


def test_what_was_appended_is_finished(tmp_path):
    path = tmp_path / "runs" / record.NAME
    assert record.finished(path) == []
    record.append(path, {"setting": "a", "seed": 0})
    record.append(path, {"setting": "a", "seed": 1, "errors": [0.5]})
    assert record.finished(path, setting="a", seed=1) == [
        {"setting": "a", "seed": 1, "errors": [0.5]}
    ]
    assert record.finished(path, setting="b") == []
    assert record.finished(path, other=None) == []


def test_a_torn_line_is_left_out_and_overwritten(tmp_path):
    path = tmp_path / record.NAME
    path.write_text('{"seed": 0}\n{"see')
    assert record.finished(path) == [{"seed": 0}]
    record.append(path, {"seed": 1})
    assert path.read_text() == '{"seed": 0}\n{"seed": 1}\n'


def test_what_is_no_json_is_refused(tmp_path):
    path = tmp_path / record.NAME
    path.write_text('{"seed": 0}\nseed 1\n')
    with pytest.raises(ValueError, match=r"record\.jsonl:2 is no JSON"):
        record.finished(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.append(path, {"error": math.nan})
    assert path.read_text() == '{"seed": 0}\nseed 1\n'


def test_a_line_that_is_no_object_is_refused(tmp_path):
    path = tmp_path / record.NAME
    path.write_text("5\n")
    with pytest.raises(ValueError, match=r"record\.jsonl:1 is no JSON object"):
        record.finished(path)


def test_a_run_made_otherwise_is_not_taken_for_this_one(tmp_path):
    path = tmp_path / record.NAME
    record.append(path, {"setting": "a", "seed": 0, "made": {"rate": 0.1, "at": (1, 2)}})
    assert record.has(path, {"rate": 0.1, "at": (1, 2)}, setting="a", seed=0)
    assert not record.has(path, {"rate": 0.2}, setting="a", seed=1)
    for made, said in (
        (
            {"rate": 0.2, "at": (1, 2)},
            r"run \(setting a, seed 0\) was made otherwise \(rate 0.1, not 0.2\)",
        ),
        ({"rate": 0.1, "at": (1, 2), "width": 1}, r"\(width None, not 1\)"),
        ({"rate": 0.1}, r"\(at \[1, 2\], not None\)"),
    ):
        with pytest.raises(ValueError, match=said):
            record.has(path, made, setting="a", seed=0)


def test_an_interval_by_hand():
    # Of 1, 2, 3: deviation 1; t of two degrees of freedom at .975 is 4.3027.
    found = record.estimate([1, 2, 3])
    assert found[:2] == (2, 1)
    assert found.half_width == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert not found.resolved
    assert str(found) == "2.00 ± 2.48"


def test_one_seed_has_no_interval():
    found = record.estimate([2.5])
    assert str(found) == "2.50"
    assert not found.resolved
    assert record.verdict(found) == "+2.50 (one seed: no interval)"
    with pytest.raises(ValueError, match="run one seed"):
        record.estimate([])


def test_a_difference_is_taken_seed_by_seed():
    without, with_ = {0: 10.0, 1: 20.0, 2: 30.0, 7: 0.0}, {2: 29.0, 1: 18.9, 0: 9.1}
    found = record.paired(without, with_)
    assert found.mean == pytest.approx(-1)
    assert found.number == 3
    assert record.verdict(found) == "-1.00, 95 % interval -1.25 to -0.75"
    assert record.verdict(record.estimate([-1, 1])).endswith("not resolved at this scale")


def test_a_table():
    with pytest.raises(ValueError, match="no finished run to show"):
        record.table(["a", "b"], [])
    assert record.table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
