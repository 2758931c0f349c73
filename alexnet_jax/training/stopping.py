"""A run that was asked to stop: whoever runs it says when, the run says where it stands."""

from collections.abc import Callable

# Called where a run may stop: between steps, batches of an evaluation, images that are surveyed.
# Raises `Stopped` where somebody asked for it.
StopCheck = Callable[[], None]


class Stopped(Exception):
    """The run stopped as it was asked to; one sentence says where, and how it goes on."""


def ignore() -> None:
    """Never stop."""
