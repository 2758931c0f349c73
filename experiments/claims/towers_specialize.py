r"""Does one tower's first layer specialize on color and the other's on form, at every restart?

Paper:    "the kernels on GPU 1 are largely color-agnostic, while the kernels on GPU 2 are largely
          color-specific. This kind of specialization occurs during every run" (P6.1, Figure 3).
Changed:  the baseline on Caltech-101 (caltech_baseline.py): 24 filters a tower instead of 48, and a
          thousandth of the training. Measured for each filter: the fraction of its energy that is
          color, and the strength of its orientation (alexnet_jax/analysis/tower_specialization.py).
          The control is a network whose towers exchange maps at every layer (`--model.variant
          merged`): only the neighbors in LRN distinguish the halves of its conv1. Its conv2, conv4
          and conv5 see twice the maps, so they have more weights and a larger initial activation:
          it learns at another pace, as the training losses in the table show.
Expected: the towers differ in color more than the halves of the control do, with the color in
          either of them. Open: whether that happens in every run, and whether the other tower has
          the form.
Cost:     five runs of the baseline (shared with ensemble_of_seeds.py in the same --workdir) and
          five of the control, 30 minutes in all on two idle cores
Run:      python experiments/claims/towers_specialize.py \
              --data DIR --workdir runs/caltech --seeds 0 1 2 3 4

p is that of a permutation test, which deals the filters of one network to two towers at random.
Runs of both networks with one seed start from the same filters, so the differences between towers
are compared seed by seed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import caltech_baseline
import record
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.analysis import tower_specialization
from alexnet_jax.plots.tiles import save

CONTROL = "towers that exchange at every layer"
SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    CONTROL: caltech_baseline.setting({"model.variant": "merged"}),
}
MEASURES = ("color", "orientation")


def measure_runs(args: caltech_baseline.Arguments) -> None:
    """Measure the first layer of each finished run, unless the record has it."""
    for name in SETTINGS:
        for run in caltech_baseline.runs(args.record, name):
            key = {"what": "towers", "setting": name, "seed": run["seed"]}
            if run["seed"] in args.seeds and not record.finished(args.record, **key):
                kernel = _conv1_kernel(caltech_baseline.run_folder(args, name, run["seed"]))
                measures = tower_specialization.measure_specialization(kernel)
                record.append(args.record, {**key, **tower_specialization.as_json(measures)})


def _conv1_kernel(folder: Path) -> Any:
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers

    network = network_loading.load_network(folder, towers.make_mesh(towers=1, data=1, batch=1))
    return towers.fetch(network.variables["params"]["conv1"]["kernel"])


def measured(path: Path, name: str) -> list[dict[str, Any]]:
    """Return the measurements of each run of a setting, by seed."""
    return sorted(record.finished(path, what="towers", setting=name), key=lambda line: line["seed"])


def table(path: Path) -> str:
    """Return a table of both towers' means for each run, tower 0 first."""
    rows = []
    for name in SETTINGS:
        losses = caltech_baseline.last(path, name, "train", "loss")
        for line in measured(path, name):
            cells = [f"{losses[line['seed']]:.2f}"]
            for measure in MEASURES:
                first, second = line[measure]["towers"]
                cells += [f"{first:.2f}, {second:.2f}", f"{line[measure]['p_value']:.2g}"]
            rows.append([name, line["seed"], *cells])
    return record.table(
        [
            *("", "seed", "training loss"),
            *("color, towers 0 and 1", "p", "orientation, towers 0 and 1", "p"),
        ],
        rows,
    )


def differences(path: Path, name: str, measure: str) -> dict[int, float]:
    """Return the absolute difference of the towers' means, by seed."""
    return {line["seed"]: line[measure]["difference"] for line in measured(path, name)}


def summary(path: Path) -> list[str]:
    """Return the results over seeds, in sentences."""
    sentences = []
    for measure in MEASURES:
        for name in SETTINGS:
            if lines := measured(path, name):
                apart = record.estimate(list(differences(path, name, measure).values()))
                number = sum(line[measure]["differs"] for line in lines)
                sentences.append(
                    f"{measure}, {name}: difference {apart}; p < {tower_specialization.LEVEL:g} in "
                    f"{number} of {len(lines)} runs"
                )
        control, towers = (
            differences(path, name, measure) for name in (CONTROL, caltech_baseline.NAME)
        )
        if control.keys() & towers.keys():
            excess = record.verdict(record.paired(control, towers))
            sentences.append(f"{measure}: difference minus that of the control: {excess}")
    for name in SETTINGS:
        if lines := measured(path, name):
            sentences.append(f"{name}: {_opposed(lines)}")
    return sentences


def _opposed(lines: Sequence[dict[str, Any]]) -> str:
    """Return how often the tower with more color has less orientation, and how often it is 0."""
    higher = [
        [line[measure]["towers"][0] > line[measure]["towers"][1] for measure in MEASURES]
        for line in lines
    ]
    number = sum(color != orientation for color, orientation in higher)
    return (
        f"the tower with more color has less orientation in {number} of {len(lines)} runs; "
        f"it is tower 0 in {sum(color for color, _ in higher)}"
    )


def report(path: Path) -> str:
    """Return the table, and the results over seeds as a list, in Markdown."""
    return "\n".join([table(path), "", *(f"- {sentence}" for sentence in summary(path))])


def draw(path: Path, to: Path) -> Path:
    """Draw both towers' means of every run, connected by a line."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    for axes, measure in zip(figure.subplots(1, 2), MEASURES, strict=True):
        ticks: dict[int, str] = {}
        for name in SETTINGS:
            first = max(ticks, default=-2) + 2  # a gap before the control
            for place, line in enumerate(measured(path, name), start=first):
                _draw_pair(axes, place, line[measure], label=not ticks)
                ticks[place] = str(line["seed"])
                axes.axhline(line[measure]["noise"], color="gray", linestyle=":", lw=1)
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set(ylim=(0, 1), title=measure, xlabel="seed (left: two towers; right: control)")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("mean over a tower's filters (dotted: noise)")
    figure.axes[0].plot([], [], color="black", label=f"p < {tower_specialization.LEVEL:g}")
    figure.axes[0].legend(frameon=False)
    return save(figure, to)


def _draw_pair(axes: Axes, place: int, line: dict[str, Any], label: bool) -> None:
    axes.plot([place] * 2, line["towers"], color="black" if line["differs"] else "lightgray")
    for tower, (color, marker) in enumerate((("tab:blue", "o"), ("tab:orange", "s"))):
        text = f"tower {tower}" if label else ""
        axes.plot(place, line["towers"][tower], marker, color=color, label=text, ls="none")


def main(args: caltech_baseline.Arguments) -> None:
    """Train what the record lacks, measure every run, print the table, draw the figure."""
    caltech_baseline.train(SETTINGS, args)
    measure_runs(args)
    print(f"\n{report(args.record)}")
    print(draw(args.record, args.folder / "towers_specialize.png"))


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
