"""Figure 1: how much sooner do rectified linear units learn than tanh units?

The paper (Figure 1): "A four-layer convolutional neural network with ReLUs (solid line) reaches a
25% training error rate on CIFAR-10 six times faster than an equivalent network with tanh neurons
(dashed line)", rates chosen for each to train as fast as possible, without regularization.

Here: the paper does not name its net; the four layers of layers-18pct.cfg without its norm, decay,
crops and mirrors stand for it (cifar_net.py). CIFAR-10 as lossy JPEG copies. Rates are multiples
of .001 by powers of two: from .001 the search goes to the better neighbor until both neighbors
of the best are worse, by the training error in the last half of epoch 2, seed 0. Then each seed
runs at that rate until the training error falls to 25 %. The training error is that of each half
epoch as it is trained, counted for its middle; straight lines between.

Expected: ReLU first, several times; whether six times depends on the net.
Cost:     about 30 seconds an epoch on 2 free CPU cores; 24 epochs of search, of which 4 are used
          again, then 3 seeds of both: 1.5 hours if ReLU needs 7 epochs and tanh 50
Run:      GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/claims/relu_vs_tanh.py \
            --data DIR --workdir runs/relu

DIR holds train/<class>/* and test/<class>/*. Runs go on where they were interrupted; what is
finished is in WORKDIR/record.jsonl; `--seeds` without a number makes table and picture of that.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cifar
import experiment
import flax.linen as nn
import numpy as np
import record
from cifar_net import FourLayerNet
from experiment import Arguments
from matplotlib.figure import Figure

UNITS = {"ReLU": nn.relu, "tanh": nn.tanh}
TARGET = 0.25
SEARCH_SEED = 0


@dataclasses.dataclass(frozen=True)
class Budget:
    """Epochs."""

    search: int = 2
    at_most: int = 60


def crossing(training_errors: Sequence[float], target: float = TARGET) -> float | None:
    """Return the epochs after which the training error is `target`; None where it never is."""
    middles = 0.25 + 0.5 * np.arange(len(training_errors))
    for i, error in enumerate(training_errors):
        if error <= target:
            if i == 0:
                return float(middles[0])
            before = training_errors[i - 1]
            return float(middles[i - 1] + 0.5 * (before - target) / (before - error))
    return None


def best_exponent(error: Callable[[int], float]) -> int:
    """Return the integer with the least `error`, going downhill from 0 until both sides rise."""
    best = 0
    while True:
        better = min((best - 1, best + 1), key=error)
        if error(better) >= error(best):
            return best
        best = better


def search_error(line: Mapping[str, Any]) -> float:
    """Return by what the search compares rates."""
    return math.inf if line["diverged"] else line["training_errors"][-1]


def train(
    kind: str,
    units: str,
    rate: float,
    seed: int,
    epochs: int,
    asked: Arguments,
    images: cifar.Images,
) -> dict[str, Any]:
    """Return the line of the record of this run, after running it if there is none."""
    key = {"kind": kind, "units": units, "rate": rate, "seed": seed, "epochs": epochs}
    recipe = cifar.Recipe(rate=rate, epochs=epochs, regularized=False, target=TARGET)
    if record.has(asked.record, made := dataclasses.asdict(recipe), **key):
        return record.finished(asked.record, **key)[0]
    # Of one name for the search and for what follows it: the longer run goes on from the shorter.
    checkpoint = asked.folder / f"{units}-rate{rate:g}-seed{seed}.msgpack"
    _, history = cifar.train(FourLayerNet(UNITS[units]), recipe, seed, images, checkpoint)
    line = {**key, "made": made, **dataclasses.asdict(history)}
    record.append(asked.record, line)
    return line


def run_all(images: cifar.Images, asked: Arguments, budget: Budget) -> None:
    """Search the rates, then run each seed of both units."""
    rates = {}
    for units in UNITS:

        def error(exponent: int, units: str = units) -> float:
            rate = 0.001 * 2.0**exponent
            line = train("search", units, rate, SEARCH_SEED, budget.search, asked, images)
            return search_error(line)

        rates[units] = 0.001 * 2.0 ** best_exponent(error)
    for seed in asked.seeds:
        for units, rate in rates.items():
            train("run", units, rate, seed, budget.at_most, asked, images)
        report(asked)


def report(asked: Arguments) -> None:
    """Print the tables and draw the picture of what the record holds."""
    searched = record.finished(asked.record, kind="search")
    runs = record.finished(asked.record, kind="run")
    print(f"\nTraining error in the last half epoch of the search, %, seed {SEARCH_SEED}:\n")
    rows = []
    for rate in sorted({line["rate"] for line in searched}):
        found = {line["units"]: search_error(line) for line in searched if line["rate"] == rate}
        rows.append([f"{rate:g}", *(percent(found[u]) if u in found else "" for u in UNITS)])
    print(record.table(["rate", *UNITS], rows))
    if runs:
        print_epochs(runs)
        draw(runs, asked.folder / "relu_vs_tanh.png")


def percent(error: float) -> str:
    """Return a share as per cent, as the tables have it."""
    return "diverged" if error == math.inf else f"{100 * error:.1f}"


def print_epochs(runs: Sequence[dict[str, Any]]) -> None:
    """Print the epochs to the target for each seed, and their ratio."""
    rates = {line["units"]: line["rate"] for line in runs}
    found = {(line["units"], line["seed"]): line for line in runs}
    rows, both = [], []
    for seed in sorted({seed for _, seed in found}):
        lines = [found.get((units, seed)) for units in UNITS]
        relu, tanh = (crossing(line["training_errors"]) if line else None for line in lines)
        ratio = ""
        if relu and tanh:
            both.append((relu, tanh, tanh / relu))
            ratio = f"{tanh / relu:.2f}"
        elif relu and lines[1] and not lines[1]["diverged"]:
            ratio = f"> {lines[1]['epochs'] / relu:.2f}"
        rows.append([seed, *(epochs(line) for line in lines), ratio])
    if both:
        means = [record.estimate(column) for column in zip(*both, strict=True)]
        rows.append([f"mean of {len(both)}, 95 % interval", *means])
    print(f"\nEpochs to {TARGET:.0%} training error:\n")
    header = [f"{units}, rate {rates[units]:g}" if units in rates else units for units in UNITS]
    print(record.table(["seed", *header, "ratio"], rows))


def epochs(line: Mapping[str, Any] | None) -> str:
    """Return after how many epochs a run reached the target, or why it did not."""
    if line is None:
        return "not run"
    if (reached := crossing(line["training_errors"])) is not None:
        return f"{reached:.2f}"
    return "diverged" if line["diverged"] else f"> {line['epochs']}"


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the training error of each run, and in bold the mean as far as all seeds have come."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epochs", ylabel="training error rate", ylim=(0, 0.9))
    for units, line in zip(UNITS, ("-", "--"), strict=True):
        curves = [run["training_errors"] for run in runs if run["units"] == units]
        for curve in curves:
            axes.plot(0.25 + 0.5 * np.arange(len(curve)), curve, line, color="black", linewidth=0.5)
        if curves:
            mean = np.mean([curve[: min(map(len, curves))] for curve in curves], axis=0)
            middles = 0.25 + 0.5 * np.arange(len(mean))
            label = f"{units}, {len(curves)} seed{'s'[: len(curves) - 1]}"
            axes.plot(middles, mean, line, color="black", linewidth=2, label=label)
    axes.axhline(TARGET, color="gray", linestyle=":")
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(asked: Arguments) -> None:
    """Run what the record lacks, print the tables, draw the picture."""
    if asked.seeds:
        images, _ = cifar.data_sets(asked)
        run_all(images, asked, Budget(1, 2) if asked.smoke else Budget())
    report(asked)


if __name__ == "__main__":
    experiment.cli(main, __doc__)
