"""Settings of JAX, on which what a network computes does not depend, and missing devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from alexnet_jax.cli import devices, process
from alexnet_jax.config import MeshConfig
from alexnet_jax.model import settings
from alexnet_jax.model.settings import FIXED, available_devices, fixed_settings
from alexnet_jax.training.state import make_key

OTHER = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_matmul_precision": "bfloat16",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 3,
    "jax_disable_jit": True,
    "jax_transfer_guard": "disallow",
}


@pytest.fixture
def other_settings():
    before = {name: getattr(jax.config, name) for name in FIXED if name in jax.config.values}
    for name, value in OTHER.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        plain = getattr(value, "name", value)
        jax.config.update(name, plain.lower() if plain is not value else value)


def numbers():
    """Return what depends on the settings: random numbers, types, transfers."""
    drawn = jax.random.normal(make_key(1), (5, 3))
    traced = []
    jax.jit(lambda x: traced.append(isinstance(x, jax.core.Tracer)) or x)(drawn)
    return jnp.asarray([1.0, 2.0]).dtype, drawn.tolist(), (drawn[0] + jnp.arange(3)).dtype, traced


def test_every_setting_is_one_of_jax():
    assert set(FIXED) <= set(jax.config.values)


def test_numbers_do_not_depend_on_settings_of_the_process(request):
    expected = numbers()
    request.getfixturevalue("other_settings")
    chosen = {name: getattr(jax.config, name) for name in OTHER}
    for fixed in (fixed_settings, process.fixed_settings):  # the library's, a command's
        with fixed():
            assert numbers() == expected
    assert {name: getattr(jax.config, name) for name in OTHER} == chosen
    jax.config.update("jax_transfer_guard", "allow")
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    assert numbers() != expected


# In a process of its own: the variables are read as JAX is imported.
ENVIRONMENT = """
import logging, os, sys
logging.basicConfig(format="%(message)s")
from alexnet_jax.cli import process
assert "jax" not in sys.modules
with process.fixed_settings():
    import jax
    config = jax.config
    print(config.jax_enable_x64, config.jax_random_seed_offset, config.jax_threefry_partitionable)
"""


def test_a_command_ignores_them_in_the_environment_and_says_so():
    variables = {
        "JAX_ENABLE_X64": "maybe",
        "JAX_RANDOM_SEED_OFFSET": "3",
        "JAX_THREEFRY_PARTITIONABLE": "yes",  # which is JAX's default
    }
    ended = subprocess.run(
        [sys.executable, "-c", ENVIRONMENT],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "False 0 True\n"
    said = ended.stderr.splitlines()
    assert [line.partition(" is ignored")[0] for line in said] == [
        "JAX_ENABLE_X64=maybe",
        "JAX_RANDOM_SEED_OFFSET=3",
    ]


@pytest.mark.parametrize(
    ("message", "chosen", "said"),
    [
        ("", {"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS cuda: JAX finds no such device; use "),
        (
            "Unable to initialize backend 'tpu': no libtpu. (set JAX_PLATFORMS='' to choose)",
            {"JAX_PLATFORMS": "tpu"},
            "JAX_PLATFORMS tpu: Unable to initialize backend 'tpu': no libtpu; use ",
        ),
        (
            "Unable to initialize backend 'x': old driver\nmore (you may need to uninstall it)",
            {"JAX_PLATFORMS": None},
            "Unable to initialize backend 'x': old driver; uninstall ",
        ),
    ],
)
def test_missing_devices_are_one_sentence(message, chosen, said):
    sentence = settings._describe(message, chosen)
    assert sentence.startswith(said)
    assert "JAX_PLATFORMS=cpu" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize"), AssertionError()])
def test_an_error_of_jax_becomes_bad_input(error, monkeypatch):
    def no_devices():
        raise error

    monkeypatch.setattr(jax, "devices", no_devices)
    with pytest.raises(ValueError, match="JAX_PLATFORMS"):
        available_devices()


@pytest.mark.parametrize("kind", ["flag", "file"])
def test_the_number_of_devices_in_xla_flags_is_respected(kind, monkeypatch, tmp_path):
    flags = "--xla_force_host_platform_device_count=4"
    (tmp_path / "flags").write_text(flags)
    monkeypatch.setenv("XLA_FLAGS", flags if kind == "flag" else str(tmp_path / "flags"))
    values = {"jax_num_cpu_devices": -1}
    fresh = type("Config", (), {"values": values, "update": values.__setitem__})
    monkeypatch.setattr(jax, "config", fresh)
    devices.emulate_devices(MeshConfig())
    assert values == {"jax_num_cpu_devices": -1}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=true")
    devices.emulate_devices(MeshConfig())
    assert values == {"jax_num_cpu_devices": 2}


def test_a_flag_that_xla_does_not_know_is_one_sentence(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_nonsense=1")
    with pytest.raises(ValueError, match=r"^XLA_FLAGS --xla_nonsense=1: Unknown flag .*; correct "):
        process.check_xla_flags()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    process.check_xla_flags()
