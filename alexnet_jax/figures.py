"""Draw what a run has learned: `python -m alexnet_jax.figures --workdir runs/a`."""

import collections
import contextlib
import dataclasses
import functools
import logging
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import option_names, run_command, with_options
from alexnet_jax.cli.published import run_of
from alexnet_jax.cli.streams import notes
from alexnet_jax.config import PublishedName, invalid
from alexnet_jax.data.crops import center_views
from alexnet_jax.data.folders import list_images
from alexnet_jax.data.images import UnreadableImage, open_image
from alexnet_jax.plots import curves, feature_maps, filters, predictions, specialization
from alexnet_jax.plots.tiles import save
from alexnet_jax.storage.names import printable

if TYPE_CHECKING:
    from alexnet_jax.inference.network import Network

PROGRAM = "python -m alexnet_jax.figures"
LOGGER = logging.getLogger(__name__)
BATCH, TRIED = 64, 512  # images of a split: predicted at a time, and in all, to find mistakes

Kind = Literal["curves", "filters", "predictions", "specialization", "page"]
AFTER_TRAINING: tuple[Kind, ...] = ("curves", "filters", "predictions")


@dataclasses.dataclass(frozen=True)
class Command:
    """Draw the figures of a run into PNG files; the values of specialization also into JSON.

    Where a network has two towers, tower 0 is above tower 1. predictions.png shows images of all
    classes in turn, half of them mistakes if there are as many.
    """

    # folder of the run, trained or imported
    workdir: Path | None = None
    # published weights instead of a run; downloaded and imported once
    weights: PublishedName | None = None
    # figures to draw; by default all that are available, or none with --maps
    only: tuple[Kind, ...] = ()
    # photographs, and folders of them at any depth, whose feature maps to draw, by tower
    maps: tuple[Path, ...] = ()
    # layer of the maps: a convolution before its ReLU (conv1, the default) or after it (relu1), or
    # what follows (norm1, pool1)
    layer: str = ""
    # what is black and what white in filters.png and in feature maps. layer: the least and the
    # greatest value of all filters or maps, so that their strengths can be compared; filter: those
    # of each filter or map, so that the pattern of weak ones can be seen
    contrast: Literal["layer", "filter"] = "layer"
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


def draw(args: Command) -> int:
    """Draw the figures that a command names, and print their paths.

    Returns:
        how many of the photographs of --maps could not be read; they are named on stderr.

    Raises:
        ValueError: one that --only or --maps names is not available.
    """
    from alexnet_jax.inference.datasets import with_data_path
    from alexnet_jax.inference.network import load_network
    from alexnet_jax.model import towers

    _check(args)
    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    network = load_network(run_of(args.workdir, args.weights), mesh, args.checkpoint)
    if args.data_path:
        network = with_data_path(network, args.data_path)
    folder = args.out or (args.workdir or Path()) / "figures"
    num_unread = _draw_all_maps(network, args, folder)
    for kind in args.only or (() if args.maps else tuple(_FIGURES)):
        figure = _FIGURES[kind]
        if kind == "filters":
            figure = functools.partial(_filters, contrast=args.contrast)
        try:
            print(printable(figure(network, folder)))
        except FigureUnavailable as reason:
            if args.only:
                raise invalid("only", kind, str(reason), "leave it out") from reason
            print(printable(with_options(f"No {kind}: {reason}.", option_names(Command))))
    return num_unread


def _check(args: Command) -> None:
    """Raise a ValueError for an option that no figure to be drawn has a use for."""
    drawn = {*(args.only or (() if args.maps else _FIGURES)), *(["maps"] if args.maps else [])}
    for name, value, kinds in (
        ("layer", args.layer, {"maps"}),
        ("contrast", "" if args.contrast == "layer" else args.contrast, {"filters", "maps"}),
        ("data.path", args.data_path, {"predictions", "page"}),
    ):
        if value and not kinds & drawn:
            rule = f"applies to {' and '.join(sorted(kinds))}, and {', '.join(sorted(drawn))} "
            rule += f"{'are' if len(drawn) > 1 else 'is'} drawn"
            raise invalid(name, value, rule, "leave it out")


def _draw_all_maps(network: "Network", args: Command, folder: Path) -> int:
    """Draw the maps of all photographs that --maps names; return how many were unreadable."""
    num_read, num_unread, layer = 0, 0, args.layer or "conv1"
    files = collections.Counter[str]()

    def skip(path: Path, reason: object) -> None:
        nonlocal num_unread
        num_unread += 1
        print(printable(f"{path}: {reason}; skipped"), file=notes())

    for path in args.maps:
        try:
            listing = list_images(path)
        except ValueError as error:
            skip(path, str(error).rstrip("."))
            continue
        for note in listing.notes:
            print(printable(note), file=notes())
        if not listing.files:
            skip(path, "holds no images")
        for photograph in listing.files:
            try:
                image = open_image(photograph)
            except UnreadableImage as error:
                skip(photograph, error)
                continue
            num_read += 1
            name = f"maps-{layer}-{photograph.stem}"
            files[name] += 1  # photographs in several folders often have the same names
            name += f"-{files[name]}" if files[name] > 1 else ""
            target = folder / f"{name}.png"
            title = photograph.name
            print(printable(draw_maps(network, image, title, layer, target, args.contrast)))
    if num_unread:
        print(f"{num_unread:,} of {num_read + num_unread:,} are unreadable.", file=notes())
    return num_unread


def draw_maps(
    network: "Network",
    image: np.ndarray,
    name: str,
    layer: str,
    path: Path,
    contrast: Literal["layer", "filter"] = "layer",
) -> Path:
    """Save the feature maps of an image, uint8 [H, W, 3], by tower, next to it; return `path`.

    Raises:
        ValueError: there is no such layer, or it has no maps.
    """
    seen = center_views([image], network.config.data)["image"][0]
    output = np.asarray(network.features(network.preprocess([image]), layer)[layer], np.float32)
    if output.ndim != 4:
        rule = f"must have maps, and has {output.shape[-1]:,} units"
        raise invalid(
            "layer", layer, rule, "name a convolution (conv1) or what follows one (relu1, pool1)"
        )
    has_towers, title = network.architecture.has_towers, f"{layer} of {name}"
    return save(feature_maps.draw(output[0], title, has_towers, seen, contrast), path)


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


def _filters(
    network: "Network", folder: Path, contrast: Literal["layer", "filter"] = "layer"
) -> Path:
    from alexnet_jax.training import processes

    path, kernel = folder / "filters.png", _conv1_kernel(network)
    if processes.is_main_process():
        save(filters.draw(kernel, network.architecture.has_towers, contrast), path)
    return path


def _predictions(network: "Network", folder: Path) -> Path:
    from alexnet_jax.training import processes

    if "imported" in network.meta:
        raise FigureUnavailable(
            "the weights were imported and come without images (see the command predict)"
        )
    path, (examples, caption) = folder / "predictions.png", _choose_examples(network)
    if processes.is_main_process():
        images, probabilities, labels, files = zip(*examples, strict=True)
        figure = predictions.draw(
            np.stack(images),
            np.stack(probabilities),
            np.array(labels),
            network.class_names,
            files,
            caption,
        )
        save(figure, path)
    return path


Example = tuple[np.ndarray, np.ndarray, int, str]  # image, probabilities, label, file


def _choose_examples(network: "Network") -> tuple[list[Example], str]:
    """Return some images of the split that scores are reported on, and what they are.

    Images are tried in an order that depends on the seed until there are enough of both the right
    and the wrong ones, or `TRIED` of them. Raises FigureUnavailable if there are none.
    """
    from alexnet_jax.inference.examples import SHOWN, Examples
    from alexnet_jax.training import processes

    split = "test" if "test" in network.meta["data"] else "validation"
    examples, predict = Examples[Example](SHOWN), _make_predict(network)
    with contextlib.closing(_read_examples(network, split)) as batches:
        while not examples.enough:
            try:
                # Read by one process for all, as the others may see the images elsewhere or not
                # at all.
                batch = processes.broadcast_from_main("examples", lambda: next(batches, None))
            except ValueError as error:  # the images have been moved or changed
                raise FigureUnavailable(str(error).rstrip(".")) from error
            if batch is None:
                break
            files = batch.pop("files")
            rows = zip(batch["image"], predict(batch), map(int, batch["label"]), files)
            for example, readable in zip(rows, batch["mask"], strict=True):
                _, row, label, _ = example
                if readable:
                    examples.add(example, label, is_right=int(np.argmax(row)) == label)
    chosen, _ = examples.chosen()
    if not chosen:
        raise FigureUnavailable("none of the images can be read")
    return chosen, examples.describe(f"{split} images drawn at random", "classes")


def _read_examples(
    network: "Network", split: Literal["test", "validation"]
) -> Generator[dict[str, Any]]:
    """Yield batches of images drawn at random from a split, with their files."""
    from alexnet_jax.data.pipeline import evaluation_batches
    from alexnet_jax.data.wrappers import Subset
    from alexnet_jax.inference.datasets import open_split

    source = open_split(network, split)
    order = np.random.default_rng(network.config.seed).permutation(len(source))
    subset = Subset(source, order[:TRIED])
    size = min(len(subset), BATCH)
    with contextlib.closing(evaluation_batches(subset, network.config.data, size)) as batches:
        for batch in batches:
            files = [
                Path(subset.describe(index)).name if index >= 0 else ""
                for index in batch["index"].tolist()
            ]
            yield {**batch, "files": files}


def _make_predict(network: "Network") -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return a function of a batch: what the network predicts, [N, K], on every process."""
    from alexnet_jax.model import towers
    from alexnet_jax.training.step import make_eval_step

    mesh = network.mesh
    eval_step = make_eval_step(network.architecture, mesh, network.constants)

    def predict(batch: dict[str, np.ndarray]) -> np.ndarray:
        count = len(batch["image"])
        padded = -(-count // mesh.size) * mesh.size  # divisible by the data shards
        rows = np.r_[towers.local_rows(mesh, padded)]
        local = {
            name: np.resize(array, (padded, *array.shape[1:]))[rows]
            for name, array in batch.items()
        }
        _, probabilities = eval_step(network.variables, towers.put_batch(local, mesh))
        return towers.fetch(probabilities)[:count]

    return predict


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

    of_run = folder == network.workdir / "figures"
    commands = commands_of_run(network.workdir, network.meta)
    return draw(network, (network.workdir if of_run else folder) / PAGE, commands)


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
    """Run the command line; return the exit code: 1 if some photograph could not be read."""
    num_unread = 0

    def run() -> None:
        nonlocal num_unread
        num_unread = draw(parse_command(Command, sys.argv[1:] if args is None else args, PROGRAM))

    interrupted = "interrupted; the same command draws the figures again."
    return run_command(run, Command, interrupted, {"layers": "--layer"}) or int(num_unread > 0)


if __name__ == "__main__":
    sys.exit(main())
