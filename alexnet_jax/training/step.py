"""The jitted steps: train on a batch, evaluate a batch, predict a batch."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh

from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.loss import label_logits
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.training.state import TrainState, make_key

Metrics = dict[str, Array]
Batch = Mapping[str, Array]


def top_k_error(logits: Array, labels: Array, k: int) -> Array:
    """Return for each image the error of its k best classes, float [B], 0 to 1.

    Ties share the credit: if t classes tie with the true one and only some of them fit among the
    best k, that fraction is correct, so that a constant predictor scores chance and never 0
    (layer_kernels.cu:96-118). A class whose logit is NaN ranks above all others, except for the
    true class: if its logit is NaN the error is 1, also where k is the number of classes or more.
    """
    true = label_logits(logits, labels)[:, None]
    above = jnp.sum(~(logits <= true), axis=-1)
    ties = jnp.maximum(jnp.sum(logits == true, axis=-1), 1)
    return jnp.where(jnp.isnan(true[:, 0]), 1, 1 - jnp.clip((k - above) / ties, 0, 1))


def draw_dropout_masks(architecture: Architecture, key: Array, batch_size: int) -> dict[str, Array]:
    """Return for each layer with dropout which outputs are kept, bool [B, ...outputs].

    Drawn for both towers, outside shard_map: the same on every mesh.
    """
    keys = jax.random.split(key, len(architecture.dropped))
    return {
        name: jax.random.bernoulli(key, 1 - architecture.dropout, (batch_size, *shape))
        for key, (name, shape) in zip(keys, architecture.dropped.items(), strict=True)
    }


def step_key(seed: int, step: Array) -> Array:
    """Return the key of a step, from (seed, step) alone: the same after every resume."""
    return jax.random.fold_in(make_key(seed), step)


def make_gradient(
    architecture: Architecture,
    mesh: Mesh,
    constants: Preprocess,
    seed: int,
    frozen: Collection[str] = (),
) -> Callable[[Any, Array, Batch], tuple[tuple[Array, Array], Any]]:
    """Return `(variables, step, batch) -> ((loss, logits), gradients)`, the mean loss in nats.

    The gradients of `frozen` layers are 0, and what only they need is not computed.
    """
    apply, ops = towers.forward(architecture, mesh), towers.ops(mesh)

    def gradient(variables: Any, step: Array, batch: Batch) -> tuple[tuple[Array, Array], Any]:
        images = preprocess(batch, constants, architecture.precision, ops.flip)
        labels = batch["label"]
        dropout_masks = draw_dropout_masks(architecture, step_key(seed, step), len(labels))

        def loss_of(variables: Any) -> tuple[Array, Array]:
            params = {
                name: lax.stop_gradient(weights) if name in frozen else weights
                for name, weights in variables["params"].items()
            }
            logits = apply({"params": params}, images, dropout_masks)
            return jnp.mean(ops.cross_entropy(logits, labels)), logits

        return jax.value_and_grad(loss_of, has_aux=True)(variables)

    return gradient


def _all_finite(tree: Any) -> Array:
    """Return whether every number in a tree of arrays is finite, bool [].

    0 times infinity or NaN is NaN, and so is a sum with one. XLA's CPU backend adds numbers faster
    than it combines booleans.
    """
    return jnp.isfinite(sum(jnp.sum(leaf * 0) for leaf in jax.tree.leaves(tree)))


def make_train_step(
    architecture: Architecture,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    constants: Preprocess,
    seed: int,
    frozen: Collection[str] = (),
    deterministic: bool = True,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return the jitted `(state, batch) -> (state, metrics)`; it reuses the old state's memory.

    The metrics are sums over the batch, `loss` (nats) and `top1_error`; `count`; and `finite`,
    whether every parameter still is after the step.
    """
    gradient = make_gradient(architecture, mesh, constants, seed, frozen)
    gradient_barrier = towers.make_gradient_barrier(architecture, mesh)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        labels = batch["label"]
        (loss, logits), grads = gradient(state.variables, state.step, batch)
        params = state.variables["params"]
        updates, opt_state = tx.update(gradient_barrier(grads)["params"], state.opt_state, params)
        variables = {"params": optax.apply_updates(params, updates)}
        metrics = {
            "loss": loss * len(labels),
            "top1_error": jnp.sum(top_k_error(logits, labels, 1)),
            "count": jnp.asarray(len(labels)),
            "finite": _all_finite(variables),
        }
        return TrainState(state.step + 1, variables, opt_state), metrics

    return towers.jit(train_step, mesh, deterministic, donate_argnums=0)


def make_eval_step(
    architecture: Architecture, mesh: Mesh, constants: Preprocess, deterministic: bool = True
) -> Callable[[Any, Batch], tuple[Metrics, Array]]:
    """Return the jitted `(variables, batch) -> (sums, probabilities)`.

    The sums are over the images whose `mask` is true: `loss` (nats), `top1_error`, `top5_error`,
    `count`.
    """
    apply, ops = towers.forward(architecture, mesh), towers.ops(mesh)

    def eval_step(variables: Any, batch: Batch) -> tuple[Metrics, Array]:
        logits = apply(variables, preprocess(batch, constants, flip=ops.flip))
        labels = batch["label"]
        values = {
            "loss": ops.cross_entropy(logits, labels),
            "top1_error": top_k_error(logits, labels, 1),
            "top5_error": top_k_error(logits, labels, 5),
            "count": jnp.ones(len(labels), jnp.int32),
        }
        sums = {name: jnp.sum(jnp.where(batch["mask"], value, 0)) for name, value in values.items()}
        return sums, jax.nn.softmax(logits)

    return towers.jit(eval_step, mesh, deterministic)


def make_predict_step(
    architecture: Architecture, mesh: Mesh, constants: Preprocess
) -> Callable[[Any, Batch], Array]:
    """Return the jitted `(variables, batch) -> log-probabilities`, [B, classes]; no labels needed.

    Logarithms, as a probability below 1e-38 would be 0, and its loss infinite.
    """
    apply, ops = towers.forward(architecture, mesh), towers.ops(mesh)

    def predict_step(variables: Any, batch: Batch) -> Array:
        images = preprocess(batch, constants, flip=ops.flip)
        return jax.nn.log_softmax(apply(variables, images))

    return towers.jit(predict_step, mesh)
