"""The arithmetic of experiments/benchmarks/scaling.py, against hand calculations."""

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest

from alexnet_jax.model.architecture import training_flop
from alexnet_jax.model.partition import Collective
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def architecture():
    return build_architecture(PRESETS["paper"].model, 1000, 224)


@pytest.mark.parametrize(
    ("kind", "sent", "hops"),
    [("all-gather", 3000, 3), ("reduce-scatter", 3000, 3), ("all-reduce", 6000, 6)],
)
def test_traffic_of_a_ring_of_four(kind, sent, hops):
    collective = Collective(kind, "x", devices=4, stride=1, values=1000)
    assert (collective.bytes, collective.sent, collective.hops) == (4000, sent, hops)


def test_the_network_of_2012_on_its_two_devices(scaling, architecture):
    plan = scaling.towers(architecture, 2, 128)
    gathered = 43_264 + 9_216 + 4_096
    # A ring of two: gathers send half, all-reduces the whole.
    assert sum(collective.sent for collective in plan.traffic) == 128 * 4 * (
        gathered // 2 + gathered + 1000
    )


def test_gradients_cross_between_shards(scaling, architecture):
    (collective,) = scaling.data(architecture, 4, 256).traffic
    assert (collective.kind, collective.values, collective.devices, collective.stride) == (
        "all-reduce",
        60_965_224,
        4,
        1,
    )
    gradients = scaling.towers(architecture, 4, 256).traffic[-1]
    # Half of all, but of fc8's biases, of which each device has all.
    assert (gradients.values, gradients.devices, gradients.stride) == (
        (60_965_224 + 1000) // 2,
        2,
        2,
    )


def test_one_weird_trick_moves_activations_in_place_of_the_gradients_of_units(
    scaling, architecture
):
    everyone = scaling.weird(architecture, 8, 512, 8).traffic
    assert {
        collective.what: collective.values
        for collective in everyone
        if collective.kind == "all-gather"
    } == {
        "fc6": 512 * 9216,
        "fc7": 512 * 4096,
    }
    convolutions = 60_965_224 - 9217 * 4096 - 4097 * 4096 - 4097 * 1000
    assert [collective.values for collective in everyone if collective.what.startswith("grad")] == [
        convolutions
    ]
    groups = scaling.weird(architecture, 8, 512, 4).traffic
    assert [
        (collective.devices, collective.stride)
        for collective in groups
        if collective.what == "gradients of units"
    ] == [(2, 4)]
    assert {collective.values for collective in groups if collective.what == "fc6"} == {256 * 9216}


def test_a_ring_across_nodes_is_limited_by_their_links(scaling):
    hardware = scaling.Hardware(1.0, 400.0, 0.5, node=8, between=10.0, source="")
    ring = Collective("all-gather", "x", devices=2, stride=1, values=200)  # sends 400 bytes
    assert scaling.seconds(ring, hardware) == 1 + 0.5
    apart = Collective("all-gather", "x", devices=2, stride=8, values=200)
    assert scaling.seconds(apart, hardware) == 40 + 0.5
    # Towers: every other device of the node is in the ring, and half of its links are its own.
    wide = Collective("all-gather", "x", devices=8, stride=2, values=200)
    assert scaling.seconds(wide, hardware) == 7 / 8 * 800 / 40 + 7 * 0.5


def test_printed_tables_and_figure(scaling, monkeypatch, capsys, tmp_path):
    path = tmp_path / "scaling.png"
    monkeypatch.setattr(
        sys, "argv", ["scaling.py", "--hardware", "gtx580", "--latency", "0", "--figure", str(path)]
    )
    scaling.main()
    printed = capsys.readouterr().out
    assert "64 images a device: towers\n" in printed
    assert "| 4,096 | 262,144 |" in printed
    assert "| 2 | 8,192 |" in printed
    assert path.stat().st_size > 10_000


def test_images_per_host(scaling, architecture):
    hardware = scaling.Hardware(1e12, 1e9, 0.0, node=8, between=1e9, source="")
    args = argparse.Namespace(utilization=0.5, devices_per_host=4)
    step = scaling.cost(scaling.data(architecture, 8, 512), architecture, hardware, args)
    assert step.compute == pytest.approx(64 * training_flop(architecture) / 0.5e12)
    assert step.communication == pytest.approx(2 * 7 / 8 * 60_965_224 * 4 / 1e9)
    assert step.host_images == pytest.approx(512 / (step.compute + step.communication) / 2)
    assert step.host_bytes == pytest.approx(step.host_images * 224 * 224 * 3)
