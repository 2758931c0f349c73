"""What the experiments on Caltech-101 share: one network, its runs, their record and table.

The caltech_baseline is the two-tower network of 2012 at half its width, on 64 pixel crops of photographs
shrunk to 72 pixels: the preset `photos` (.03 in conv3-5, biases x 2) with initial weights scaled to
the smaller sums, batches of 32, rate .01, a tenth of it in the last fifth of 40 epochs. It is one
row set of the layer table, like every network here; an experiment changes fields of its `Config`.

Each experiment is `python experiments/X.py --data DIR --workdir runs/caltech`. With one --workdir
for all of them the caltech_baseline itself is trained once a seed. A finished run is a line of
WORKDIR/record.jsonl, from which table and picture are made; one that was interrupted goes on from
its last epoch. `--seeds` without a number makes table and picture of what is there.

DIR holds `train` and `test` with a folder a class (measured: Caltech-101, 30 images a class to
train on, up to 20 others to score), or what
`python -m alexnet_jax.prepare --from DIR --to SHARDS --image-size 72 --encoding raw` made of
it: the same pixels, and a run starts sooner. The folder names no validation split, so its test
split goes by that name; no setting was chosen by looking at it.

Cost: 3,030 training images and 40 epochs are 121,000 images, at about 800 a second (two cores with
nothing else to do) 3 minutes a run with its start, or 9 minutes for three seeds of one setting.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import experiment
import record
from experiment import Arguments
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from alexnet_jax.cli import process, signals
from alexnet_jax.cli.devices import emulate_devices
from alexnet_jax.config import Config, Preset, ProcessConfig, flatten, unflatten
from alexnet_jax.plots.tiles import save
from alexnet_jax.presets import PRESETS

WIDTH = 0.5
EPOCHS = 40
BATCH = 32
NAME = "caltech_baseline"  # in tables and in names of folders, so that experiments share its runs
LINE = 10**9  # steps between lines of metrics: none but that at an epoch's end, its mean
TINY = {
    "model.width": 0.05,
    "optimizer.batch_size": 8,
    "schedule.epochs": 2,
    "schedule.milestones": [],
    "schedule.eval_every": 1,
}


def setting(
    changes: Mapping[str, Any] | None = None, preset: Preset = "photos", epochs: int = EPOCHS
) -> Config:
    """Return the caltech_baseline, or `preset` at its size, with `changes` such as {"model.pool_window": 2}."""
    base = flatten(PRESETS[preset])
    size = {"data.image_size": 72, "data.crop": 64, "model.width": WIDTH, "model.scale_init": True}
    schedule = {"kind": "step", "epochs": epochs, "milestones": [epochs * 4 // 5], "eval_every": 4}
    return unflatten(
        base
        | size
        | {"data.validation_fraction": 0.0, "log.every": LINE, "log.figures": False}
        | {f"schedule.{name}": value for name, value in schedule.items()}
        | ({"optimizer.batch_size": BATCH} if preset == "photos" else {})
        | dict(changes or {})
    )


def cli(main: Callable[[Arguments], None], about: str | None) -> None:
    """Run an experiment's `main` as the training command runs, and exit; see `experiment.cli`."""

    def run(asked: Arguments) -> None:
        signals.install_handlers()
        process.restart_with_large_pages(ProcessConfig())
        process.enable_compilation_cache(ProcessConfig())
        main(asked)

    experiment.cli(run, about)


def compare(title: str, settings: Mapping[str, Config], asked: Arguments) -> None:
    """Train what the record lacks, print the table, draw WORKDIR/`title`.png.

    The first setting is the one that the others are compared with.
    """
    train(settings, asked)
    print_table(table(list(settings), asked.record), asked.record)
    print(draw_curves(list(settings), asked.record, asked.folder / f"{title}.png"))


def train(settings: Mapping[str, Config], asked: Arguments) -> None:
    """Run every setting with every seed that the record lacks, and add each to it at once.

    Seed by seed, so that what is there after a while compares all settings.
    """
    if not asked.seeds:
        return
    emulate_devices(Config().mesh)
    from alexnet_jax.training.loop import train_and_evaluate
    from alexnet_jax.training.metrics import read_metrics

    chosen = dict(list(settings.items())[:2]) if asked.smoke else settings
    for name, seed, own in _waiting(chosen, asked):
        folder = run_folder(asked, name, seed)
        print(f"{name}, seed {seed}: {folder}")
        line = {"what": "run", "setting": name, "seed": seed, "made": _made(own)}
        try:
            summary = train_and_evaluate(own, folder, signals.stop_requested)
        except FloatingPointError as error:
            record.append(asked.record, {**line, "diverged": str(error)})
            continue
        about = {name: summary[name] for name in ("classes", "seconds", "images_per_second")}
        record.append(asked.record, {**line, **about, **_seen(read_metrics(folder))})


def _waiting(settings: Mapping[str, Config], asked: Arguments) -> list[tuple[str, int, Config]]:
    """Return setting, seed and configuration of what the record lacks.

    Raises ValueError where it has a run by other settings: before, not after the first training.
    """
    runs = [
        (name, seed, _of(settings[name], asked, seed))
        for seed in dict.fromkeys(asked.seeds)
        for name in settings
    ]
    return [
        (name, seed, own)
        for name, seed, own in runs
        if not record.has(asked.record, _made(own), what="run", setting=name, seed=seed)
    ]


def run_folder(asked: Arguments, name: str, seed: int) -> Path:
    """Return the folder of a run."""
    return asked.folder / f"{record.file_name(name)}-seed{seed}"


def _of(config: Config, asked: Arguments, seed: int) -> Config:
    """Return the configuration of one run."""
    shards = any(asked.images.glob("*.array_record*"))
    own = {"data.source": "arrayrecord" if shards else "folder", "data.path": str(asked.images)}
    if asked.smoke:
        margin = (config.data.image_size - config.data.crop) // 2
        own |= TINY | {"data.crop": 36, "data.image_size": 36 + margin}
    return unflatten(flatten(config) | own | {"seed": seed})


def _made(config: Config) -> dict[str, Any]:
    """Return in what a configuration differs from the default one, but for where its data lie."""
    default, elsewhere = flatten(Config()), ("seed", "data.source", "data.path")
    return {
        name: value
        for name, value in flatten(config).items()
        if value != default[name] and name not in elsewhere
    }


def _seen(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is kept of a run: each epoch's means in training, each look at other images."""
    columns = {
        "train": ("epoch", "loss", "top1_error"),
        "validation": ("epoch", "loss", "top1_error", "top5_error"),
    }
    return {
        split: {
            name: [round(line[name], 5) for line in metrics if line["split"] == split]
            for name in names
        }
        for split, names in columns.items()
    }


def runs(path: Path, name: str) -> list[dict[str, Any]]:
    """Return the finished runs of a setting, by seed, but for those that diverged."""
    lines = record.finished(path, what="run", setting=name)
    return sorted((line for line in lines if "diverged" not in line), key=lambda line: line["seed"])


def last(path: Path, name: str, split: str, column: str, scale: float = 1) -> dict[int, float]:
    """Return the last value of a column of each finished run of a setting, by seed."""
    return {run["seed"]: scale * run[split][column][-1] for run in runs(path, name)}


def table(names: Sequence[str], path: Path) -> str:
    """Return the final scores of each setting, and how far its error is from the first one's."""
    rows = []
    for name in names:
        if not (errors := last(path, name, "validation", "top1_error", 100)):
            continue
        estimates = [
            record.estimate(list(values.values()))
            for values in (
                last(path, name, "train", "loss"),
                errors,
                last(path, name, "validation", "top5_error", 100),
            )
        ]
        first = last(path, names[0], "validation", "top1_error", 100)
        rows.append([name, len(errors), *estimates, difference(first, errors, name == names[0])])
    header = ["", "seeds", "training loss", "top-1 error, %", "top-5 error, %"]
    return record.table([*header, "top-1 error less the first row's, points"], rows)


def difference(first: Mapping[int, float], other: Mapping[int, float], same: bool = False) -> str:
    """Return `other` less `first`, seed by seed, with its interval; nothing to say of the same."""
    if same or not first.keys() & other.keys():
        return ""
    return record.verdict(record.paired(first, other))


def print_table(text: str, path: Path) -> None:
    """Print a table with what its cells are, and which runs of the record diverged."""
    print(f"\n{text}\nMean ± half of its 95 % interval over seeds; differences seed by seed.")
    for line in record.finished(path, what="run"):
        if "diverged" in line:
            print(f"Diverged: {line['setting']}, seed {line['seed']}: {line['diverged']}")


def draw_curves(names: Sequence[str], path: Path, to: Path) -> Path:
    """Draw loss and top-1 error, training dashed and validation solid, one color a setting."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    shown = (("loss", "loss (nats)"), ("top1_error", "top-1 error"))
    for axes, (column, label) in zip(figure.subplots(1, 2), shown, strict=True):
        for number, name in enumerate(names):
            lines, color = runs(path, name), f"C{number}"
            draw_seeds(axes, lines, "validation", column, color, name)
            draw_seeds(axes, lines, "train", column, color, "", "--")
        axes.set(xlabel="epochs", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, title="dashed: in training, on what it trains on")
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    return save(figure, to)


def draw_seeds(
    axes: Axes,
    lines: Sequence[Mapping[str, Any]],
    split: str,
    column: str,
    color: str,
    label: str,
    style: str = "-",
) -> None:
    """Draw a column over epochs: each seed faint, their mean above."""
    if not lines:
        return
    for run in lines:
        x, y = run[split]["epoch"], run[split][column]
        axes.plot(x, y, style, color=color, alpha=0.25, lw=0.7)
    values = zip(*(run[split][column] for run in lines), strict=True)
    mean = [statistics.mean(one) for one in values]
    axes.plot(lines[0][split]["epoch"], mean, style, color=color, label=label, lw=1.6)
