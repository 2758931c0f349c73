"""Draw what a run has learned: `python -m alexnet_jax.figures --workdir runs/a`."""

import collections
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import option_names, run_command, with_options
from alexnet_jax.cli.published import run_of
from alexnet_jax.config import PublishedName, invalid
from alexnet_jax.plots import curves, feature_maps, filters, predictions, specialization
from alexnet_jax.plots.tiles import save
from alexnet_jax.storage.names import printable

if TYPE_CHECKING:
    from alexnet_jax.inference.network import Network

PROGRAM = "python -m alexnet_jax.figures"
LOGGER = logging.getLogger(__name__)

Kind = Literal["curves", "filters", "predictions", "specialization", "page"]
AFTER_TRAINING: tuple[Kind, ...] = ("curves", "filters", "predictions")


@dataclasses.dataclass(frozen=True)
class Command:
    """Draw the figures of a run into PNG files; the values of specialization also into JSON."""

    # folder of the run, trained or imported
    workdir: Path | None = None
    # published weights instead of a run; downloaded and imported once
    weights: PublishedName | None = None
    # figures to draw; by default all that are available, or none with --maps
    only: tuple[Kind, ...] = ()
    # photographs whose feature maps to draw, by tower
    maps: tuple[Path, ...] = ()
    # layer of the maps: a convolution before its ReLU (conv1) or after it (relu1), or what follows
    # (norm1, pool1)
    layer: str = "conv1"
    # weights: the latest, or those with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"
    # where the run's images are now, if they have moved since it was trained: its --data.path
    data_path: Annotated[Path | None, tyro.conf.arg(name="data.path")] = None
    # folder for the figures; by default figures/ in --workdir, or, of --weights, where the command
    # is given
    out: Path | None = None


class FigureUnavailable(ValueError):
    """The run has no such figure; the message is the reason."""


def draw_run(network: "Network", folder: Path, only: Sequence[Kind] = AFTER_TRAINING) -> None:
    """Draw figures of a run, and warn of those that are not available.

    With several processes all of them have to call; the main process writes the files.

    Args:
        network: of the run, on a mesh of any shape.
        folder: for the figures; made if missing.
        only: the figures to draw.
    """
    from alexnet_jax.training import processes

    for kind in only:
        try:
            _FIGURES[kind](network, folder)
        except FigureUnavailable as reason:
            if processes.is_main_process():
                LOGGER.warning("No %s: %s.", kind, reason)


def draw(args: Command) -> None:
    """Draw the figures that a command names, and print their paths.

    Raises:
        ValueError: one that --only or --maps names is not available.
    """
    from alexnet_jax.inference.datasets import with_data_path
    from alexnet_jax.inference.network import load_network
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    network = load_network(run_of(args.workdir, args.weights), mesh, args.checkpoint)
    if args.data_path:
        network = with_data_path(network, args.data_path)
    folder = args.out or (args.workdir or Path()) / "figures"
    files = collections.Counter[str]()
    for photograph in args.maps:
        name = f"maps-{args.layer}-{photograph.stem}"
        files[name] += 1  # photographs in several folders often have the same names
        name += f"-{files[name]}" if files[name] > 1 else ""
        path = draw_maps(network, photograph, args.layer, folder / f"{name}.png")
        print(printable(path))
    for kind in args.only or (() if args.maps else tuple(_FIGURES)):
        try:
            print(printable(_FIGURES[kind](network, folder)))
        except FigureUnavailable as reason:
            if args.only:
                raise invalid("only", kind, str(reason), "leave it out") from reason
            print(printable(with_options(f"No {kind}: {reason}.", option_names(Command))))


def draw_maps(network: "Network", photograph: Path, layer: str, path: Path) -> Path:
    """Save the feature maps of one image, by tower; return `path`.

    Raises:
        ValueError: there is no such layer, it has no maps, or the file cannot be read.
    """
    output = np.asarray(
        network.features(network.preprocess([photograph]), layer)[layer], np.float32
    )
    if output.ndim != 4:
        rule = f"must have maps, and has {output.shape[-1]:,} units"
        raise invalid(
            "layer", layer, rule, "name a convolution (conv1) or what follows one (relu1, pool1)"
        )
    title = f"{layer} of {photograph.name}"
    return save(feature_maps.draw(output[0], title, network.architecture.has_towers), path)


def _curves(network: "Network", folder: Path) -> Path:
    from alexnet_jax.training import processes
    from alexnet_jax.training.metrics import METRICS, read_metrics

    path = folder / "curves.png"
    if processes.is_main_process():
        metrics = read_metrics(network.workdir)
        if not metrics:
            raise FigureUnavailable(
                f"{METRICS} has no records (imported weights have no training history)"
            )
        save(curves.draw(metrics), path)
    return path


def _filters(network: "Network", folder: Path) -> Path:
    from alexnet_jax.training import processes

    path, kernel = folder / "filters.png", _conv1_kernel(network)
    if processes.is_main_process():
        save(filters.draw(kernel, network.architecture.has_towers), path)
    return path


def _predictions(network: "Network", folder: Path) -> Path:
    from alexnet_jax.training import processes

    if "imported" in network.meta:
        raise FigureUnavailable(
            "the weights were imported and come without images (see the command predict)"
        )
    try:
        # Read by one process for all, as the others may see the images elsewhere or not at all.
        examples = processes.broadcast_from_main("examples", lambda: _read_examples(network))
    except ValueError as error:  # the images have been moved or changed
        raise FigureUnavailable(str(error).rstrip(".")) from error
    path, probabilities = folder / "predictions.png", _probabilities(network, examples)
    if processes.is_main_process():
        images, labels = examples["image"], examples["label"]
        save(predictions.draw(images, probabilities, labels, network.class_names), path)
    return path


def _read_examples(network: "Network") -> dict[str, np.ndarray]:
    """Return a batch of images drawn at random from the split that scores are reported on."""
    from alexnet_jax.data.pipeline import evaluation_batches
    from alexnet_jax.data.wrappers import Subset
    from alexnet_jax.inference.datasets import open_split

    source = open_split(network, "test" if "test" in network.meta["data"] else "validation")
    order = np.random.default_rng(network.config.seed).permutation(len(source))
    subset = Subset(source, order[: predictions.MAX_IMAGES])
    batches = evaluation_batches(subset, network.config.data, len(subset))
    with contextlib.closing(batches):
        batch = next(batches)
    if not batch["mask"].any():
        raise ValueError("none of the images can be read")
    return {name: array[batch["mask"]] for name, array in batch.items()}


def _probabilities(network: "Network", examples: dict[str, np.ndarray]) -> np.ndarray:
    """Return what the network predicts, [N, K], on every process."""
    from alexnet_jax.model import towers
    from alexnet_jax.training.step import make_eval_step

    mesh, count = network.mesh, len(examples["image"])
    padded = -(-count // mesh.size) * mesh.size  # divisible by the data shards
    rows = np.r_[towers.local_rows(mesh, padded)]
    batch = {
        name: np.resize(array, (padded, *array.shape[1:]))[rows] for name, array in examples.items()
    }
    eval_step = make_eval_step(network.architecture, mesh, network.constants)
    _, probabilities = eval_step(network.variables, towers.put_batch(batch, mesh))
    return towers.fetch(probabilities)[:count]


def _specialization(network: "Network", folder: Path) -> Path:
    from alexnet_jax.analysis import tower_specialization
    from alexnet_jax.storage.atomic import write_json
    from alexnet_jax.training import processes

    if not network.architecture.has_towers:
        raise FigureUnavailable("the network has no towers to compare")
    path, kernel = folder / "specialization.png", _conv1_kernel(network)
    if processes.is_main_process():
        measured = tower_specialization.measure_specialization(kernel)
        save(specialization.draw(measured), path)
        values = {"step": network.step, **tower_specialization.as_json(measured)}
        values |= network.caveats
        write_json(path.with_suffix(".json"), values)
        print(tower_specialization.statement(measured))
    return path


def _page(network: "Network", folder: Path) -> Path:
    """Draw the page of the run: index.html in the run's folder, or in another one for figures."""
    from alexnet_jax.cli.commands_of_run import commands_of_run
    from alexnet_jax.page.draw import PAGE, draw
    from alexnet_jax.training import processes

    of_run = folder == network.workdir / "figures"
    commands = commands_of_run(network.workdir, network.config, network.meta)
    path = draw(network, (network.workdir if of_run else folder) / PAGE, commands)
    size = path.stat().st_size / 1e6 if processes.is_main_process() else 0
    processes.print_from_main(f"The page of the run, one file of {size:.1f} MB:")
    return path


def _conv1_kernel(network: "Network") -> np.ndarray:
    from alexnet_jax.model import towers

    return towers.fetch(network.variables["params"]["conv1"]["kernel"])


# Each saves its figure in a folder and returns the path, or raises FigureUnavailable. All processes
# compute what is drawn; the main process draws and writes.
_FIGURES: dict[Kind, Callable[["Network", Path], Path]] = {
    "curves": _curves,
    "filters": _filters,
    "predictions": _predictions,
    "specialization": _specialization,
    "page": _page,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        draw(parse_command(Command, sys.argv[1:] if args is None else args, PROGRAM))

    interrupted = "interrupted; the same command draws the figures again."
    return run_command(run, Command, interrupted, {"layers": "--layer"})


if __name__ == "__main__":
    sys.exit(main())
