"""Make shards that training reads: `python -m alexnet_jax.prepare --from DIR --to SHARDS`."""

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.config import DataConfig, invalid
from alexnet_jax.data.images import check_subsampling
from alexnet_jax.data.sources import Source
from alexnet_jax.storage.names import printable

PROGRAM = "python -m alexnet_jax.prepare"

# Options of the fields that the library names.
OPTIONS = {
    "data.path": "--from",
    "data.name": "--name",
    "data.image_size": "--image-size",
    "data.resize": "--resize",
    "data.filter": "--filter",
}


@dataclasses.dataclass(frozen=True)
class Command:
    """Resize images once, into ArrayRecord shards with statistics and checksums, or verify those.

    Rerun the same command to resume after an interruption.
    """

    # folder of the shards
    to: Path
    # folder with ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz;
    # or of class folders, or of train/, val/ and test/ with class folders; or TFDS data_dir
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    # TFDS data set as `name` or `name/config:version`
    name: str = ""
    # only compare the shards in --to with their checksums
    verify: bool = False
    # side of the squares, pixels
    image_size: int = 256
    # shorter-side: resize the shorter side and keep the center square; stretch: resize both sides
    resize: Literal["shorter-side", "stretch"] = "shorter-side"
    # antialias: average over all pixels that shrink into one; bilinear: between the four nearest
    filter: Literal["antialias", "bilinear"] = "antialias"
    # jpeg: quality 95; raw: exact and faster to read, six times as large
    encoding: Literal["jpeg", "raw"] = "jpeg"
    # of the colors of JPEG images. 4:4:4: one a pixel; 4:2:0: one for every 2 x 2 pixels, as Pillow
    # does by itself: a seventh smaller, and less exact
    subsampling: Literal["4:4:4", "4:2:0"] = "4:4:4"
    # number of processes; 0: one per core
    processes: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        args = parse_command(Command, sys.argv[1:] if argv is None else argv, PROGRAM)
        if args.processes < 0:
            raise invalid(
                "--processes", args.processes, "must be at least 0", "try 0, one per core"
            )
        has_source = args.source is not None or bool(args.name)
        if args.verify and has_source:
            raise ValueError("--verify: does not read images; leave --from and --name out.")
        if not args.verify and not has_source:
            raise ValueError("--from: is missing; name the folder of the images, or add --verify.")
        (verify if args.verify else prepare)(args)

    interrupted = "interrupted; rerun the same command to resume, finished shards are kept."
    return run_command(run, Command, interrupted, OPTIONS, uses_jax=False)


def prepare(args: Command) -> None:
    """Write the shards of `--from` to `--to`."""
    from alexnet_jax.data.shards.manifest import hold_progress

    check_subsampling(args.encoding, args.subsampling)
    with contextlib.ExitStack() as lock:
        # Before anything is read, so that of two such commands one ends at once; but a new folder
        # among those of the images would be taken for one of theirs.
        inside = args.source is not None and args.to.absolute().is_relative_to(
            args.source.absolute()
        )
        if not inside:
            lock.enter_context(hold_progress(args.to))
        config, sources, notes = _open_source(args)
        if inside:
            lock.enter_context(hold_progress(args.to))
        _write(args, config, sources, notes)


def _write(
    args: Command, config: DataConfig, sources: Mapping[str, Source], notes: Sequence[str]
) -> None:
    # Grain and TFDS take seconds to import, which --help does not need.
    from alexnet_jax.data.shards.plan import Preparation, format_bytes

    for note in notes:
        print(printable(note))
    classes = sources["train"].class_names
    if len(classes) < 2:
        option, value = ("--from", args.source) if args.source else ("--name", args.name)
        rule = f"has one class only ({', '.join(classes)}), and a classifier needs two or more"
        raise invalid(option, value, rule, "name the folder that contains their folders")
    preparation = Preparation(args.to, sources, config, args.encoding, args.subsampling)
    processes = args.processes or os.cpu_count() or 1
    counts = ", ".join(f"{split} {len(source):,}" for split, source in sources.items())
    print(f"{len(classes):,} classes; images: {counts}.")
    if preparation.unfinished:
        record_bytes, seconds = preparation.estimate()
        needed, free = preparation.check_disk_space(record_bytes)
        images, shards = preparation.num_unfinished_images, len(preparation.unfinished)
        kind = f"jpeg {args.subsampling}" if args.encoding == "jpeg" else args.encoding
        minutes = math.ceil(images * seconds / processes / 60)
        print(
            f"{images:,} images to write to {shards:,} shard{'s' * (shards != 1)} of "
            f"{args.image_size} pixels, {kind}: about {format_bytes(needed)} "
            f"({format_bytes(free)} are free) and {minutes:,} min with --processes {processes}.",
            flush=True,
        )
    else:
        print(f"{printable(args.to)}: all shards are present; --verify compares their content.")
    preparation.begin()
    manifest = preparation.write(processes)
    print(f"{printable(args.to)}: {describe(manifest)}")


def _open_source(
    args: Command,
) -> tuple[DataConfig, Mapping[str, Source], tuple[str, ...]]:
    """Return how images become squares, the splits of `--from`, and notes."""
    from alexnet_jax.data import imagenet
    from alexnet_jax.data.splits import open_source

    config = DataConfig(
        source="tfds" if args.name else "folder",
        path=str(args.source or ""),
        name=args.name,
        image_size=args.image_size,
        crop=args.image_size,
        resize=args.resize,
        filter=args.filter,
    )
    if args.source is not None and not args.name and imagenet.is_ilsvrc(args.source):
        return (config, *imagenet.open_ilsvrc(args.source))
    opened = open_source(config)
    return config, opened.splits, opened.notes


def verify(args: Command) -> None:
    """Check the shards in `--to`."""
    from alexnet_jax.data.shards import manifest as shard_manifest

    manifest = shard_manifest.verify(args.to, args.processes or os.cpu_count() or 1)
    print(f"{printable(args.to)}: verified, all files are intact: {describe(manifest)}")


def describe(manifest: Mapping[str, Any]) -> str:
    """Return in a sentence what a manifest lists."""
    from alexnet_jax.data.shards.plan import UNREADABLE, format_bytes

    splits = manifest["splits"]
    counts = ", ".join(f"{name} {split['images']:,}" for name, split in splits.items())
    num_unreadable = sum(len(split["left_out"]) for split in splits.values())
    skipped = f"; skipped {num_unreadable:,} unreadable, see {UNREADABLE}" if num_unreadable else ""
    size = format_bytes(sum(file["bytes"] for file in manifest["files"].values()))
    return f"images {counts}{skipped}; {len(manifest['files']):,} files, {size}."


if __name__ == "__main__":
    sys.exit(main())
