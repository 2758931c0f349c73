"""The experiment that scores explanations: its arithmetic by hand, and a few images."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.data import synthetic
from tests import untrained

pytestmark = pytest.mark.usefixtures("quick_compilation")
EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "claims"


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("explanations")


def test_a_peak_counts_if_it_is_on_the_object(experiment):
    maps, masks = np.zeros((3, 2, 2)), np.zeros((3, 2, 2), bool)
    maps[0] = [[3, 1], [-5, 0]]
    masks[0] = [[1, 0], [1, 0]]
    maps[1] = [[1, 0], [0, 2]]
    masks[1, 0, 0] = True
    masks[2] = True  # the map is 0 everywhere
    score = experiment.point(maps, masks)
    assert score.hits.tolist() == [True, False, False]
    np.testing.assert_allclose(score.inside, [3 / 4, 1 / 3, 0])


def test_wilsons_interval(experiment):
    # Newcombe (1998), table I: 81 of 263.
    np.testing.assert_allclose(experiment.wilson(81, 263), (0.2553, 0.3662), atol=1e-4)
    assert experiment.wilson(10, 10)[1] == pytest.approx(1)


@pytest.mark.slow
def test_it_runs(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(untrained, "CLASSES", list(synthetic.CLASS_NAMES))
    workdir = untrained.make(tmp_path / "run", "quickstart")
    monkeypatch.setattr(sys, "argv", ["explanations.py", "--workdir", str(workdir), "--count", "2"])
    assert experiment.main() == 0
    printed = capsys.readouterr().out
    assert "2 test images" in printed
    for name in ("a random pixel", "occlusion", "gradient", "Grad-CAM relu5", "Grad-CAM relu2"):
        assert f"| {name}" in printed


def test_another_run_is_refused(experiment, tmp_path, monkeypatch, capsys):
    workdir = untrained.make(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["explanations.py", "--workdir", str(workdir)])
    assert experiment.main() == 2
    assert "synthetic images" in capsys.readouterr().err
