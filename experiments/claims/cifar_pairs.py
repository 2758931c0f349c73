"""Compare two settings of a CIFAR-10 network: runs, table, figure.

Both settings are trained alike: weight decay, learning rate 0.001 and two drops to a tenth as in
the file of the network's parameters (cifar_net.py) unless the experiment says otherwise, in fewer
epochs, whose number and drops are fixed before the first run; random crops of 24 pixels and
horizontal flips as in the authors' networks of 13 % and 11 %. The test error is that of the last
epoch, on center crops. A seed gives both settings the same initial weights, order, crops and flips,
so differences are paired by seed.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cifar
import numpy as np
import record
from experiment import Arguments
from matplotlib.figure import Figure

SHORT = cifar.Recipe(learning_rate=0.001, epochs=12, regularized=True, milestones=(9, 11))
# The 140 epochs of layer-params-18pct.cfg and its drops after 120 and 130, in proportion.
LONG = dataclasses.replace(SHORT, epochs=40, milestones=(34, 37))
SMOKE = dataclasses.replace(SHORT, epochs=2, milestones=(1,))
Pair = Mapping[str, cifar.Net]  # without and with what the paper claims to help


def run(pair: Pair, name: str, recipe: cifar.Recipe, args: Arguments) -> None:
    """Train what the record lacks; after each run print the table and draw WORKDIR/`name`.png."""
    recipe = SMOKE if args.smoke else recipe
    if not args.seeds:
        show(pair, args, name, recipe.epochs)
        return
    images, test = cifar.data_sets(args)
    settings = dataclasses.asdict(recipe)
    keys = [
        {"setting": setting, "seed": seed, "epochs": recipe.epochs}
        for seed in dict.fromkeys(args.seeds)
        for setting in pair
    ]
    # A record with other settings is rejected here, before hours of training.
    missing = [key for key in keys if not record.has(args.record, settings, **key)]
    for key in missing:
        setting, seed = key["setting"], key["seed"]
        run_name = f"{record.file_name(setting)}-seed{seed}-{recipe.epochs}epochs"
        checkpoint = args.folder / f"{run_name}.msgpack"
        _, history = cifar.train(pair[setting], recipe, seed, images, checkpoint, test)
        record.append(args.record, {**key, "settings": settings, **dataclasses.asdict(history)})
        show(pair, args, name, recipe.epochs)
    if not missing:
        show(pair, args, name, recipe.epochs)


def show(pair: Pair, args: Arguments, name: str, epochs: int) -> None:
    """Print the table and draw the figure of the recorded runs with this number of epochs."""
    print(f"\n{report(pair, epochs, args.record)}")
    draw(_runs(pair, epochs, args.record), args.folder / f"{name}.png")


def _runs(pair: Pair, epochs: int, path: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the recorded runs of both settings with this number of epochs, by seed.

    Raises NoRuns if there is none.
    """
    runs = {
        setting: {
            line["seed"]: line for line in record.finished(path, setting=setting, epochs=epochs)
        }
        for setting in pair
    }
    if not any(runs.values()):
        raise record.NoRuns(f"{path}: has no finished run; give --seeds a number, such as 0.")
    return runs


def final_errors(pair: Pair, epochs: int, path: Path) -> dict[str, dict[int, float]]:
    """Return test errors after the last epoch in percent, by setting and seed, of finite runs."""
    return {
        setting: {
            seed: 100 * line["test_errors"][-1]
            for seed, line in sorted(lines.items())
            if not line["diverged"]
        }
        for setting, lines in _runs(pair, epochs, path).items()
    }


def difference(pair: Pair, epochs: int, path: Path) -> record.Estimate:
    """Return the error of the second setting minus that of the first, paired by seed."""
    return record.paired(*final_errors(pair, epochs, path).values())


def report(pair: Pair, epochs: int, path: Path) -> str:
    """Return final test errors by seed, their means and the paired difference, in Markdown."""
    errors = final_errors(pair, epochs, path)
    seeds = sorted({seed for of_setting in errors.values() for seed in of_setting})
    rows = []
    for setting, of_setting in errors.items():
        cells = [f"{of_setting[seed]:.2f}" if seed in of_setting else "" for seed in seeds]
        mean = record.estimate(list(of_setting.values())) if of_setting else None
        deviation = f"{mean.deviation:.2f}" if mean and mean.number > 1 else ""
        rows.append([setting, *cells, mean or "", deviation])
    header = [f"test error after {epochs} epochs, %", *(f"seed {s}" for s in seeds)]
    paragraphs = [record.table([*header, "mean, 95 % interval", "deviation"], rows)]
    for setting, lines in _runs(pair, epochs, path).items():
        paragraphs += [f"{setting}, seed {s}: diverged" for s in lines if lines[s]["diverged"]]
    without, with_ = errors.values()
    if without.keys() & with_.keys():
        verdict = record.verdict(record.paired(without, with_))
        paragraphs.append(f"{' - '.join(reversed(errors))}, in points: {verdict}.")
    return "\n\n".join(paragraphs)


def draw(runs: Mapping[str, Mapping[int, dict[str, Any]]], path: Path) -> None:
    """Draw mean and range of the test error over epochs, and the mean training error dotted."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epochs", ylabel="error, %")
    for color, (setting, lines) in zip(("black", "tab:red"), runs.items(), strict=True):
        finite = [line for line in lines.values() if not line["diverged"]]
        if not finite:
            continue
        label = f"{setting}, {len(finite)} seed{'s'[: len(finite) - 1]}"
        training = 100 * np.mean([line["training_errors"] for line in finite], axis=0)
        tests = 100 * np.array([line["test_errors"] for line in finite])
        epochs = 1 + np.arange(tests.shape[1])
        axes.plot(0.25 + 0.5 * np.arange(len(training)), training, ":", color=color)
        axes.plot(epochs, tests.mean(axis=0), color=color, label=label)
        axes.fill_between(
            epochs, tests.min(axis=0), tests.max(axis=0), color=color, alpha=0.2, linewidth=0
        )
    axes.plot([], [], ":", color="gray", label="training error, random crops and flips")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
