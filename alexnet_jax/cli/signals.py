"""SIGTERM and Ctrl-C for a command: the first requests a stop, the second ends it at once.

For commands, never for the library: in a notebook, interrupting works as usual.
"""

import contextlib
import os
import signal
import socket
import sys
import threading

from alexnet_jax.cli.wrapping import terminal_width, wrap

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_stop = threading.Event()
_sockets: list[socket.socket] = []  # kept open for the life of the process


def stop_requested() -> bool:
    """Return whether a signal has requested that this process stops."""
    return _stop.is_set()


def install_handlers() -> None:
    """Handle signals from now on; call it before heavy imports, which an exception would break.

    Python runs its handlers only between two of its instructions, and compiling is one of them. So
    a thread reads what C's handler writes, and a second signal ends the process even then.
    """
    if _sockets:
        return
    _sockets.extend(socket.socketpair())
    reading, writing = _sockets
    writing.setblocking(False)
    threading.Thread(target=_wait, args=(reading,), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` leaves them
            signal.signal(number, lambda *_: _stop.set())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def block_signals() -> None:
    """Let signals wait for the program that replaces this one and installs its own handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _wait(reading: socket.socket) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # else this thread would receive them
    received = 0
    while number := reading.recv(1):
        if number[0] in SIGNALS:
            received += 1
            _report_or_exit(signal.Signals(number[0]), received)


def _report_or_exit(number: signal.Signals, received: int) -> None:
    if received > 1:
        _print(f"{number.name} again: ended at once; the last checkpoint is intact.")
        os._exit(128 + number)
    _stop.set()
    _print(f"{number.name}: stopping after this step, then saving; a second signal ends at once.")


def _print(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it, or the disk is full
        lines = wrap(f"alexnet_jax: {text}", terminal_width(2) or sys.maxsize)
        os.write(2, f"{lines}\n".encode())
