"""bfloat16 between the layers, the precision of products, and float32 where sums would be lost."""

import dataclasses
import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.config import ModelConfig, OptimizerConfig, Precision
from alexnet_jax.model import platform, response_norm, towers
from alexnet_jax.model.architecture import ResponseNorm
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import abstract_state
from alexnet_jax.training.step import make_eval_step, make_train_step

BATCH = 4
MODEL = ModelConfig(width=1 / 16, conv345_init_std=0.03)
FLOAT = build_architecture(MODEL, 10, 67)
BRAIN = build_architecture(dataclasses.replace(MODEL, dtype="bfloat16"), 10, 67)


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    """Leave most optimizations out: they take time, and nothing here depends on them."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def mesh_of(count: int):
    return towers.make_mesh(towers=count, data=1, batch=BATCH)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (BATCH, 67, 67, 3), np.uint8),
        "label": rng.integers(0, 10, BATCH).astype(np.int32),
        "lighting": np.zeros((BATCH, 3), np.float32),
        "divisor": np.ones(BATCH, np.float32),
        "offset": np.zeros((BATCH, 2), np.int32),
        "mirror": np.zeros(BATCH, bool),
        "index": np.arange(BATCH),
    }


def steps_of(architecture, mesh, batch, steps=2):
    tx = paper_sgd(OptimizerConfig(batch_size=BATCH, learning_rate=0.001))
    constants = Preprocess(mean=jnp.full(3, 120.0), lighting=jnp.zeros((3, 3)), scale=jnp.ones(3))
    create, _ = abstract_state(architecture, tx, mesh, seed=0)
    step, state, losses = make_train_step(architecture, tx, mesh, constants, seed=0), create(), []
    for _ in range(steps):
        state, metrics = step(state, towers.put_batch(batch, mesh))
        losses.append(metrics["loss"].item() / BATCH)
    return state, np.array(losses)


def agreements(one, other) -> list[float]:
    """Return the cosine between each array of velocities and its like."""
    pairs = zip(jax.tree.leaves(one.opt_state), jax.tree.leaves(other.opt_state), strict=True)
    norm = np.linalg.norm
    return [np.vdot(a, b) / (norm(a) * norm(b)) for a, b in pairs]


def products(jaxpr) -> list[tuple[str, str]]:
    """Name every convolution and matrix product with the type of its operands."""
    operands = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            operands.append((equation.primitive.name, str(equation.invars[0].aval.dtype)))
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            operands += products(inner) if hasattr(inner, "eqns") else []
    return operands


def test_every_product_but_the_last_is_bfloat16():
    apply = towers.forward(BRAIN, mesh_of(1))
    variables = jax.eval_shape(towers.initializer(BRAIN), jax.random.key(0))
    images = jax.ShapeDtypeStruct((BATCH, 67, 67, 3), jnp.float32)
    *others, last = products(jax.make_jaxpr(apply)(variables, images).jaxpr)
    assert {kind for _, kind in others} == {"bfloat16"}
    assert len(others) >= 7
    assert last == ("dot_general", "float32")


@pytest.fixture(scope="module")
def rounded(batch):
    return steps_of(BRAIN, mesh_of(1), batch)


def test_what_is_kept_is_float32_and_trains_as_float32_does(batch, rounded):
    exact, losses = steps_of(FLOAT, mesh_of(1), batch)
    state, close = rounded
    assert (losses != close).all()  # or nothing was rounded
    np.testing.assert_allclose(close, losses, rtol=2e-2)  # 8 bits: rounding errors of 0.4 %
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((state.variables, state.opt_state)))
    assert min(agreements(exact, state)) > 0.97


def test_two_devices_compute_what_one_does(batch, rounded):
    one, losses = rounded
    two, same = steps_of(BRAIN, mesh_of(2), batch)
    # The sums of both towers' gradients are rounded in another order.
    np.testing.assert_allclose(same, losses, rtol=2e-3)
    assert min(agreements(one, two)) > 0.97


@pytest.mark.parametrize("norm", [ResponseNorm(), ResponseNorm(over="pixels", k=1.0)])
def test_the_sums_of_response_normalization_are_float32(norm):
    x, g = jax.random.normal(jax.random.key(0), (2, 1, 5, 5, 16)) * jnp.array(100.0)
    narrow, slope = x.astype(jnp.bfloat16), g.astype(jnp.bfloat16)
    y, pull = jax.vjp(lambda x: response_norm.normalize(x, norm), narrow)
    wide, push = jax.vjp(lambda x: response_norm.normalize(x, norm), narrow.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))
    (back,), (expected,) = pull(slope), push(slope.astype(jnp.float32))
    np.testing.assert_array_equal(back, expected.astype(jnp.bfloat16))


@pytest.fixture(scope="module")
def variables():
    return jax.jit(towers.initializer(BRAIN))(jax.random.key(0))


def test_tapped_outputs_are_float32(batch, variables):
    apply = jax.jit(towers.forward(BRAIN, mesh_of(1), ("conv1", "pool5", "relu7")))
    logits, outputs = apply(variables, jnp.asarray(batch["image"], jnp.float32))
    assert {x.dtype for x in (logits, *outputs.values())} == {jnp.dtype("float32")}
    assert jnp.all(outputs["conv1"] == outputs["conv1"].astype(jnp.bfloat16))


def test_a_bias_moves_by_less_than_bfloat16_could(batch, variables):
    images = jnp.asarray(batch["image"], jnp.float32) / 64

    def total(variables):
        return jnp.sum(towers.forward(BRAIN, mesh_of(1))(variables, images) ** 2)

    gradient = jax.jit(jax.grad(total))(variables)["params"]["fc6"]["bias"]
    assert gradient.dtype == jnp.float32
    assert jnp.any(gradient != gradient.astype(jnp.bfloat16).astype(jnp.float32))


PRODUCT = re.compile(r"stablehlo\.(dot_general|convolution)\b(.*)")


def precisions(program: str) -> Counter[tuple[str, str]]:
    """Count the products of a lowered program by kind and by the precision of their operands."""
    return Counter(
        (kind, " ".join(re.findall(r"\b(?:DEFAULT|HIGH|HIGHEST)\b", rest)))
        for kind, rest in PRODUCT.findall(program)
    )


@pytest.mark.parametrize(
    "ops", [platform.CPU, platform.TPU, platform.GPU], ids=["cpu", "tpu", "gpu"]
)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("bottleneck", [0, 8])
@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_every_product_of_a_step_has_the_precision_of_the_model(
    precision, bottleneck, count, ops, batch, monkeypatch
):
    monkeypatch.setattr(platform, "for_platform", lambda _: ops)
    model = dataclasses.replace(MODEL, precision=precision, bottleneck=bottleneck)
    architecture, mesh = build_architecture(model, 10, 67), mesh_of(count)
    tx = paper_sgd(OptimizerConfig(batch_size=BATCH))
    constants = Preprocess(mean=jnp.zeros(3), lighting=jnp.eye(3), scale=jnp.ones(3))
    _, state = abstract_state(architecture, tx, mesh, seed=0)
    placed = towers.put_batch(batch, mesh)
    train_step: Any = make_train_step(architecture, tx, mesh, constants, seed=0)
    train = precisions(train_step.lower(state, placed).as_text())
    evaluated = {name: placed[name] for name in placed if name not in ("lighting", "divisor")}
    evaluated["mask"] = placed["mirror"]
    eval_step: Any = make_eval_step(architecture, mesh, constants)
    test = precisions(eval_step.lower(state.variables, evaluated).as_text())
    # One device convolves conv2, conv4 and conv5 for both towers.
    convolutions = {1: 2 + 3 * 2, 2: 5}[count]
    products = {0: 3, 8: 4}[bottleneck]
    # LRN's window sums on a TPU, after conv1 and conv2 of each tower.
    sums = 2 * 2 // count if ops is platform.TPU else 0
    both = " ".join([precision.upper()] * 2)
    # Mirroring on a TPU is a product of bytes, which one pass computes exactly.
    mirroring = Counter({("dot_general", "DEFAULT DEFAULT"): int(ops is platform.TPU)})
    assert test == mirroring + Counter(
        {("convolution", both): convolutions, ("dot_general", both): products + sums}
    )
    # Forward, and the gradients of kernel and input; the images have none. Lighting has a product.
    blocks = -(-BATCH // ops.block_size(BATCH))
    assert blocks == 1
    assert train == mirroring + Counter(
        {
            ("convolution", both): 3 * convolutions - 1,
            ("dot_general", both): 3 * products + 1 + 2 * sums,
        }
    )


@pytest.mark.parametrize(
    ("device", "meanings"),
    [
        (
            dict(platform="tpu"),
            ["one bfloat16 pass", "three bfloat16 passes", "six bfloat16 passes"],
        ),
        (dict(platform="gpu", compute_capability="9.0"), ["TF32", "TF32", "float32"]),
        (dict(platform="gpu", compute_capability="12.1"), ["TF32", "TF32", "float32"]),
        (dict(platform="gpu", compute_capability="7.5"), ["float32"] * 3),
        (dict(platform="cpu"), ["float32"] * 3),
        (
            dict(platform="gpu", compute_capability="gfx942"),
            [*["TF32 if the GPU has it, otherwise float32"] * 2, "float32"],
        ),
        (
            dict(platform="gpu"),
            [*["TF32 if the GPU has it, otherwise float32"] * 2, "float32"],
        ),
    ],
)
def test_what_a_precision_means_on_a_device(device, meanings):
    precisions: tuple[Precision, ...] = ("default", "high", "highest")
    for precision, meaning in zip(precisions, meanings, strict=True):
        on: Any = SimpleNamespace(**device)
        text = platform.describe_precision("float32", precision, on)
        assert text == f"float32 arrays; products in {meaning}"
        text = platform.describe_precision("bfloat16", precision, on)
        assert text.startswith("bfloat16 arrays and products; ")
        assert text.endswith(f"the last layer in {meaning}")
