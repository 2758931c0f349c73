"""Settings of the process, its pages and its environment; for commands, never for the library."""

import contextlib
import hashlib
import logging
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from alexnet_jax.cli import signals
from alexnet_jax.config import ProcessConfig
from alexnet_jax.model import settings
from alexnet_jax.training.stopping import Stopped

LOGGER = logging.getLogger(__name__)

# Bytes; with 2,000,000 KiB OpenBLAS or XLA may end the process, with 4,000,000 a network trains.
ADDRESS_SPACE = 2**31
# What Python, the dynamic linker and XLA say when memory or threads are used up.
_LACK = r"can't start new thread|failed to map segment|[Cc]annot allocate memory|RESOURCE_EXHAUSTED"

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


@contextlib.contextmanager
def fixed_settings() -> Iterator[None]:
    """Run a command without JAX's settings with which it would compute other numbers.

    Before JAX is imported they are in the environment, which is read then; in a notebook they are
    those of the process.
    """
    if "jax" in sys.modules:
        with settings.fixed_settings():
            yield
        return
    _ignore_environment()
    yield


def _ignore_environment() -> None:
    for name, value in settings.FIXED.items():
        given = os.environ.get(name.upper())
        if given is None or _parse(given, value) == value:
            continue
        del os.environ[name.upper()]
        LOGGER.warning(
            "%s=%s is ignored: what a network computes must not depend on it.", name.upper(), given
        )


def _parse(text: str, like: bool | int | str | None) -> object:
    """Return the value that JAX reads in a variable, of the type of another one."""
    if isinstance(like, bool):
        words = {"y", "yes", "t", "true", "on", "1"}, {"n", "no", "f", "false", "off", "0"}
        return next((word for word in (True, False) if text.lower() in words[not word]), text)
    if isinstance(like, int):
        return int(text) if text.lstrip("-").isdecimal() else text
    return text or None


def check_memory_limit() -> None:
    """Raise a MemoryError if this process may use less address space than JAX and OpenBLAS take.

    These would end the process without a word about the limit.
    """
    limit = _address_space()
    if limit is not None and limit < ADDRESS_SPACE:
        raise MemoryError


def describe_memory_error(error: Exception) -> str:
    """Return a sentence about an error for lack of memory or threads, "" for any other."""
    if not isinstance(error, MemoryError) and not re.search(_LACK, str(error)):
        return ""
    reason = "there is not enough memory"
    if isinstance(error, RuntimeError) and "thread" in str(error):
        reason = "no further thread can be started, for lack of memory or by a limit (ulimit -u)"
    if (limit := _address_space()) is not None:
        reason += f"; this process may use {limit / 2**30:.1f} GiB of address space (ulimit -v)"
    size = str(error).partition("\n")[0].rstrip(".")
    reason += f" ({size})" if "allocate" in size else ""
    return f"{reason}; allow more, use fewer images a step, or a smaller network."


def _address_space() -> int | None:
    """Return how many bytes of address space this process may use; None if there is no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def check_xla_flags() -> None:
    """Raise a ValueError if XLA does not know a flag in XLA_FLAGS, for which it ends a process.

    It takes a process to find out.
    """
    if not os.environ.get("XLA_FLAGS"):
        return
    script = "from jaxlib import xla_client; xla_client.CompileOptions()"
    tried = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    if tried.returncode == 0:
        return
    said = tried.stderr.decode(errors="replace")
    pattern = r"\] ((?:Unknown flag|Couldn't interpret value)[^\n]*?)\.?$"
    reason = re.search(pattern, said, re.MULTILINE)
    rule = reason[1] if reason else "XLA cannot read them"
    raise ValueError(f"XLA_FLAGS {os.environ['XLA_FLAGS']}: {rule}; correct or remove that flag.")


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
