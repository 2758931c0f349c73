"""Few photographs: presets `small` and `finetune` beside the full network, on parts of Caltech-101.

DIR holds `train` and `test` with a folder for each class (measured: Caltech-101, 30 training images
a class and up to 20 other images to evaluate). The parts have N photographs of C classes, drawn
by a seeded rule, see `Part`, and all test images of those classes. A tenth of each class of the
photographs is held out, as by default; the test images are evaluated once, after the last step,
and no setting was chosen by their scores.

- `small, N`: `--preset small`, as it is.
- `64 pixels, half width, N`: what `small` is for a few hundred, for 100 epochs.
- `full size, N`: `--preset photos` for the 36 epochs of the recorded run on all photographs.
- `photos, width 0.25, plateau, 360`: 72 pixels, crops of 64, a quarter of the width, batches of 32
  and a patience of 5 evaluations, on a validation split of 36 images.
- `finetune, 180`: `--init-from RUN`, as it is, where RUN has 64 pixels, half width and the classes
  that are in none of the parts of 180 and 360; `few steps, 180`: 20 epochs in batches of 128 of the
  same.

Run `python experiments/claims/few_photographs.py --data DIR --workdir runs/few`. A finished run is
a line of WORKDIR/record.jsonl, from which the table is made; an interrupted run resumes.
`--seeds` without a number makes the table of the runs in the record.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import caltech_baseline
import experiment
import numpy as np
import record

from alexnet_jax.cli import signals
from alexnet_jax.cli.devices import emulate_devices
from alexnet_jax.config import Config, flatten, unflatten
from alexnet_jax.presets import PRESETS

ORDER_SEED = 2012  # of classes and photographs
ALL = 10**9


@dataclasses.dataclass(frozen=True)
class Part:
    """So many classes from the `first` on, and photographs of each, in an order drawn by a seed."""

    name: str
    classes: int
    photographs: int
    first: int = 0

    def link(self, images: Path, folder: Path) -> Path:
        """Return a folder with links to the photographs of the part and to all test images."""
        rng = np.random.default_rng(ORDER_SEED)
        names = rng.permutation(sorted(path.name for path in (images / "train").iterdir()))
        to = folder / f"images-{self.name}"
        for number, name in enumerate(names):
            files = sorted((images / "train" / name).iterdir())
            chosen = [files[i] for i in rng.permutation(len(files))[: self.photographs]]
            if not self.first <= number < self.first + self.classes:
                continue
            test = (images / "test" / name).iterdir()
            for split, paths in {"train": chosen, "test": test}.items():
                (to / split / name).mkdir(parents=True, exist_ok=True)
                for path in paths:
                    link = to / split / name / path.name
                    if not link.is_symlink():
                        link.symlink_to(path.resolve())
        return to


PARTS = {
    part.name: part
    for part in (
        Part("150", 10, 15),
        Part("180", 12, 15),
        Part("360", 12, 30),
        Part("1000", 40, 25),
        Part("3030", 101, 30),
        Part("others", 80, 30, first=21),
    )
}


def small(**changes: Any) -> Config:
    """Return the preset `small`; it is fitted to the images later."""
    return unflatten(flatten(PRESETS["small"]) | changes)


def photos(**changes: Any) -> Config:
    """Return the preset `photos` with `changes`, by default of a fixed schedule."""
    fixed = {"kind": "step", "epochs": 36, "milestones": [28, 34], "eval_every": 4}
    schedule = {f"schedule.{name}": value for name, value in fixed.items()}
    return unflatten(flatten(PRESETS["photos"]) | schedule | changes)


_PLATEAU = {
    "data.image_size": 72,
    "data.crop": 64,
    "model.width": 0.25,
    "optimizer.batch_size": 32,
    "schedule.kind": "plateau",
    "schedule.patience": 5,
    "schedule.epochs": 90,
    "schedule.eval_every": 1,
}
_FEW_STEPS = {
    "optimizer.learning_rate": 0.001,
    "schedule.epochs": 20,
    "schedule.eval_every": 1,
    "schedule.kind": "plateau",
    "schedule.patience": 5,
}
ORIGIN = "64 pixels, half width, others"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained on a part; `tuned`: from the weights of ORIGIN, of the first seed.

    Fields that are `given` keep their values when the preset is fitted to the images.
    """

    part: str
    config: Config
    tuned: bool = False
    given: frozenset[str] = frozenset()


_PIXELS_64 = {
    "data.image_size": 72,
    "data.crop": 64,
    "model.width": 0.5,
    "optimizer.batch_size": 32,
}


def pixels_64(part: str, epochs: int) -> Setting:
    """Return `small` as it is for a few hundred images, for so many epochs."""
    fixed = {**_PIXELS_64, "schedule.epochs": epochs}
    return Setting(part, small(**fixed), given=frozenset(fixed))


SETTINGS = {
    **{f"small, {n}": Setting(n, small()) for n in ("150", "180", "360", "1000", "3030")},
    **{f"64 pixels, half width, {n}": pixels_64(n, epochs=100) for n in ("1000", "3030")},
    **{f"full size, {n}": Setting(n, photos()) for n in ("150", "360", "1000")},
    "photos, width 0.25, plateau, 360": Setting("360", photos(**_PLATEAU)),
    ORIGIN: pixels_64("others", epochs=15),
    "finetune, 180": Setting("180", PRESETS["finetune"], tuned=True),
    "few steps, 180": Setting("180", photos(**_FEW_STEPS), tuned=True),
}


def configure(
    name: str, args: experiment.Arguments, seed: int, images: Callable[[str], Path]
) -> Config:
    """Return the configuration of a run, fitted to its images."""
    from alexnet_jax.training.finetune import defaults_from
    from alexnet_jax.training.fitting import fit_to_data

    setting = SETTINGS[name]
    config, given = setting.config, {*setting.given}
    if setting.tuned:
        config = defaults_from(_origin(args), config)
        init = dataclasses.replace(config.init, reinit_layers=("fc8",))
        config = dataclasses.replace(config, init=init)
    changes: dict[str, Any] = {"data.path": str(images(setting.part)), "seed": seed}
    changes |= {"log.every": caltech_baseline.LOG_EVERY, "log.figures": False}
    if args.smoke:
        changes |= {"optimizer.batch_size": 8, "schedule.epochs": 2, "model.width": 0.05}
        changes |= {"data.image_size": 40, "data.crop": 36}
        given |= changes.keys()
    config = unflatten(flatten(config) | changes)
    if config.preset in ("small", "finetune"):
        config = fit_to_data(config, given)
    return config


def _origin(args: experiment.Arguments) -> Path:
    """Return the folder of the network that others start from: the one with the first seed."""
    return caltech_baseline.run_folder(args, ORIGIN, 0)


def train(names: Mapping[str, Any] | list[str], args: experiment.Arguments) -> None:
    """Train every setting with every seed that the record lacks; append each run when it ends."""
    if not args.seeds:
        return
    emulate_devices(Config().mesh)
    from alexnet_jax.training.loop import train_and_evaluate

    def images(part: str) -> Path:
        return PARTS[part].link(args.images, args.folder)

    runs = [(name, seed) for seed in dict.fromkeys(args.seeds) for name in names]
    # Its one network comes first, as others start from it.
    runs = [(ORIGIN, 0)] * (ORIGIN in names) + [run for run in runs if run[0] != ORIGIN]
    for name, seed in runs:
        config = configure(name, args, seed, images)
        fields = caltech_baseline.changed_fields(config)
        fields.pop("init_from", None)  # a folder
        key = {"what": "run", "setting": name, "seed": seed}
        if record.has(args.record, fields, **key):
            continue
        folder = caltech_baseline.run_folder(args, name, seed)
        print(f"{name}, seed {seed}: {folder}")
        summary = train_and_evaluate(config, folder, signals.stop_requested)
        kept = ("validation", "test", "steps", "epochs", "classes", "seconds", "images_per_second")
        line = {**key, "settings": fields, **{field: summary[field] for field in kept}}
        record.append(args.record, line)


def _runs(path: Path, name: str) -> list[dict[str, Any]]:
    lines = record.finished(path, what="run", setting=name)
    return sorted(lines, key=lambda line: line["seed"])


def errors(path: Path, name: str) -> list[float]:
    """Return the test error of each seed of a setting, in percent."""
    return [100 * line["test"]["top1_error"] for line in _runs(path, name)]


def table(path: Path) -> str:
    """Return the test error of each setting: mean and interval over seeds, and each seed's."""
    rows = []
    for name in SETTINGS:
        lines, of_seeds = _runs(path, name), errors(path, name)
        if not lines:
            continue
        rows.append(
            [
                name,
                lines[0]["classes"],
                lines[0]["test"]["count"],
                lines[0]["steps"],
                record.estimate(of_seeds),
                ", ".join(f"{error:.1f}" for error in of_seeds),
                f"{sum(line['seconds'] for line in lines) / len(lines) / 60:.1f}",
            ]
        )
    header = ["", "classes", "test images", "steps", "top-1 error, %", "by seed", "minutes a run"]
    return record.table(header, rows)


def main(args: experiment.Arguments) -> None:
    """Train what the record lacks and print the table."""
    names = [ORIGIN, "finetune, 180", "small, 150"] if args.smoke else [*SETTINGS]
    train(names, args)
    print(f"\n{table(args.record)}\nMean ± half of its 95 % interval over seeds.")


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
