"""Settings of JAX that belong to the process: those that a run must not depend on, and devices.

JAX is imported where it is needed: commands read FIXED before they import it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax

# Settings with which the same run would compute other numbers, or which stop it (all of
# jax/_src/config.py was tried), and JAX's defaults, which always hold here. Numbers that the
# compiler's settings change (jax_optimization_level, XLA_FLAGS) are the user's own choice.
FIXED: dict[str, bool | int | str | None] = {
    "jax_enable_x64": False,
    "jax_explicit_x64_dtypes": "warn",
    "jax_numpy_dtype_promotion": "standard",
    "jax_default_matmul_precision": None,  # `model.precision` is the run's own
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_enable_custom_prng": False,
    "jax_random_seed_offset": 0,
    "jax_use_direct_linearize": True,
    "jax_auto_pcast": True,
    "jax_disable_jit": False,
    "jax_no_tracing": False,
    "jax_no_execution": False,
    "jax_check_tracer_leaks": False,
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "jax_default_device": None,  # the mesh has the devices
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
    "eager_constant_folding": False,
}


@contextlib.contextmanager
def fixed_settings() -> Iterator[None]:
    """Compute with the settings of FIXED, in this thread, whatever the process has chosen."""
    import jax

    chosen = jax.config.values  # in this thread
    with contextlib.ExitStack() as changed:
        for name, value in FIXED.items():
            now = chosen.get(name)  # None, too, if it is of another release
            if now is None or getattr(now, "name", now) in (value, str(value).upper()):
                continue  # the value, plain or of an enum, or no choice
            if (manager := getattr(jax, name.removeprefix("jax_"), None)) is not None:
                changed.enter_context(manager(value))
            else:  # it has no value of its own in each thread
                changed.callback(jax.config.update, name, now)
                jax.config.update(name, value)
        yield


def available_devices() -> "list[jax.Device]":
    """Return JAX's devices, those of all processes.

    Raises:
        ValueError: JAX_PLATFORMS asks for devices that are not there, or a plugin is broken.
    """
    import jax

    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion, for cuda without a GPU
        settings = {
            name: jax.config.values.get(name.lower())
            for name in ("JAX_PLATFORM_NAME", "JAX_PLATFORMS")
        }
        raise ValueError(_describe(str(error), settings)) from error


def _describe(message: str, settings: Mapping[str, str | None]) -> str:
    """Return in one sentence why JAX has no devices, from what it says and was told."""
    reason = message.strip().partition("\n")[0].partition(" (set JAX_PLATFORMS=")[0]
    reason = reason.partition(" (you may need to uninstall")[0].rstrip(".:; ")
    reason = reason or "JAX finds no such device"
    for name, value in settings.items():
        if value:
            return f"{name} {value}: {reason}; use {name}=cpu, or leave it unset."
    return f"{reason}; uninstall the package of that platform, or use JAX_PLATFORMS=cpu."
