"""Several processes as one run: how they find each other, and how none waits for a dead one.

For commands. `training/processes.py` has what the processes then agree on.
"""

import atexit
import contextlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from alexnet_jax.cli import rendezvous
from alexnet_jax.config import DistributedConfig, invalid
from alexnet_jax.training.stopping import never

LOGGER = logging.getLogger(__name__)

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


def initialize(config: DistributedConfig, should_stop: Callable[[], bool] = never) -> None:
    """Connect to the other processes, if there are any; before JAX initializes its devices.

    Returns when all of them are connected, for which it waits `config.timeout` seconds. From then
    on a process that dies is given up by the others after as many seconds, or at once if it is
    process 0 or they were communicating with it.

    Raises:
        ValueError: not all of them connected in time, see `rendezvous.meet`; or a scheduler's
            variables do not say where they are.
        Stopped: `should_stop` returned True in one of them.
    """
    named = config.coordinator not in ("auto", "none")
    if named:
        count, number = int(config.num_processes), int(config.process_id)
        address = config.coordinator
    else:
        on_tpu = config.coordinator == "auto" and _tpu_vm()
        if not on_tpu and process_count(config) == 1:
            _warn_of_mpi(config)
            return
        address, count, number = _detect(config)
        if count == 1:
            return

    def report(text: str) -> None:
        hint = "" if named else " (--distributed.coordinator none trains with one process)"
        print(f"{text.removesuffix('.')}{hint}.", flush=True)

    rendezvous.meet(address, number, count, config.timeout, should_stop, report)
    import jax

    # Its handler of SIGTERM would replace that of `signals`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=count,
            process_id=number,
            # A scheduler also says which of the machine's GPUs belong to this process.
            cluster_detection_method="deactivate" if named else None,
            initialization_timeout=config.timeout,
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

    A job of one task counts as no scheduler: JAX would let its process see only one GPU. The order
    is JAX's; the last is Open MPI from version 5 on, of which JAX knows nothing.
    """
    if "OMPI_MCA_orte_hnp_uri" in os.environ:
        return _count("OMPI_COMM_WORLD_SIZE")
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    if all(name in os.environ for name in slurm):
        return _count("SLURM_NTASKS")
    for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        if name in os.environ:
            return len(os.environ[name].split(",")) * _count("MEGASCALE_NUM_SLICES")
    return _count("OMPI_COMM_WORLD_SIZE")


def _count(name: str) -> int:
    """Return the number in a variable, 1 if it is not set or empty."""
    value = os.environ.get(name, "") or "1"
    if not value.isdecimal() or int(value) < 1:
        remedy = f"correct it, or train with one process: {rendezvous.FIELD}=none"
        raise invalid(name, value, "must be the number of processes", remedy)
    return int(value)


def _detect(config: DistributedConfig) -> tuple[str, int, int]:
    """Return HOST:PORT of process 0, the number of processes, and that of this one.

    By the variables of a scheduler, as JAX reads them. JAX has no public function for it.
    """
    from jax._src.clusters import ClusterEnv

    detect, reason = ClusterEnv.auto_detect_unset_distributed_params, ""
    given = os.environ.get("JAX_COORDINATOR_ADDRESS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Kubernetes would need another package
            address, count, number, _ = detect(given, None, None, None, None, config.timeout)
    except (KeyError, ValueError, OSError, RuntimeError, ImportError) as error:
        address, count, number, reason = None, None, None, f" ({_first_line(error)})"
    if address is None or count is None or number is None or not 0 <= number < count:
        raise ValueError(
            f"A scheduler's variables say that there are {process_count(config)} processes, and "
            f"JAX cannot find out where process 0 is, or which one this is{reason}; give "
            "distributed.coordinator=HOST:PORT, distributed.num_processes and "
            f"distributed.process_id, or train with one process: {rendezvous.FIELD}=none."
        )
    return address, count, number


def _warn_of_mpi(config: DistributedConfig) -> None:
    """Warn if this is one of several processes of an MPI that JAX does not know."""
    for name in ("PMI_SIZE", "MV2_COMM_WORLD_SIZE", "PMIX_SIZE"):
        if config.coordinator == "auto" and os.environ.get(name, "1") not in ("", "1"):
            LOGGER.warning(
                "%s says that there are %s processes, of an MPI that JAX does not know: this "
                "process trains alone. For one run of all of them give "
                "distributed.coordinator=HOST:PORT, distributed.num_processes and "
                "distributed.process_id; for one process %s=none.",
                name,
                os.environ[name],
                rendezvous.FIELD,
            )
            return


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
