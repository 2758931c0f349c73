"""What crosses in a training step, by the table and by the compiled program, byte for byte."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from alexnet_jax.analysis import compiled
from alexnet_jax.config import ModelConfig, OptimizerConfig
from alexnet_jax.model import towers
from alexnet_jax.model.partition import step_collectives
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import abstract_state
from alexnet_jax.training.step import make_train_step

CHECKOUT = Path(__file__).parents[2]


def compiled_text(architecture, mesh, batch):
    """Compile a training step from shapes alone; nothing is allocated."""
    crop = architecture.crop
    tx = paper_sgd(OptimizerConfig())
    _, state = abstract_state(architecture, tx, mesh, seed=0)
    constants = Preprocess(jnp.zeros((crop + 8, crop + 8, 3)), jnp.eye(3), jnp.ones(3))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    fields = {
        "image": ((crop, crop, 3), jnp.uint8),
        "label": ((), jnp.int32),
        "lighting": ((3,), jnp.float32),
        "divisor": ((), jnp.float32),
        "offset": ((2,), jnp.int32),
        "mirror": ((), jnp.bool_),
    }
    images = {
        name: jax.ShapeDtypeStruct((batch, *shape), kind, sharding=rows)
        for name, (shape, kind) in fields.items()
    }
    step: Any = make_train_step(architecture, tx, mesh, constants, seed=0)
    return step.lower(state, images).compile().as_text()


def summed(collectives):
    """Count bytes by kind, number of devices, and how far apart they stand."""
    found = Counter()
    for one in collectives:
        found[one.kind, one.devices, one.stride] += one.bytes
    return found


def found_in(program):
    return summed(compiled.collectives(program))


def expected(architecture, batch, data, tower):
    return summed(step_collectives(architecture, batch, data, tower))


@pytest.mark.parametrize(
    ("data", "tower"),
    [
        (2, 2),
        pytest.param(1, 2, marks=pytest.mark.slow),
        pytest.param(4, 1, marks=pytest.mark.slow),
    ],
)
def test_the_compiled_step_moves_the_bytes_of_the_table(data, tower):
    architecture = build_architecture(ModelConfig(width=0.05, scale_init=False), 10, 36)
    mesh = towers.make_mesh(data=data, towers=tower, batch=8)
    found = found_in(compiled_text(architecture, mesh, 8))
    assert found
    assert found == expected(architecture, 8, data, tower)


def test_one_device_neither_copies_its_weights_nor_adds_its_gradients_up():
    architecture = build_architecture(ModelConfig(width=0.05, scale_init=False), 10, 36)
    program = compiled_text(architecture, towers.make_mesh(data=1, towers=1, batch=8), 8)
    weights = r"%state_variables__params\w*kernel"
    assert len(set(re.findall(weights, program))) == 8
    assert not re.findall(rf"copy\({weights}.*", program)
    assert "all-reduce" not in program


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(width=0.05, scale_init=False, lrn_scope="all", op_order="pool_first"),
        ModelConfig(width=0.05, scale_init=False, variant="six_conv", bottleneck=8),
        ModelConfig(width=0.05, scale_init=False, variant="torchvision", lrn=False),
    ],
    ids=["LRN over all maps", "bottleneck", "no towers"],
)
@pytest.mark.slow
def test_so_does_that_of_other_networks(model):
    architecture = build_architecture(model, 11, 67)
    mesh = towers.make_mesh(data=2, towers=2, batch=8)
    assert found_in(compiled_text(architecture, mesh, 8)) == expected(architecture, 8, 2, 2)


# The emulated devices of a process are counted when jax starts: 64 want a process of their own.
SIXTY_FOUR = """
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 64)
from tests.model.test_partition import compiled_text, expected, found_in
from alexnet_jax.config import ModelConfig
from alexnet_jax.model import towers

table = ModelConfig(scale_std=False).table(1000, 224)
mesh = towers.make_mesh(data=32, towers=2, batch=4096)
program = compiled_text(table, mesh, 4096)
found, wanted = found_in(program), expected(table, 4096, 32, 2)
assert found == wanted, (found, wanted)
assert set(found) == {
    ("all-gather", 2, 1), ("all-reduce", 2, 1), ("all-reduce", 32, 2)
}, found
assert "reduce-scatter" not in program
# Each device works on the 128 images of its shard, with its half of fc6, and on no others.
assert "f32[128,2048]" in program and "f32[9216,2048]" in program
assert "[4096,224,224,3]" not in program and "[9216,4096]" not in program
print("compiled for", mesh.size)
"""


@pytest.mark.slow
def test_the_whole_network_compiles_for_64_devices():
    command = [sys.executable, "-c", SIXTY_FOUR]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=CHECKOUT, timeout=170
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("compiled for 64")
