"""What the presets `small` and `finetune` leave to the images, decided when a run starts."""

from collections.abc import Collection

from alexnet_jax.config import Config
from alexnet_jax.data.splits import open_splits
from alexnet_jax.presets import fit_to_images
from alexnet_jax.training.finetune import fit_to_classes


def fit_to_data(config: Config, given: Collection[str]) -> Config:
    """Return `config` with what its preset, one of `presets.FITTED`, leaves to the images.

    Only names are read, and no image.

    Args:
        config: of a new run, whose data can be opened.
        given: fields that keep their values.

    Raises:
        ValueError: the data cannot be opened.
    """
    splits = open_splits(config.data, config.seed)
    config = fit_to_images(config, len(splits.train), given)
    return fit_to_classes(config, splits.class_names, given) if config.init_from else config
