"""Exported ONNX models, run by ONNX Runtime, give the probabilities of the network."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from alexnet_jax import export
from alexnet_jax.weights import onnx_graph
from tests import untrained
from tests.weights.exported import SETTINGS, make_example

pytestmark = pytest.mark.parity


def run(model: bytes, squares: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"image": squares})
    return np.asarray(probabilities)


@pytest.mark.parametrize("name", SETTINGS)
def test_onnx_runtime_gives_the_same_probabilities(name):
    example = make_example(name)
    model = onnx_graph.build_model(*example.exported, {}).SerializeToString()
    expected = example.probabilities
    assert 0.005 < expected.min() < expected.max() < 0.95  # not the same for all, not saturated
    np.testing.assert_allclose(run(model, example.squares), expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(run(model, example.squares[1:2]), expected[1:2], atol=1e-5, rtol=0)


def test_the_command_writes_class_names_and_preprocessing(tmp_path, capsys):
    workdir, file = untrained.make(tmp_path / "run", "source2012"), tmp_path / "net.onnx"
    assert export.main(["--workdir", str(workdir), "--to", str(file)]) == 0
    assert "uint8 [N, 72, 72, 3]" in capsys.readouterr().out
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(metadata["class_names"]) == untrained.CLASSES
    assert json.loads(metadata["config"])["data.resize"] == "shorter-side"
    squares = np.zeros((2, 72, 72, 3), np.uint8)
    assert run(file.read_bytes(), squares).sum(1) == pytest.approx(1)
