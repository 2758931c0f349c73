"""The rows of experiments/benchmarks/compiled_step.py."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "benchmarks"))
import compiled_step


def rows(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compiled_step.py", "--json", *arguments])
    compiled_step.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_the_peer_and_every_formulation_compile(capsys, monkeypatch):
    found = rows(
        *(capsys, monkeypatch, "--targets", "cpu-2", "--batches", "4", "--towers", "2"),
        *("--formulations", "ours", "LRN by product", "peer"),
    )
    assert [row["formulation"] for row in found] == ["ours", "LRN by product", "peer"]
    assert [row["mesh"] for row in found] == ["1 x 2", "1 x 2", "2 x 1"]
    assert all(row["temporaries_mib"] > 0 for row in found)


@pytest.mark.slow
def test_on_a_tpu_ours_needs_fewer_cycles_than_the_peer(capsys, monkeypatch):
    if importlib.util.find_spec("libtpu") is None:
        pytest.fail("libtpu is missing: run `pip install '.[tpu]'` (x86-64 Linux)", pytrace=False)
    ours, peer = rows(
        *(capsys, monkeypatch, "--targets", "v5e-4", "--batches", "1024", "--towers", "2"),
        *("--formulations", "ours", "peer"),
    )
    assert ours["mesh"] == "2 x 2"
    assert 0.25 < ours["peak_share"] < 1
    assert ours["megacycles"] < 0.9 * peer["megacycles"]
