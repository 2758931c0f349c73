"""Settings of the process that make a CPU faster; for commands, never for the library."""

import hashlib
import os
import platform
import sys
from pathlib import Path

from alexnet_jax.cli import signals
from alexnet_jax.config import ProcessConfig
from alexnet_jax.training.stopping import Stopped

TUNABLE = "glibc.malloc.hugetlb=1"
PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def large_pages_help() -> bool:
    """Return whether glibc, from 2.35 on, would use large pages if told to."""
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < (2, 35) or not PAGES.exists():
        return False
    return "[never]" not in PAGES.read_text()


def restart_with_large_pages(config: ProcessConfig) -> None:
    """Start this command again with large pages for malloc, unless it has them.

    glibc returns every large buffer to the system, and each step then pays for its pages again. It
    reads the setting only at the start of a process.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not config.large_pages or "glibc.malloc.hugetlb" in tunables or not large_pages_help():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, TUNABLE]))
    sys.stdout.flush()
    signals.block_signals()
    if signals.stop_requested():
        raise Stopped("Stopped before the start; run the same command to start.")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def enable_compilation_cache(config: ProcessConfig) -> None:
    """Make JAX keep compiled programs, so that the next start on such a machine is faster."""
    import jax

    if not config.compilation_cache or jax.config.values["jax_compilation_cache_dir"]:
        return  # none, or JAX_COMPILATION_CACHE_DIR is set
    folder = Path(config.compilation_cache).expanduser() / _kind_of_machine()
    jax.config.update("jax_compilation_cache_dir", str(folder))


def describe_process() -> str:
    """Return one sentence about the settings in force."""
    import jax

    pages = TUNABLE in os.environ.get("GLIBC_TUNABLES", "").split(":")
    cache = jax.config.values["jax_compilation_cache_dir"]
    return f"Process: {'large' if pages else 'ordinary'} pages for malloc, " + (
        f"compiled programs are cached in {cache}."
        if cache
        else "compiled programs are not cached."
    )


def _kind_of_machine() -> str:
    """Return a name for processors with the same instructions: compiled programs depend on them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"
