"""What a device holds, and the bytes of a step's collectives against the compiled program."""

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
from alexnet_jax.model.architecture import TOWERS
from alexnet_jax.model.partition import Crossing, partition_layers, step_collectives
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import abstract_state
from alexnet_jax.training.step import make_train_step

CHECKOUT = Path(__file__).parents[2]


def held_by_one_device(**changes):
    architecture = build_architecture(ModelConfig(**changes), 1001, 224)
    return {part.name: part for part in partition_layers(architecture, TOWERS)}


def test_a_device_holds_half_of_the_network_of_2012_and_all_of_fc8s_biases():
    parts = held_by_one_device()
    split = {
        name: (part.kernel_axis, part.bias_axis, part.output_axis) for name, part in parts.items()
    }
    by_map, by_unit = (3, 0, 3), (1, 0, 1)
    assert split == {
        **{f"conv{number}": by_map for number in range(1, 6)},
        "fc6": by_unit,
        "fc7": by_unit,
        "fc8": (0, None, None),
    }
    assert parts["conv2"].kernel_shape == (5, 5, 48, 128)
    assert parts["fc6"].kernel_shape == (9216, 2048)
    assert parts["fc8"].kernel_shape == (2048, 1001)
    assert parts["fc8"].parameters == 2048 * 1001 + 1001
    assert parts["fc6"].tower_outputs == 2048
    assert parts["fc8"].tower_outputs == 1001  # partial sums
    assert (parts["fc7"].inputs, parts["fc8"].inputs) == (4096, 2048)


def test_the_towers_of_2012_meet_at_conv3_fc6_fc7_and_fc8():
    crossings = [part.crossings for part in held_by_one_device().values()]
    assert [crossing for layer in crossings for crossing in layer] == [
        Crossing("all-gather", "conv3", "pool2", 21_632),
        Crossing("all-gather", "fc6", "pool5", 4_608),
        Crossing("all-gather", "fc7", "drop6", 2_048),
        Crossing("all-reduce", "fc8", "logits", 1_001),
    ]


def test_lrn_over_all_maps_adds_halo_exchanges():
    parts = held_by_one_device(lrn_scope="all")
    assert parts["conv1"].halos == (Crossing("halo exchange", "norm1", "maps", 2 * 55**2),)
    assert parts["conv2"].crossings == (Crossing("halo exchange", "norm2", "maps", 2 * 27**2),)
    # One map a tower at this width: there is no second map to send.
    narrow = held_by_one_device(lrn_scope="all", width=0.001)
    assert narrow["conv1"].halos[0].values == 55**2


def test_classes_after_a_bottleneck_see_both_halves_of_it():
    parts = held_by_one_device(bottleneck=8)
    assert parts["bottleneck"].crossings == (Crossing("all-gather", "bottleneck", "drop7", 2_048),)
    fc8 = parts["fc8"]
    assert (fc8.row.kernel_shape, fc8.kernel_shape) == ((8, 1001), (4, 1001))
    assert (fc8.kernel_axis, fc8.bias_axis, fc8.output_axis) == (0, None, None)
    assert fc8.crossings == (Crossing("all-reduce", "fc8", "logits", 1_001),)


def test_one_device_holds_every_array_whole_and_sends_nothing():
    architecture = build_architecture(ModelConfig(lrn_scope="all"), 1000, 224)
    parts = partition_layers(architecture, 1)
    assert sum(part.parameters for part in parts) == 60_965_224
    assert {(part.kernel_axis, part.bias_axis, part.output_axis) for part in parts} == {
        (None, None, None)
    }
    assert not any(part.crossings for part in parts)


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
    """Count bytes by kind, number of devices and stride."""
    counts = Counter()
    for collective in collectives:
        counts[collective.kind, collective.devices, collective.stride] += collective.bytes
    return counts


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
    counts = found_in(compiled_text(architecture, mesh, 8))
    assert counts
    assert counts == expected(architecture, 8, data, tower)


def test_one_device_neither_copies_its_weights_nor_sums_its_gradients():
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
def test_the_compiled_step_of_other_networks_moves_the_bytes_of_the_table(model):
    architecture = build_architecture(model, 11, 67)
    mesh = towers.make_mesh(data=2, towers=2, batch=8)
    assert found_in(compiled_text(architecture, mesh, 8)) == expected(architecture, 8, 2, 2)


# The number of emulated devices is fixed when JAX starts: 64 need a process of their own.
SIXTY_FOUR = """
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 64)
from tests.model.test_partition import compiled_text, expected, found_in
from alexnet_jax.config import ModelConfig
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture

architecture = build_architecture(ModelConfig(scale_init=False), 1000, 224)
mesh = towers.make_mesh(data=32, towers=2, batch=4096)
program = compiled_text(architecture, mesh, 4096)
compiled, derived = found_in(program), expected(architecture, 4096, 32, 2)
assert compiled == derived, (compiled, derived)
assert set(compiled) == {
    ("all-gather", 2, 1), ("all-reduce", 2, 1), ("all-reduce", 32, 2)
}, compiled
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
