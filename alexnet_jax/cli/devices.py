"""Emulated CPU devices, where there are no accelerators."""

import contextlib
import os
from pathlib import Path

from alexnet_jax.config import MeshConfig


def emulate_devices(mesh: MeshConfig, processes: int = 1) -> None:
    """Emulate the CPU devices that the mesh needs, two if it is `auto`, shared by the processes."""
    import jax

    if jax.config.values["jax_num_cpu_devices"] > 0 or _chosen_for_xla():
        return  # the user has chosen their number
    towers = 2 if mesh.towers == "auto" else mesh.towers
    data = processes if mesh.data == "auto" else mesh.data
    # Refused if a backend is up already, as in a notebook: then its devices are used.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", -(-towers * data // processes))


def use_cpu_only(count: int) -> None:
    """Leave accelerators alone, and emulate `count` CPU devices unless their number is set."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    if jax.config.values["jax_num_cpu_devices"] <= 0 and not _chosen_for_xla():
        with contextlib.suppress(RuntimeError):  # a backend is up already
            jax.config.update("jax_num_cpu_devices", count)


def _chosen_for_xla() -> bool:
    """Return whether XLA_FLAGS, or the file that it names, has the number of CPU devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flags and not flags.lstrip().startswith("-"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            flags = Path(flags).read_text("utf-8")
    return "xla_force_host_platform_device_count" in flags


def provide_devices(count: int) -> str:
    """Make JAX see at least `count` devices; return a sentence about them. For notebooks.

    If there are fewer accelerators, the CPU emulates `count` devices, and existing arrays are lost.
    """
    import jax
    from jax.extend.backend import clear_backends

    if jax.device_count() < count:
        clear_backends()  # only then can the number and kind of devices be changed
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"The CPU emulates {len(devices)} devices."
    return f"{len(devices)} devices: {devices[0].device_kind}."
