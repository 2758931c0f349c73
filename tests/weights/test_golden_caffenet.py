"""What Caffe itself computed for one photograph: the CaffeNet variant gives the same numbers."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model import platform, towers
from alexnet_jax.model.architecture import Pooling, weighted_rows
from alexnet_jax.model.features import features
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.weights import convert, files

COMPARED = ("relu1", "pool1", "norm1", "relu2", "pool2", "norm2")


@pytest.fixture(scope="module")
def dump(real_data: Path) -> Path:
    return real_data / "golden-caffenet" / "caffenet_cat_golden.npz"


@pytest.fixture(scope="module")
def golden(dump) -> dict[str, np.ndarray]:
    with np.load(dump) as arrays:
        return {name: arrays[name] for name in arrays}


def import_first_two(dump, architecture):
    """Return Caffe's conv1 and conv2; of the others the dump has no kernels, and zeros do."""
    imported = convert.to_params(files.read(dump), architecture, bgr=True, partial=True)
    assert [name for name, weights in imported.items() if "kernel" in weights] == ["conv1", "conv2"]
    zeros = {
        row.name: {
            "kernel": np.zeros(row.kernel_shape, np.float32),
            "bias": np.zeros(row.kernel_shape[-1], np.float32),
        }
        for row in weighted_rows(architecture)
    }
    return zeros | {name: imported[name] for name in ("conv1", "conv2")}


@pytest.mark.parametrize("devices", [1, 2])
def test_relu1_to_norm2_are_those_of_caffe(dump, golden, devices):
    model = dataclasses.replace(PRESETS["caffenet"].model, precision="highest")
    architecture = build_architecture(model, 1000, 227)
    mesh = towers.make_mesh(towers=devices, data=1, batch=1)
    images = golden["input"][::-1].transpose(1, 2, 0)[None]  # BGR -> RGB, as the import has conv1
    found = features(
        import_first_two(dump, architecture), images, COMPARED, architecture=architecture, mesh=mesh
    )
    for name in COMPARED:
        expected = golden[name].transpose(1, 2, 0)
        error = np.max(np.abs(np.asarray(found[name][0]) - expected)) / np.max(np.abs(expected))
        assert error < 1e-5, (name, error)


@pytest.mark.parametrize(
    "kernels", [platform.CPU, platform.GPU, platform.TPU], ids=["cpu", "gpu", "tpu"]
)
def test_pool5_is_that_of_caffe_in_every_digit_of_the_dump(golden, kernels):
    relu5 = jnp.asarray(golden["relu5"].transpose(1, 2, 0)[None])
    pool5 = np.asarray(kernels.pool(relu5, Pooling())[0], np.float64)
    # The dump's pool5, unlike its relu5, was written with six decimals.
    rounded = np.round(pool5, 6).astype(np.float32)
    np.testing.assert_array_equal(rounded, golden["pool5"].transpose(1, 2, 0))
