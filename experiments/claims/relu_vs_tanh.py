r"""Figure 1: how much faster does a network with ReLUs learn than one with tanh?

Paper:    "A four-layer convolutional neural network with ReLUs (solid line) reaches a 25% training
          error rate on CIFAR-10 six times faster than an equivalent network with tanh neurons
          (dashed line)", with learning rates chosen for each to train as fast as possible, without
          regularization (Figure 1).
Changed:  the paper does not name its network; this one has the four layers of layers-18pct.cfg
          without its norm, weight decay, crops and flips (cifar_net.py). CIFAR-10 as lossy JPEG
          copies. Learning rates are 0.001 times powers of two: starting at 0.001, the search moves
          to the better neighbor until both neighbors of the best are worse, judged by the training
          error in the last half of epoch 2, seed 0. Then each seed trains at that rate until the
          training error is 25 %. The training error is that of each half epoch during training,
          assigned to its middle and interpolated linearly.
Expected: ReLU reaches 25 % several times faster; whether six times depends on the network.
Cost:     about 30 seconds an epoch on two idle cores; 24 epochs of search, of which 4 are reused,
          then three seeds of both: 1.5 hours if ReLU needs 7 epochs and tanh 50
Run:      GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/claims/relu_vs_tanh.py \
            --data DIR --workdir runs/relu

DIR holds train/<class>/* and test/<class>/*. Rerun the same command to resume; finished runs are in
WORKDIR/record.jsonl, and `--seeds` without a number prints the table and draws the picture of them.
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
    """Maximum numbers of epochs."""

    search: int = 2
    run: int = 60


def crossing(training_errors: Sequence[float], target: float = TARGET) -> float | None:
    """Return the epochs after which the training error is `target`, or None."""
    middles = 0.25 + 0.5 * np.arange(len(training_errors))
    for i, error in enumerate(training_errors):
        if error <= target:
            if i == 0:
                return float(middles[0])
            before = training_errors[i - 1]
            return float(middles[i - 1] + 0.5 * (before - target) / (before - error))
    return None


def best_exponent(error: Callable[[int], float]) -> int:
    """Return the integer with a local minimum of `error`, descending from 0."""
    best = 0
    while True:
        better = min((best - 1, best + 1), key=error)
        if error(better) >= error(best):
            return best
        best = better


def search_error(line: Mapping[str, Any]) -> float:
    """Return the error by which the search compares learning rates."""
    return math.inf if line["diverged"] else line["training_errors"][-1]


def train(
    kind: str,
    units: str,
    learning_rate: float,
    seed: int,
    epochs: int,
    args: Arguments,
    images: cifar.Images,
) -> dict[str, Any]:
    """Return the recorded line of this run, after running it if necessary."""
    run = {"seed": seed, "epochs": epochs}
    key = {"kind": kind, "units": units, "learning_rate": learning_rate, **run}
    recipe = cifar.Recipe(learning_rate, epochs, regularized=False, target=TARGET)
    if record.has(args.record, settings := dataclasses.asdict(recipe), **key):
        return record.finished(args.record, **key)[0]
    # The same name in the search and afterwards: the longer run resumes from the shorter.
    checkpoint = args.folder / f"{units}-rate{learning_rate:g}-seed{seed}.msgpack"
    _, history = cifar.train(FourLayerNet(UNITS[units]), recipe, seed, images, checkpoint)
    line = {**key, "settings": settings, **dataclasses.asdict(history)}
    record.append(args.record, line)
    return line


def run_all(images: cifar.Images, args: Arguments, budget: Budget) -> None:
    """Search the learning rates, then train with every seed of both units."""
    rates = {}
    for units in UNITS:

        def error(exponent: int, units: str = units) -> float:
            learning_rate = 0.001 * 2.0**exponent
            line = train("search", units, learning_rate, SEARCH_SEED, budget.search, args, images)
            return search_error(line)

        rates[units] = 0.001 * 2.0 ** best_exponent(error)
    for seed in args.seeds:
        for units, learning_rate in rates.items():
            train("run", units, learning_rate, seed, budget.run, args, images)
        show(args)


def report(path: Path) -> str:
    """Return the tables of the recorded runs in Markdown."""
    searched = record.finished(path, kind="search")
    found = {(line["units"], line["learning_rate"]): search_error(line) for line in searched}
    rates = sorted({rate for _, rate in found})
    rows = [
        [units, *(percent(found[units, r]) if (units, r) in found else "" for r in rates)]
        for units in UNITS
        if found  # record.table refuses a table without rows
    ]
    header = ["learning rate", *(f"{rate:g}" for rate in rates)]
    title = f"Training error in the last half epoch of the search, %, seed {SEARCH_SEED}:"
    paragraphs = [title, record.table(header, rows)]
    if runs := record.finished(path, kind="run"):
        paragraphs += [f"Epochs to {TARGET:.0%} training error:", epochs_table(runs)]
    return "\n\n".join(paragraphs)


def show(args: Arguments) -> None:
    """Print the tables and draw the figure of the recorded runs."""
    print(f"\n{report(args.record)}")
    if runs := record.finished(args.record, kind="run"):
        draw(runs, args.folder / "relu_vs_tanh.png")


def percent(error: float) -> str:
    """Return a fraction in percent, as the tables show it."""
    return "diverged" if error == math.inf else f"{100 * error:.1f}"


def ratio(path: Path) -> record.Estimate:
    """Return how many times as many epochs tanh needed, over seeds with which both arrived.

    Raises NoRuns if there is no such seed.
    """
    if not (estimates := _estimates(record.finished(path, kind="run"))):
        raise record.NoRuns(f"{path}: has no seed with which both reached the target; run one.")
    return estimates[-1]


def _estimates(runs: Sequence[dict[str, Any]]) -> list[record.Estimate]:
    """Return the means over seeds of both numbers of epochs and of their ratio; or nothing."""
    reached = (
        tuple(crossing(line["training_errors"]) if line else None for line in lines)
        for lines in _by_seed(runs).values()
    )
    columns = [(relu, tanh, tanh / relu) for relu, tanh in reached if relu and tanh]
    return [record.estimate(column) for column in zip(*columns, strict=True)]


def _by_seed(runs: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any] | None]]:
    """Return the runs of all UNITS, in their order, by seed."""
    found = {(line["seed"], line["units"]): line for line in runs}
    return {
        seed: [found.get((seed, units)) for units in UNITS]
        for seed in sorted({seed for seed, _ in found})
    }


def epochs_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the epochs to the target for each seed, and their ratio."""
    rates = {line["units"]: line["learning_rate"] for line in runs}
    rows: list[list[object]] = []
    for seed, lines in _by_seed(runs).items():
        relu, tanh = (crossing(line["training_errors"]) if line else None for line in lines)
        times = ""
        if relu and tanh:
            times = f"{tanh / relu:.2f}"
        elif relu and lines[1] and not lines[1]["diverged"]:
            times = f"> {lines[1]['epochs'] / relu:.2f}"
        rows.append([seed, *(epochs(line) for line in lines), times])
    if means := _estimates(runs):
        rows.append([f"mean of {means[0].number}, 95 % interval", *means])
    header = [
        f"{units}, learning rate {rates[units]:g}" if units in rates else units for units in UNITS
    ]
    return record.table(["seed", *header, "ratio"], rows)


def epochs(line: Mapping[str, Any] | None) -> str:
    """Return the epochs that a run needed for the target, or why it did not reach it."""
    if line is None:
        return "not run"
    if (reached := crossing(line["training_errors"])) is not None:
        return f"{reached:.2f}"
    return "diverged" if line["diverged"] else f"> {line['epochs']}"


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the training error of each run, and the mean in bold while all seeds have values."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epochs", ylabel="training error rate", ylim=(0, 0.9))
    for units, style in zip(UNITS, ("-", "--"), strict=True):
        curves = [run["training_errors"] for run in runs if run["units"] == units]
        for curve in curves:
            axes.plot(
                0.25 + 0.5 * np.arange(len(curve)), curve, style, color="black", linewidth=0.5
            )
        if curves:
            mean = np.mean([curve[: min(map(len, curves))] for curve in curves], axis=0)
            middles = 0.25 + 0.5 * np.arange(len(mean))
            label = f"{units}, {len(curves)} seed{'s'[: len(curves) - 1]}"
            axes.plot(middles, mean, style, color="black", linewidth=2, label=label)
    axes.axhline(TARGET, color="gray", linestyle=":")
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(args: Arguments) -> None:
    """Run what the record lacks, print the tables, draw the figure."""
    if args.seeds:
        images, _ = cifar.data_sets(args)
        run_all(images, args, Budget(1, 2) if args.smoke else Budget())
    show(args)


if __name__ == "__main__":
    experiment.cli(main, __doc__)
