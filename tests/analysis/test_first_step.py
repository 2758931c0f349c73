"""What a mesh computes in its first step, beside what another does."""

import dataclasses

import pytest

from alexnet_jax.analysis import compiled, first_step
from alexnet_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig
from alexnet_jax.model import towers
from alexnet_jax.model.partition import step_collectives
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training import setup as train_setup

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.slow
def test_meshes_agree_to_the_last_digits_and_cross_as_the_table_says(photos):
    config = Config(
        data=DataConfig(source="folder", path=str(photos), image_size=40, crop=36),
        model=ModelConfig(width=0.05, conv345_init_std=0.03),
        optimizer=OptimizerConfig(batch_size=8),
    )
    data = train_setup.open_data(config, train_setup.open_splits(config), print)

    meshes = (
        towers.make_mesh(towers=1, data=1, batch=8),
        towers.make_mesh(towers=2, data=2, batch=8),
    )
    one, four = (
        first_step.first_step(train_setup.build_setup(config, mesh, data)) for mesh in meshes
    )
    found = first_step.differences(four, one)
    assert set(found) == {
        "logits",
        *(f"gradient of {n}'s {w}" for n in one.gradients for w in ("kernel", "bias")),
    }
    assert max(found.values()) < 1e-5
    assert four.loss == pytest.approx(one.loss, rel=1e-6)
    assert compiled.collectives(one.program) == ()
    architecture = build_architecture(config.model, 3, 36)
    crossings = compiled.beside(
        step_collectives(architecture, 8, 2, 2), compiled.collectives(four.program)
    ).splitlines()
    assert len(crossings) == 9
    for theirs, ours in zip(crossings[1::3], crossings[2::3], strict=True):
        assert theirs.partition(" = ")[2] == ours.partition(" = ")[2]
    louder = dataclasses.replace(one, logits=1.01 * one.logits)
    assert first_step.differences(louder, one)["logits"] == pytest.approx(0.01, rel=1e-3)
