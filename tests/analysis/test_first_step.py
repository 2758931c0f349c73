"""The first step of one mesh compared with that of another."""

import dataclasses

import pytest

from alexnet_jax.analysis import compiled, first_step
from alexnet_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig
from alexnet_jax.model import towers
from alexnet_jax.model.partition import step_collectives
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training import run_data
from alexnet_jax.training import setup as train_setup

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.slow
def test_meshes_agree_up_to_rounding_and_have_the_collectives_of_the_table(photos):
    config = Config(
        data=DataConfig(source="folder", path=str(photos), image_size=40, crop=36),
        model=ModelConfig(width=0.05, conv345_init_std=0.03),
        optimizer=OptimizerConfig(batch_size=8),
    )
    data = run_data.read_data(config, run_data.open_splits(config))
    meshes = (
        towers.make_mesh(towers=1, data=1, batch=8),
        towers.make_mesh(towers=2, data=2, batch=8),
    )
    one, four = (
        first_step.first_step(train_setup.build_setup(config, mesh, data)) for mesh in meshes
    )
    differences = first_step.differences(four, one)
    assert set(differences) == {
        "logits",
        *(f"gradient of {n}'s {w}" for n in one.gradients for w in ("kernel", "bias")),
    }
    assert max(differences.values()) < 1e-5
    assert four.loss == pytest.approx(one.loss, rel=1e-6)
    assert compiled.collectives(one.program) == ()
    architecture = build_architecture(config.model, 3, 36)
    lines = compiled.compare(
        step_collectives(architecture, 8, 2, 2), compiled.collectives(four.program)
    ).splitlines()
    assert len(lines) == 9
    for table, program in zip(lines[1::3], lines[2::3], strict=True):
        assert table.partition(" = ")[2] == program.partition(" = ")[2]
    louder = dataclasses.replace(one, logits=1.01 * one.logits)
    assert first_step.differences(louder, one)["logits"] == pytest.approx(0.01, rel=1e-3)
