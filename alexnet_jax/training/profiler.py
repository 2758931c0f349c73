"""Traces of a few training steps, for TensorBoard's profiler and Perfetto."""

from pathlib import Path
from typing import Self

import jax

from alexnet_jax.config import ProfileConfig


class Profiler:
    """Traces the steps that profile.steps names into `folder`."""

    def __init__(self, config: ProfileConfig, folder: Path):
        self._span, self._folder = config.span, folder
        self._tracing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def starts_or_stops(self, step: int) -> bool:
        """Return whether `before_step` would start or stop a trace: finish earlier steps first."""
        if self._span is None:
            return False
        first, last = self._span
        return step == first or (self._tracing and step > last)

    def before_step(self, step: int) -> None:
        """Start the trace before its first step, stop it after its last."""
        if not self.starts_or_stops(step):
            return
        if self._tracing:
            self.stop()
        else:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def stop(self) -> None:
        """Stop a trace that is being made."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
