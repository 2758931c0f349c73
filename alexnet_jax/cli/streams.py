"""Standard streams that are closed, full, or that nobody reads: no command breaks by them."""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from alexnet_jax.cli.wrapping import WrappingText
from alexnet_jax.storage.names import printable

STDOUT, STDERR = 1, 2  # file descriptors


def open_closed_streams() -> None:
    """Open the null device as each standard stream that is closed, as the shell's `>&-` leaves it.

    Otherwise the next file that is opened would have the stream's number, and would receive what
    C++ logs; and Python, which has None for such a stream, could not write to it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        closed = not _is_open(number)
        if closed:
            discard(number)
        if getattr(sys, name) is None:
            # A number that is open then is that of another file.
            place = number if closed else os.devnull
            file = open(place, mode, encoding="utf-8", closefd=not closed)  # noqa: SIM115
            setattr(sys, name, file if mode == "r" else Unopened(file.detach(), "utf-8"))


class Unopened(io.TextIOWrapper):
    """Takes the place of a standard stream that was closed when the process started."""


class Stream(io.FileIO):
    """A standard stream that becomes the null device when it cannot be written to."""

    def __init__(self, number: int, is_output: bool, essential: bool, unopened: bool):
        super().__init__(number, "w", closefd=False)
        self.failure: OSError | None = None
        self._is_output, self._essential, self._unopened = is_output, essential, unopened

    def write(self, data: Any, /) -> int:
        """Write to the stream; raise an OSError only if the stream is essential."""
        try:
            if self._unopened and self.failure is None:
                raise OSError(errno.EBADF, "it is closed")
            return super().write(data)
        except OSError as error:
            self.failure = error
            discard(self.fileno())
            if self._essential:
                raise
            if self._is_output:
                print_error(f"standard output: {error.strerror}; the command goes on without it.")
            return memoryview(data).nbytes

    def end(self, code: int) -> int:
        """Write out what was printed; return `code`, or that of a command that could not print.

        If nobody reads the output any more, as with `head`, that is 141 without a word, as if by
        SIGPIPE; otherwise 2 with a sentence.
        """
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        if self.failure is None or not self._essential:
            return code
        if isinstance(self.failure, BrokenPipeError):
            return 128 + signal.SIGPIPE
        print_error(f"standard output: {self.failure.strerror}; print to another place.")
        return 2


@contextlib.contextmanager
def guarded_streams(needs_output: bool) -> Iterator[Stream]:
    """Go on without standard error, and without standard output unless the command needs it.

    Yield standard output. Streams that are not the process's own, as in a notebook, stay as
    they are.
    """
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    streams = {}
    for name, number in (("stdout", STDOUT), ("stderr", STDERR)):
        text, needed = before[name], needs_output and name == "stdout"
        unopened = isinstance(text, Unopened)
        own = isinstance(text, io.TextIOWrapper) and (
            unopened or text is getattr(sys, f"__{name}__")
        )
        number = text.fileno() if own else number
        streams[name] = stream = Stream(number, name == "stdout", needed, unopened)
        if own:
            with contextlib.suppress(OSError):
                text.flush()
            options = {"encoding": text.encoding, "errors": text.errors}
            lines = text.line_buffering
            wrapper = WrappingText(io.BufferedWriter(stream), **options, line_buffering=lines)
            setattr(sys, name, wrapper)
    try:
        yield streams["stdout"]
    finally:
        for name, text in before.items():
            with contextlib.suppress(OSError):
                getattr(sys, name).flush()
            setattr(sys, name, text)


def notes() -> TextIO:
    """Return where a command prints what is no result: on standard error.

    In a notebook, which shows that in red as if something had failed, it is standard output.
    """
    return sys.stdout if "ipykernel" in sys.modules else sys.stderr


def print_error(message: str) -> None:
    """Print a message on standard error, if that can be written to, after what was printed."""
    with contextlib.suppress(OSError, RuntimeError):  # while standard output itself is written to
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        print(f"alexnet_jax: {printable(message)}", file=sys.stderr, flush=True)


def discard(number: int) -> None:
    """Make a file descriptor that of the null device, also for child processes."""
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(null, number)
        os.close(null)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
