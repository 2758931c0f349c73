"""The network again, in a page of plain JAX without towers, blocks or gradients of its own.

What it computes is the tests' reference: its gradients are those of automatic differentiation.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax.model.architecture import SPATIAL_NORM, Conv, outputs


def forward(params, images, architecture, added=None):
    """Return the logits and every output by name; `added` is added to some of these."""
    x, taps, added = images, {}, added or {}
    for layer in architecture.layers:
        kernel, bias = params[layer.name]["kernel"], params[layer.name]["bias"]
        if isinstance(layer, Conv):
            x = lax.conv_general_dilated(
                *(x, kernel, (layer.stride, layer.stride), [layer.padding(x.shape[1])] * 2),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=2 if layer.sees == "own" else 1,
            )
            x = x + bias[None, None, None]
        else:
            x = x.reshape(len(x), -1) @ kernel + bias[None]
        for operation, name in [(None, layer.name), *outputs(layer)]:
            x = operate(operation, x, architecture)
            x = x + added.get(name, 0.0)
            taps[name] = x
    return x, taps


def operate(operation, x, architecture):
    match operation:
        case "relu":
            return jnp.where(x > 0, x, 0)
        case "tanh":
            return jnp.tanh(x)
        case "lrn":
            parts = 1 if architecture.lrn_scope == "all" else 2
            towers = [over_maps(part, architecture.lrn) for part in jnp.split(x, parts, axis=-1)]
            return jnp.concatenate(towers, axis=-1)
        case "spatial_norm":
            sums = lax.reduce_window(x**2, 0.0, lax.add, (1, 5, 5, 1), (1, 1, 1, 1), "SAME")
            return x / (SPATIAL_NORM.k + SPATIAL_NORM.alpha * sums) ** SPATIAL_NORM.beta
        case "pool":
            return pool(x, architecture.pooling)
        case "dropout":
            return x * (1 - architecture.dropout if architecture.dropout_scale == "test" else 1.0)
    return x


def over_maps(x, norm):
    near = np.abs(np.subtract.outer(np.arange(x.shape[-1]), np.arange(x.shape[-1]))) <= norm.n // 2
    return x / (norm.k + norm.alpha * (x**2 @ near.astype(np.float32))) ** norm.beta


def pool(x, pooling):
    side, size = x.shape[1], pooling.output_side(x.shape[1])
    past = max(0, (size - 1) * pooling.stride + pooling.window - side)
    lowest = jnp.finfo(x.dtype).min
    x = jnp.pad(x, ((0, 0), (0, past), (0, past), (0, 0)), constant_values=lowest)
    if pooling.ties == "first":
        window, stride = (1, *[pooling.window] * 2, 1), (1, *[pooling.stride] * 2, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, stride, "VALID")
    reach = (size - 1) * pooling.stride + 1
    steps = [slice(start, start + reach, pooling.stride) for start in range(pooling.window)]
    shifted = jnp.stack([x[:, rows, columns] for rows in steps for columns in steps])
    highest = lax.stop_gradient(shifted.max(axis=0, keepdims=True))
    # The maximum, with a slope of 1 along each of those that equal it.
    slopes = jnp.where(shifted == highest, shifted - lax.stop_gradient(shifted), 0)
    return highest[0] + slopes.sum(axis=0)


def score(params, images, labels, architecture, kind, added=None):
    """Return the sum of the scores, and all outputs."""
    logits, taps = forward(params, images, architecture, added)
    values = jax.nn.softmax(logits) if kind == "probability" else logits
    return values[np.arange(len(labels)), np.asarray(labels)].sum(), taps


def explain(params, images, labels, architecture, layer, kind="logit"):
    """Return gradients [B, h, w, 3], Grad-CAM [B, H, W], and what each tower adds [B, 2, H, W]."""

    def of_images(images, added, params):
        value, taps = score(params, images, labels, architecture, kind, {layer: added})
        return value, taps[layer]

    shapes = jax.eval_shape(lambda p, x: forward(p, x, architecture)[1], params, images)
    slopes_of = jax.jit(jax.grad(of_images, argnums=(0, 1), has_aux=True))
    (by_pixel, slopes), values = slopes_of(images, jnp.zeros(shapes[layer].shape), params)
    weights, values = np.asarray(slopes).mean(axis=(1, 2)), np.asarray(values)
    batch, height, width, maps = values.shape
    towers = np.zeros((batch, 2, height, width))
    for number in range(maps):
        tower = number // (maps // 2)
        towers[:, tower] += weights[:, number, None, None] * values[..., number]
    return np.asarray(by_pixel), np.maximum(towers.sum(axis=1), 0), towers
