"""When the learning rate drops and when training ends (P5); decided after each epoch."""

import dataclasses
from collections.abc import Iterable

from alexnet_jax.config import OptimizerConfig, ScheduleConfig


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of the schedule; saved with every checkpoint."""

    epoch: int = 0  # epochs done
    drops: int = 0  # of the learning rate so far
    best: float | None = None  # lowest validation error so far, a fraction
    since: int = 0  # evaluations in a row without improvement
    ended: bool = False  # the plateau after the last drop was reached


def advance(config: ScheduleConfig, progress: Progress, error: float | None) -> Progress:
    """Return the progress after one more epoch.

    Args:
        config: which schedule, and its constants.
        progress: before the epoch.
        error: top-1 error on the validation split, a fraction; None without evaluation.
    """
    epoch = progress.epoch + 1
    progress = dataclasses.replace(progress, epoch=epoch)
    if config.kind == "step":
        drops = sum(epoch >= drop for drop in config.milestones)
        progress = dataclasses.replace(progress, drops=drops)
    elif error is not None:
        progress = _after_evaluation(config, progress, error)
    return progress


def finished(config: ScheduleConfig, progress: Progress) -> bool:
    """Return whether training is finished, unless the run is resumed with more epochs."""
    return progress.ended or progress.epoch >= config.epochs


def _after_evaluation(config: ScheduleConfig, progress: Progress, error: float) -> Progress:
    """Drop the rate if the error has stopped improving; end at the plateau after the last drop."""
    if progress.best is None or error < progress.best - config.min_delta:
        return dataclasses.replace(progress, best=error, since=0)
    since = progress.since + 1
    if since < config.patience:
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
