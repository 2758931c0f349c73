"""Make shards that training reads: `python -m alexnet_jax.prepare --from DIR --to SHARDS`."""

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
from alexnet_jax.config import DataConfig
from alexnet_jax.data.sources import Source
from alexnet_jax.storage import lock

PROGRAM = "python -m alexnet_jax.prepare"


@dataclasses.dataclass(frozen=True)
class Command:
    """Resize images once, into ArrayRecord shards with statistics and checksums, or check those.

    The same command goes on after an interruption.
    """

    # folder of the shards
    to: Path
    # folder with ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz;
    # or of class folders, or of train/, val/ and test/ that hold class folders; or TFDS data_dir
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    # TFDS data set as `name` or `name/config:version`
    name: str = ""
    # compare the shards in --to with what they were when they were written, and do nothing else
    verify: bool = False
    # pixels: side of the squares
    image_size: int = 256
    # shorter-side: resize the shorter side and keep the center square; stretch: resize both sides
    resize: Literal["shorter-side", "stretch"] = "shorter-side"
    # antialias: averages over the pixels that shrink into one; bilinear: between the four nearest
    filter: Literal["antialias", "bilinear"] = "antialias"
    # jpeg: quality 95; raw: exact and read faster, six times as large
    encoding: Literal["jpeg", "raw"] = "jpeg"
    # processes that resize; 0: one a core
    processes: int = 0


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        arguments = sys.argv[1:] if args is None else args
        asked = parse_command(Command, arguments, PROGRAM)
        if asked.processes < 0:
            raise ValueError(
                f"--processes {asked.processes}: it is at least 1, or 0 for one a core; try 0."
            )
        wants = asked.source is not None or bool(asked.name)
        if asked.verify == wants:
            raise ValueError(
                "--from, --verify: one of the two says what to do (for TFDS, --name); give one."
            )
        (verify if asked.verify else prepare)(asked)

    return run_command(
        run, Command, "interrupted; the same command goes on, finished shards are kept."
    )


def prepare(asked: Command) -> None:
    """Write the shards of `--from` to `--to`."""
    # Grain and TFDS take seconds to import, which --help need not wait for.
    from alexnet_jax.data.shards.plan import Preparation, format_bytes

    try:
        config, sources, notes = _open(asked)
    except ValueError as error:  # where training has other names for the options
        said = str(error).replace("--data.path", "--from").replace("--data.", "--")
        raise ValueError(said) from error
    for note in notes:
        print(note)
    classes = sources["train"].class_names
    if len(classes) < 2:
        place = f"--from {asked.source}" if asked.source else f"--name {asked.name}"
        raise ValueError(
            f"{place}: it has one class only ({', '.join(classes)}); a classifier "
            "needs two or more: name the folder that holds theirs."
        )
    preparation = Preparation(asked.to, sources, config, asked.encoding)
    processes = asked.processes or os.cpu_count() or 1
    counts = ", ".join(f"{split} {len(source):,}" for split, source in sources.items())
    print(f"{len(classes):,} classes; images: {counts}.")
    if preparation.waiting:
        each, seconds = preparation.estimate()
        needed, free = preparation.check_room(each)
        images, shards = preparation.images_waiting, len(preparation.waiting)
        minutes = math.ceil(images * seconds / processes / 60)
        print(
            f"{images:,} images to write to {shards:,} shard{'s' * (shards != 1)} of "
            f"{asked.image_size} pixels, {asked.encoding}: about {format_bytes(needed)}, "
            f"{format_bytes(free)} are free; about {minutes:,} min, --processes {processes}.",
            flush=True,
        )
    else:
        print(f"{asked.to}: all shards are there; --verify compares what they hold.")
    with lock.hold_lock(preparation.begin(), "to"):
        manifest = preparation.write(processes)
    print(f"{asked.to}: {describe(manifest)}")


def _open(asked: Command) -> tuple[DataConfig, dict[str, Source], tuple[str, ...]]:
    """Return how images become squares, the splits of `--from`, and notes."""
    from alexnet_jax.data import imagenet
    from alexnet_jax.data import splits as data_splits

    config = DataConfig(
        source="tfds" if asked.name else "folder",
        path=str(asked.source or ""),
        name=asked.name,
        image_size=asked.image_size,
        crop=asked.image_size,
        resize=asked.resize,
        filter=asked.filter,
    )
    if asked.source is not None and not asked.name and imagenet.is_ilsvrc(asked.source):
        return (config, *imagenet.open_ilsvrc(asked.source))
    _, sources, notes = data_splits.open_sources(config)
    return config, sources, notes


def verify(asked: Command) -> None:
    """Check the shards in `--to`."""
    from alexnet_jax.data.shards import manifest as shard_manifest

    manifest = shard_manifest.verify(asked.to, asked.processes or os.cpu_count() or 1)
    print(f"{asked.to}: all as it was written: {describe(manifest)}")


def describe(manifest: Mapping[str, Any]) -> str:
    """Return in a sentence what a manifest lists."""
    from alexnet_jax.data.shards.plan import UNREADABLE, format_bytes

    splits = manifest["splits"]
    counts = ", ".join(f"{name} {split['images']:,}" for name, split in splits.items())
    left_out = sum(len(split["left_out"]) for split in splits.values())
    gone = f"; {left_out:,} could not be read, see {UNREADABLE}" if left_out else ""
    size = format_bytes(sum(file["bytes"] for file in manifest["files"].values()))
    return f"images {counts}{gone}; {len(manifest['files']):,} files of {size} in all."


if __name__ == "__main__":
    sys.exit(main())
