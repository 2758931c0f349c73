"""What stays fixed during a run: its data, its network on its devices, its two jitted steps."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import Config, DataConfig
from alexnet_jax.data import splits as data_splits
from alexnet_jax.data import statistics
from alexnet_jax.data.sources import Source
from alexnet_jax.data.wrappers import without
from alexnet_jax.model import architecture, towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training import processes, stopping
from alexnet_jax.training.evaluation import evaluate
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import TrainState, abstract_state
from alexnet_jax.training.step import make_eval_step, make_train_step
from alexnet_jax.training.stopping import StopCheck

# Reasons by split, then by number of the record, as text because it is kept as JSON.
Unreadable = dict[str, dict[str, str]]
SHOWN = 10  # unreadable files named in the log
UNREADABLE = "unreadable.txt"  # names all of them


@dataclasses.dataclass(frozen=True)
class Data:
    """The splits less what cannot be read, and what is known about the training split."""

    splits: data_splits.Splits
    fingerprints: Mapping[str, str]  # of each split as it was opened
    unreadable: Unreadable
    constants: Mapping[str, np.ndarray]  # the fields of `statistics.Statistics`


@dataclasses.dataclass(frozen=True)
class TrainSetup:
    """Everything that does not change from step to step."""

    config: Config
    mesh: Mesh
    data: Data
    architecture: Architecture
    create: Callable[[], TrainState]
    target: TrainState  # of ShapeDtypeStructs: what a restored state looks like and where it lies
    train_step: Callable[..., Any]
    eval_step: Callable[..., Any]

    def epoch_end(self, epoch: int) -> int:
        """Return the step after which every training image has been seen `epoch` times."""
        return -(-epoch * len(self.data.splits.train) // self.config.optimizer.batch_size)

    def epochs(self, step: int) -> float:
        """Return how often the training images have been seen after `step` steps."""
        return step * self.config.optimizer.batch_size / len(self.data.splits.train)

    def evaluate(
        self, variables: Any, source: Source, heed: StopCheck = stopping.ignore
    ) -> dict[str, float]:
        """Score a split; see `evaluation.evaluate`."""
        data, batch = self.config.data, self.config.optimizer.batch_size
        return evaluate(self.eval_step, variables, source, data, batch, self.mesh, heed=heed)


def open_splits(config: Config) -> data_splits.Splits:
    """Open the splits that a run reads; ValueError where they do not fill a batch."""
    splits = data_splits.open_splits(config.data, config.seed)
    _check_batch(config.optimizer.batch_size, len(splits.train))
    return splits


def _check_batch(batch: int, images: int) -> None:
    """Raise a ValueError where an epoch would be less than a step."""
    if images < batch:
        raise ValueError(
            f"--optimizer.batch_size-size {batch}: there are {images} training images, and a batch holds at "
            f"most as many; try {2 ** (images.bit_length() - 1)}."
        )


def fingerprints(splits: data_splits.Splits) -> dict[str, str]:
    """Return for each split what changes when its files, their classes or the split change."""
    sources = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: source.fingerprint() for name, source in sources.items() if source is not None}


def open_data(
    config: Config,
    splits: data_splits.Splits,
    say: Callable[[str], None],
    saved: Mapping[str, Any] | None = None,
    inherited: Mapping[str, np.ndarray] | None = None,
    heed: StopCheck = stopping.ignore,
) -> Data:
    """Read the splits once for statistics and unreadable files, unless a checkpoint knows them.

    Args:
        config: of the run.
        splits: as `open_splits` opened them.
        say: prints a line.
        saved: `{"data", "unreadable", "constants"}` of the checkpoint, or None for a new run.
        inherited: constants of the run that this one starts from, if it does.
        heed: called between images; what it raises ends the reading.

    Raises:
        ValueError: the source is not fit to train on, or a file is unreadable and the run
            is to stop then.
    """
    for note in splits.notes:
        say(note)
    if saved is not None:
        unreadable = saved["unreadable"]
        _report(unreadable, config, say)
        return Data(_readable(splits, unreadable), saved["data"], unreadable, saved["constants"])
    # By one process for all: what they each saw of a disk, or computed, might differ.
    constants, unreadable = processes.broadcast_from_main(
        "survey", lambda: _survey(config.data, splits, heed)
    )
    if config.data.statistics == "init":
        constants = _inherited(inherited, config.data)
    _report(unreadable, config, say)
    known = fingerprints(splits)
    return Data(_readable(splits, unreadable), known, unreadable, constants)


def _survey(
    config: DataConfig, splits: data_splits.Splits, heed: StopCheck
) -> tuple[Mapping[str, np.ndarray], Unreadable]:
    """Return the constants of the run, where they are not another run's, and what is unreadable."""
    constants, found = {}, {}
    if config.statistics == "computed" and splits.statistics is not None:
        constants = vars(splits.statistics)
    elif config.statistics == "computed":
        measured, found["train"] = statistics.compute_statistics(
            splits.train, config.threads, heed=heed
        )
        constants = vars(measured)
    elif config.statistics in statistics.PUBLISHED:
        constants = vars(statistics.published(config.statistics, config.image_size))
    for name in ("train", "validation", "test"):
        source = getattr(splits, name)
        if source is not None and name not in found and splits.statistics is None:
            found[name] = statistics.find_unreadable(source, config.threads, heed=heed)
    return constants, {name: {str(i): why for i, why in bad.items()} for name, bad in found.items()}


def _inherited(
    constants: Mapping[str, np.ndarray] | None, config: DataConfig
) -> Mapping[str, np.ndarray]:
    if constants is None:
        raise ValueError("--data.statistics init: it goes with --init-from; say computed.")
    side = len(constants["mean_image"])
    if config.mean != "channel" and side != config.image_size:
        raise ValueError(
            f"--data.image-size {config.image_size}: the mean image that came with --init-from has "
            f"{side} pixels a side; keep that size, or add --data.mean channel."
        )
    return constants


def _report(unreadable: Unreadable, config: Config, say: Callable[[str], None]) -> None:
    reasons = [reason for bad in unreadable.values() for reason in bad.values()]
    if not reasons:
        return
    if config.data.unreadable == "stop":
        raise ValueError(
            f"--data.unreadable stop: {len(reasons)} images cannot be read ({'; '.join(reasons)}); "
            "mend or remove them, or use skip."
        )
    rest = [f"all of them: {UNREADABLE} in the --workdir"] if len(reasons) > SHOWN else []
    lines = [f"{len(reasons)} images cannot be read and are left out:", *reasons[:SHOWN], *rest]
    say("\n  ".join(lines))


def _readable(splits: data_splits.Splits, unreadable: Unreadable) -> data_splits.Splits:
    less: dict[str, Any] = {
        name: without(getattr(splits, name), {int(index) for index in bad})
        for name, bad in unreadable.items()
        if bad
    }
    for name, source in less.items():
        if not len(source):
            raise ValueError(
                f"None of the {name} images can be read; a run needs some: check the files."
            )
    return dataclasses.replace(splits, **less)


def make_preprocess(config: DataConfig, known: Mapping[str, Any]) -> Preprocess:
    """Return what the device does to images, from the fields of `statistics.Statistics`."""
    unit = known["lighting_std"] ** (2 if config.pca_scale == "eigenvalue" else 1)
    return Preprocess(
        mean=jnp.asarray(known["mean_color" if config.mean == "channel" else "mean_image"]),
        lighting=jnp.asarray(known["lighting_axes"] * unit),
        scale=jnp.asarray(known["scale"]),
        where="center" if config.mean == "image-center" else "aligned",
        channels=config.channels,
    )


def build_setup(config: Config, mesh: Mesh, data: Data) -> TrainSetup:
    """Build the network for this data on this mesh."""
    _check_batch(config.optimizer.batch_size, len(data.splits.train))  # less what cannot be read
    architecture = build_architecture(config.model, len(data.splits.class_names), config.data.crop)
    tx = paper_sgd(config.optimizer)
    create, target = abstract_state(architecture, tx, mesh, config.seed)
    constants = make_preprocess(config.data, data.constants)
    return TrainSetup(
        config=config,
        mesh=mesh,
        data=data,
        architecture=architecture,
        create=create,
        target=target,
        train_step=make_train_step(
            architecture, tx, mesh, constants, config.seed, config.optimizer.frozen
        ),
        eval_step=make_eval_step(architecture, mesh, constants),
    )


def describe_setup(run: TrainSetup) -> str:
    """Return one sentence about the network, and what of 2012's was scaled."""
    rows = architecture.trace(run.architecture)
    parameters = sum(row.parameters for row in rows)
    operations = sum(row.multiply_adds for row in rows)
    scaled = []
    plain = dataclasses.replace(run.config.model, scale_init=False)
    if run.config.model.width != 1:
        scaled.append(f"width x {run.config.model.width:g}")
    if run.architecture.crop not in (224, 227):  # the 2012 code's and Caffe's
        scaled.append(f"{run.architecture.crop} px crops of {run.config.data.image_size} px images")
    if run.architecture != build_architecture(
        plain, run.architecture.num_classes, run.architecture.crop
    ):
        scaled.append("initial weights for equally loud layers")
    text = (
        f"AlexNet ({run.config.model.variant}), {parameters:,} parameters, "
        f"{operations / 1e6:,.0f} M multiply-adds an image, "
        f"on {towers.describe_mesh(run.mesh)}"
    )
    return f"{text}; scaled from 2012: {', '.join(scaled)}." if scaled else f"{text}."
