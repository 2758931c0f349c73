"""Name what photographs show: `python -m alexnet_jax.predict --workdir runs/a photo.jpg`."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from alexnet_jax import command
from alexnet_jax.data.decode import UnreadableImage, decode
from alexnet_jax.data.sources import image_files
from alexnet_jax.data.views import centre_views

if TYPE_CHECKING:
    from alexnet_jax.training.trained import Trained

PROGRAM = "python -m alexnet_jax.predict"
BATCH = 16  # images at a time
BAR = 20  # characters of a probability of 1


@dataclasses.dataclass(frozen=True)
class Command:
    """Print the most probable classes of images, one centre view each."""

    # image files, and folders of them at any depth
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    # folder of the run, trained or imported
    workdir: Annotated[Path, tyro.conf.arg()]
    # classes to name
    top: int = 5
    # print a JSON object for each image instead
    json: bool = False


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the network thinks of one file, or why it could not be read."""

    file: Path
    probabilities: np.ndarray | None  # float32 [classes]
    error: str = ""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 where some file could not be read."""
    unread: list[Path] = []

    def run() -> None:
        arguments = sys.argv[1:] if args is None else args
        asked = command.parse(Command, arguments, PROGRAM, booleans=tyro.conf.FlagCreatePairsOff)
        unread.extend(show(asked))

    return command.run(run, "interrupted.") or int(bool(unread))


def show(asked: Command) -> list[Path]:
    """Print the predictions; return the files that could not be read."""
    if not asked.files:
        raise ValueError("no files: name images, or folders of them.")
    if asked.top < 1:
        raise ValueError(f"--top {asked.top}: it is at least 1 class; try 5.")
    files = [file for path in asked.files for file in image_files(path)]
    if not files:
        raise ValueError(f"{', '.join(map(str, asked.files))}: no images there; name others.")
    from alexnet_jax.model import towers
    from alexnet_jax.training import trained

    network = trained.load(asked.workdir, towers.make_mesh(towers=1, data=1, batch=BATCH))
    unread = []
    for prediction in predict(network, files):
        if prediction.probabilities is None:
            unread.append(prediction.file)
            print(f"{prediction.file}: {prediction.error}", file=sys.stderr)
        elif asked.json:
            best = _best(prediction.probabilities, network.class_names, asked.top)
            named = [{"class": name, "probability": share} for name, share in best]
            print(json.dumps({"file": str(prediction.file), "predictions": named}))
        else:
            print(prediction.file)
            for name, share in _best(prediction.probabilities, network.class_names, asked.top):
                print(f"  {share:6.1%}  {'█' * round(share * BAR):{BAR}}  {name}")
    return unread


def predict(network: "Trained", files: Sequence[Path]) -> Iterator[Prediction]:
    """Yield a prediction for each file, in order, `BATCH` files in memory at a time."""
    from alexnet_jax.model.towers import put_batch
    from alexnet_jax.training.step import make_predict_step

    step = make_predict_step(network.table, network.mesh, network.preprocess)
    data = network.config.data
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        images = [_read(file) for file in some]
        blank = np.zeros((data.image_size, data.image_size, 3), np.uint8)
        padded = [blank if isinstance(image, str) else image for image in images]
        batch = centre_views([*padded, *[blank] * (BATCH - len(some))], data)
        probabilities = np.asarray(step(network.variables, put_batch(batch, network.mesh)))
        for file, image, shares in zip(some, images, probabilities, strict=False):
            bad = isinstance(image, str)
            yield Prediction(file, None if bad else shares, image if bad else "")


def _read(file: Path) -> np.ndarray | str:
    """Return the image, or why there is none."""
    try:
        return decode(file.read_bytes())
    except OSError as error:
        return f"{error.strerror}; passed over"
    except UnreadableImage as error:
        return f"{error}; passed over"


def _best(shares: np.ndarray, names: Sequence[str], top: int) -> list[tuple[str, float]]:
    order = np.argsort(-shares, kind="stable")[:top]
    return [(names[index], float(shares[index])) for index in order]


if __name__ == "__main__":
    sys.exit(main())
