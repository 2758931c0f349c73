r"""Does one tower's first layer take the color and the other's the form, at every restart?

Paper:    "the kernels on GPU 1 are largely color-agnostic, while the kernels on GPU 2 are largely
          color-specific. This kind of specialization occurs during every run" (P6.1, Figure 3).
Changed:  the caltech_baseline on Caltech-101 (caltech_baseline.py): 24 filters a tower instead of 48, and a
          thousandth of the training. Of each filter the share of its energy that is color, and how
          far its pattern runs in one direction (alexnet_jax/model/specialization.py). The control
          is a network whose towers cross at every layer (`--model.variant merged`): there nothing
          but the neighbors in LRN tells one half of conv1 from the other. Its conv2, conv4 and
          conv5 see twice the maps, so they have more weights and start louder: it learns at
          another pace, which the table's training loss shows.
Expected: the towers differ in color more than the control's halves do, with the color in either
          of them; whether in every run, and whether form goes the other way, is the question.
Cost:     five runs of the caltech_baseline (shared with ensemble_of_seeds.py in the same --workdir) and
          five of the control, 30 minutes in all on two cores with nothing else to do
Run:      python experiments/claims/towers_specialize.py \
              --data DIR --workdir runs/caltech --seeds 0 1 2 3 4

p is for filters dealt at random to two towers, of one network. Seeds of both networks start from
the same filters, so the differences between towers are compared seed by seed.
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

CONTROL = "towers that cross at every layer"
SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    CONTROL: caltech_baseline.setting({"model.variant": "merged"}),
}
MEASURES = ("color", "orientation")


def measure(asked: caltech_baseline.Arguments) -> None:
    """Add to the record what the first layer of each finished run sees, unless it is there."""
    for name in SETTINGS:
        for run in caltech_baseline.runs(asked.record, name):
            key = {"what": "towers", "setting": name, "seed": run["seed"]}
            if run["seed"] in asked.seeds and not record.finished(asked.record, **key):
                found = tower_specialization.measure_specialization(
                    _kernel(caltech_baseline.run_folder(asked, name, run["seed"]))
                )
                record.append(asked.record, {**key, **tower_specialization.as_json(found)})


def _kernel(folder: Path) -> Any:
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers

    network = network_loading.load_network(folder, towers.make_mesh(towers=1, data=1, batch=1))
    return towers.fetch(network.variables["params"]["conv1"]["kernel"])


def measured(path: Path, name: str) -> list[dict[str, Any]]:
    """Return what was measured of each run of a setting, by seed."""
    return sorted(record.finished(path, what="towers", setting=name), key=lambda line: line["seed"])


def table(path: Path) -> str:
    """Return both towers' means of each run, tower 0 first."""
    rows = []
    for name in SETTINGS:
        losses = caltech_baseline.last(path, name, "train", "loss")
        for line in measured(path, name):
            cells = [f"{losses[line['seed']]:.2f}"]
            for one in MEASURES:
                first, second = line[one]["towers"]
                cells += [f"{first:.2f}, {second:.2f}", f"{line[one]['p_value']:.2g}"]
            rows.append([name, line["seed"], *cells])
    return record.table(
        [
            *("", "seed", "training loss"),
            *("color, towers 0 and 1", "p", "orientation, towers 0 and 1", "p"),
        ],
        rows,
    )


def differences(path: Path, name: str, one: str) -> dict[int, float]:
    """Return how far the towers' means are apart, by seed."""
    return {line["seed"]: line[one]["difference"] for line in measured(path, name)}


def summary(path: Path) -> list[str]:
    """Return what holds over seeds, in sentences."""
    said = []
    for one in MEASURES:
        for name in SETTINGS:
            if lines := measured(path, name):
                apart = record.estimate(list(differences(path, name, one).values()))
                number = sum(line[one]["differs"] for line in lines)
                said.append(
                    f"{one}, {name}: {apart} apart; p < {tower_specialization.LEVEL:g} in {number} of "
                    f"{len(lines)} runs"
                )
        control, towers = (
            differences(path, name, one) for name in (CONTROL, caltech_baseline.NAME)
        )
        if control.keys() & towers.keys():
            more = record.verdict(record.paired(control, towers))
            said.append(f"{one}: apart by so much more than in the control: {more}")
    for name in SETTINGS:
        if lines := measured(path, name):
            said.append(f"{name}: {_opposed(lines)}")
    return said


def _opposed(lines: Sequence[dict[str, Any]]) -> str:
    """Return how often the tower with more color has less direction, and how often it is 0."""
    higher = [
        [line[one]["towers"][0] > line[one]["towers"][1] for one in MEASURES] for line in lines
    ]
    number = sum(color != orientation for color, orientation in higher)
    return (
        f"the tower with more color has less orientation in {number} of {len(lines)} runs; "
        f"it is tower 0 in {sum(color for color, _ in higher)}"
    )


def draw(path: Path, to: Path) -> Path:
    """Draw both towers' means of every run, joined by a line."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    for axes, one in zip(figure.subplots(1, 2), MEASURES, strict=True):
        ticks: dict[int, str] = {}
        for name in SETTINGS:
            first = max(ticks, default=-2) + 2  # a gap before the control
            for place, line in enumerate(measured(path, name), start=first):
                _draw_pair(axes, place, line[one], label=not ticks)
                ticks[place] = str(line["seed"])
                axes.axhline(line[one]["noise"], color="gray", linestyle=":", lw=1)
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set(ylim=(0, 1), title=one, xlabel="seed (left: two towers; right: control)")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("mean over a tower's filters (dotted: noise)")
    figure.axes[0].plot([], [], color="black", label=f"p < {tower_specialization.LEVEL:g}")
    figure.axes[0].legend(frameon=False)
    return save(figure, to)


def _draw_pair(axes: Axes, place: int, found: dict[str, Any], label: bool) -> None:
    axes.plot([place] * 2, found["towers"], color="black" if found["differs"] else "lightgray")
    for tower, (color, marker) in enumerate((("tab:blue", "o"), ("tab:orange", "s"))):
        text = f"tower {tower}" if label else ""
        axes.plot(place, found["towers"][tower], marker, color=color, label=text, ls="none")


def main(asked: caltech_baseline.Arguments) -> None:
    """Train what is missing, measure every run, print the table, draw the picture."""
    caltech_baseline.train(SETTINGS, asked)
    measure(asked)
    print("", table(asked.record), *summary(asked.record), sep="\n")
    print(draw(asked.record, asked.folder / "towers_specialize.png"))


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
