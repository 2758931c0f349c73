r"""Is the average prediction of five networks better than that of one network?

Paper:    top-5 error 18.2 % with one network, 16.4 % with five, their probabilities averaged (P6);
          the probabilities of each network are themselves averages over ten views (P4.1).
Changed:  the baseline on Caltech-101 (caltech_baseline.py), five seeds of one network, equal
          weights. The paper does not say how its five networks differ; the 2012 code can average
          networks of any kind, with weights found by a search.
Expected: five are better than one by several points, since networks this far from convergence
          differ more from seed to seed than those of 2012 did.
Cost:     five runs of the baseline, 15 minutes on two idle cores, shared with the other experiments
          in the same --workdir; evaluation takes a minute
Run:      python experiments/claims/ensemble_of_seeds.py \
              --data DIR --workdir runs/caltech --seeds 0 1 2 3 4

Every subset of the seeds is evaluated, so that two, three and four networks have a spread. There is
only one set of five: its interval is over images, for the change of the error on each image.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import caltech_baseline
import numpy as np
import record
from matplotlib.figure import Figure

from alexnet_jax.plots.tiles import save

SETTINGS = {caltech_baseline.NAME: caltech_baseline.setting()}
SCORES = ("top1_error", "top5_error")
BATCH = 128  # images evaluated at a time


def score(args: caltech_baseline.Arguments) -> None:
    """Add the scores of every subset of the seeds to the record, unless it has them."""
    seeds = sorted(args.seeds)
    if len(seeds) < 2 or record.finished(args.record, what="average", seeds=seeds):
        return
    from alexnet_jax.inference import datasets, ensemble
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(batch=BATCH)
    folders = [caltech_baseline.run_folder(args, caltech_baseline.NAME, seed) for seed in seeds]
    if missing := [str(folder) for folder in folders if not folder.exists()]:
        raise ValueError(
            f"{', '.join(missing)}: is missing, and the record has no parameters; remove the line "
            f"of the run from {args.record} to train it again."
        )
    networks = [network_loading.load_network(folder, mesh) for folder in folders]
    predictors = [ensemble.Predictor(network, views=10) for network in networks]
    sources = [datasets.open_split(network, "validation") for network in networks]
    numbers = range(len(seeds))
    sets = [s for n in numbers for s in itertools.combinations(numbers, n + 1)]
    ensemble_weights = [np.isin(numbers, members) / len(members) for members in sets]
    predictions = ensemble.predict_sources(predictors, sources, ensemble_weights, BATCH)
    for members, averaged in zip(sets, predictions, strict=True):
        line: dict[str, Any] = {"seeds": [seeds[number] for number in members], **averaged.scores()}
        if len(members) == len(seeds):  # written last: its presence means that all sets are there
            for name in SCORES:
                alone = np.mean([getattr(p, name) for p in predictions[: len(seeds)]], axis=0)
                gained = record.estimate((getattr(averaged, name) - alone).tolist())
                line[f"{name}_gained"] = [gained.mean, gained.half_width, gained.number]
        record.append(args.record, {"what": "average", **line})


def averages(path: Path, number: int) -> list[dict[str, Any]]:
    """Return the scores of the sets of this many networks, each set once."""
    lines = record.finished(path, what="average")
    return list(
        {tuple(line["seeds"]): line for line in lines if len(line["seeds"]) == number}.values()
    )


def _sizes(path: Path) -> range:
    lines = record.finished(path, what="average")
    return range(1, 1 + max((len(line["seeds"]) for line in lines), default=0))


def table(path: Path) -> str:
    """Return a table of the errors by number of networks."""
    rows = []
    for number in _sizes(path):
        sets = averages(path, number)
        cells = [_cell([100 * line[name] for line in sets]) for name in SCORES]
        rows.append([number, len(sets), *cells, _cell([line["loss"] for line in sets])])
    return record.table(
        ["networks", "sets", "top-1 error, %", "top-5 error, %", "loss, nats"], rows
    )


def _cell(values: Sequence[float]) -> str:
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def gain(path: Path, name: str) -> record.Estimate:
    """Return the error `name` of all networks averaged minus the mean of single ones, in points.

    Its interval is over images. Raises NoRuns if the record has no set of all networks.
    """
    lines = [line for n in _sizes(path) for line in averages(path, n)]
    gained = [line[f"{name}_gained"] for line in lines if f"{name}_gained" in line]
    if not gained:
        raise record.NoRuns(f"{path}: has no average of all networks; evaluate at least two seeds.")
    mean, half_width, images = gained[-1]
    return record.Estimate(100 * mean, float("nan"), 100 * half_width, images)


def gains(path: Path) -> list[str]:
    """Return a sentence for each error: all networks averaged minus the mean of single ones."""
    sentences = []
    for name in SCORES if len(_sizes(path)) > 1 else ():
        gained, label = gain(path, name), name.replace("_", " ").replace("top", "top-")
        sentences.append(
            f"{label}, mean of {len(_sizes(path))} minus a single network, points: "
            f"{record.verdict(gained)} (over {gained.number:,} images)"
        )
    return sentences


def report(path: Path) -> str:
    """Return the table, and what averaging gains, in Markdown."""
    return "\n\n".join([table(path), *gains(path)])


def draw(path: Path, to: Path) -> Path:
    """Draw both errors against the number of networks, one point per set."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="networks averaged", ylabel="error, % (ten views)")
    for name, color in zip(SCORES, ("black", "tab:red"), strict=True):
        values = [[100 * line[name] for line in averages(path, n)] for n in _sizes(path)]
        axes.plot(_sizes(path), [np.mean(v) for v in values], color=color, label=f"top-{name[3]}")
        for number, errors in zip(_sizes(path), values, strict=True):
            axes.plot([number] * len(errors), errors, "o", color=color, alpha=0.35, ms=4)
    axes.set(xticks=list(_sizes(path)), ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, to)


def main(args: caltech_baseline.Arguments) -> None:
    """Train the seeds, evaluate every subset, print the table, draw the figure."""
    caltech_baseline.train(SETTINGS, args)
    score(args)
    print(f"\n{report(args.record)}\n\nMeans over sets, and the lowest and highest.")
    print(draw(args.record, args.folder / "ensemble_of_seeds.png"))


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
