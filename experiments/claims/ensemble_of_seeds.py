r"""Is the mean of five networks' answers better than one network's?

Paper:    top-5 error 18.2 % with one network, 16.4 % with five, their probabilities averaged (P6);
          each network's are themselves the mean over ten views (P4.1).
Changed:  the caltech_baseline on Caltech-101 (caltech_baseline.py), five seeds of one network, weights equal. The
          paper does not say what its five were; the 2012 code can average nets of any kind, with
          weights that are searched.
Expected: five are better than one, by several points, since a network this far from trained
          differs more from one seed to the next than those of 2012 did.
Cost:     five runs of the caltech_baseline, 15 minutes on two cores with nothing else to do, shared with
          the other experiments in the same --workdir; scoring a minute
Run:      python experiments/claims/ensemble_of_seeds.py \
              --data DIR --workdir runs/caltech --seeds 0 1 2 3 4

Every set of the seeds is scored, so that two, three and four have a spread. Five have one set: the
interval is over images, of what averaging does to the error on each.
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
BATCH = 128  # images scored at a time


def score(asked: caltech_baseline.Arguments) -> None:
    """Add to the record what every set of the seeds answers together, unless it is there."""
    seeds = sorted(asked.seeds)
    if len(seeds) < 2 or record.finished(asked.record, what="average", seeds=seeds):
        return
    from alexnet_jax.inference import ensemble
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(batch=BATCH)
    folders = [caltech_baseline.run_folder(asked, caltech_baseline.NAME, seed) for seed in seeds]
    if missing := [str(folder) for folder in folders if not folder.exists()]:
        raise ValueError(
            f"{', '.join(missing)}: missing, and the record alone holds no network; remove its "
            f"line from {asked.record}, and it is trained again."
        )
    networks = [network_loading.load_network(folder, mesh) for folder in folders]
    askers = [ensemble.Predictor(network, views=10) for network in networks]
    sources = [network_loading.open_split(network, "validation") for network in networks]
    numbers = range(len(seeds))
    sets = [s for n in numbers for s in itertools.combinations(numbers, n + 1)]
    mixtures = [np.isin(numbers, members) / len(members) for members in sets]
    found = ensemble.predict_sources(askers, sources, mixtures, BATCH)
    for members, answer in zip(sets, found, strict=True):
        line: dict[str, Any] = {"seeds": [seeds[number] for number in members], **answer.scores()}
        if len(members) == len(seeds):  # written last: the record has all sets or is scored anew
            for name in SCORES:
                alone = np.mean([getattr(one, name) for one in found[: len(seeds)]], axis=0)
                gained = record.estimate((getattr(answer, name) - alone).tolist())
                line[f"{name}_gained"] = [gained.mean, gained.half_width, gained.number]
        record.append(asked.record, {"what": "average", **line})


def averages(path: Path, number: int) -> list[dict[str, Any]]:
    """Return what sets of so many networks scored, each set once."""
    lines = record.finished(path, what="average")
    return list(
        {tuple(line["seeds"]): line for line in lines if len(line["seeds"]) == number}.values()
    )


def _sizes(path: Path) -> range:
    lines = record.finished(path, what="average")
    return range(1, 1 + max((len(line["seeds"]) for line in lines), default=0))


def table(path: Path) -> str:
    """Return the errors by number of networks."""
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


def gains(path: Path) -> list[str]:
    """Return a sentence for each error: all networks together less the mean of each alone."""
    sets = [line for n in _sizes(path) for line in averages(path, n) if "top1_error_gained" in line]
    said = []
    for name in SCORES if sets else ():
        mean, half_width, images = sets[-1][f"{name}_gained"]
        gained = record.Estimate(100 * mean, float("nan"), 100 * half_width, images)
        label, together = name.replace("_", " ").replace("top", "top-"), len(sets[-1]["seeds"])
        said.append(
            f"{label}, {together} together less one alone, points: {record.verdict(gained)} "
            f"(over {images:,} images)"
        )
    return said


def draw(path: Path, to: Path) -> Path:
    """Draw both errors against the number of networks, a point a set."""
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


def main(asked: caltech_baseline.Arguments) -> None:
    """Train the seeds, score every set of them, print the table, draw the picture."""
    caltech_baseline.train(SETTINGS, asked)
    score(asked)
    print("", table(asked.record), "Means, and the lowest and highest set.", sep="\n")
    print(*gains(asked.record), sep="\n")
    print(draw(asked.record, asked.folder / "ensemble_of_seeds.png"))


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
