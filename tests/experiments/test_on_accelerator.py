"""The prepared run for accelerators does all of its parts in tiny sizes on the CPU."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax.model.architecture import training_flop
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

pytestmark = pytest.mark.usefixtures("quick_compilation")

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "on_accelerator.py"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])  # for its neighbors
        yield importlib.import_module("on_accelerator")


def test_gradients_with_one_and_two_towers_are_those_of_the_cpu(script):
    device = script.check_device(script.SMOKE)
    assert (device["platform"], device["device_kind"]) == ("cpu", "cpu")
    assert [(row["devices"], row["precision"]) for row in device["gradients"]] == [
        (1, "highest"),
        (2, "highest"),
    ]
    assert all(row["passed"] for row in device["gradients"])
    assert max(row["error"] for row in device["gradients"]) < 1e-4
    assert all(rate > 0 for rate in device["product_tflop_per_second"].values())
    assert "FAILED" not in script.format_device(device)
    wrong = [{**row, "error": 0.1, "passed": False} for row in device["gradients"]]
    assert script.format_device(device | {"gradients": wrong}).count("FAILED") == 2


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits(script):
    resume = script.check_resume(script.SMOKE)
    assert resume == {
        "steps": 8,
        "stopped_after": 3,
        "differs": [],
        "largest_difference": 0.0,
        "passed": True,
    }
    assert "the same bits" in script.format_resume(resume)


GRADIENTS = [{"devices": 1, "precision": "highest", "worst": "x", "error": 0.0, "passed": True}]
H100 = {
    "platform": "gpu",
    "device_kind": "NVIDIA H100 80GB HBM3",
    "devices": 1,
    "product_tflop_per_second": {"bfloat16": 700.0, "float32": 350.0},
    "gradients": GRADIENTS,
}
RESUMED = {"steps": 8, "stopped_after": 3, "differs": [], "largest_difference": 0, "passed": True}


def run(script, monkeypatch, tmp_path, parts, measured):
    """Return exit code and results of a run whose parts were computed elsewhere."""
    monkeypatch.setattr(script, "run_part", lambda name, *_: parts[name])
    monkeypatch.setattr(script, "measure", lambda name, batch, *_: measured(name, batch))
    monkeypatch.setattr(script, "why_not_pytorch", lambda _: "")
    monkeypatch.setattr(sys, "argv", ["on_accelerator.py", "--json", str(tmp_path / "a.json")])
    code = script.main()
    path = tmp_path / "a.json"
    return code, json.loads(path.read_text()) if path.exists() else None


def test_speeds_shares_and_what_could_not_be_measured(script, monkeypatch, tmp_path, capsys):
    def measured(name, batch):
        if name == "PyTorch eager" and batch == 4096:
            return {"failed": "PyTorch eager ended with exit code 1"}
        speed = {"median": 20_000.0, "lowest": 19_000.0, "highest": 21_000.0}
        return {**speed, "first_step_seconds": 12.5}

    parts = {"device": H100, "resume": RESUMED}
    code, results = run(script, monkeypatch, tmp_path, parts, measured)
    assert code == 0
    assert results
    assert {row["batch"] for row in results["rates"]} == {128, 1024, 4096}
    assert len(results["rates"]) == 3 * 5  # not on two devices, as there is one
    flop = training_flop(build_architecture(PRESETS["paper"].model, 1000, 224))
    for row in results["rates"]:
        if "failed" in row:
            assert (row["contestant"], row["batch"]) == ("PyTorch eager", 4096)
            continue
        half = "bf16" in row["contestant"]
        assert row["tflop_per_second"] == pytest.approx(20_000 * flop / 1e12)
        product, peak = (700, 989) if half else (350, 495)
        assert row["share_of_product"] == pytest.approx(row["tflop_per_second"] / product)
        assert row["peak_share"] == pytest.approx(row["tflop_per_second"] / peak)
    printed = capsys.readouterr().out
    assert "| 4,096 | PyTorch eager | not measured: PyTorch eager ended" in printed
    assert "| 1,024 | alexnet_jax, bf16 | 20,000.0 (19,000.0 to 21,000.0) | 82.7 |" in printed


@pytest.mark.parametrize(
    "parts",
    [
        {"device": {"failed": "exit code 1"}, "resume": RESUMED},
        {"device": H100 | {"platform": "cpu"}, "resume": RESUMED},
        {"device": H100, "resume": {"failed": "exit code 1"}},
        {"device": H100, "resume": RESUMED | {"passed": False, "differs": ["a"]}},
        {"device": H100 | {"gradients": [GRADIENTS[0] | {"passed": False}]}, "resume": RESUMED},
    ],
    ids=["device lost", "no accelerator", "run lost", "other bits", "other gradients"],
)
def test_a_failed_part_fails_the_run(script, monkeypatch, tmp_path, parts):
    code, _ = run(script, monkeypatch, tmp_path, parts, lambda *_: {"failed": "no time was left"})
    assert code == 1


def test_a_part_that_hangs_is_ended(script, monkeypatch):
    command = subprocess.run

    def hang(_, **options):
        return command([sys.executable, "-c", "import time; time.sleep(60)"], **options)

    monkeypatch.setattr(subprocess, "run", hang)
    assert script.run_part("device", [], 0.2) == {"failed": "no result within 0 seconds"}


@pytest.mark.slow
def test_everything_in_processes_of_its_own(tmp_path):
    path = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--minutes", "20", "--json", str(path)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PyTorch is not measured" in done.stderr
    results = json.loads(path.read_text())
    assert results["device"]["devices"] == 2
    names = ["alexnet_jax", "alexnet_jax, bf16", "alexnet_jax, bf16, a tower on each of 2"]
    assert [row["contestant"] for row in results["rates"]] == names
    assert all(row["median"] > 0 for row in results["rates"])
    assert results["resume"]["passed"]
