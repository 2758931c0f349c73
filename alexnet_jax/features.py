"""Write what layers answer to images: `python -m alexnet_jax.features --to features.npz DIR`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.cli.published import check_one, run_of
from alexnet_jax.cli.streams import notes
from alexnet_jax.config import PublishedName
from alexnet_jax.data.folders import list_images
from alexnet_jax.storage.names import printable

PROGRAM = "python -m alexnet_jax.features"


@dataclasses.dataclass(frozen=True)
class Command:
    """Write the outputs of any layers for images, in evaluation, to one file.

    Each image is resized and its center cropped as for evaluation. The file has an array [N, ...]
    for each layer: [N, row, column, map], tower 0's maps first, or [N, unit]. An interrupted
    command goes on where it was when it is given again.
    """

    # images, and folders of them at any depth
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    # file to write: .npz (with the names of the images in "files"), .npy (one layer; names in
    # .files.json), .h5 (as .npz); its folder is made if missing
    to: Annotated[Path, tyro.conf.arg()]
    # folder of the run, trained or imported
    workdir: Path | None = None
    # published weights instead of a run; downloaded and imported once
    weights: PublishedName | None = None
    # outputs as describe lists them: conv5 before its ReLU, relu5 after it, norm1, pool5, fc7; for
    # networks of torchvision's layout also features.10 or classifier.5
    layers: tuple[str, ...] = ("relu7",)
    # maps as they are, flattened in the order row, column, map, or their mean or maximum
    reduce: Literal["none", "flatten", "mean", "max"] = "none"
    # which checkpoint: the latest, or the one with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 if some file could not be read."""
    unread = 0

    def run() -> None:
        nonlocal unread
        command = parse_command(Command, sys.argv[1:] if args is None else args, PROGRAM)
        unread = write(command)

    interrupted = "interrupted; run the same command again to continue."
    return run_command(run, Command, interrupted, needs_output=False) or int(unread > 0)


def write(args: Command) -> int:
    """Write the features; return how many files could not be read."""
    from alexnet_jax.retrieval import feature_files

    check_one(args.workdir, args.weights)
    feature_files.check_target(args.to, args.layers)
    listings = [list_images(path) for path in args.files]
    # Each once: an image may be named beside its folder.
    files = list(dict.fromkeys(file for listing in listings for file in listing.files))
    if not files:
        named = ", ".join(map(str, args.files)) or "No files"
        raise ValueError(f"{named}: no images found; name images, or folders of them.")
    for listing in listings:
        for note in listing.notes:
            _print_note(note)
    from alexnet_jax.inference.network import load_network
    from alexnet_jax.model import towers
    from alexnet_jax.retrieval import features

    mesh = towers.make_mesh(towers=1, data=1, batch=features.BATCH)
    network = load_network(run_of(args.workdir, args.weights), mesh, args.checkpoint)
    recipe = features.Recipe(features.output_names(network, args.layers), args.reduce)
    shapes = features.shapes(network, recipe)
    unreadable = feature_files.write(
        args.to,
        files,
        features.Extractor(network, recipe),
        shapes,
        features.fingerprint(network, recipe),
        _print_note,
    )
    if unreadable:
        _print_note(features.describe_unreadable(unreadable))
    count = len(files) - len(unreadable)
    arrays = ", ".join(f"{layer} {[count, *shape]}" for layer, shape in shapes.items())
    print(printable(f"{args.to}: {arrays}, float32."))
    return len(unreadable)


def _print_note(text: str) -> None:
    """Print to stderr what is not the result."""
    print(printable(text), file=notes(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
