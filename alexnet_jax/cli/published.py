"""Networks that a command names: the folder of a run, or published weights by their name."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from alexnet_jax.cli.arguments import peek_option
from alexnet_jax.config import PublishedName
from alexnet_jax.training.stopping import Stopped
from alexnet_jax.weights import published


def check_one(workdir: Path | None, weights: str | None) -> None:
    """Raise a ValueError unless exactly one of `--workdir` and `--weights` is given."""
    if workdir is None and weights is None:
        names = ", ".join(published.PUBLISHED)
        raise ValueError(
            f"Missing: --workdir (folder of a run), or --weights (published ones: {names}); see "
            "--help."
        )
    if workdir is not None and weights is not None:
        raise ValueError(
            f"--workdir {workdir}, --weights {weights}: must be exactly one of the two; leave one "
            "out."
        )


def run_of(workdir: Path | None, weights: PublishedName | None) -> Path:
    """Return `--workdir`, or the folder of the run that is made of `--weights`."""
    check_one(workdir, weights)
    if weights is not None:
        return published.run_folder(weights)
    assert workdir is not None
    return workdir


def with_origin_folder(args: Sequence[str], should_stop: Callable[[], bool]) -> list[str]:
    """Return arguments in which `--init-from` names a folder instead of published weights.

    A run that was started from these names their folder in its configuration, and goes on with it,
    also if the cache has moved or is gone.
    """
    option = "--init-from"
    name = peek_option(args, option)
    if name is None or not published.is_name(name):
        return list(args)
    folder = published.find(name).run
    saved = _saved_origin(Path(peek_option(args, "--workdir") or ""))
    if saved.parts[-2:] == folder.parts[-2:]:
        folder = saved
    else:

        def check_stop() -> None:
            if should_stop():
                raise Stopped("Stopped before the start; run the same command to start.")

        # In a process of its own: the number of devices of this one is not set yet.
        published.run_folder(name, check_stop, own_process=True)
    return [*args, option, str(folder)]  # the last one counts


def _saved_origin(workdir: Path) -> Path:
    """Return the folder that the run in `workdir` was started from; Path("") if there is none."""
    from alexnet_jax.storage.json_objects import read_object
    from alexnet_jax.training.run_config import CONFIG

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Path(read_object(workdir / CONFIG)["config"]["init_from"])
    return Path()
