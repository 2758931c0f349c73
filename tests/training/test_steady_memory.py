"""What a long run may hold on to: nothing that grows."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.training.checkpoint import CheckpointData, Checkpoints
from alexnet_jax.training.state import TrainState

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "reliability"


def experiment(name):
    """Import an experiment, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def on_devices():
    """Return how many bytes the arrays on devices take; several arrays may share a buffer."""
    shards = [shard.data for array in jax.live_arrays() for shard in array.addressable_shards]
    return sum({shard.unsafe_buffer_pointer(): shard.nbytes for shard in shards}.values())


def test_a_checkpoint_in_the_making_has_no_copy_on_the_devices(tmp_path):
    state = TrainState(jnp.array(1), {"w": jnp.ones((512, 1024))}, {"v": jnp.ones((512, 1024))})
    saved = CheckpointData(jax.block_until_ready(state), {"mean": np.zeros(3)}, {})
    with Checkpoints(tmp_path) as checkpoints:
        before = on_devices()
        checkpoints.save(1, saved, None)
        assert on_devices() < before + state.variables["w"].nbytes
        checkpoints.wait()
        assert on_devices() < before + state.variables["w"].nbytes


@pytest.mark.slow
def test_memory_files_and_threads_stay_put_for_2000_steps(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # the program that a user runs
    steady = experiment("steady_memory")
    samples = steady.train(tmp_path / "run", 2000)
    early, late = (steady.summarize(samples, step) for step in (200, 1900))
    assert late.resident < 1.05 * early.resident
    assert late.files <= early.files
    assert late.threads <= early.threads + 2  # pools open their last threads late


@pytest.mark.slow
def test_killed_at_each_moment_it_ends_as_if_it_had_not_been(tmp_path):
    crash_test = experiment("crash_test")
    kills = crash_test.crash(tmp_path, len(crash_test.MOMENTS), seed=0)
    assert {kill.moment for kill in kills} == set(crash_test.MOMENTS)
