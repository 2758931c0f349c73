"""Versions of the packages that a run depends on: what it began with, and has now."""

import importlib.metadata
import logging
from collections.abc import Mapping

LOGGER = logging.getLogger(__name__)

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"),
    *("Pillow", "simplejpeg"),
)
# Of these a run's numbers depend: programs and dropout, augmentation, pixels of image files.
NUMERICAL = ("jax", "jaxlib", "numpy", "Pillow", "simplejpeg")


def package_versions() -> dict[str, str]:
    """Return the version of every package that config.json records."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def warn_of_changes(saved: object) -> None:
    """Warn, in one line, of packages whose versions are not those that a checkpoint has saved."""
    known: Mapping[str, object] = saved if isinstance(saved, dict) else {}
    now = package_versions()
    changes = [
        f"{name} was {known.get(name, 'unknown')} and is {now[name]}"
        for name in NUMERICAL
        if known.get(name) != now[name]
    ]
    if changes:
        LOGGER.warning(
            "The run was saved with other versions: %s; its numbers may differ from those of a run "
            "that was not interrupted.",
            ", ".join(changes),
        )
