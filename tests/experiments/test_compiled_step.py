"""The rows of experiments/benchmarks/compiled_step.py."""

import json
import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "benchmarks"))
import compiled_step


@pytest.mark.slow
def test_the_peer_and_every_formulation_compile(capsys, monkeypatch):
    arguments = ["--targets", "cpu-2", "--batches", "4", "--towers", "2"]
    arguments += ["--formulations", "ours", "LRN by product", "peer"]
    monkeypatch.setattr(sys, "argv", ["compiled_step.py", "--json", *arguments])
    compiled_step.main()
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["formulation"] for row in found] == ["ours", "LRN by product", "peer"]
    assert [row["mesh"] for row in found] == ["1 x 2", "1 x 2", "2 x 1"]
    assert all(row["temporaries_mib"] > 0 for row in found)


def test_a_row_says_why_there_is_no_program(capsys, monkeypatch):
    def too_large(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: temporaries (9.00G) exceed (8.00G)")

    monkeypatch.setattr(compiled_step, "lower_ours", too_large)
    arguments = ["compiled_step.py", "--targets", "cpu-2", "--batches", "4", "--towers", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--formulations", "ours", "--json"])
    compiled_step.main()
    row = json.loads(capsys.readouterr().out)
    assert (row["target"], row["formulation"], row["mesh"]) == ("cpu-2", "ours", "1 x 2")
    assert "9.00G" in row["failure"]
    assert {row[name] for name in ("peak_share", "gigabytes", "scatters")} == {None}
