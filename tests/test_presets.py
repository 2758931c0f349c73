"""Presets train as the notes of the 2012 code say, at the learning rates of its parameter files."""

import pytest

from alexnet_jax.fidelity.facts import describe_network
from alexnet_jax.presets import NOTES, PRESETS
from alexnet_jax.training.schedule import Progress, advance, finished, learning_rates

LAYERS = ("conv1", "conv2", "fc8")


def rates_after(preset: str, epochs: int) -> dict[str, dict[str, float]]:
    """Return the rates of the epoch that follows `epochs` whole ones."""
    config, progress = PRESETS[preset], Progress()
    for _ in range(epochs):
        progress = advance(config.schedule, progress, None)
    return learning_rates(config.schedule, config.optimizer, progress, LAYERS)


@pytest.mark.parametrize(
    ("preset", "epochs", "conv1", "fc8"),
    [
        # layer-params-145-half.cfg:95-98; no third drop
        *[("half", epochs, 0.01, 0.01) for epochs in (0, 19)],
        *[("half", epochs, 0.001, 0.001) for epochs in (20, 47)],
        *[("half", epochs, 0.0001, 0.0001) for epochs in (48, 65)],
        *[("half", epochs, 0.00001, 0.0001) for epochs in (66, 71)],
        *[("half", epochs, 0.0, 0.0001) for epochs in (72, 95)],
        # layer-params-146-2012-2011.cfg:182,187-192
        *[("six_conv", epochs, 0.0001, 0.001) for epochs in (0, 4)],
        *[("six_conv", epochs, 0.00001, 0.001) for epochs in (5, 6)],
        *[("six_conv", epochs, 0.0, 0.001) for epochs in (7, 21)],
        *[("six_conv", epochs, 0.0, 0.0001) for epochs in (22, 41)],
        *[("six_conv", epochs, 0.0, 0.00001) for epochs in (42, 53)],
        # layer-params-145-2010.cfg:170-175
        ("source2012", 67, 0.0001, 0.0001),
        ("source2012", 68, 0.00001, 0.0001),
        ("source2012", 72, 0.0, 0.0001),
        ("source2012", 78, 0.0, 0.00001),
    ],
)
def test_rates_are_those_of_the_notes(preset, epochs, conv1, fc8):
    rates = rates_after(preset, epochs)
    assert rates["conv1"]["kernel"] == pytest.approx(conv1)
    assert rates["fc8"]["kernel"] == pytest.approx(fc8)


@pytest.mark.parametrize(("preset", "last"), [("half", 95), ("six_conv", 53)])
def test_biases_keep_the_rate_of_the_parameter_files(preset, last):
    assert {rates_after(preset, n)["fc8"]["bias"] for n in (0, 30, last)} == {0.02}


@pytest.mark.parametrize(
    ("preset", "lighting", "end"), [("half", 66, 96), ("six_conv", 38, 54), ("source2012", 68, 93)]
)
def test_lighting_and_training_end_where_the_notes_say(preset, lighting, end):
    config = PRESETS[preset]
    assert config.data.pca_epochs == lighting
    assert [finished(config.schedule, Progress(epoch=n)) for n in (end - 1, end)] == [False, True]


@pytest.mark.parametrize("preset", ["half", "six_conv", "source2012"])
def test_a_preset_by_notes_says_how_epochs_are_counted(preset):
    notes = describe_network(PRESETS[preset], 1000)["notes"]
    assert notes == [*NOTES[preset]]
    assert "gpumodel.py:82" in notes[0]


def test_what_no_field_expresses_is_said():
    fine_tuned = " ".join(NOTES["six_conv"])
    for what in ("init_from", "fc8 alone at a rate of 0.01", "optimizer.layer_learning_rates"):
        assert what in fine_tuned
    assert "biases of conv1 and conv2 end at a rate of 0.002" in " ".join(NOTES["half"])
    assert describe_network(PRESETS["paper"], 1000)["notes"] == []
