"""Small networks with random weights, on one device and on several."""

import numpy as np
import pytest

import alexnet_jax as ax
from alexnet_jax.model import towers
from alexnet_jax.presets import Preset
from tests import untrained

COUNT = 2


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """Return a function from the name of a preset to a run folder."""
    made = {}

    def make(preset: Preset = "photos", crop: int = 64):
        if (preset, crop) not in made:
            folder = tmp_path_factory.mktemp("runs") / f"{preset}{crop}"
            made[preset, crop] = untrained.make(folder, preset, crop=crop)
        return made[preset, crop]

    return make


@pytest.fixture(scope="session")
def network_of(run_of):
    """Return a function from the name of a preset and the shape of a mesh to a network."""
    loaded = {}

    def load(preset: Preset = "photos", data: int = 1, tower: int = 1):
        key = preset, data, tower
        if key not in loaded:
            mesh = towers.make_mesh(data=data, towers=tower, batch=COUNT)
            loaded[key] = ax.load(run_of(preset), mesh)
        return loaded[key]

    return load


@pytest.fixture(scope="session")
def network(network_of):
    return network_of()


@pytest.fixture(scope="session")
def squares(network):
    size = network.config.data.image_size
    return np.random.default_rng(0).integers(0, 256, (COUNT, size, size, 3), np.uint8)


@pytest.fixture(scope="session")
def images(network, squares):
    return np.asarray(network.preprocess(squares))
