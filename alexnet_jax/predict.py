"""Name what photographs show: `python -m alexnet_jax.predict --workdir runs/a photo.jpg`."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from alexnet_jax.cli.arguments import check_picture, parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.config import DataConfig
from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.sources import image_files, open_image

if TYPE_CHECKING:
    from alexnet_jax.inference.network import Network

PROGRAM = "python -m alexnet_jax.predict"
BATCH = 16  # images at a time
THREADS = 2  # that read them
BAR = 20  # characters of a probability of 1
PANEL = 8  # images in the picture, as in the paper's Figure 4


@dataclasses.dataclass(frozen=True)
class Command:
    """Print the most probable classes of images."""

    # image files, and folders of them at any depth
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    # folder of the run, trained or imported
    workdir: Annotated[Path, tyro.conf.arg()]
    # classes to name
    top: int = 5
    # of each image: the center, or four corners and the center with their mirror images (P4.1),
    # whose probabilities are averaged
    views: Literal[1, 10] = 1
    # draw the first eight images with their five most probable classes into this file (Figure 4 of
    # the paper); the true class is red where the folder of an image bears the name of a class
    save: Path | None = None
    # print a JSON object for each image instead
    json: bool = False
    # which weights: the latest, or those with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the network thinks of one file, or why there is nothing to think of."""

    file: Path
    probabilities: np.ndarray | None  # float32 [classes]
    square: np.ndarray | None  # uint8 [S, S, 3], of which the network sees its views
    error: str = ""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 where some file could not be read."""
    unread = 0

    def run() -> None:
        nonlocal unread
        arguments = sys.argv[1:] if args is None else args
        asked = parse_command(Command, arguments, PROGRAM)
        unread = show(asked)

    return run_command(run, Command, "interrupted.") or int(unread > 0)


def show(asked: Command) -> int:
    """Print the predictions, and draw some; return how many files could not be read."""
    if not asked.files:
        raise ValueError("no files: name images, or folders of them.")
    if asked.top < 1:
        raise ValueError(f"--top {asked.top}: it is at least 1 class; try 5.")
    if asked.save:
        check_picture(asked.save, "--save")
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(towers=1, data=1, batch=BATCH)
    network = network_loading.load_network(asked.workdir, mesh, asked.checkpoint)
    read, unread, shown = 0, 0, []
    for prediction in predict(network, find(asked.files), asked.views):
        if prediction.probabilities is None:
            unread += 1
            print(f"{prediction.file}: {prediction.error}; passed over", file=sys.stderr)
            continue
        read += 1
        if asked.save and len(shown) < PANEL:
            shown.append(prediction)
        _print(prediction, prediction.probabilities, network.class_names, asked)
    if shown and asked.save:
        _draw(shown, network.class_names, asked.save)
        said = f"{asked.save}: {len(shown)} of {read:,} images"
        print(said, file=sys.stderr if asked.json else sys.stdout)
    if unread:
        print(f"{unread:,} of {read + unread:,} could not be read.", file=sys.stderr)
    return unread


def find(paths: Iterable[Path]) -> Iterator[Path | Prediction]:
    """Yield the files that are named and those in the folders that are, folder by folder.

    A folder with nothing to show comes as a prediction that says so.
    """
    for path in paths:
        try:
            files = image_files(path)
        except ValueError as error:  # a folder within it that may not be read
            yield Prediction(path, None, None, str(error).rstrip("."))
            continue
        if not files:
            yield Prediction(path, None, None, "no images there")
        yield from files


def predict(
    network: "Network", files: Iterable[Path | Prediction], views: Literal[1, 10] = 1
) -> Iterator[Prediction]:
    """Yield a prediction for each file, in order, `BATCH` squares in memory at a time.

    What is a prediction already is handed through.
    """
    from alexnet_jax.inference.ensemble import Predictor

    ask, data = Predictor(network, views), network.config.data
    blank = np.zeros((data.image_size, data.image_size, 3), np.uint8)
    waiting = iter(files)
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(itertools.islice(waiting, BATCH)):
            read = list(pool.map(lambda file: _read(file, data), some))
            squares = [blank if one.square is None else one.square for one in read]
            if all(one.square is None for one in read):
                yield from read
                continue
            shares = np.exp(ask([*squares, *[blank] * (BATCH - len(some))]))
            for one, probabilities in zip(read, shares, strict=False):
                known = one.square is not None
                yield dataclasses.replace(one, probabilities=probabilities if known else None)


def _read(file: Path | Prediction, data: DataConfig) -> Prediction:
    """Return the file's square, or why there is none; only a few photographs are ever whole."""
    if isinstance(file, Prediction):
        return file
    try:
        image = open_image(file)
    except UnreadableImage as error:
        return Prediction(file, None, None, str(error))
    return Prediction(file, None, resize_center(image, data.image_size, data.resize, data.filter))


def _print(
    prediction: Prediction, probabilities: np.ndarray, names: Sequence[str], asked: Command
) -> None:
    order = np.argsort(-probabilities, kind="stable")[: asked.top]
    best = [(names[index], float(probabilities[index])) for index in order]
    if asked.json:
        named = [{"class": name, "probability": share} for name, share in best]
        line = json.dumps({"file": str(prediction.file), "predictions": named})
    else:
        bars = [f"  {share:6.1%}  {'█' * round(share * BAR):{BAR}}  {name}" for name, share in best]
        line = "\n".join([str(prediction.file), *bars])
    print(line, flush=True)  # whoever reads on may not want to wait for the last one


def _draw(shown: Sequence[Prediction], names: Sequence[str], path: Path) -> None:
    """Draw the paper's Figure 4, left."""
    from alexnet_jax import plots
    from alexnet_jax.inference.network import label_by_name

    numbers = label_by_name(names)
    plots.predictions(
        np.stack([one.square for one in shown if one.square is not None]),
        np.stack([one.probabilities for one in shown if one.probabilities is not None]),
        np.array([numbers.get(one.file.absolute().parent.name, -1) for one in shown]),
        names,
        path,
    )


if __name__ == "__main__":
    sys.exit(main())
