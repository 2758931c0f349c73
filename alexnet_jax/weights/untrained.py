"""Which layers of imported weights look as they were drawn, before any training."""

import math
from collections.abc import Mapping

import numpy as np

SAMPLE = 2**17  # weights of a kernel that are looked at
FEWEST = 200  # weights that tell a distribution
DEVIATIONS = 5  # of chance
# Excess kurtosis of what kernels are drawn from: normal, normal within two deviations, uniform.
# Training makes the tails of a kernel heavier.
KURTOSIS = (0.0, -0.6344, -1.2)


def looks_untrained(kernel: np.ndarray, bias: np.ndarray) -> bool:
    """Return whether no training shows in a layer.

    Its biases are then all the same constant, or uniform within 1 / sqrt(inputs) like its kernel
    (PyTorch's default), and its kernel is a constant or has mean and kurtosis of what kernels are
    drawn from.

    Args:
        kernel: in the layout of `model/`, outputs last.
        bias: of its outputs.
    """
    fan_in = math.prod(kernel.shape[:-1])
    flat = np.ascontiguousarray(kernel).reshape(-1)
    sample = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
    if not np.ptp(sample):
        return not np.ptp(flat)
    if sample.size < FEWEST:
        return False
    deviation = sample.std()
    standard = (sample - sample.mean()) / deviation
    excess = float(np.mean(standard**4)) - 3
    centered = abs(sample.mean()) < DEVIATIONS * deviation / math.sqrt(sample.size)
    chance = DEVIATIONS * math.sqrt(24 / sample.size)
    drawn = centered and any(abs(excess - kurtosis) < chance for kurtosis in KURTOSIS)
    bound = 1 / math.sqrt(fan_in)
    largest = [float(np.abs(array).max()) / bound for array in (flat, bias)]
    uniform = largest[0] > 0.9 and max(largest) < 1.001
    return bool(drawn and (uniform or not np.ptp(bias)))


def describe_untrained(params: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Return a sentence about the layers that look untrained, "" if none does."""
    names = [
        layer
        for layer, kinds in params.items()
        if len(kinds) == 2 and looks_untrained(kinds["kernel"], kinds["bias"])
    ]
    if not names:
        return ""
    which = "All layers" if len(names) == len(params) else ", ".join(names)
    return (
        f"{which} look untrained: kernels as they are drawn at random, biases as they are "
        "initialized; check that the file is that of a trained network."
    )
