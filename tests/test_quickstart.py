"""The README's first command in full, and the error that it has to reach."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.slow
def test_the_default_run_learns_what_a_linear_classifier_cannot(tmp_path):
    of_tests = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    environment = {name: value for name, value in os.environ.items() if name not in of_tests}
    command = [sys.executable, "-m", "alexnet_jax.main", "--workdir", str(tmp_path / "a")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "on 2 cpu devices, one tower each" in done.stdout
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    for split in ("validation", "test"):
        assert summary[split]["count"] == 1000
        assert summary[split]["top1_error"] <= 0.1
    for figure in ("curves", "filters", "predictions"):
        with Image.open(tmp_path / f"a/figures/{figure}.png") as image:
            assert len(image.convert("L").getcolors(256) or ()) > 8
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "is finished" in again.stdout


@pytest.mark.slow
def test_a_linear_classifier_on_the_pixels_has_more_than_half_error():
    path = Path(__file__).parents[1] / "experiments/claims/linear_baseline.py"
    spec = importlib.util.spec_from_file_location("linear_baseline", path)
    assert spec is not None
    assert spec.loader is not None
    linear = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(linear)
    train, validation = linear.load("train"), linear.load("validation")
    features = linear.standardize(*(linear.pixels(split.features) for split in (train, validation)))
    error = linear.logistic_error(
        linear.Split(features[0], train.labels), linear.Split(features[1], validation.labels)
    )
    assert 0.5 < error < 0.95
