"""Processes of a run meet before JAX connects them: it would wait in C++, without a word.

Process 0 listens on the coordinator's port until JAX does. Every process, 0 as well, connects,
says which one it is, and learns who is missing. Lines of JSON go both ways.
"""

import contextlib
import errno
import json
import math
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from alexnet_jax.config import invalid
from alexnet_jax.training.stopping import Stopped

GREETING = b"alexnet_jax waits for its processes\n"
PATIENCE = 10  # seconds that a server may take for its greeting
RESOLVING = 10  # seconds that the name of a host may take to become known
POLL = 0.2  # seconds between two looks at whether to stop
INTERVAL = 5  # seconds between two reports of whom a process waits for
RETRY = 0.5  # seconds between two attempts to connect
LONGEST = 2**16  # bytes of a line
BACKLOG = 1024  # connections that may wait to be accepted
FIELD = "distributed.coordinator"
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


def meet(
    address: str,
    process: int,
    processes: int,
    timeout: int,
    should_stop: Callable[[], bool],
    report: Callable[[str], None],
) -> None:
    """Return when all processes of a run have connected to process 0.

    Args:
        address: HOST:PORT of process 0; the port is free again afterwards.
        process: number of this one.
        processes: of the run.
        timeout: seconds to wait for the others.
        should_stop: asked a few times per second; if one process is to stop, all stop.
        report: prints whom this process waits for, at once and whenever that changes.

    Raises:
        ValueError: not all processes have come in time, two have the same number, they do not agree
            on how many there are, the port is in use, or the host is not known.
        Stopped: a process was asked to stop.
    """
    member = _Member(address, process, processes, timeout, should_stop, report)
    host = _Host(address, processes) if process == 0 else None
    last_words: dict[str, Any] = {"stopped": process}
    try:
        member.wait()
        last_words = {"missing": []}
    except ValueError as error:
        last_words = {"error": str(error)}
        raise
    finally:
        member.close()
        if host:
            host.close(last_words)


class _Host(threading.Thread):
    """What process 0 does for all: it counts them."""

    def __init__(self, address: str, processes: int):
        super().__init__(name="rendezvous", daemon=True)
        self._processes = processes
        self._listener = _listen(address)
        self._present: dict[int, tuple[socket.socket, str]] = {}
        self._received: dict[socket.socket, bytes] = {}
        self._closing = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.start()

    def run(self) -> None:
        while not self._closing.is_set():
            for key, _ in self._selector.select(POLL):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if connection is self._listener:
                    self._accept()
                else:
                    self._receive(connection)

    def close(self, last_words: dict[str, Any]) -> None:
        """Tell all others how it ended, and leave the port to JAX."""
        self._closing.set()
        self.join()
        self._tell(last_words)
        for connection in [*self._received, self._listener]:
            connection.close()
        self._selector.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.settimeout(PATIENCE)
            self._received[connection] = b""
            self._selector.register(connection, selectors.EVENT_READ)
            connection.sendall(GREETING)

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(LONGEST)
        except OSError:
            data = b""
        self._received[connection] += data
        line, end, _ = self._received[connection].partition(b"\n")
        if not data or len(line) > LONGEST:
            self._drop(connection)
        elif end:
            self._received[connection] = b""
            try:
                message = json.loads(line)
                process, processes = int(message["process"]), int(message["processes"])
                place, stop = str(message["place"]), bool(message["stop"])
            except (ValueError, KeyError, TypeError):  # it is no process of a run
                self._drop(connection)
            else:
                self._admit(connection, process, processes, place, stop)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._received[connection]
        connection.close()
        gone = [number for number, (other, _) in self._present.items() if other is connection]
        for number in gone:
            del self._present[number]
            self._tell({"missing": self._missing()})

    def _admit(
        self, connection: socket.socket, process: int, processes: int, place: str, stop: bool
    ) -> None:
        other, elsewhere = self._present.get(process, (connection, place))
        if stop:
            self._tell({"stopped": process})
        elif processes != self._processes or not 0 <= process < processes:
            count = self._processes
            rule = f"process {process} ({place}) has {processes}, and process 0 has {count}"
            self._refuse(connection, "num_processes", count, rule)
        elif other is not connection:
            rule = f"two processes have this number: {elsewhere} and {place}"
            self._refuse(connection, "process_id", process, rule)
        else:
            self._present[process] = (connection, place)
            self._tell({"missing": self._missing()})

    def _missing(self) -> list[int]:
        return [number for number in range(self._processes) if number not in self._present]

    def _refuse(self, connection: socket.socket, field: str, value: int, rule: str) -> None:
        remedy = "start one process for each number from 0, all with the same number of processes"
        message = str(invalid(f"distributed.{field}", value, rule, remedy))
        self._send(connection, {"error": message})
        self._tell({"error": message})

    def _tell(self, message: dict[str, Any]) -> None:
        """Send all a message; process 0, which may then end, the last."""
        for _, (connection, _) in sorted(self._present.items(), reverse=True):
            self._send(connection, message)

    def _send(self, connection: socket.socket, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it is gone, which its next reading shows
            connection.sendall(json.dumps(message).encode() + b"\n")


class _Member:
    """A process on its way to process 0."""

    def __init__(
        self,
        address: str,
        process: int,
        processes: int,
        timeout: int,
        should_stop: Callable[[], bool],
        report: Callable[[str], None],
    ):
        host, _, port = address.rpartition(":")
        self._address, self._host, self._port = address, host.strip("[]"), int(port)
        self._process, self._processes, self._timeout = process, processes, timeout
        self._should_stop, self._report = should_stop, report
        self._start = time.monotonic()
        self._missing: list[int] = [0] if process else [*range(1, processes)]
        self._reported: tuple[list[int], float] = ([], -math.inf)  # and when
        self._obstacle = ""
        self._connection: socket.socket | None = None

    def wait(self) -> None:
        """Return when all are there; see `meet`."""
        while True:
            self._connection = self._connect()
            self._send(stop=False)
            for message in self._messages(self._connection):
                if "error" in message:
                    raise ValueError(message["error"])
                if "stopped" in message:
                    raise Stopped(
                        f"Stopped before all processes were connected, as process "
                        f"{message['stopped']} was asked to; the same command starts again."
                    )
                self._missing = message["missing"]
                if not self._missing:
                    return
            self.close()
            self._missing, self._obstacle = [0], "process 0 has closed the connection"

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _absent(self) -> list[int]:
        """Return whom to name: process 0 is there if it answers, even if it has not said so."""
        others = [number for number in self._missing if number]
        return others if others and self._connection is not None else self._missing

    def _report_missing(self) -> None:
        """Report whom this process waits for, at once, and later changes now and then."""
        reported, when = self._reported
        now = time.monotonic()
        if self._missing == reported or now - when < INTERVAL:
            return
        self._reported = (self._missing, now)
        self._report(
            f"Process {self._process} of {self._processes} waits for process "
            f"{_listed(self._absent())} at {self._address}, "
            f"{max(0, round(self._timeout - (now - self._start)))} s at most."
        )

    def _connect(self) -> socket.socket:
        """Return a connection to process 0 that has greeted."""
        while True:
            self._check()
            try:
                with contextlib.ExitStack() as unused:
                    connection = socket.create_connection((self._host, self._port), timeout=2)
                    unused.enter_context(connection)
                    # Without a listener, a port of this machine may happen to be connected to
                    # itself.
                    to_itself = connection.getsockname() == connection.getpeername()
                    if not to_itself and self._greeted(connection):
                        self._obstacle = ""
                        unused.pop_all()
                        return connection
                self._obstacle = f"what listens at {self._address} closes connections"
            except socket.gaierror as error:
                self._check_resolving(error)
            except OSError as error:
                self._obstacle = f"{self._address}: {error.strerror or error}"
            time.sleep(RETRY)

    def _check_resolving(self, error: socket.gaierror) -> None:
        obstacle = f"the name {self._host} cannot be resolved ({error.strerror})"
        if time.monotonic() - self._start > min(RESOLVING, self._timeout / 2):
            remedy = "correct it, or use an IP address"
            raise invalid(FIELD, self._address, obstacle, remedy) from error
        if self._obstacle != obstacle:
            self._report(f"Process {self._process} of {self._processes}: {obstacle} yet.")
        self._obstacle = obstacle

    def _greeted(self, connection: socket.socket) -> bool:
        """Return whether process 0 has answered; False if the connection was closed."""
        connection.settimeout(POLL)
        received, start = b"", time.monotonic()
        while GREETING.startswith(received) and time.monotonic() - start < PATIENCE:
            if received == GREETING:
                return True
            self._check()
            with contextlib.suppress(TimeoutError):
                data = connection.recv(len(GREETING) - len(received))
                if not data:
                    return False
                received += data
        rule = "another program, or a run that has already started, is using that port"
        raise invalid(FIELD, self._address, rule, "use another port in all processes")

    def _messages(self, connection: socket.socket) -> Iterator[dict[str, Any]]:
        """Yield what process 0 says, until it closes the connection."""
        received = b""
        while True:
            self._check()
            try:
                data = connection.recv(LONGEST)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            *lines, received = (received + data).split(b"\n")
            yield from map(json.loads, lines)

    def _check(self) -> None:
        """Raise an exception if this process is to stop, or has waited long enough."""
        self._report_missing()
        if self._should_stop():
            self._send(stop=True)
            raise Stopped(
                f"Stopped while waiting for process {_listed(self._missing)}; the same command "
                "starts again."
            )
        # Process 0 knows who is missing, and says so to those that are there.
        grace = PATIENCE if self._process and self._connection is not None else 0
        if time.monotonic() - self._start > self._timeout + grace:
            rule = (
                f"process {_listed(self._absent())} of {self._processes} did not come within "
                f"distributed.timeout={self._timeout} seconds"
            )
            rule += f" ({self._obstacle})" if self._obstacle else ""
            raise invalid(
                FIELD,
                self._address,
                rule,
                "start the same command once for each process, let them reach that port of "
                f"process 0, or train with one process: {FIELD}=none",
            )

    def _send(self, stop: bool) -> None:
        if self._connection is None:
            return
        place = f"process {os.getpid()} on {socket.gethostname()}"
        message = {"process": self._process, "processes": self._processes, "place": place}
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps({**message, "stop": stop}).encode() + b"\n")


def _listen(address: str) -> socket.socket:
    """Return a socket that listens on the port of an address, on all interfaces as JAX will."""
    port = int(address.rpartition(":")[2])
    try:
        try:
            kind = {"family": socket.AF_INET6, "dualstack_ipv6": True}
            return socket.create_server(("", port), **kind, backlog=BACKLOG)
        except (OSError, ValueError) as error:  # a ValueError where there is no IPv6
            if isinstance(error, OSError) and error.errno not in _NO_IPV6:
                raise
        return socket.create_server(("", port), backlog=BACKLOG)
    except OSError as error:
        # Python's own text adds the address, which is any.
        reason = os.strerror(error.errno) if error.errno else str(error)
        rule = f"process 0 cannot listen on port {port} of this machine ({reason})"
        raise invalid(FIELD, address, rule, "use another port in all processes") from error


def _listed(numbers: Sequence[int]) -> str:
    """Return numbers as text, the first few of many."""
    text = ", ".join(map(str, numbers[:8]))
    return text if len(numbers) <= 8 else f"{text} and {len(numbers) - 8:,} more"
