"""Names of hardware, and the devices that programs can be compiled for without having it."""

import importlib.util

import pytest
from jax.experimental import topologies

from alexnet_jax import describe
from alexnet_jax.analysis import targets
from alexnet_jax.config import MeshConfig


@pytest.mark.parametrize(
    ("name", "title", "devices"),
    [
        ("v5e-8", "TPU v5e", 8),
        ("V6E-4", "TPU v6e", 4),
        ("v4-8", "TPU v4", 4),  # named by cores, two of which are one device
        ("v5p-16", "TPU v5p", 8),
        ("h100-2", "NVIDIA H100 80GB HBM3", 2),
        ("a100-16", "NVIDIA A100-SXM4-40GB", 16),
        ("cpu-2", "CPU", 2),
    ],
)
def test_names_that_people_use(name, title, devices):
    target = targets.parse_target(name)
    assert (target.name, target.chip.title, target.devices) == (name.lower(), title, devices)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h100", r"target h100: must be one of cpu, v4, v5e, .*h200.*; try"),
        ("b200-8", r"target b200-8: must be one of .*h100.*; try"),
        ("h100-0", r"target h100-0: must be one of .*; try"),
        ("-8", r"target -8: must be one of .*; try"),
        ("v5e-3", r"target v5e-3: .* 1, 2, 4, 8, .*chips; try v5e-8"),
        ("v5e-512", r"target v5e-512: .* 256 chips; try v5e-8"),
        ("v4-1", r"target v4-1: .* 2, 4, 8, .*cores.*; try v4-8"),
        ("v5p-9", r"target v5p-9: .* 2, 4, 8, .*cores.*; try v5p-8"),
        ("h100-12", r"target h100-12: .* multiple of 8; try h100-8"),
    ],
)
def test_other_names_are_refused_with_those_that_are_known(name, message):
    with pytest.raises(ValueError, match=message):
        targets.parse_target(name)


def test_the_command_refuses_in_one_sentence(capsys):
    assert describe.main(["--target", "b200-8"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("alexnet_jax: --target b200-8: must be one of cpu, v4, ")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("chips", "sides", "shape"),
    [
        (1, 2, (1, 1)),
        (2, 2, (1, 2)),
        (4, 2, (2, 2)),
        (8, 2, (2, 4)),
        (32, 2, (4, 8)),
        (256, 2, (16, 16)),
        (1, 3, (1, 1, 1)),
        (2, 3, (1, 2, 1)),
        (4, 3, (2, 2, 1)),
        (8, 3, (2, 2, 2)),
        (16, 3, (2, 2, 4)),
        (64, 3, (4, 4, 4)),
    ],
)
def test_the_shape_of_a_slice(chips, sides, shape):
    assert targets.tpu_sides(chips, sides) == shape


def test_a_clock_is_the_published_peak_over_the_matrix_units():
    clocks = {name: round(chip.clock / 1e9, 2) for name, chip in targets.CHIPS.items()}
    assert {name: clock for name, clock in clocks.items() if clock} == {
        "v4": 1.05,
        "v5e": 1.5,
        "v5p": 1.75,
        "v6e": 1.75,
    }


def test_every_accelerator_has_a_memory_and_peaks():
    for name, chip in targets.CHIPS.items():
        if name != "cpu":
            assert chip.memory > 2**30, name
            assert chip.bandwidth > 1e11, name
            assert chip.peak.keys() == {"float32", "bfloat16"}, name
        assert (chip.platform == "gpu") == bool(chip.description), name
        assert (chip.platform == "tpu") == bool(chip.clock), name


def test_a_missing_libtpu_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert describe.main(["--target", "v5e-8"]) == 2
    assert capsys.readouterr().err == (
        "alexnet_jax: --target v5e-8: its compiler, libtpu, is missing; "
        "run pip install '.[tpu]' (x86-64 Linux).\n"
    )


def test_a_missing_cuda_plugin_is_asked_for(monkeypatch, capsys):
    def refuse(*_, **__):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    assert describe.main(["--target", "h100-2"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("alexnet_jax: --target h100-2: ")
    assert "pip install '.[cuda]'" in printed


def test_cpu_devices_are_those_that_this_process_emulates():
    mesh = targets.make_mesh(targets.parse_target("cpu-2"), MeshConfig(), 8)
    assert mesh.devices.shape == (1, 2)
    with pytest.raises(ValueError, match=r"target cpu-64: .*; set JAX_NUM_CPU_DEVICES=64"):
        targets.compile_only_devices(targets.parse_target("cpu-64"))


def test_the_mesh_is_refused_as_in_training():
    target = targets.parse_target("cpu-2")
    with pytest.raises(ValueError, match=r"mesh\.data 3: .* there are 2 .*; use mesh\.data=auto"):
        targets.make_mesh(target, MeshConfig(towers=1, data=3), 9)
