"""SIGTERM and Ctrl-C for a command: the first one asks it to stop, a second one ends it at once.

For commands, never for the library: in a notebook, interrupting works as it does everywhere.
"""

import os
import signal
import socket
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_asked = threading.Event()
_sockets: list[socket.socket] = []  # kept open for the life of the process


def stop_requested() -> bool:
    """Return whether a signal has asked this process to stop."""
    return _asked.is_set()


def install_handlers() -> None:
    """Take signals from here on; before the heavy imports, which an exception would tear.

    Python runs its own handlers between two of its instructions only, and compiling is one: a
    thread reads what C's handler writes, so that a second signal ends the process there too.
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
            signal.signal(number, lambda *_: _asked.set())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def block_signals() -> None:
    """Let signals wait for the program that this process is about to become, and will `listen`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _wait(reading: socket.socket) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # or `hold` would not hold
    received = 0
    while number := reading.recv(1):
        if number[0] in SIGNALS:
            received += 1
            _say_or_end(signal.Signals(number[0]), received)


def _say_or_end(number: signal.Signals, received: int) -> None:
    if received > 1:
        _say(f"{number.name} again: ended at once; the last checkpoint is good.")
        os._exit(128 + number)
    _asked.set()
    _say(f"{number.name}: stops after this step and saves; a second signal ends it at once.")


def _say(text: str) -> None:
    os.write(2, f"alexnet_jax: {text}\n".encode())
