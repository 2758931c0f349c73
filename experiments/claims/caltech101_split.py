"""Make the folder of Caltech-101 that the experiments were measured on, from the public data set.

    python experiments/claims/caltech101_split.py --categories 101_ObjectCategories --to DIR

Download caltech-101.zip from https://data.caltech.edu/records/mzrjq-6wc02 (137 MB), unpack it and
the 101_ObjectCategories.tar.gz in it. DIR gets train/<class>/* and test/<class>/*: 30 images of
each of 101 classes to train on (3,030) and up to 20 others (1,692) to evaluate on, without the
clutter of BACKGROUND_Google. Which ones they are is in ../records/caltech101_split.jsonl, by the
numbers in their names.

The measured folder was a copy of the data set that was split beforehand. So the script prints at
the end whether the images are byte for byte the measured ones, or others of the same names.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.config import invalid
from alexnet_jax.storage.digest import bytes_sha256, file_sha256

SPLIT = Path(__file__).parents[1] / "records" / "caltech101_split.jsonl"
SPLITS = ("train", "test")
# Of the measured images, in the order of the copies below.
MEASURED = "6a1656ac23d37e104c3844ce29d1d48b6de249fd7581987b2e83ddae5a9f6f12"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments."""

    # the folder 101_ObjectCategories of the data set
    categories: Path
    # the folder to make
    to: Path


def copies(categories: Path, to: Path, split: Path = SPLIT) -> list[tuple[Path, Path]]:
    """Return source and target of every image, in the order of `split`.

    Raises:
        ValueError: an image is missing.
    """
    pairs = []
    for line in split.read_text().splitlines():
        images = json.loads(line)
        for part in SPLITS:
            names = [Path(images["class"], f"image_{n:04d}.jpg") for n in images[part]]
            pairs += [(categories / name, to / part / name) for name in names]
    missing = [source for source, _ in pairs if not source.is_file()]
    if missing:
        raise ValueError(
            f"categories {categories}: {len(missing):,} of {len(pairs):,} images are missing, the "
            f"first {missing[0]}; give the unpacked folder 101_ObjectCategories."
        )
    return pairs


def digest(images: list[Path]) -> str:
    """Return one SHA-256 for the contents of all images in their order."""
    return bytes_sha256(file_sha256(path).encode() for path in images)


def make(args: Arguments) -> None:
    """Copy the images of both splits and print whether they are the measured ones."""
    if args.to.exists():
        raise invalid("to", args.to, "exists", "give a folder that does not")
    pairs = copies(args.categories, args.to)
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    same = digest([target for _, target in pairs]) == MEASURED
    print(
        f"{args.to}: {len(pairs):,} images, "
        + ("byte for byte the measured ones." if same else "not byte for byte the measured ones.")
    )


if __name__ == "__main__":
    sys.exit(
        run_command(
            lambda: make(
                parse_command(
                    Arguments,
                    sys.argv[1:],
                    f"python {sys.argv[0]}",
                    description=(__doc__ or "").partition("\n")[0],
                )
            ),
            Arguments,
            "interrupted; remove the unfinished folder and rerun the same command.",
        )
    )
