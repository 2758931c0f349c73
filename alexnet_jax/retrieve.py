"""Find similar images: `python -m alexnet_jax.retrieve --workdir runs/a --images DIR photo.jpg`."""

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from alexnet_jax.cli.arguments import check_picture, parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.cli.published import check_one, run_of
from alexnet_jax.cli.streams import notes
from alexnet_jax.config import PublishedName, invalid
from alexnet_jax.data.class_names import ClassNames
from alexnet_jax.data.folders import list_images
from alexnet_jax.storage.names import as_json, printable

if TYPE_CHECKING:
    from alexnet_jax.plots.neighbors import Line
    from alexnet_jax.retrieval.features import Extractor, Features
    from alexnet_jax.retrieval.index import Extract, Index

PROGRAM = "python -m alexnet_jax.retrieve"
PANEL = 20  # query images in the figure
DISTANCES = {"euclidean": "Euclidean", "cosine": "cosine"}  # in the figure


@dataclasses.dataclass(frozen=True)
class Command:
    """Print the images of a folder whose features are nearest to a query image's.

    As in the right of figure 4 in Krizhevsky, Sutskever and Hinton (2012), the paper. Unless told
    otherwise, features are the outputs of fc7 after its ReLU, before dropout, and the distance is
    Euclidean; the search is exact. The features of the folder are computed once and kept. A query
    image in the folder itself is not read again, and is its own nearest neighbor.
    """

    # query images, and folders of them at any depth; without any only the index is built
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    # folder to search, at any depth
    images: Annotated[Path, tyro.conf.arg()]
    # folder of the run, trained or imported
    workdir: Path | None = None
    # published weights instead of a run; downloaded and imported once
    weights: PublishedName | None = None
    # number of neighbors to print for each query image; paper section 6 shows 6
    top: int = 6
    # output of the network to compare, as describe lists them: pool5, conv5, relu6; by default fc7
    # after its ReLU
    layer: str = ""
    # cosine: 1 - cosine of the angle between features
    distance: Literal["euclidean", "cosine"] = "euclidean"
    # draw query images and their neighbors into this file; where images are in folders of classes,
    # with a mark for the same class as the query, or another one
    save: Path | None = None
    # print a JSON object for each query image instead
    json: bool = False
    # which checkpoint: the latest, or the one with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"
    # folder for the features; by default in --workdir, or in the run made of --weights, below
    # retrieval/
    index: Path | None = None


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """The neighbors of one query image, nearest first, or why it could not be read."""

    file: Path
    images: list[tuple[Path, float]]  # with their distances
    error: str = ""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 if some query image could not be read."""
    unread = 0

    def run() -> None:
        nonlocal unread
        command = parse_command(Command, sys.argv[1:] if args is None else args, PROGRAM)
        unread = show(command)

    interrupted = "interrupted; run the same command again to continue."
    return run_command(run, Command, interrupted) or int(unread > 0)


def show(args: Command) -> int:
    """Print the neighbors, and draw some; return how many query images could not be read."""
    if args.top < 1:
        raise invalid("--top", args.top, "must be at least 1", "try 6")
    if args.save and not args.files:
        rule = "is a picture of query images, and none are named"
        raise invalid("--save", args.save, rule, "name some, or leave it out")
    if args.save:
        check_picture(args.save, "--save")
    check_one(args.workdir, args.weights)
    listings = [list_images(path) for path in args.files]
    files = [file for listing in listings for file in listing.files]
    if args.files and not files:
        raise ValueError(f"{', '.join(map(str, args.files))}: no images found; name other paths.")
    for listing in listings:
        for note in listing.notes:
            _print_note(note)
    extractor, index, caveats = _open(args)
    num_unread, panel = 0, []
    for neighbors in search(extractor, index, files, args.top, args.distance):
        if neighbors.error:
            num_unread += 1
            _print_note(f"{neighbors.file}: {neighbors.error}; skipped")
            continue
        panel += [neighbors] if len(panel) < PANEL else []
        print(_json(neighbors, caveats) if args.json else _text(neighbors))
    if args.save and panel:
        _draw(panel, len(files) - num_unread, index, args, extractor.recipe.layers[0])
    return num_unread


def _open(args: Command) -> tuple["Extractor", "Index", dict[str, list[str]]]:
    """Return the compiled network, the index, brought up to date, and the network's caveats."""
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers
    from alexnet_jax.retrieval import features, index

    mesh = towers.make_mesh(towers=1, data=1, batch=features.BATCH)
    workdir = run_of(args.workdir, args.weights)
    network = network_loading.load_network(workdir, mesh, args.checkpoint)
    unit_length = args.distance == "cosine"
    recipe = features.retrieval_recipe(network, args.layer, unit_length=unit_length)
    extractor = features.Extractor(network, recipe)
    folder = args.index or index.folder_for(workdir, args.checkpoint, args.images, recipe)
    built = index.build(network, extractor, args.images, folder, _print_note, recipe)
    if built.unreadable:
        _print_note(features.describe_unreadable(built.unreadable))
    return extractor, built, network.caveats


def search(
    extractor: "Extract",
    index: "Index",
    files: Sequence[Path],
    count: int,
    distance: Literal["euclidean", "cosine"] = "euclidean",
) -> Iterator[Neighbors]:
    """Yield the `count` nearest images of an index for each file, in order.

    For the distance `cosine`, all features have length 1. Files of the index are not read again.
    """
    from alexnet_jax.retrieval.features import BATCH
    from alexnet_jax.retrieval.nearest import nearest

    queries = zip(files, _features(extractor, index, files), strict=True)
    while batch := list(itertools.islice(queries, BATCH)):
        readable = [features for _, features in batch if not isinstance(features, str)]
        results: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
        if readable:
            rows, distances = nearest(index.features, np.stack(readable), count)
            if distance == "cosine":
                distances = distances**2 / 2
            results = zip(rows, distances, strict=True)
        for file, features in batch:
            if isinstance(features, str):
                yield Neighbors(file, [], features)
                continue
            pairs = zip(*next(results), strict=True)
            images = [(index.root / index.names[row], float(distance)) for row, distance in pairs]
            yield Neighbors(file, images)


def _features(
    extractor: "Extract", index: "Index", files: Sequence[Path]
) -> Iterator[np.ndarray | str]:
    """Yield the features of each file, float32 [units], or why it could not be read."""
    known = index.find(files)
    others = [file for file, row in zip(files, known, strict=True) if row is None]
    computed = _in_order(extractor(others))
    for row in known:
        if row is None:
            yield next(computed)
        else:
            yield row if isinstance(row, str) else index.features[row]


def _in_order(batches: Iterator["Features"]) -> Iterator[np.ndarray | str]:
    for batch in batches:
        (rows,) = batch.rows.values()
        by_number = {**dict(zip(batch.numbers, rows, strict=True)), **batch.reasons}
        yield from (by_number[number] for number in sorted(by_number))


def _print_note(text: str) -> None:
    """Print to stderr what is not a result, as results may be JSON."""
    print(printable(text), file=notes(), flush=True)


def _text(neighbors: Neighbors) -> str:
    lines = [f"  {distance:10.3f}  {printable(file)}" for file, distance in neighbors.images]
    return "\n".join([printable(neighbors.file), *lines])


def _json(neighbors: Neighbors, caveats: dict[str, list[str]]) -> str:
    images = [{"file": str(file), "distance": distance} for file, distance in neighbors.images]
    return as_json({"file": str(neighbors.file), "neighbors": images} | caveats)


def _draw(
    panel: Sequence[Neighbors], total: int, index: "Index", args: Command, layer: str
) -> None:
    from alexnet_jax.plots import neighbors
    from alexnet_jax.plots.tiles import save

    assert args.save is not None
    part = f", the first {len(panel)} of {total:,} query images" if len(panel) < total else ""
    classes = ClassNames(sorted({*filter(None, map(_folder, index.names))}))
    lines = [_line(query, classes, index.root) for query in panel]
    known = any(near.class_name for line in lines for near in line.neighbors)
    caption = (
        f"The nearest of {len(index.names):,} images{part}. Below an image: "
        f"{'its class (the name of its folder), ' if known else ''}its file, and its "
        f"{DISTANCES[args.distance]} "
        f"distance by {layer}."
    )
    save(neighbors.draw(lines, caption), args.save)
    _print_note(f"Saved {args.save}{part}.")


def _line(query: Neighbors, classes: ClassNames, root: Path) -> "Line":
    """Return a line of the panel; an image that no longer exists is left blank.

    The class of an image is the folder that it is in. It is known whether a neighbor is of the
    class of the query if some folder below `root` has the name of the query's.
    """
    from alexnet_jax.plots.neighbors import Line, Neighbor, thumbnail

    own = query.file.absolute()
    label = classes.find(own.parent.name)

    def neighbor(file: Path, distance: float) -> Neighbor:
        folder = _folder(str(file.relative_to(root)))
        is_right = None if label is None or not folder else classes.find(folder) == label
        name = file.name
        if file.absolute().resolve() == own.resolve():  # the query itself is not a find
            is_right, name = None, f"{name} (the query)"
        return Neighbor(thumbnail(file), name, distance, folder, is_right)

    nearest = [neighbor(file, distance) for file, distance in query.images]
    class_name = own.parent.name if label is not None else ""
    return Line(thumbnail(query.file), query.file.name, nearest, class_name)


def _folder(name: str) -> str:
    """Return the name of the folder of a file below the root, "" for one in the root itself."""
    return Path(name).parent.name


if __name__ == "__main__":
    sys.exit(main())
