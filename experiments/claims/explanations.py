r"""Do the maps that explain a prediction lie on the object, where its place is known?

Claim:    the strongest point of an occlusion map (Zeiler and Fergus 2014), of the gradient
          (Simonyan et al. 2014) and of Grad-CAM (Selvaraju et al. 2017) lies on the object in at
          least 80 % of the images: the "pointing game" of Zhang et al. (2016).
Changed:  the network of the first command in README.md, on the synthetic images, whose objects are
          known by construction. All images count, and the class explained is the predicted one.
Expected: all above 80 %, except Grad-CAM of relu5, whose maps of 3 x 3 pixels each see the whole
          image. A random pixel hits as often as the object's share of the area; the central pixel
          nearly always does, because the objects are near the center. The share of a map's positive
          values that lies on the object tells the methods apart where hits do not.
Chosen:   on the first 200 validation images: the window of occlusion, the blur of the gradient and
          the layer relu2; the logit, not the probability.
Cost:     4 minutes on two cores for 1,000 images
Run:      python -m alexnet_jax.main --workdir runs/a
          python experiments/claims/explanations.py --workdir runs/a

Intervals are Wilson's, 95 %, over images of one trained network.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
import record
import tyro

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.config import invalid
from alexnet_jax.data import synthetic
from alexnet_jax.explanations.grad_cam import default_layer, grad_cam, last_layer_of_side, upsample
from alexnet_jax.explanations.gradients import gradient, saliency
from alexnet_jax.explanations.occlusion import occlusion
from alexnet_jax.inference.network import Network, load_network

BATCH = 50
BLUR = 4.0  # pixels
Z = 1.96  # of a 95 % interval


@dataclasses.dataclass(frozen=True)
class Command:
    """Score explanations by whether they point at the object."""

    # folder of a run on the synthetic images
    workdir: Path
    # images that are scored; choices were made on validation
    split: Literal["validation", "test"] = "test"
    # number of images, from the first
    count: int = 1000

    def __post_init__(self):
        most = synthetic.SIZES[self.split]
        if not 1 <= self.count <= most:
            raise invalid("count", self.count, f"must be from 1 to {most}", f"try {most}")


@dataclasses.dataclass(frozen=True)
class Score:
    """How the maps of one method lie on the objects of N images."""

    hits: np.ndarray  # bool [N]: whether the largest value is on the object
    inside: np.ndarray  # float [N]: share of the positive values that is


def object_masks(split: str, numbers: range, crop: int) -> np.ndarray:
    """Return where the objects are in the center crops, bool [N, crop, crop]."""
    start = (synthetic.SIDE - crop) // 2
    masks = [synthetic.object_mask(synthetic.scene(split, number)) for number in numbers]
    return np.stack(masks)[:, start : start + crop, start : start + crop]


def point(maps: np.ndarray, masks: np.ndarray) -> Score:
    """Score maps [N, h, w] of any sign; one without a positive value misses."""
    flat, objects = maps.reshape(len(maps), -1), masks.reshape(len(maps), -1)
    rows, peaks = np.arange(len(maps)), flat.argmax(axis=1)
    positive = np.maximum(flat, 0)
    total = positive.sum(axis=1)
    inside = (positive * objects).sum(axis=1) / np.where(total > 0, total, 1)
    return Score(objects[rows, peaks] & (flat[rows, peaks] > 0), inside)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's interval of a proportion."""
    share, square = hits / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / count + square / count / 4) / (1 + square)
    return middle - half, middle + half


def maps_of(network: Network, images: jnp.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a name and the maps [N, crop, crop] of each method for the predicted classes."""
    yield "occlusion", occlusion(network, images)
    gradients = np.asarray(gradient(network, images))
    yield "gradient", saliency(gradients)
    yield f"gradient, blurred by {BLUR:g} pixels", saliency(gradients, BLUR)
    architecture = network.architecture
    layers = (last_layer_of_side(architecture, 1), default_layer(architecture))
    for layer in dict.fromkeys(filter(None, layers)):
        total = grad_cam(network, images, layer=layer).total
        side = total.shape[-1]
        yield f"Grad-CAM {layer} ({side} x {side})", upsample(total, architecture, layer)


def measure(network: Network, split: str, count: int) -> tuple[dict[str, Score], float]:
    """Return the scores by method, and the network's accuracy on the images."""
    source, crop = synthetic.Synthetic(split), network.architecture.crop
    parts: dict[str, list[Score]] = {}
    correct = 0
    for start in range(0, count, BATCH):
        numbers = range(start, min(count, start + BATCH))
        records = [source[number] for number in numbers]
        images = network.preprocess(np.stack([record["image"] for record in records]))
        masks = object_masks(split, numbers, crop)
        predicted = np.asarray(network.apply(network.params, images)).argmax(axis=1)
        correct += int(sum(predicted == [record["label"] for record in records]))
        center = np.zeros(masks.shape, np.float32)
        center[:, crop // 2, crop // 2] = 1
        baselines = ("a random pixel", np.ones(masks.shape)), ("the central pixel", center)
        for name, maps in [*baselines, *maps_of(network, images)]:
            parts.setdefault(name, []).append(point(maps, masks))
    scores = {
        name: Score(
            np.concatenate([part.hits for part in each]),
            np.concatenate([part.inside for part in each]),
        )
        for name, each in parts.items()
    }
    return scores, correct / count


def table(scores: dict[str, Score]) -> str:
    """Return a Markdown table; the chance of a random pixel is the object's share of the area."""
    rows = []
    for name, score in scores.items():
        share = score.inside.mean() if name == "a random pixel" else score.hits.mean()
        low, high = wilson(int(score.hits.sum()), len(score.hits))
        interval = "" if name == "a random pixel" else f"{low:.1%} to {high:.1%}"
        rows.append([name, f"{share:.1%}", interval, f"{score.inside.mean():.1%}"])
    return record.table(
        ["", "peak on the object", "95 % interval", "positive values on the object"], rows
    )


def main() -> int:
    """Print the table; return the exit code."""

    def run() -> None:
        args = parse_command(
            *(Command, sys.argv[1:], f"python {sys.argv[0]}"),
            booleans=tyro.conf.FlagCreatePairsOff,
        )
        network = load_network(args.workdir)
        if network.class_names != synthetic.CLASS_NAMES:
            rule = "must be a run on the synthetic images, whose objects are known"
            raise invalid("workdir", args.workdir, rule, "train one with preset=quickstart")
        scores, accuracy = measure(network, args.split, args.count)
        print(
            f"{args.count:,} {args.split} images, {accuracy:.1%} classified correctly", end="\n\n"
        )
        print(table(scores))

    return run_command(run, Command, "interrupted; the same command begins again.")


if __name__ == "__main__":
    sys.exit(main())
