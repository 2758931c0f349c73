"""Each output of a network has a name of its own."""

import jax
import numpy as np
import pytest

from alexnet_jax.config import ModelConfig
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import outputs
from alexnet_jax.model.features import features
from alexnet_jax.model.variants import WIDTHS, build_architecture
from alexnet_jax.training.state import make_key


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("variant", WIDTHS)
def test_names_are_distinct(variant, activation):
    model = ModelConfig(variant=variant, width=0.05, activation=activation)
    layers = build_architecture(model, num_classes=3, crop=99).layers
    names = [name for layer in layers for _, name in outputs(layer)]
    names += [layer.name for layer in layers]
    assert len({*names}) == len(names)


def test_a_sixth_convolution_is_not_fc6():
    model = ModelConfig(variant="six_conv", width=0.05)
    architecture = build_architecture(model, num_classes=3, crop=99)
    params = towers.initializer(architecture)(make_key(0))["params"]
    images = jax.random.normal(jax.random.key(1), (1, 99, 99, 3))
    found = features(
        params, images, ("conv6", "relu_conv6", "fc6", "relu6"), architecture=architecture
    )
    np.testing.assert_array_equal(found["relu_conv6"], np.maximum(found["conv6"], 0))
    np.testing.assert_array_equal(found["relu6"], np.maximum(found["fc6"], 0))
