"""The benchmark of the input pipeline runs and names its machine; PyTorch is not measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "pipeline.py"
MEASURED = ["alexnet_jax", "alexnet_jax, default threads", "reader and decoder alone"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_it_makes_batches_of_the_synthetic_images(tmp_path: Path, encoding: str):
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, str(SCRIPT), "--encoding", encoding, "--json", "result.json"]
    command += ["--images", "12", "--batch", "4", "--steps", "3", "--repetitions", "2"]
    command += ["--core", str(core), "--only", *MEASURED]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["options"]["encoding"] == encoding
    assert result["machine"]["Pillow"]
    assert list(result["results"]) == MEASURED
    for measured in result["results"].values():
        assert len(measured["rates"]) == 2
        assert measured["lowest"] > 0
    assert not Path(result["options"]["records"]).exists()  # temporary records are removed
