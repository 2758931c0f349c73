"""Several processes as one run: how they find each other, and how none waits for a dead one.

For commands. `training/processes.py` has what the processes then agree on.
"""

import atexit
import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from alexnet_jax.config import DistributedConfig

# What collectives and JAX's coordinator raise begins with a status of gRPC: a RuntimeError or,
# from gloo, a ValueError.
_STATUS = re.compile(r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED): ")
_RESTART = "start the same command in all of them to resume from the last checkpoint."
_GRACE = 5  # seconds that a process which failed waits for others that fail in the same way
_watchers: list[subprocess.Popen[bytes]] = []  # kept until this process ends


def process_count(config: DistributedConfig) -> int:
    """Return how many processes make up the run; 1 also if only JAX can find out."""
    if config.num_processes != "auto":
        return config.num_processes
    return _scheduled() if config.coordinator == "auto" else 1


def initialize(config: DistributedConfig) -> None:
    """Connect to the other processes, if there are any; before JAX initializes its devices.

    Returns when all of them are connected. From then on a process that dies is given up by the
    others after `config.timeout` seconds, or at once if it is process 0 or they were communicating
    with it.

    Raises:
        ValueError: not all of them connected in time.
    """
    named = config.coordinator not in ("auto", "none")
    on_tpu = config.coordinator == "auto" and _tpu_vm()
    if not named and not on_tpu and process_count(config) == 1:
        return
    import jax

    # Its handler of SIGTERM would replace that of `signals`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=config.coordinator if named else None,
            num_processes=int(config.num_processes) if named else None,
            process_id=int(config.process_id) if named else None,
            cluster_detection_method="deactivate" if named else None,
            heartbeat_timeout_seconds=config.timeout,
        )
    except RuntimeError as error:
        raise ValueError(
            f"distributed.coordinator {config.coordinator}: not all processes have connected "
            f"({_first_line(error)}); start the same command once for each process, and let them "
            "reach that port of process 0."
        ) from error
    _watch()
    print(f"{_this()} is connected to the others.", flush=True)


def _scheduled() -> int:
    """Return how many processes a scheduler that JAX knows has started, at least 1.

    A job of one task counts as no scheduler: JAX would let its process see only one GPU.
    """
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    if all(name in os.environ for name in slurm):
        return int(os.environ.get("SLURM_NTASKS", "1"))
    if "TPU_WORKER_HOSTNAMES" in os.environ:
        return len(os.environ["TPU_WORKER_HOSTNAMES"].split(","))
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))


def _tpu_vm() -> bool:
    """Return whether this is a TPU machine whose peers only Google's metadata server knows."""
    chips = Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    told = "TPU_WORKER_HOSTNAMES" in os.environ or "TPU_SKIP_MDS_QUERY" in os.environ
    return chips and not told and importlib.util.find_spec("libtpu") is not None


def _this() -> str:
    import jax

    return f"Process {jax.process_index()} of {jax.process_count()}"


def _watch() -> None:
    """Start a child that prints a message if this process ends without an exception.

    If another process dies, JAX ends this one from within C++, with a stack trace.
    """
    message = f"alexnet_jax: {_this()} ended before the run did: it was killed, or JAX ended it "
    message += f"because another process died or did not respond; {_RESTART}"
    script = ["sh", "-c", 'read -r ended || echo "$0" >&2', message]
    watcher = subprocess.Popen(
        script, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    _watchers.append(watcher)
    atexit.register(_dismiss)  # an end that Python knows of is reported elsewhere


def _dismiss() -> None:
    for watcher in _watchers:
        watcher.communicate(b"ended\n")
    _watchers.clear()


@contextlib.contextmanager
def exit_on_lost_peer() -> Iterator[None]:
    """End this process with one sentence, exit code 1, if another one is lost."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        cause = error
        while cause.__cause__ is not None and not _STATUS.match(str(cause)):
            cause = cause.__cause__
        if not _watchers or not _STATUS.match(str(cause)):
            raise
        message = f"{_this()} has lost another one ({_first_line(cause)}); {_RESTART}"
        print(f"alexnet_jax: {message}", file=sys.stderr, flush=True)
        _end(1)


def shutdown(code: int) -> NoReturn:
    """End this process; if it has failed, without waiting long for the others."""
    if _watchers and code:
        from orbax.checkpoint import multihost

        # Bad input is usually bad for all: each reports it, and none sees another one disappear.
        with contextlib.suppress(RuntimeError):
            multihost.get_barrier_sync_fn()(key="leaving", timeout_ms=_GRACE * 1000)
        _end(code)
    sys.exit(code)  # JAX then waits for the others


def _end(code: int) -> NoReturn:
    _dismiss()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # JAX's own shutdown would wait for processes that wait for this one


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip()
