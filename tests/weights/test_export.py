"""Exported StableHLO programs give the network's probabilities to a script with JAX alone."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from alexnet_jax import export
from alexnet_jax.inference.ensemble import Predictor
from alexnet_jax.inference.network import load_network
from alexnet_jax.model import towers
from alexnet_jax.weights import stablehlo
from tests import untrained
from tests.weights.exported import SETTINGS, make_example

pytestmark = pytest.mark.usefixtures("quick_compilation")

SCRIPT = """
import sys, jax, numpy
assert not any(name.startswith("alexnet_jax") for name in sys.modules)
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
numpy.save(sys.argv[3], program.call(numpy.load(sys.argv[2])))
"""


@pytest.mark.parametrize("name", ["source2012", "torchvision"])
def test_a_program_gives_the_same_probabilities(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*SETTINGS} - {"source2012", "torchvision"}))
def test_a_program_of_every_other_network(name):
    check(name)


def check(name):
    example = make_example(name)
    program = jax.export.deserialize(bytearray(stablehlo.build_program(*example.exported)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for count in (1, 3):
        got, expected = program.call(example.squares[:count]), example.probabilities[:count]
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_a_script_that_imports_jax_alone_runs_it(tmp_path):
    workdir, file = untrained.make(tmp_path / "run"), tmp_path / "net.stablehlo"
    assert export.main(["--workdir", str(workdir), "--to", str(file)]) == 0
    squares = np.random.default_rng(0).integers(0, 256, (2, 72, 72, 3), np.uint8)
    np.save(tmp_path / "squares.npy", squares)
    arguments = [file, tmp_path / "squares.npy", tmp_path / "out.npy"]
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, cwd=tmp_path)
    network = load_network(workdir, towers.make_mesh(towers=1, data=1, batch=1))
    expected = np.exp(Predictor(network, 1)(squares))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "rule", "remedy"),
    [
        ("net.pt", "must end in .onnx or .stablehlo", "net.onnx"),
        ("taken.stablehlo", "exists already", "remove it"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_at_once(
    name, rule, remedy, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.stablehlo").write_text("mine")
    assert export.main(["--workdir", "nowhere", "--to", name]) == 2
    error = capsys.readouterr().err
    assert f"--to {name}: " in error
    assert rule in error
    assert remedy in error
    assert (tmp_path / "taken.stablehlo").read_text() == "mine"


def test_a_missing_folder_is_made(tmp_path, capsys):
    workdir = untrained.make(tmp_path / "run")
    file = tmp_path / "new" / "folder" / "net.stablehlo"
    assert export.main(["--workdir", str(workdir), "--to", str(file)]) == 0
    assert file.stat().st_size > 0
    capsys.readouterr()
    assert export.main(["--workdir", str(workdir), "--to", str(file / "net.stablehlo")]) == 2
    error = capsys.readouterr().err
    assert "--to " in error
    assert "another folder" in error


def test_a_missing_package_is_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert export.main(["--workdir", "nowhere", "--to", str(tmp_path / "net.onnx")]) == 2
    assert "pip install '.[export]'" in capsys.readouterr().err
