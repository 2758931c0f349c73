"""Find the images most like a photograph: `python -m alexnet_jax.retrieve --workdir runs/a ...`."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from alexnet_jax.cli.arguments import check_picture, parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.data.sources import image_files

if TYPE_CHECKING:
    from alexnet_jax.plots.neighbors import Line
    from alexnet_jax.retrieval.features import Extractor
    from alexnet_jax.retrieval.index import Index

PROGRAM = "python -m alexnet_jax.retrieve"
NAMED = 5  # files of the folder that hold no image
DRAWN = 20  # photographs of a panel


@dataclasses.dataclass(frozen=True)
class Command:
    """Print the images of a folder whose features lie nearest to a photograph's (Figure 4, right).

    The features are the outputs of fc7 after its ReLU, before dropout; the distance is Euclidean,
    and the neighbors are exact. Those of the folder are computed once and kept. An image that lies
    in the folder itself finds itself first.
    """

    # photographs, and folders of them at any depth; without any the index is made and that is all
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    # folder of the run, trained or imported
    workdir: Annotated[Path, tyro.conf.arg()]
    # folder to search in, at any depth
    images: Annotated[Path, tyro.conf.arg()]
    # neighbors of each photograph; P6 shows 6
    top: int = 6
    # draw photographs and neighbors into this file
    save: Path | None = None
    # print a JSON object for each photograph instead
    json: bool = False
    # which weights: the latest, or those with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"
    # where the features are kept; without it in --workdir, below retrieval/
    index: Path | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """The neighbors of one photograph, nearest first, or why it could not be read."""

    file: Path
    neighbors: list[tuple[Path, float]]  # images and their distances
    error: str = ""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 where some photograph could not be read."""
    unread: list[Path] = []

    def run() -> None:
        arguments = sys.argv[1:] if args is None else args
        asked = parse_command(Command, arguments, PROGRAM)
        unread.extend(show(asked))

    return run_command(run, Command, "interrupted; the same command goes on.") or int(bool(unread))


def show(asked: Command) -> list[Path]:
    """Print the neighbors; return the photographs that could not be read."""
    if asked.top < 1:
        raise ValueError(f"--top {asked.top}: it is at least 1 neighbor; try 6.")
    if asked.save:
        check_picture(asked.save, "--save")
    files = [file for path in asked.files for file in image_files(path)]
    if asked.files and not files:
        raise ValueError(f"{', '.join(map(str, asked.files))}: no images there; name others.")
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers
    from alexnet_jax.retrieval import features, index

    mesh = towers.make_mesh(towers=1, data=1, batch=features.BATCH)
    network = network_loading.load_network(asked.workdir, mesh, asked.checkpoint)
    extractor = features.Extractor(network)
    folder = asked.index or index.folder_for(asked.workdir, asked.checkpoint, asked.images)
    known = index.build(network, extractor, asked.images, folder, _say)
    _say_unreadable(known)
    unread, readable = [], []
    for found in search(extractor, known, files, asked.top):
        if found.error:
            unread.append(found.file)
            _say(f"{found.file}: {found.error}; passed over")
            continue
        readable += [found] if len(readable) < DRAWN else []
        print(_json(found) if asked.json else _text(found))
    if asked.save and readable:
        _draw(readable, len(files) - len(unread), asked.save)
    return unread


def search(
    extractor: "Extractor", known: "Index", files: Sequence[Path], count: int
) -> Iterator[Found]:
    """Yield the `count` nearest images of an index for each file, in order."""
    from alexnet_jax.retrieval.nearest import nearest

    for batch in extractor(files):
        numbers, distances = nearest(known.features, batch.rows, count)
        found = dict(zip(batch.numbers, zip(numbers, distances, strict=True), strict=True))
        for number in sorted([*batch.numbers, *batch.reasons]):
            if number in batch.reasons:
                yield Found(files[number], [], batch.reasons[number])
                continue
            rows = zip(*found[number], strict=True)
            near = [(known.root / known.names[row], float(far)) for row, far in rows]
            yield Found(files[number], near)


def _say(text: str) -> None:
    """Say what is no result where results may be JSON."""
    print(text, file=sys.stderr, flush=True)


def _say_unreadable(known: "Index") -> None:
    if known.unreadable:
        some = [f"{name} ({why})" for name, why in list(known.unreadable.items())[:NAMED]]
        more = " ..." if len(known.unreadable) > NAMED else ""
        _say(f"{len(known.unreadable):,} files hold no image: {', '.join(some)}{more}.")


def _text(found: Found) -> str:
    lines = [f"  {distance:10.3f}  {file}" for file, distance in found.neighbors]
    return "\n".join([str(found.file), *lines])


def _json(found: Found) -> str:
    near = [{"file": str(file), "distance": distance} for file, distance in found.neighbors]
    return json.dumps({"file": str(found.file), "neighbors": near})


def _draw(found: Sequence[Found], of: int, path: Path) -> None:
    from alexnet_jax.plots import neighbors, save

    save(neighbors.draw([_line(one) for one in found]), path)
    some = f", the first {len(found)} of {of:,} photographs" if len(found) < of else ""
    _say(f"Drawn: {path}{some}.")


def _line(found: Found) -> "Line":
    """Return a line of the panel; an image that is gone by now is left blank."""
    from alexnet_jax.plots.neighbors import Line, thumbnail

    near = [
        (thumbnail(file), f"{file.parent.name}/{file.name}", distance)
        for file, distance in found.neighbors
    ]
    return Line(thumbnail(found.file), found.file.name, near)


if __name__ == "__main__":
    sys.exit(main())
