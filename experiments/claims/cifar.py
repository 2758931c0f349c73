"""What the CIFAR-10 experiments share: the images, and training a network.

The images are all of CIFAR-10, 50,000 + 10,000, as class folders of *JPEG copies*: lossy, so no
result refers to the original pixels. The network sees pixels of 0 to 255 minus the mean image;
batches of 128, momentum 0.9, and biases at twice the learning rate of the weights, as in
cuda-convnet.
"""

import dataclasses
import functools
import itertools
import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from cifar_net import FourLayerNet, LocalNet
from experiment import Arguments
from flax import serialization
from jax import Array
from PIL import Image
from tqdm import tqdm

from alexnet_jax.config import OptimizerConfig, invalid
from alexnet_jax.storage import atomic
from alexnet_jax.training.optimizer import paper_sgd, set_learning_rates

BATCH, CLASSES = 128, 10
WEIGHT_DECAY = 0.004  # of layers for which the network has no other
SIDES = {True: 24, False: 32}  # pixels that the network sees: crops if it is regularized
Net = FourLayerNet | LocalNet


class Images(NamedTuple):
    """A split in memory."""

    pixels: np.ndarray  # uint8 [N, 32, 32, 3]
    labels: np.ndarray  # int32 [N]
    classes: tuple[str, ...] = ()


def read(folder: Path) -> Images:
    """Read a folder of class folders; classes are numbered in the order of their names.

    Raises ValueError if there is no class folder, or an image is not 32 x 32.
    """
    classes = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    if not classes:
        raise ValueError(
            f"{folder}: has no class folders; use data=DIR with train/<class>/* and test/<class>/*."
        )
    paths = [(path, label) for label, c in enumerate(classes) for path in sorted(c.iterdir())]
    pixels = np.empty((len(paths), 32, 32, 3), np.uint8)
    progress = tqdm(paths, desc=f"reading {folder.name}", disable=None)
    for row, (path, _) in zip(pixels, progress, strict=True):
        with Image.open(path) as image:
            if image.size != (32, 32):
                raise ValueError(f"{path}: has {image.size} pixels, not 32 x 32; remove it.")
            row[:] = np.asarray(image.convert("RGB"))
    names = tuple(path.name for path in classes)
    return Images(pixels, np.array([label for _, label in paths], np.int32), names)


def synthetic_images(number: int, seed: int) -> Images:
    """Return noisy images with one color per class, for smoke tests."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, number, np.int32)
    colors = np.random.default_rng(0).integers(0, 256, (10, 1, 1, 3))
    noisy = colors[labels] + rng.normal(0, 20, (number, 32, 32, 3))
    return Images(noisy.clip(0, 255).astype(np.uint8), labels)


def data_sets(args: Arguments) -> tuple[Images, Images]:
    """Return training and test images; synthetic ones for a smoke test."""
    if not args.smoke:
        train, test = read(args.images / "train"), read(args.images / "test")
        if len(train.classes) != CLASSES or train.classes != test.classes:
            raise ValueError(
                f"{args.data}: train has the classes {', '.join(train.classes)} and test "
                f"{', '.join(test.classes)}; both must have the {CLASSES} classes of CIFAR-10: add "
                "or remove folders."
            )
        return train, test
    if args.data:
        raise invalid("data", args.data, "is not used by a smoke test", "leave it out")
    return synthetic_images(2 * BATCH, 1), synthetic_images(100, 2)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, except its seed."""

    learning_rate: float
    epochs: int
    regularized: bool  # weight decay of the network's file; random crops; horizontal flips
    milestones: tuple[int, ...] = ()  # epochs after which the learning rate drops to a tenth
    target: float = -1.0  # training error, a fraction, at which to stop; negative: never

    @property
    def side(self) -> int:
        """Side of the images that the network sees, pixels."""
        return SIDES[self.regularized]

    def learning_rate_at(self, epoch: int) -> float:
        """Return the learning rate of epoch 0, 1, ..."""
        return self.learning_rate * 0.1 ** sum(epoch >= drop for drop in self.milestones)


class Training(NamedTuple):
    """Parameters and state of the optimizer."""

    params: Any
    opt_state: Any


@dataclasses.dataclass
class History:
    """Errors of a run so far."""

    # of each half of an epoch, during training: each image before the step that uses it
    training_errors: list[float] = dataclasses.field(default_factory=list)
    test_errors: list[float] = dataclasses.field(default_factory=list)  # after each epoch
    diverged: bool = False  # the loss became non-finite, and training stopped
    seconds: float = 0.0

    def should_stop(self, target: float) -> bool:
        """Whether it diverged, or the training error of its last half epoch is at most `target`."""
        return self.diverged or bool(self.training_errors and self.training_errors[-1] <= target)


def optimizer(net: Net, regularized: bool) -> optax.GradientTransformation:
    """Return the paper's update rule; `with_learning_rate` sets its learning rates."""

    def add_decay(gradients: Any, params: Any) -> Any:
        decays = {name: net.weight_decay.get(name, WEIGHT_DECAY) for name in params}
        return {
            name: {**g, "kernel": g["kernel"] + decays[name] * params[name]["kernel"]}
            for name, g in gradients.items()
        }

    decay = optax.stateless(add_decay) if regularized else optax.identity()
    return optax.chain(decay, paper_sgd(OptimizerConfig(batch_size=BATCH, weight_decay=0.0)))


@functools.partial(jax.jit, static_argnames=("net", "regularized"))
def initialize(net: Net, regularized: bool, key: Array) -> Training:
    """Return initial parameters; they do not depend on activation, norm or pooling window."""
    blank = jnp.zeros((1, SIDES[regularized], SIDES[regularized], 3))
    params = net.init(key, blank)["params"]
    return Training(params, optimizer(net, regularized).init(params))


def with_learning_rate(state: Training, learning_rate: float) -> Training:
    """Return `state` with this learning rate for weights and twice that for biases."""
    rates = {name: {"kernel": learning_rate, "bias": 2 * learning_rate} for name in state.params}
    decay, rule = state.opt_state
    return state._replace(opt_state=(decay, set_learning_rates(rule, rates)))


def _logits(net: Net, params: Any, pixels: Array, mean: Array) -> Any:
    return net.apply({"params": params}, pixels.astype(jnp.float32) - mean)


def _count_errors(logits: Array, labels: Array) -> Array:
    return (logits.argmax(-1) != labels).sum()


@functools.partial(jax.jit, static_argnames="net")
def errors_of(net: Net, params: Any, pixels: Array, labels: Array, mean: Array) -> Array:
    """Return how many of `pixels` [B, side, side, 3] are misclassified."""
    return _count_errors(_logits(net, params, pixels, mean), labels)


@functools.partial(jax.jit, static_argnames=("net", "regularized"), donate_argnames="state")
def step(
    net: Net,
    regularized: bool,
    state: Training,
    pixels: Array,
    labels: Array,
    mean: Array,
) -> tuple[Training, Array, Array]:
    """Return the next state, and mean loss and number of errors of the current one."""

    def loss(params: Any) -> tuple[Array, Array]:
        logits = _logits(net, params, pixels, mean)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), _count_errors(logits, labels)

    (mean_loss, errors), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    rule = optimizer(net, regularized)
    updates, opt_state = rule.update(gradients, state.opt_state, state.params)
    return Training(optax.apply_updates(state.params, updates), opt_state), mean_loss, errors


def crops(pixels: np.ndarray, side: int, rng: np.random.Generator | None) -> np.ndarray:
    """Return random, randomly flipped crops [B, side, side, 3] of images; without `rng` centers."""
    spare = pixels.shape[1] - side
    if rng is None:
        return pixels[:, spare // 2 : spare // 2 + side, spare // 2 : spare // 2 + side]
    top, left = rng.integers(0, spare + 1, (2, len(pixels)))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(1, 2))
    cropped = windows[np.arange(len(pixels)), top, left].transpose(0, 2, 3, 1)
    flipped = rng.random(len(pixels)) < 0.5
    return np.where(flipped.reshape(-1, 1, 1, 1), cropped[:, :, ::-1], cropped)


def mean_image(images: Images, side: int) -> np.ndarray:
    """Return the center of the mean image, which cuda-convnet2 subtracts from every crop."""
    mean = images.pixels.mean(axis=0, dtype=np.float64).astype(np.float32)
    return crops(mean[None], side, None)


def test_error(net: Net, params: Any, images: Images, mean: np.ndarray) -> float:
    """Return the fraction of errors on center crops."""
    errors = 0
    for first in range(0, len(images.labels), 1000):
        part = slice(first, first + 1000)
        pixels = crops(images.pixels[part], mean.shape[1], None)
        errors += int(errors_of(net, params, pixels, images.labels[part], mean))
    return errors / len(images.labels)


def shuffled(
    images: Images, recipe: Recipe, seed: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of an epoch: crops [BATCH, side, side, 3] and labels."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(images.labels))
    for first in range(0, len(order) - BATCH + 1, BATCH):
        indices = order[first : first + BATCH]
        pixels = images.pixels[indices]
        if recipe.regularized:
            pixels = crops(pixels, recipe.side, rng)
        yield pixels, images.labels[indices]


def train(
    net: Net,
    recipe: Recipe,
    seed: int,
    images: Images,
    checkpoint: Path,
    test: Images | None = None,
) -> tuple[Training, History]:
    """Train until the last epoch, the target error, or a non-finite loss.

    The seed determines initial weights, order, crops and flips, so that runs with one seed see the
    same images. An epoch has as many full batches as the images fill; the images left over differ
    each time. The state is saved in `checkpoint` after each epoch; the same call, or one with more
    epochs, resumes from it.

    Raises ValueError for fewer than two batches of images, or a checkpoint of another recipe.
    """
    number = len(images.labels) // BATCH
    if number < 2:
        raise ValueError(
            f"{len(images.labels)} images: must fill two batches of {BATCH}; add images."
        )
    state, history = initialize(net, recipe.regularized, jax.random.key(seed)), History()
    if checkpoint.exists():
        state, history = load(checkpoint, state, recipe)
    mean = mean_image(images, recipe.side)
    done = len(history.training_errors) // 2
    print(f"{checkpoint.stem}: epoch {done} of at most {recipe.epochs}", flush=True)
    bar = tqdm(
        desc=checkpoint.stem, total=recipe.epochs * number, initial=done * number, disable=None
    )
    for epoch in range(done, recipe.epochs):
        if history.should_stop(recipe.target):
            break
        began = time.perf_counter()
        state = with_learning_rate(state, recipe.learning_rate_at(epoch))
        batches = shuffled(images, recipe, seed, epoch)
        for part in (number // 2, number - number // 2):
            if not history.should_stop(recipe.target):
                half = itertools.islice(batches, part)
                state = _train_on(half, net, recipe.regularized, state, mean, history, bar)
        if test and not history.diverged:
            history.test_errors.append(test_error(net, state.params, test, mean))
        history.seconds += time.perf_counter() - began
        if len(history.training_errors) == 2 * (epoch + 1):
            save(checkpoint, state, history, recipe)
    bar.close()
    return state, history


def _train_on(
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    net: Net,
    regularized: bool,
    state: Training,
    mean: np.ndarray,
    history: History,
    bar: tqdm,
) -> Training:
    """Train on half an epoch and add its training error to `history`."""
    errors = seen = 0
    for pixels, labels in batches:
        state, loss, wrong = step(net, regularized, state, pixels, labels, mean)
        if not math.isfinite(float(loss)):
            history.diverged = True
            return state
        errors, seen = errors + int(wrong), seen + len(labels)
        bar.update()
    history.training_errors.append(errors / seen)
    bar.set_postfix_str(f"training error {errors / seen:.1%}")
    return state


def _recipe_without_epochs(recipe: Recipe) -> str:
    return json.dumps(dataclasses.asdict(dataclasses.replace(recipe, epochs=0)))


def save(path: Path, state: Training, history: History, recipe: Recipe) -> None:
    """Replace the checkpoint `path` by this state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "state": serialization.to_state_dict(jax.device_get(state)),
        "history": json.dumps(dataclasses.asdict(history)),
        "recipe": _recipe_without_epochs(recipe),
    }
    atomic.write_bytes(path, serialization.msgpack_serialize(content))


def load(path: Path, like: Training, recipe: Recipe) -> tuple[Training, History]:
    """Return what `save` wrote, in the form of `like`; ValueError if the recipe differs."""
    content: Any = serialization.msgpack_restore(path.read_bytes())
    if content["recipe"] != (expected := _recipe_without_epochs(recipe)):
        raise ValueError(
            f"{path}: was trained with {content['recipe']}, not {expected}; remove it, or use "
            "another --workdir."
        )
    state = serialization.from_state_dict(like, content["state"])
    return jax.tree.map(jnp.asarray, state), History(**json.loads(content["history"]))
