"""What a network answers for the images that its scores are reported on."""

import contextlib
import dataclasses

import numpy as np

from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.data.sources import Source
from alexnet_jax.data.wrappers import Subset
from alexnet_jax.inference.datasets import Split, open_split
from alexnet_jax.inference.network import Network
from alexnet_jax.model import towers
from alexnet_jax.model.settings import fixed_settings
from alexnet_jax.training import processes
from alexnet_jax.training.step import make_eval_step

MAX_IMAGES = 50_000  # of a split; of a larger one as many are drawn at random
BEST = 5  # classes kept of each image


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The best classes of N images of a split, of center views."""

    split: Split
    source: Source  # which `index` counts
    index: np.ndarray  # int [N]
    label: np.ndarray  # int [N]
    classes: np.ndarray  # int [N, up to 5], the most probable first
    probabilities: np.ndarray  # float [N, up to 5], of `classes`
    true_probability: np.ndarray  # float [N], of `label`
    scores: dict[str, float]  # loss (nats), top1_error, top5_error (fractions), count

    @property
    def best(self) -> np.ndarray:
        """The most probable class of each image, int [N]."""
        return self.classes[:, 0]


@fixed_settings()
def compute_outputs(network: Network) -> Outputs:
    """Return the outputs for the test split, or for the validation split if there is no test split.

    All processes have to call. Raises ValueError if there are no such images, or if an output is
    NaN.
    """
    split: Split = "test" if "test" in network.meta.get("data", {}) else "validation"
    source = _open(network, split)
    if len(source) > MAX_IMAGES:
        order = np.random.default_rng(network.config.seed).permutation(len(source))
        source = Subset(source, np.sort(order[:MAX_IMAGES]))
    mesh = network.mesh
    shards = towers.num_shards(mesh)
    size = -(-min(network.config.optimizer.batch_size, len(source)) // shards) * shards
    eval_step = make_eval_step(network.architecture, mesh, network.constants)
    sums, rows = dict.fromkeys(("loss", "top1_error", "top5_error", "count"), 0.0), []
    batches = evaluation_batches(source, network.config.data, size, towers.local_rows(mesh, size))
    with contextlib.closing(batches):
        for batch in batches:
            placed = towers.put_batch(batch, mesh)
            added, probabilities = eval_step(network.variables, placed)
            sums = {name: total + added[name].item() for name, total in sums.items()}
            mask, label, index = (towers.fetch(placed[name]) for name in ("mask", "label", "index"))
            row = _best(towers.fetch(probabilities), label)
            rows.append([array[mask] for array in (index, label, *row)])
    if not (count := sums.pop("count")):
        raise ValueError(f"none of the {len(source):,} images can be read")
    index, label, classes, probabilities, true_probability = map(
        np.concatenate, zip(*rows, strict=True)
    )
    if num_nan := int(np.isnan(true_probability).sum()):
        raise ValueError(f"the outputs of the network are NaN for {num_nan:,} images")
    scores = {**{name: total / count for name, total in sums.items()}, "count": int(count)}
    return Outputs(split, source, index, label, classes, probabilities, true_probability, scores)


def _open(network: Network, split: Split) -> Source:
    """Return the images of a split; every process raises a ValueError if one cannot open them."""
    source, reason = None, ""
    try:
        source = open_split(network, split)
        if not len(source):
            reason = f"the {split} split has no images"
    except ValueError as error:
        reason = str(error).rstrip(".")
    found = reason or (source.fingerprint() if source else "")
    processes.check_same({"images": found}, "draw the page on one of them that has the images")
    if reason or source is None:
        raise ValueError(reason)
    return source


def _best(probabilities: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the best classes [B, 5], their probabilities, and those of the true classes [B]."""
    classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]
    best = np.take_along_axis(probabilities, classes, axis=1)
    return classes, best, probabilities[np.arange(len(label)), label]


def read_images(network: Network, outputs: Outputs, rows: np.ndarray) -> list[np.ndarray | None]:
    """Return what the network sees of these images, uint8 [crop, crop, 3]; None if unreadable.

    Args:
        network: whose crops they are.
        outputs: for which images.
        rows: int [n], which of them.
    """
    if not len(rows):
        return []
    source = Subset(outputs.source, outputs.index[rows])
    with contextlib.closing(
        evaluation_batches(source, network.config.data, len(source))
    ) as batches:
        batch = next(batches)
    return [
        image if readable else None
        for image, readable in zip(batch["image"], batch["mask"], strict=True)
    ]
