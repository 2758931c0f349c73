"""Stopping a run on request: the caller says when, the run says where it stands."""

from collections.abc import Callable

# Called where a run may stop: between steps, between batches of an evaluation, and while images are
# read for statistics. Raises `Stopped` if a stop was requested.
StopCheck = Callable[[], None]


class Stopped(Exception):
    """The run stopped on request; one sentence says where, and how to resume."""


def never() -> bool:
    """Return that no stop is requested."""
    return False


def no_check() -> None:
    """Never stop."""
