"""Measure each layer against a roofline: this machine's matrix product and memory bandwidth.

    python experiments/benchmarks/roofline.py --figure experiments/figures/roofline.png

Layer by layer, one tower, as many images as the platform computes at a time, `paper` at full
width: forward, and the gradients of input and weights. A layer takes at least the time in which a
product of two matrices of 4,096 x 4,096 does as many operations here, and in which a copy of 256
MiB moves as many bytes as the layer reads and writes once.
"""

import argparse
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from jax import Array
from side_by_side import machine

from alexnet_jax.model import platform
from alexnet_jax.model.architecture import TOWERS, Conv, outputs, trace
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS


@dataclasses.dataclass(frozen=True)
class Measured:
    """One direction of one layer."""

    layer: str
    direction: str
    gflop: float
    megabytes: float  # read and written once
    milliseconds: float

    @property
    def rate(self) -> float:
        """GFLOP/s."""
        return self.gflop / self.milliseconds * 1e3


def milliseconds(function: Callable[..., Any], *arrays: Any, repetitions: int) -> float:
    """Return the median time of a jitted call."""
    options = platform.compiler_options(jax.devices()[0])
    jitted = jax.jit(function, compiler_options=options)
    jax.block_until_ready(jitted(*arrays))
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        jax.block_until_ready(jitted(*arrays))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e3


def directions(
    name: str,
    function: Callable[..., Array],
    x: Array,
    weights: tuple[Array, ...],
    flop: float,
    args,
) -> list[Measured]:
    """Time a layer forward and the gradients that training needs."""
    y = jax.eval_shape(function, x, *weights)
    g = jnp.ones(y.shape, y.dtype)
    megabytes = sum(math.prod(a.shape) * a.dtype.itemsize for a in (x, y, *weights)) / 1e6

    def gradient(which: int) -> Callable[..., Any]:
        def pull(g, *operands):
            def of(operand):
                return function(*operands[:which], operand, *operands[which + 1 :])

            return jax.vjp(of, operands[which])[1](g)

        return pull

    def measured(direction: str, call: Callable[..., Any], *arrays: Array) -> Measured:
        median = milliseconds(call, *arrays, repetitions=args.repetitions)
        return Measured(name, direction, flop / 1e9, megabytes, median)

    measurements = [measured("forward", function, x, *weights)]
    if name != "conv1":  # training does not need the gradient of the image
        measurements.append(measured("input", gradient(0), g, x, *weights))
    if weights:
        measurements.append(measured("weights", gradient(1), g, x, *weights))
    return measurements


def measure(args: argparse.Namespace) -> list[Measured]:
    """Time every layer of one tower of `paper`, and what follows it."""
    architecture = build_architecture(PRESETS["paper"].model, 1000, 224)
    ops = platform.for_platform(jax.default_backend())
    rows = {row.name: row for row in trace(architecture)}
    block = ops.block_size(args.batch)
    side, channels, measurements = architecture.crop, 3, []
    for layer in architecture.layers:
        row = rows[layer.name]
        kernel = jnp.ones((*row.kernel_shape[:-1], row.kernel_shape[-1] // TOWERS)) * 1e-3
        if isinstance(layer, Conv):
            x = jax.random.normal(jax.random.key(0), (block, side, side, row.kernel_shape[2]))
            padding = layer.padding(side)

            def run(x, kernel, layer=layer, padding=padding):
                return ops.convolve(x, kernel, layer.stride, padding)
        else:
            x = jax.random.normal(jax.random.key(0), (args.batch, kernel.shape[0]))

            def run(x, kernel):
                return x @ kernel

        flop = 2 * row.multiply_adds * len(x) / TOWERS
        measurements += directions(layer.name, run, x, (kernel,), flop, args)
        side, channels = row.side, row.channels // TOWERS
        for operation, output in outputs(layer):
            x = jax.random.normal(jax.random.key(1), (block, side, side, channels))
            if operation == "lrn":
                # A square, a sum of n, and the power by two roots: as many operations a number.
                flop = x.size * (architecture.lrn.n + 7)
                measurements += directions(
                    output, lambda x: ops.normalize(x, architecture.lrn), x, (), flop, args
                )
            elif operation == "pool":
                flop = x.size / architecture.pooling.stride**2 * architecture.pooling.window**2
                measurements += directions(
                    output, lambda x: ops.pool(x, architecture.pooling), x, (), flop, args
                )
                side = rows[output].side
    return measurements


def product_rate(side: int, dtype: Any, repetitions: int) -> float:
    """Return GFLOP/s of a product of square matrices at JAX's default precision.

    Of noise: a GPU multiplies ones at a higher clock.
    """
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    return 2 * side**3 / milliseconds(lambda a: a @ a, a, repetitions=repetitions) / 1e6


def roof(repetitions: int) -> tuple[float, float]:
    """Return GFLOP/s of a matrix product, and GB/s of a copy, read and written counted."""
    long = jnp.ones(2**26)
    copy = milliseconds(lambda x: x + 1, long, repetitions=repetitions)
    return product_rate(4096, jnp.float32, repetitions), 2 * long.nbytes / copy / 1e6


def limit(m: Measured, flops: float, bandwidth: float) -> float:
    """Return the least milliseconds: of the arithmetic or of the memory, whichever is more."""
    return max(m.gflop / flops * 1e3, m.megabytes / bandwidth)


def draw(measurements: list[Measured], flops: float, bandwidth: float, path: Path) -> None:
    """Draw each layer's times as bars, and across each its limit."""
    names = list(dict.fromkeys(m.layer for m in measurements))
    figure, axes = plt.subplots(figsize=(9, 6.5), constrained_layout=True)
    colors = {"forward": "tab:blue", "input": "tab:orange", "weights": "tab:green"}
    for shift, (direction, color) in zip((-0.27, 0, 0.27), colors.items(), strict=True):
        some = [m for m in measurements if m.direction == direction]
        places = [names.index(m.layer) + shift for m in some]
        label = direction if direction == "forward" else f"gradient of {direction}"
        axes.barh(places, [m.milliseconds for m in some], 0.25, color=color, label=label)
        least = [limit(m, flops, bandwidth) for m in some]
        axes.plot(least, places, "|", color="black", markersize=9, markeredgewidth=2)
    axes.plot([], [], "|", color="black", markersize=9, markeredgewidth=2, linestyle="none",
              label=f"limit: {flops:.0f} GFLOP/s, {bandwidth:.0f} GB/s")  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("ms, one tower")
    axes.legend(loc="lower right")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--figure", type=Path, help="draw it here")
    args = parser.parse_args()
    flops, bandwidth = roof(args.repetitions)
    measurements = measure(args)
    print(json.dumps(machine() | {"gemm_gflops": round(flops), "copy_gbps": round(bandwidth, 1)}))
    print("| layer | | GFLOP | MB | ms | GFLOP/s | of its limit |\n|---|---|---|---|---|---|---|")
    for m in measurements:
        share = limit(m, flops, bandwidth) / m.milliseconds
        print(
            f"| {m.layer} | {m.direction} | {m.gflop:.2f} | {m.megabytes:.1f} | "
            f"{m.milliseconds:.1f} | {m.rate:.0f} | {share:.2f} |"
        )
    if args.figure:
        draw(measurements, flops, bandwidth, args.figure)


if __name__ == "__main__":
    main()
