"""How every command ends: one sentence for an error, an exit code, no traceback."""

import contextlib
import errno
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from alexnet_jax.cli import process, streams
from alexnet_jax.cli.arguments import options
from alexnet_jax.storage.names import ESCAPED, printable
from alexnet_jax.training.stopping import Stopped

_unraisable = sys.unraisablehook


def run_command(
    run: Callable[[], object],
    command: type,
    interrupted: str,
    names: Mapping[str, str] | None = None,
    needs_output: bool = True,
    uses_jax: bool = True,
) -> int:
    """Run a command; return its exit code, having printed on stderr why it is not 0.

    Args:
        run: a ValueError or OSError means bad input (2), a FloatingPointError a run that diverged
            (1), Stopped a normal end (0).
        command: the dataclass of its arguments, whose options error messages name.
        interrupted: printed after Ctrl-C (130).
        names: options of fields and arguments that are called otherwise in the library.
        needs_output: whether the command ends when its output cannot be written any more, see
            `streams.Stream.end`, or goes on.
        uses_jax: whether the command imports JAX, which takes address space.
    """
    # Orbax logs, with its traceback, what it then raises; of several writes that fail at once it
    # raises the first, and leaves asyncio to log the others.
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    sys.unraisablehook = _show_unraisable
    names = {**option_names(command), **(names or {})}
    streams.open_closed_streams()
    _escape_what_streams_lack()
    with streams.guarded_streams(needs_output) as output:
        try:
            code = _outcome(run, interrupted, names, output, uses_jax)
        except SystemExit:  # of --help
            if code := output.end(0):
                return code
            raise
        return output.end(code)


def _outcome(
    run: Callable[[], object],
    interrupted: str,
    names: Mapping[str, str],
    output: streams.Stream,
    uses_jax: bool,
) -> int:
    """Run a command, print how it ended, and return the exit code."""
    try:
        with _warnings_on_stderr(names), process.fixed_settings():
            if uses_jax and not {"-h", "--help"} & {*sys.argv}:
                process.check_memory_limit()
            run()
    except (ValueError, OSError) as error:
        if output.failure is None:  # it says so itself
            streams.print_error(_describe_os_error(error) or with_options(str(error), names))
        return 2
    except FloatingPointError as error:
        streams.print_error(with_options(str(error), names))
        return 1
    except (MemoryError, ImportError, RuntimeError) as error:
        if not (message := process.describe_memory_error(error)):
            raise
        streams.print_error(message)
        return 2
    except Stopped as stopped:
        with contextlib.suppress(OSError):
            print(printable(stopped))
    except KeyboardInterrupt:
        streams.print_error(interrupted)
        return 130
    return 0


def with_options(message: str, names: Mapping[str, str]) -> str:
    """Return a message of the library with the options that a user of the command knows.

    The library names fields and arguments: "data.crop 300: must be at most data.image_size=256".
    A command says "--data.crop 300: must be at most --data.image-size 256". Names that are ordinary
    words, without a dot or an underscore, count only at the start of the message or before "=".

    Args:
        message: one sentence.
        names: options by field or argument, {"data.crop": "--data.crop"}.
    """
    if not names:
        return message
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))

    def option(match: re.Match[str]) -> str:
        name, equals = match.groups()
        if not equals and not {*name} & {*"._="} and match.start():
            return match[0]
        return names[name] + (" " if equals else "")

    return re.sub(rf"(?<![\w./-])({known})(?:(=)(?=\S)|(?=[\s,;:)]|\.?$|\.\s))", option, message)


def option_names(command: type) -> dict[str, str]:
    """Return the options of a command by the names that the library gives them."""
    return {name.removeprefix("--").replace("-", "_"): name for name in options(command)}


def _escape_what_streams_lack() -> None:
    """Print escapes for letters that the terminal's encoding lacks, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)


def _describe_os_error(error: Exception) -> str:
    """Return a sentence about an error of the operating system, "" for any other."""
    if not isinstance(error, OSError):
        return ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "the disk"
        return f"{where}: {error.strerror}; free some space and run the same command again."
    if error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; correct the path or the permissions."
    return ""


@contextlib.contextmanager
def _warnings_on_stderr(names: Mapping[str, str]) -> Iterator[None]:
    """Print the warnings of the package, and of JAX, in the form of error messages."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(names))
    loggers = [logging.getLogger(name) for name in ("alexnet_jax", "jax")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.propagate = True
            logger.removeHandler(handler)


class _Formatter(logging.Formatter):
    def __init__(self, names: Mapping[str, str]):
        super().__init__()
        self._option_names = names

    def format(self, record: logging.LogRecord) -> str:
        message = with_options(record.getMessage(), self._option_names)
        if record.exc_info:  # of a plugin of JAX that is broken; its traceback tells users nothing
            message += f": {record.exc_info[1]}"
        return f"alexnet_jax: {record.levelname.lower()}: {printable(message)}"


def _show_unraisable(unraisable: Any) -> None:
    """Show errors that nobody could catch, except those that a failed save leaves behind.

    TensorStore then goes on to report to an event loop that Orbax has closed.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        _unraisable(unraisable)
