"""When the learning rate drops and when training ends (P5); decided after each epoch."""

import dataclasses
import math
from collections.abc import Iterable

from alexnet_jax.config import Config, OptimizerConfig, ScheduleConfig
from alexnet_jax.presets import fit_to_images

PATIENCE = 5  # evaluations
PATIENCE_IMAGES = 2500  # of which an error of 50 % has a standard error of one point
FEW_STEPS = 250  # fewer leave most networks far from trained, whatever the images


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of the schedule; saved with every checkpoint."""

    epoch: int = 0  # epochs done
    drops: int = 0  # of the learning rate so far
    best: float | None = None  # lowest validation error so far, a fraction
    since: int = 0  # evaluations in a row without improvement
    ended: bool = False  # the plateau after the last drop was reached


def patience(config: ScheduleConfig, num_validation: int) -> int:
    """Return how many evaluations in a row without improvement make a plateau.

    The lowest error so far is partly luck, of about its standard error sqrt(p (1 - p) / n). The
    fewer images, the longer it takes until a real improvement exceeds that.
    """
    if config.patience != "auto":
        return config.patience
    return max(PATIENCE, math.ceil(PATIENCE * math.sqrt(PATIENCE_IMAGES / num_validation)))


def advance(
    config: ScheduleConfig,
    progress: Progress,
    error: float | None,
    num_validation: int = PATIENCE_IMAGES,
) -> Progress:
    """Return the progress after one more epoch.

    Args:
        config: which schedule, and its constants.
        progress: before the epoch.
        error: top-1 error on the validation split, a fraction; None without evaluation.
        num_validation: images in that split.
    """
    epoch = progress.epoch + 1
    progress = dataclasses.replace(progress, epoch=epoch)
    if config.kind == "step":
        drops = sum(epoch >= drop for drop in config.milestones)
        progress = dataclasses.replace(progress, drops=drops)
    elif error is not None:
        progress = _after_evaluation(config, progress, error, patience(config, num_validation))
    return progress


def finished(config: ScheduleConfig, progress: Progress) -> bool:
    """Return whether training is finished, unless the run is resumed with more epochs."""
    return progress.ended or progress.epoch >= config.epochs


def _after_evaluation(
    config: ScheduleConfig, progress: Progress, error: float, patience: int
) -> Progress:
    """Drop the rate if the error has stopped improving; end at the plateau after the last drop."""
    if progress.best is None or error < progress.best - config.min_delta:
        return dataclasses.replace(progress, best=error, since=0)
    since = progress.since + 1
    if since < patience:
        return dataclasses.replace(progress, since=since)
    if progress.drops == config.max_drops:
        return dataclasses.replace(progress, since=since, ended=True)
    return dataclasses.replace(progress, since=0, drops=progress.drops + 1)


def learning_rate(config: ScheduleConfig, progress: Progress, initial: float) -> float:
    """Return the learning rate of the weights for the next epoch, except conv1's."""
    return initial * config.factor**progress.drops


def learning_rates(
    config: ScheduleConfig,
    optimizer: OptimizerConfig,
    progress: Progress,
    layers: Iterable[str],
) -> dict[str, dict[str, float]]:
    """Return the learning rate of every parameter for the next epoch.

    Biases follow the weights' first `bias_lr_drops` drops. Once conv1 is slow its kernel is one
    drop ahead of the other kernels; its biases, which by then keep their rate, are not slowed. Once
    it is frozen the rates of both are 0 (2012 code's notes on net 145,
    layer-params-145-2010.cfg:170-176). Layers with multiples of the rate have them throughout.

    Args:
        config: which schedule, and its constants.
        optimizer: the initial learning rates, and how many drops the biases follow.
        progress: before the epoch.
        layers: names.

    Returns:
        `{layer: {"kernel": rate, "bias": rate}}`, as `optimizer.set_learning_rates` takes it.
    """
    kernel = learning_rate(config, progress, optimizer.learning_rate)
    bias_drops = progress.drops
    if optimizer.bias_lr_drops != "all":
        bias_drops = min(bias_drops, optimizer.bias_lr_drops)
    bias = optimizer.learning_rate * optimizer.bias_lr_multiplier * config.factor**bias_drops
    multiples = {layer: optimizer.layer_multipliers.get(layer, 1.0) for layer in layers}
    by_layer = {
        layer: {"kernel": kernel * multiple, "bias": bias * multiple}
        for layer, multiple in multiples.items()
    }
    if "conv1" in by_layer:
        if 0 < config.freeze_conv1 <= progress.epoch:
            by_layer["conv1"] = {"kernel": 0.0, "bias": 0.0}
        elif 0 < config.slow_conv1 <= progress.epoch:
            by_layer["conv1"]["kernel"] *= config.factor
    return by_layer


def describe(config: Config, num_train: int, num_validation: int) -> str:
    """Return one sentence about the steps of a run and the drops of its learning rate."""
    plan, batch_size = config.schedule, config.optimizer.batch_size
    text = (
        f"Preset {config.preset}, {num_train:,} training images: {_count(plan.epochs, 'epoch')}, "
        f"{_count(num_steps(config, num_train), 'step')} of {batch_size} images; learning rate "
        f"{config.optimizer.learning_rate:g}"
    )
    if plan.kind == "plateau":
        wait, evaluations = patience(plan, num_validation), plan.epochs // plan.eval_every
        text += (
            f", times {plan.factor:g} after {_count(wait, 'evaluation')} on "
            f"{_count(num_validation, 'validation image')} without improvement"
        )
        if evaluations <= wait:  # the first one always improves
            text += f", which cannot happen, as there are {evaluations:,}"
        return f"{text}."
    if epochs := [f"{epoch:,}" for epoch in plan.milestones if epoch < plan.epochs]:
        text += f", times {plan.factor:g} after epoch{'s' * (len(epochs) > 1)} {', '.join(epochs)}"
    return f"{text}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def num_steps(config: Config, num_train: int, epochs: int | None = None) -> int:
    """Return the steps in so many epochs, by default all of a run."""
    epochs = config.schedule.epochs if epochs is None else epochs
    return -(-epochs * num_train // config.optimizer.batch_size)


def enough_epochs(config: Config, num_train: int) -> int:
    """Return how many epochs make enough steps: of a preset fitted to the images its own number."""
    if config.preset == ("finetune" if config.init_from else "small"):
        return fit_to_images(config, num_train, {"optimizer.batch_size"}).schedule.epochs
    return math.ceil(2 * FEW_STEPS * config.optimizer.batch_size / num_train)


def warn_of_few_steps(config: Config, num_train: int) -> str:
    """Return a warning if a run makes too few steps to train the network, else ""."""
    steps, batch_size = num_steps(config, num_train), config.optimizer.batch_size
    if steps >= FEW_STEPS:
        return ""
    fitted = "finetune" if config.init_from else "small"
    remedy = f"use schedule.epochs={enough_epochs(config, num_train)}"
    if config.preset != fitted and config.data.source != "synthetic":
        remedy = f"use preset={fitted}, which has epochs for any number of images, or {remedy[4:]}"
    made = f"makes {_count(steps, 'step')} of {batch_size} images"
    return (
        f"schedule.epochs {config.schedule.epochs}: {made} "
        f"from {num_train:,} training images, and a network needs {FEW_STEPS} or more; {remedy}."
    )
