"""A small network with random weights, which these tests take features from."""

import pytest

from alexnet_jax.inference.network import load_network
from tests import untrained


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return untrained.make(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture(scope="module")
def network(workdir):
    return load_network(workdir)
