"""Where a value that is not finite first appears: the layer, the direction and the images."""

import types
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.config import Config, DataConfig, ModelConfig
from alexnet_jax.data.statistics import published
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.nonfinite import locate
from alexnet_jax.training.setup import TrainSetup
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import draw_dropout_masks, step_key

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES, CROP, BATCH = 3, 36, 8
HUGE = 3e38  # float32 ends at 3.4e38


@pytest.fixture(scope="module")
def setup() -> TrainSetup:
    config = Config(
        data=DataConfig(image_size=40, crop=CROP), model=ModelConfig(width=0.05, init_bias=0.0)
    )
    named = types.SimpleNamespace(describe=lambda number: f"image {number}")
    data = types.SimpleNamespace(
        statistics=vars(published("imagenet", 40)), splits=types.SimpleNamespace(train=named)
    )
    architecture = build_architecture(config.model, CLASSES, CROP)
    mesh = towers.make_mesh(towers=2, data=1, batch=BATCH)
    return TrainSetup(config, mesh, cast(Any, data), architecture, *[cast(Any, None)] * 4)


def params_of(setup: TrainSetup, **kernels: tuple[np.ndarray, float]) -> dict[str, Any]:
    """Return initial parameters, with kernels and biases of some layers replaced."""
    variables = jax.device_get(towers.initializer(setup.architecture)(jax.random.key(0)))
    params = variables["params"]
    for layer, (kernel, bias) in kernels.items():
        params[layer] = {
            "kernel": kernel.astype(np.float32),
            "bias": np.full(kernel.shape[-1], bias, np.float32),
        }
    return params


def first_nonfinite(setup: TrainSetup, params: dict[str, Any], labels: np.ndarray) -> str:
    images = np.random.default_rng(0).integers(0, 256, (BATCH, CROP, CROP, 3), np.uint8)
    batch = {
        "image": images,
        "label": labels.astype(np.int32),
        "offset": np.zeros((BATCH, 2), np.int32),
        "mirror": np.zeros(BATCH, bool),
        "index": np.arange(100, 100 + BATCH),
    }
    variables = {"params": params}
    shardings = towers.state_shardings(variables, setup.architecture, setup.mesh)
    state = TrainState(jnp.asarray(0), jax.device_put(variables, shardings), ())
    return locate(setup, state, towers.put_batch(batch, setup.mesh))


def units(setup: TrainSetup) -> int:
    return next(layer.features for layer in setup.architecture.layers if layer.name == "fc7")


def test_an_output_is_blamed_on_its_layer_and_images(setup):
    # Two units of fc7 give 1, and their sum overflows in fc8 unless dropout removes one of them.
    number = units(setup)
    last = np.zeros((number, CLASSES))
    last[:2, 0] = HUGE
    params = params_of(setup, fc7=(np.zeros((number, number)), 1.0), fc8=(last, 0.0))
    masks = draw_dropout_masks(
        setup.architecture, step_key(setup.config.seed, jnp.asarray(0)), BATCH
    )
    rows = np.flatnonzero(np.asarray(masks["fc7"])[:, :2].all(axis=1))
    assert 0 < len(rows) < BATCH
    message = first_nonfinite(setup, params, np.zeros(BATCH))
    assert message.startswith(f"the outputs of fc8 (inf; {len(rows)} of {BATCH * CLASSES} values; ")
    shown = ", ".join(f"image {100 + row}" for row in rows[:3])
    assert f"of {shown}" in message


def test_a_gradient_is_blamed_on_the_last_layer_that_has_it(setup):
    # Outputs and loss are finite. On the way back fc8's weights, times fc7's, overflow in fc6, and
    # 0 times infinity is NaN in every layer below.
    number = units(setup)
    fc7, fc8 = np.zeros((number, number)), np.zeros((number, CLASSES))
    fc7[:, 0], fc8[0] = 1e3, (-1e38, 1e38, 1e38)
    params = params_of(setup, fc7=(fc7, 0.0), fc8=(fc8, 0.0))
    inputs = params["fc6"]["kernel"].shape
    params |= params_of(setup, fc6=(np.zeros(inputs), 2e-38), fc7=(fc7, 0.0), fc8=(fc8, 0.0))
    message = first_nonfinite(setup, params, np.zeros(BATCH))
    assert message.startswith("the gradient of fc6's "), message
