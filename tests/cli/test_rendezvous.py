"""Processes that meet before JAX connects them: threads here, as each of them only waits."""

import re
import socket
import threading
import time

import pytest

from alexnet_jax.cli import distributed, rendezvous
from alexnet_jax.config import DistributedConfig
from alexnet_jax.training.stopping import Stopped, never
from tests.cli.test_distributed import SLURM, free_port


class Together:
    """Processes of a run: what became of each, and what it reported."""

    def __init__(self, members, address="", timeout=5, should_stop=never, delay=0.0):
        self.address = address or f"localhost:{free_port()}"
        self.ends: list[Exception | None] = [None] * len(members)
        self.reports = [[] for _ in members]
        self._arguments = (timeout, should_stop)
        self._threads = []
        for place, (number, count) in enumerate(members):
            thread = threading.Thread(target=self._run, args=(place, number, count))
            thread.start()
            self._threads.append(thread)
            time.sleep(delay)

    def _run(self, place, number, count):
        try:
            report = self.reports[place].append
            rendezvous.meet(self.address, number, count, *self._arguments, report)
        except (ValueError, Stopped) as error:
            self.ends[place] = error

    def wait(self):
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.ends


def test_all_meet_in_any_order_and_leave_the_port():
    for order in ((0, 1, 2), (2, 1, 0)):
        group = Together([(number, 3) for number in order], delay=0.3)
        assert group.wait() == [None] * 3
        for number, reports in zip(order, group.reports, strict=True):
            others = "1, 2" if number == 0 else "0"
            assert reports[0].startswith(f"Process {number} of 3 waits for process {others} at ")
            assert re.search(rf"{group.address}, [45] s at most\.$", reports[0])
        port = int(group.address.rpartition(":")[2])
        socket.create_server(("", port)).close()


def test_who_is_missing_is_said_at_once_and_at_the_end():
    start = time.monotonic()
    group = Together([(0, 4), (2, 4)], timeout=3)
    ends = group.wait()
    assert time.monotonic() - start < 8
    assert [error for error in ends if not isinstance(error, ValueError)] == []
    for error in ends:
        assert re.match(
            rf"distributed\.coordinator {group.address}: process 1, 3 of 4 ", str(error)
        )
        assert "distributed.timeout=3 seconds" in str(error)
        assert str(error).endswith("distributed.coordinator=none.")


def test_without_process_0_the_others_say_so():
    (error,) = Together([(1, 2)], timeout=1).wait()
    assert "process 0 of 2 did not come" in str(error)
    assert "Connection refused" in str(error)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([(0, 3), (1, 3), (1, 3)], r"distributed\.process_id 1: two processes have this number: "),
        ([(0, 2), (1, 3)], r"distributed\.num_processes 2: process 1 .*has 3, .* 0 has 2; "),
        ([(0, 2), (4, 5)], r"distributed\.num_processes 2: process 4 "),
    ],
)
def test_numbers_that_do_not_fit_are_told_to_all(members, said):
    ends = Together(members, delay=0.2).wait()
    assert all(re.match(said, str(error)) for error in ends), ends
    assert len({str(error) for error in ends}) == 1


def test_one_that_stops_stops_all():
    asked = threading.Event()
    members = [(0, 3), (1, 3)]
    group = Together(members, timeout=30, should_stop=asked.is_set)
    time.sleep(0.5)
    start = time.monotonic()
    asked.set()
    assert all(isinstance(end, Stopped) for end in group.wait())
    assert time.monotonic() - start < 3


def test_a_process_that_stops_tells_the_others():
    address, asked = f"localhost:{free_port()}", threading.Event()
    waiting = Together([(0, 4), (2, 4)], address, timeout=30)
    stopping = Together([(1, 4)], address, timeout=30, should_stop=asked.is_set)
    asked.wait(1)
    asked.set()
    ends = [*waiting.wait(), *stopping.wait()]
    assert all(isinstance(end, Stopped) for end in ends), ends
    assert "process 1 was asked to" in str(ends[0])


@pytest.mark.parametrize("greets", [b"", b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_port_in_use_is_refused_on_both_sides(greets, monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.5)
    with socket.create_server(("localhost", 0)) as other:

        def answer():
            connection, _ = other.accept()
            with connection:
                connection.sendall(greets)
                connection.recv(1)

        threading.Thread(target=answer, daemon=True).start()
        address = f"localhost:{other.getsockname()[1]}"
        first, second = Together([(0, 2), (1, 2)], address, timeout=20).wait()
    assert re.match(rf"distributed\.coordinator {address}: .*already in use.*; use", str(first))
    assert re.match(rf"distributed\.coordinator {address}: another program, .*; use", str(second))


def test_a_host_that_is_not_known_is_refused():
    ends = Together([(1, 2)], "nowhere.invalid:1234", timeout=2).wait()
    assert re.match(
        r"distributed\.coordinator nowhere.invalid:1234: the name .*; correct it", str(ends[0])
    )


def test_strangers_and_noise_do_not_disturb():
    address = f"localhost:{free_port()}"
    group = Together([(0, 2)], address, timeout=20)
    while not group.reports[0]:  # it listens from then on
        time.sleep(0.01)
    port = int(address.rpartition(":")[2])
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b'{"process": 1}\n', b"[]\n", b"\xff" * 100_000):
        with socket.create_connection(("localhost", port), 5) as stranger:
            stranger.sendall(noise)
    ends = [*Together([(1, 2)], address, timeout=20).wait(), *group.wait()]
    assert ends == [None, None]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({**SLURM, "SLURM_NTASKS": "x"}, "SLURM_NTASKS x: must be "),
        ({**SLURM, "SLURM_NTASKS": "4", "SLURM_PROCID": "9"}, "4 processes, and JAX cannot "),
        ({**SLURM, "SLURM_NTASKS": "4", "SLURM_JOB_ID": "a"}, "4 processes, and JAX cannot "),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "2 processes, and JAX "),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "2 processes, and JAX cannot "),
    ],
)
def test_variables_of_a_scheduler_that_do_not_tell_are_refused(variables, said, monkeypatch):
    set_alone(variables, monkeypatch)
    with pytest.raises(ValueError, match=rf"{said}.*distributed\.coordinator=none"):
        distributed.initialize(DistributedConfig())


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({**SLURM, "SLURM_NTASKS": "4"}, "node01:61447"),
        (
            {
                "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:3",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_RANK": "0",
                "OMPI_COMM_WORLD_LOCAL_RANK": "0",
                **SLURM,
                "SLURM_NTASKS": "1",
            },
            "10.0.0.1:61441",
        ),
    ],
)
def test_a_scheduler_says_where_and_which(variables, address, monkeypatch):
    set_alone(variables, monkeypatch)
    assert distributed.process_count(DistributedConfig()) == 4
    assert distributed._detect(DistributedConfig()) == (address, 4, 0)


def test_an_mpi_that_jax_does_not_know_is_mentioned(monkeypatch, caplog):
    set_alone({"PMI_SIZE": "4", "PMI_RANK": "1"}, monkeypatch)
    distributed.initialize(DistributedConfig())
    (record,) = caplog.records
    assert "PMI_SIZE says that there are 4 processes" in record.getMessage()
    caplog.clear()
    distributed.initialize(DistributedConfig(coordinator="none"))
    assert caplog.records == []


def set_alone(variables, monkeypatch):
    """Set variables, and no others of any scheduler."""
    names = (*SLURM, "SLURM_NTASKS", "TPU_WORKER_HOSTNAMES", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
