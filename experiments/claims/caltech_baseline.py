"""The baseline of the experiments on Caltech-101: one network, its runs, their record and table.

The baseline is the two-tower network of 2012 at half its width, on 64 pixel crops of photographs
resized to 72 pixels: the preset `photos` (initial standard deviation 0.03 in conv3-5, learning rate
of biases x 2) with initial weights scaled to the smaller fan-in, batches of 32, and a learning rate
of 0.01 that drops to a tenth for the last fifth of 40 epochs. An experiment changes fields of its
`Config`.

Run each experiment as `python experiments/claims/X.py --data DIR --workdir runs/caltech`. With one
--workdir for all of them, the baseline itself is trained once per seed. A finished run is a line of
WORKDIR/record.jsonl, from which table and figure are made; an interrupted run resumes from its last
epoch. `--seeds` without a number makes the table and the figure of the runs in the record.

DIR holds `train` and `test` with a folder for each class (measured: Caltech-101, 30 training images
a class and up to 20 other images to evaluate), or the output of
`python -m alexnet_jax.prepare --from DIR --to SHARDS --image-size 72 --encoding raw`: the same
pixels, with a faster start. The folder has no validation split, so its test split is listed as
`validation`; no setting was chosen by its scores.

Cost: 3,030 training images and 40 epochs are 121,000 images, at about 800 a second (two idle cores)
3 minutes a run including its start, or 9 minutes for three seeds of one setting.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
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
LOG_EVERY = 10**9  # steps: metrics.jsonl has only the means at the ends of epochs
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
    """Return the baseline, or `preset` at its size, with `changes`: {"model.pool_window": 2}."""
    base = flatten(PRESETS[preset])
    size = {"data.image_size": 72, "data.crop": 64, "model.width": WIDTH, "model.scale_init": True}
    schedule = {"kind": "step", "epochs": epochs, "milestones": [epochs * 4 // 5], "eval_every": 4}
    return unflatten(
        base
        | size
        # Ties as in PyTorch, whatever the preset has: the committed runs are of this rule.
        | {"model.pool_ties": "first"}
        | {"data.validation_fraction": 0.0, "log.every": LOG_EVERY, "log.figures": False}
        | {f"schedule.{name}": value for name, value in schedule.items()}
        | ({"optimizer.batch_size": BATCH} if preset == "photos" else {})
        | dict(changes or {})
    )


def cli(main: Callable[[Arguments], None], about: str | None) -> None:
    """Run an experiment's `main` as the training command does, and exit; see `experiment.cli`."""

    def run(args: Arguments) -> None:
        signals.install_handlers()
        process.restart_with_large_pages(ProcessConfig())
        process.enable_compilation_cache(ProcessConfig())
        main(args)

    experiment.cli(run, about)


def compare(title: str, settings: Mapping[str, Config], args: Arguments) -> None:
    """Train what the record lacks, print the table, draw WORKDIR/`title`.png.

    The other settings are compared with the first one.
    """
    train(settings, args)
    print_table(table(settings, args.record), args.record)
    print(draw_curves(list(settings), args.record, args.folder / f"{title}.png"))


def train(settings: Mapping[str, Config], args: Arguments) -> None:
    """Train every setting with every seed that the record lacks; append each run when it ends.

    The outer loop is over seeds, so that an unfinished record compares all settings.
    """
    if not args.seeds:
        return
    emulate_devices(Config().mesh)
    from alexnet_jax.training.loop import train_and_evaluate
    from alexnet_jax.training.metrics import read_metrics

    selected = dict(list(settings.items())[:2]) if args.smoke else settings
    for name, seed, config in _missing_runs(selected, args):
        folder = run_folder(args, name, seed)
        print(f"{name}, seed {seed}: {folder}")
        key = {"what": "run", "setting": name, "seed": seed}
        line = {**key, "settings": changed_fields(config)}
        try:
            summary = train_and_evaluate(config, folder, signals.stop_requested)
        except FloatingPointError as error:
            record.append(args.record, {**line, "diverged": str(error)})
            continue
        about = {name: summary[name] for name in ("classes", "seconds", "images_per_second")}
        record.append(args.record, {**line, **about, **_curves(read_metrics(folder))})


def _missing_runs(settings: Mapping[str, Config], args: Arguments) -> list[tuple[str, int, Config]]:
    """Return setting, seed and configuration of the runs that the record lacks.

    Raises ValueError if it has a run with other settings: before anything is trained.
    """
    runs = [
        (name, seed, _run_config(settings[name], args, seed))
        for seed in dict.fromkeys(args.seeds)
        for name in settings
    ]
    return [
        (name, seed, config)
        for name, seed, config in runs
        if not record.has(args.record, changed_fields(config), what="run", setting=name, seed=seed)
    ]


def run_folder(args: Arguments, name: str, seed: int) -> Path:
    """Return the folder of a run."""
    return args.folder / f"{record.file_name(name)}-seed{seed}"


def _run_config(config: Config, args: Arguments, seed: int) -> Config:
    """Return the configuration of one run."""
    shards = any(args.images.glob("*.array_record*"))
    changes = {"data.source": "arrayrecord" if shards else "folder", "data.path": str(args.images)}
    if args.smoke:
        margin = (config.data.image_size - config.data.crop) // 2
        changes |= TINY | {"data.crop": 36, "data.image_size": 36 + margin}
    return unflatten(flatten(config) | changes | {"seed": seed})


def changed_fields(config: Config) -> dict[str, Any]:
    """Return the fields that differ from the defaults, except seed and location of the data."""
    default, excluded = flatten(Config()), ("seed", "data.source", "data.path")
    return {
        name: value
        for name, value in flatten(config).items()
        if value != default[name] and name not in excluded
    }


def _curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the record keeps of a run: training means of epochs, and all evaluations."""
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
    """Return the finished runs of a setting, by seed, without those that diverged."""
    lines = record.finished(path, what="run", setting=name)
    return sorted((line for line in lines if "diverged" not in line), key=lambda line: line["seed"])


def last(path: Path, name: str, split: str, column: str, scale: float = 1) -> dict[int, float]:
    """Return the last value of a column of each finished run of a setting, by seed."""
    return {run["seed"]: scale * run[split][column][-1] for run in runs(path, name)}


def table(names: Iterable[str], path: Path) -> str:
    """Return the final scores of each setting, and the difference of its error from the first."""
    rows = []
    baseline, *_ = names
    first = last(path, baseline, "validation", "top1_error", 100)
    for name in names:
        if not (errors := last(path, name, "validation", "top1_error", 100)):
            continue
        loss, top1, top5 = (
            record.estimate(list(values.values()))
            for values in (
                last(path, name, "train", "loss"),
                errors,
                last(path, name, "validation", "top5_error", 100),
            )
        )
        each = ", ".join(f"{error:.2f}" for error in errors.values())
        rows.append([name, loss, top1, each, top5, difference(first, errors, name == baseline)])
    header = ["", "training loss", "top-1 error, %", "of each seed", "top-5 error, %"]
    return record.table([*header, "top-1 error minus the first row's, points"], rows)


def report(names: Iterable[str], path: Path) -> str:
    """Return the table; NoRuns if only the first setting, the baseline, has been run."""
    baseline, *others = names
    if not any(runs(path, name) for name in others):
        raise record.NoRuns(f"{path}: has no run of {', '.join(others)}; run at least one seed.")
    return table([baseline, *others], path)


def difference(first: Mapping[int, float], other: Mapping[int, float], same: bool = False) -> str:
    """Return `other` minus `first`, paired by seed, with its interval; empty for the `same`."""
    if same or not first.keys() & other.keys():
        return ""
    return record.interval(record.paired(first, other))


def print_table(text: str, path: Path) -> None:
    """Print a table, what its cells mean, and which runs of the record diverged."""
    print(f"\n{text}")
    print("Mean ± half of its 95 % interval over seeds. Differences are paired by seed, with their")
    print("95 % intervals in parentheses; not resolved: the interval includes 0.")
    for line in record.finished(path, what="run"):
        if "diverged" in line:
            print(f"Diverged: {line['setting']}, seed {line['seed']}: {line['diverged']}")


def draw_curves(names: Sequence[str], path: Path, to: Path) -> Path:
    """Draw loss and top-1 error, training dashed and validation solid, one color per setting."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    columns = (("loss", "loss (nats)"), ("top1_error", "top-1 error"))
    for axes, (column, label) in zip(figure.subplots(1, 2), columns, strict=True):
        for number, name in enumerate(names):
            lines, color = runs(path, name), f"C{number}"
            draw_seeds(axes, lines, "validation", column, color, name)
            draw_seeds(axes, lines, "train", column, color, "", "--")
        axes.set(xlabel="epochs", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
    title = "validation; dashed: during training, on training images"
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, title=title)
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
    """Draw a column over epochs: each seed as a faint line, their mean as a strong one."""
    if not lines:
        return
    for run in lines:
        x, y = run[split]["epoch"], run[split][column]
        axes.plot(x, y, style, color=color, alpha=0.25, lw=0.7)
    values = zip(*(run[split][column] for run in lines), strict=True)
    mean = [statistics.mean(of_seeds) for of_seeds in values]
    axes.plot(lines[0][split]["epoch"], mean, style, color=color, label=label, lw=1.6)
