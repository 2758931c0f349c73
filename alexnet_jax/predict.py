"""Classify images: `python -m alexnet_jax.predict --workdir runs/a photo.jpg`."""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from alexnet_jax.cli.arguments import check_picture, parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.cli.published import check_one, run_of
from alexnet_jax.cli.streams import notes
from alexnet_jax.config import DataConfig, PublishedName, invalid
from alexnet_jax.data.class_names import ClassNames
from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.folders import list_images
from alexnet_jax.data.images import UnreadableImage, open_image
from alexnet_jax.inference.examples import MAX_SHOWN, SHOWN, Examples
from alexnet_jax.storage.names import as_json, printable

if TYPE_CHECKING:
    from alexnet_jax.inference.network import Network

PROGRAM = "python -m alexnet_jax.predict"
BATCH = 16  # images at a time
BAR = 20  # characters of a probability of 1


@dataclasses.dataclass(frozen=True)
class Command:
    """Print the most probable classes of images.

    The paper is Krizhevsky, Sutskever and Hinton (2012).
    """

    # image files, and folders of them at any depth
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    # folder of the run, trained or imported
    workdir: Path | None = None
    # published weights instead of a run; downloaded and imported once
    weights: PublishedName | None = None
    # number of classes to print for each image
    top: int = 5
    # views of each image: the center crop, or the four corner crops, the center crop and their
    # mirror images (paper section 4.1), whose probabilities are averaged
    views: Literal[1, 10] = 1
    # draw images with their five most probable classes into this file (figure 4 of the paper); the
    # true class is red if the folder of an image has the name of a class
    save: Path | None = None
    # number of images in that figure, at most 100; of more images it shows some of each folder in
    # turn, and half of them are mistakes, if there are as many
    save_count: int = SHOWN
    # print a JSON object for each image instead
    json: bool = False
    # which checkpoint: the latest, or the one with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The class probabilities of one file, or why it could not be read."""

    file: Path
    probabilities: np.ndarray | None  # float32 [classes]
    square: np.ndarray | None  # uint8 [S, S, 3], of which the network sees its views
    error: str = ""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 if some file could not be read."""
    unread = 0

    def run() -> None:
        nonlocal unread
        command = parse_command(Command, sys.argv[1:] if args is None else args, PROGRAM)
        unread = show(command)

    return run_command(run, Command, "interrupted.") or int(unread > 0)


def show(args: Command) -> int:
    """Print the predictions, and draw some; return how many files could not be read."""
    if not args.files:
        raise ValueError("No files: name images, or folders of them.")
    if args.top < 1:
        raise invalid("--top", args.top, "must be at least 1", "try 5")
    if not 1 <= args.save_count <= MAX_SHOWN:
        rule = f"must be 1 to {MAX_SHOWN} images"
        raise invalid("--save-count", args.save_count, rule, f"try {SHOWN}")
    if args.save:
        check_picture(args.save, "--save")
    elif args.save_count != SHOWN:
        rule = "is for the figure, and none is saved"
        raise invalid("--save-count", args.save_count, rule, "name its file with --save")
    check_one(args.workdir, args.weights)
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(towers=1, data=1, batch=BATCH)
    workdir = run_of(args.workdir, args.weights)
    network = network_loading.load_network(workdir, mesh, args.checkpoint)
    known = ClassNames(network.class_names)
    num_read, num_unread, panel = 0, 0, Examples[Prediction](args.save_count)
    for prediction in predict(network, find(args.files), args.views):
        if prediction.probabilities is None:
            num_unread += 1
            message = printable(f"{prediction.file}: {prediction.error}; skipped")
            print(message, file=notes())
            continue
        num_read += 1
        if args.save:
            label = _label(prediction.file, known)
            is_right = None if label is None else label == int(prediction.probabilities.argmax())
            panel.add(prediction, prediction.file.absolute().parent, is_right)
        _print(prediction, prediction.probabilities, network, args)
    if num_read and args.save:
        _draw(panel, known, network.class_names, args.save)
        saved = f"Saved {printable(args.save)}: {panel.describe('images', 'folders')}"
        print(saved, file=notes())
    if num_unread:
        print(f"{num_unread:,} of {num_read + num_unread:,} are unreadable.", file=notes())
    return num_unread


def find(paths: Iterable[Path]) -> Iterator[Path | Prediction]:
    """Yield the files among `paths`, and those in the folders among them, folder by folder.

    For a folder without images, or that cannot be read, yield a prediction with the error. What is
    passed over in a folder is printed on stderr.
    """
    for path in paths:
        try:
            listing = list_images(path)
        except ValueError as error:
            yield Prediction(path, None, None, str(error).rstrip("."))
            continue
        for note in listing.notes:
            print(note, file=notes())
        if not listing.files:
            yield Prediction(path, None, None, "holds no images")
        yield from listing.files


def predict(
    network: "Network", files: Iterable[Path | Prediction], views: Literal[1, 10] = 1
) -> Iterator[Prediction]:
    """Yield a prediction for each file, in order, with at most 2 `BATCH` squares in memory.

    Files are read by as many threads as in training, ahead of the network. Predictions among the
    files are yielded as they are.
    """
    from alexnet_jax.inference.ensemble import Predictor

    predictor, data = Predictor(network, views), network.config.data
    blank = np.zeros((data.image_size, data.image_size, 3), np.uint8)
    remaining = iter(files)
    with ThreadPoolExecutor(max(1, data.threads)) as pool:

        def start() -> list[Future[Prediction]]:
            return [pool.submit(_read, file, data) for file in itertools.islice(remaining, BATCH)]

        reading = start()
        while reading:
            unfinished = [future.result() for future in reading]
            reading = start()
            if all(prediction.square is None for prediction in unfinished):
                yield from unfinished
                continue
            squares = [blank if p.square is None else p.square for p in unfinished]
            rows = np.exp(predictor([*squares, *[blank] * (BATCH - len(unfinished))]))
            for prediction, row in zip(unfinished, rows, strict=False):
                readable = prediction.square is not None
                yield dataclasses.replace(prediction, probabilities=row if readable else None)


def _read(file: Path | Prediction, data: DataConfig) -> Prediction:
    """Return a prediction with the file's square, which is all that is kept of it, or the error."""
    if isinstance(file, Prediction):
        return file
    try:
        image = open_image(file)
    except UnreadableImage as error:
        return Prediction(file, None, None, str(error))
    return Prediction(file, None, resize_center(image, data.image_size, data.resize, data.filter))


def _print(
    prediction: Prediction, probabilities: np.ndarray, network: "Network", args: Command
) -> None:
    order = np.argsort(-probabilities, kind="stable")[: args.top]
    best = [(network.class_names[index], float(probabilities[index])) for index in order]
    if args.json:
        classes = [{"class": name, "probability": p} for name, p in best]
        values = {"file": str(prediction.file), "predictions": classes}
        line = as_json(values | network.caveats)
    else:
        full = _full_block()
        bars = [f"  {p:6.1%}  {full * round(p * BAR):{BAR}}  {printable(name)}" for name, p in best]
        line = "\n".join([printable(prediction.file), *bars])
    print(line, flush=True)  # each as soon as it is known, also into a pipe


def _full_block() -> str:
    """Return a part of a bar that the terminal's encoding has."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "█" if "█".encode(encoding, "ignore") else "#"


def _label(file: Path, known: ClassNames) -> int | None:
    """Return the class that the folder of a file is named after, if any."""
    return known.find(file.absolute().parent.name, by_part=True)


def _draw(
    panel: Examples[Prediction], known: ClassNames, class_names: Sequence[str], path: Path
) -> None:
    """Draw the paper's Figure 4, left."""
    from alexnet_jax.plots import predictions
    from alexnet_jax.plots.tiles import save

    chosen, _ = panel.chosen()
    labels = [_label(prediction.file, known) for prediction in chosen]
    has_news = len(chosen) < panel.total or any(label is not None for label in labels)
    figure = predictions.draw(
        np.stack([p.square for p in chosen if p.square is not None]),
        np.stack([p.probabilities for p in chosen if p.probabilities is not None]),
        np.array([-1 if label is None else label for label in labels]),
        class_names,
        [prediction.file.name for prediction in chosen],
        panel.describe("images", "folders") if has_news else "",
    )
    save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
