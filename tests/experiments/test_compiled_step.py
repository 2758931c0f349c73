"""The programs for a TPU and a GPU, compiled without one; needs the extra `tpu` or `cuda`."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from alexnet_jax.analysis import compiled
from alexnet_jax.config import ModelConfig
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import compiled_step

HAS_TPU = importlib.util.find_spec("libtpu") is not None
HAS_CUDA = importlib.util.find_spec("jax_cuda13_plugin") is not None

PROGRAM = """HloModule m

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = (bf16[8,4]{1,0}, f32[8]{0}) fusion(%a), kind=kLoop, backend_config={"estimated_cycles":"70"}
  %c = bf16[8,4]{1,0} get-tuple-element(%b), index=0
  ROOT %d = f32[8,4]{1,0} scatter(%a, %c), to_apply=%b, backend_config={"estimated_cycles":"30"}
}
"""


def test_a_program_is_read():
    assert compiled_step.estimated_cycles(PROGRAM) == 100
    # fusion: 128 + 64 + 32 bytes; scatter: 128 + 64 read, 128 written.
    assert compiled_step.moved_bytes(PROGRAM) == (2, 224 + 320)
    assert len(compiled_step.SCATTER.findall(PROGRAM)) == 1


def test_the_operations_of_an_image():
    flop = compiled_step.model_flop(compiled_step.architecture_for("float32"))
    assert flop == pytest.approx(4.13e9, rel=0.005)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TPU, reason="needs the extra `tpu`")
@pytest.mark.filterwarnings("ignore")
def test_the_forward_pass_on_a_tpu_has_the_four_collectives_of_2012():
    architecture = build_architecture(ModelConfig(width=0.25, scale_init=False), 101, 67)
    devices = np.array(compiled_step.TARGETS["v5e-4"].make()).reshape(2, 2)
    mesh = Mesh(devices, (towers.DATA, towers.TOWER), axis_types=(AxisType.Auto,) * 2)
    program = compiled.forward(architecture, mesh, 8)
    between_towers = [c for c in compiled.collectives(program) if c.stride == 1]
    assert Counter(c.kind for c in between_towers) == {"all-gather": 3, "all-reduce": 1}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_CUDA, reason="needs the extra `cuda`")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mesh_towers", [1, 2])
def test_the_step_on_a_gpu_has_no_scatter_of_floats(mesh_towers):
    row = compiled_step.compile_row("h100-2", mesh_towers, 1024, "bfloat16", "ours")
    assert row.scatters == 0
    assert row.gigabytes is not None
    assert row.gigabytes <= 15
