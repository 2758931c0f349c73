"""What the presets `small` and `finetune` leave to the images, decided when a run starts."""

from collections.abc import Collection
from pathlib import Path

from alexnet_jax.config import Config, absolute_path, flatten, unflatten
from alexnet_jax.data.splits import open_splits
from alexnet_jax.presets import FITTED_FIELDS, fit_to_images
from alexnet_jax.training.finetune import fit_to_classes, saved_config
from alexnet_jax.training.summary import CONFIG

CLASS_FIELDS = ("init.reinit_layers", "optimizer.layer_learning_rates")


def fit_to_data(config: Config, workdir: Path, given: Collection[str]) -> Config:
    """Return `config` with what its preset, one of `presets.FITTED`, leaves to the images.

    The run in `workdir`, if it has this preset, has decided that: on other images it is not resumed
    with another schedule, but refused for the images. Only names are read, and no image.

    Args:
        config: whose data can be opened.
        workdir: folder of the run.
        given: fields that keep their values.

    Raises:
        ValueError: the data cannot be opened.
    """
    if (workdir / CONFIG).exists():
        saved = saved_config(workdir, "workdir")
        if (saved.preset, saved.init_from) == (config.preset, absolute_path(config.init_from)):
            decided = {
                name: value
                for name, value in flatten(saved).items()
                if name in (*FITTED_FIELDS, *CLASS_FIELDS) and name not in given
            }
            return unflatten(flatten(config) | decided)
    splits = open_splits(config.data, config.seed)
    config = fit_to_images(config, len(splits.train), given)
    return fit_to_classes(config, splits.class_names, given) if config.init_from else config
