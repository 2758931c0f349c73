"""Several processes as one run: real ones, over loopback, with the devices that each of them poses.

The slow tests start some 25 processes, each of which takes seconds to start.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.cli import distributed
from alexnet_jax.cli.devices import emulate_devices
from alexnet_jax.config import Config, DistributedConfig, MeshConfig, ModelConfig, OptimizerConfig
from alexnet_jax.main import main, parse
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training import processes
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.metrics import NullWriter
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import abstract_state
from alexnet_jax.training.stopping import Stopped

CHECKOUT = Path(__file__).parents[2]
CLASSES = 3  # of the photographs
BATCH, STEPS = 8, 30  # 30 images in batches of 8, 8 epochs
FLEETING = (
    *("time", "seconds", "images_per_second", "tflop_per_second", "peak_share"),
    "waiting_for_data",
)
TIMEOUT = 120  # seconds that a group of processes may take on a machine that others use too
# What jaxlib may log behind our sentence when process 0, which coordinates, ends a moment sooner.
CLOSED = re.compile(
    r'^E\d{4} [\d:.]+ +\d+ coordination_service_agent.*?closed"\}\n', re.MULTILINE | re.DOTALL
)
NOISE = re.compile(r"\[Gloo\] Rank .*")  # from C++, on standard output


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Return what child processes are to find: compiled programs are kept."""
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


def options(photos, workdir, **changes):
    """Return the command line of a tiny run; `log_figures=True` changes --log.figures."""
    values = {
        "workdir": workdir,
        "data.source": "folder",
        "data.path": photos,
        "data.image-size": 40,
        "data.crop": 36,
        "model.width": 0.05,
        "optimizer.batch_size": BATCH,
        "schedule.epochs": 8,
        "schedule.milestones": 1,
        "log.every": 1,
        "log.checkpoint-every": 5,
        "log.figures": False,
        "process.large-pages": False,
    }
    values |= {name.replace("_", "."): value for name, value in changes.items()}
    return [str(part) for name, value in values.items() for part in (f"--{name}", value)]


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Group:
    """Processes that make up a run, and the order in which each of them read its images."""

    def __init__(self, number, devices, arguments, environment, folder, by_process=None):
        folder.mkdir()
        self._orders = [folder / f"order{rank}.jsonl" for rank in range(number)]
        address, self.processes = f"127.0.0.1:{free_port()}", []
        for rank, order in enumerate(self._orders):
            several = ["--distributed.coordinator", address, "--distributed.timeout", "10"]
            several += ["--distributed.num-processes", number, "--distributed.process-id", rank]
            script = CHECKOUT / "experiments" / "reliability" / "recorded_training.py"
            own = (by_process or {}).get(rank, [])
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, script, order, *arguments, *map(str, several), *own],
                    env={**environment, "JAX_NUM_CPU_DEVICES": str(devices)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def end(self):
        """Wait; return the exit codes and what each process said on stdout and stderr."""
        try:
            said = [process.communicate(timeout=TIMEOUT) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        codes = [process.returncode for process in self.processes]
        outs, errors = zip(*said, strict=True)
        return codes, [NOISE.sub("", out).split("\n") for out in outs], [*errors]

    def succeed(self):
        """Wait; return what the first process said on standard output."""
        codes, outs, errors = self.end()
        assert codes == [0] * len(codes), errors
        return "\n".join(filter(None, outs[0]))

    def order(self, rank):
        """Return the numbers of the images that a process read, by step."""
        lines = [json.loads(line) for line in self._orders[rank].read_text().splitlines()]
        return {line["step"]: line["indices"] for line in lines}


def joined(parts):
    """Return whole batches by step, from those of the shards."""
    return {step: [row for part in parts for row in part[step]] for step in parts[0]}


def wait_for_step(workdir, step, group):
    end, metrics = time.monotonic() + TIMEOUT, workdir / "metrics.jsonl"
    while time.monotonic() < end and all(p.poll() is None for p in group.processes):
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            return
        time.sleep(0.005)


def state_at(workdir):
    """Return the step and the whole of what the latest checkpoint of the tiny run holds."""
    architecture = build_architecture(ModelConfig(width=0.05, conv345_init_std=0.03), CLASSES, 36)
    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    _, target = abstract_state(architecture, paper_sgd(OptimizerConfig()), mesh, 0)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        latest = checkpoints.latest()
        assert latest is not None
        return latest, jax.device_get(checkpoints.state(latest, target))


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if name not in FLEETING} for line in lines]


def assert_bitwise(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)


@pytest.fixture(scope="module")
def alone(photos, environment, tmp_path_factory):
    """Return the folder of a run of one process with two devices, and its order of images."""
    folder = tmp_path_factory.mktemp("alone")
    group = Group(1, 2, options(photos, folder / "run"), environment, folder / "order")
    group.succeed()
    return folder / "run", group.order(0)


@pytest.mark.slow
def test_two_processes_with_a_tower_each_are_one_with_two_devices(
    alone, photos, environment, tmp_path
):
    workdir = tmp_path / "run"
    group = Group(2, 1, options(photos, workdir), environment, tmp_path / "orders")
    codes, outs, errors = group.end()
    assert codes == [0, 0], errors
    assert "on 2 cpu devices, one tower each" in "\n".join(outs[0])
    waits, connected = [line for line in outs[1] if line][1:]
    assert re.match(r"Process 1 of 2 waits for process 0 at 127\.0\.0\.1:\d+, ", waits)
    assert connected == "Process 1 of 2 is connected to the others."
    (warning,) = errors[0].splitlines()
    assert "--schedule.epochs 8: makes 30 steps of 8 images" in warning
    assert errors[1] == ""  # one process warns for all
    # A tower each: both read all rows.
    assert group.order(0) == group.order(1) == alone[1]
    assert_bitwise(state_at(workdir), state_at(alone[0]))
    assert metrics_of(workdir) == metrics_of(alone[0])
    lines = metrics_of(workdir)
    assert {line["count"] for line in lines if line["split"] == "validation"} == {12}
    assert lines[-1]["count"] == 9


@pytest.mark.slow
def test_two_processes_with_two_devices_each_share_the_rows(photos, environment, tmp_path, alone):
    workdir = tmp_path / "run"
    arguments = options(photos, workdir, log_figures=True)
    # As many threads a process, else as many as it has devices: Eigen adds up a convolution's
    # gradients in as many parts, and the last digit tells.
    environment = {**environment, "NPROC": "4"}
    group = Group(2, 2, arguments, environment, tmp_path / "orders")
    said = group.succeed()
    assert "4 cpu devices, one tower each, the batch in 2 shards" in said
    assert (workdir / "figures" / "predictions.png").exists()
    halves = [group.order(rank) for rank in range(2)]
    assert {len(rows) for order in halves for rows in order.values()} == {BATCH // 2}
    assert joined(halves) == alone[1]
    four = tmp_path / "four"
    Group(1, 4, options(photos, four), environment, tmp_path / "order").succeed()
    assert_bitwise(state_at(workdir), state_at(four))
    assert metrics_of(workdir) == metrics_of(four)
    lines = metrics_of(workdir)
    assert {line["count"] for line in lines if line["split"] == "validation"} == {12}


@pytest.mark.slow
def test_a_run_goes_on_with_two_processes_one_four_and_two_again(
    alone, photos, environment, tmp_path
):
    workdir, orders, stops = tmp_path / "run", [], []
    arguments = options(photos, workdir)
    # SIGTERM to one process: all stop after the same step, some steps later on a busy machine.
    for number, told in ((2, 1), (1, 0), (4, 3)):
        at = max(stops, default=0) + 4
        devices = 2 if number == 1 else 1
        group = Group(number, devices, arguments, environment, tmp_path / f"orders{number}")
        wait_for_step(workdir, at, group)
        group.processes[told].send_signal(signal.SIGTERM)
        codes, outs, errors = group.end()
        assert codes == [0] * number, errors
        stopped = re.search(r"Stopped after step (\d+) of 30, .*--workdir .* resumes", str(outs[0]))
        assert stopped, outs[0]
        stops.append(int(stopped[1]))
        assert at <= stops[-1] < STEPS
        # With four processes the batch is in two shards: the ranks 0 and 1 are the towers of one.
        shards = [0, 2] if number == 4 else [0]
        orders.append(joined([group.order(rank) for rank in shards]))
    last = Group(2, 1, arguments, environment, tmp_path / "orders")
    assert f"Resumed after step {stops[-1]}" in last.succeed()
    orders.append(last.order(1))
    begun = [0, *stops]
    for first, order in zip(begun, orders, strict=True):
        assert min(order) == first + 1
        assert all(alone[1][step] == rows for step, rows in order.items())
    step, state = state_at(workdir)
    assert step == STEPS
    assert_close(state, state_at(alone[0])[1])
    ours, theirs = metrics_of(workdir), metrics_of(alone[0])
    assert [(line["split"], line["step"]) for line in ours] == [
        (line["split"], line["step"]) for line in theirs
    ]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_where_one_process_dies_the_other_says_so_and_the_run_goes_on(
    victim, alone, photos, environment, tmp_path
):
    workdir = tmp_path / "run"
    arguments = options(photos, workdir)
    group = Group(2, 1, arguments, environment, tmp_path / "orders")
    wait_for_step(workdir, 11, group)
    group.processes[victim].kill()
    killed = time.monotonic()
    codes, _, errors = group.end()
    assert time.monotonic() - killed < 30
    assert codes[victim] == -signal.SIGKILL
    # JAX itself ends a process whose coordinator, process 0, is gone.
    assert codes[1 - victim] in (1, -signal.SIGABRT)
    sentence = errors[1 - victim].strip().splitlines()[-1]
    assert sentence.startswith(f"alexnet_jax: Process {1 - victim} of 2 ")
    assert sentence.endswith("in all of them to resume from the last checkpoint.")
    assert (
        "Resumed after step " in Group(2, 1, arguments, environment, tmp_path / "again").succeed()
    )
    assert_bitwise(state_at(workdir), state_at(alone[0]))
    assert metrics_of(workdir) == metrics_of(alone[0])


@pytest.mark.slow
def test_processes_that_differ_are_refused(photos, environment, tmp_path):
    arguments = options(photos, tmp_path / "run")
    other = {1: ["--seed", "3"]}
    codes, _, errors = Group(2, 1, arguments, environment, tmp_path / "a", other).end()
    assert codes == [2, 2]
    for error in errors:
        (line,) = CLOSED.sub("", error).splitlines()
        assert line.startswith("alexnet_jax: --seed: ")
        assert "process 1 of 2" in line
        assert line.endswith("the same options.")
    elsewhere = {1: ["--workdir", str(tmp_path / "elsewhere")]}
    codes, _, errors = Group(2, 1, arguments, environment, tmp_path / "b", elsewhere).end()
    assert codes == [2, 2]
    for error in errors:
        assert "process 1 of 2 has another folder of that name" in error
        assert CLOSED.sub("", error).count("\n") == 1


# What a process does for the tests below: towers on two of them, at the sizes of the real network.
LARGE = """
import sys
import jax, jax.numpy as jnp, numpy as np
from alexnet_jax.config import ModelConfig, OptimizerConfig
from alexnet_jax.model import towers
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import abstract_state
from alexnet_jax.training.step import make_train_step

jax.config.update("jax_enable_preemption_service", False)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), cluster_detection_method="deactivate")
mesh = towers.make_mesh(batch=128)
table = build_architecture(ModelConfig(), 1000, 224)
constants = Preprocess(jnp.zeros(3), jnp.eye(3), jnp.ones(3))
tx = paper_sgd(OptimizerConfig())
_, target = abstract_state(table, tx, mesh, 0)
by_data = towers.put_batch({"label": np.zeros(128, np.int32)}, mesh)["label"].sharding
kinds = {
    "image": ((224, 224, 3), np.uint8), "label": ((), np.int32), "lighting": ((3,), np.float32),
    "offset": ((2,), np.int32), "divisor": ((), np.float32), "mirror": ((), bool),
    "index": ((), np.int32),
}
batch = {
    name: jax.ShapeDtypeStruct((128, *shape), kind, sharding=by_data)
    for name, (shape, kind) in kinds.items()
}
step = make_train_step(table, tx, mesh, constants, 0)
text = step.lower(target, batch).compile().as_text()
assert jax.process_count() == 2
assert "all-gather" in text
assert "reduce-scatter" not in text
"""


@pytest.mark.slow
def test_no_reduce_scatter_crosses_processes():
    """gloo's gives wrong values, at random, from chunks of 11 MiB on (jax-ml/jax#40830).

    The network's first crossing has 10.6 MiB at batch 128; small tests would pass with it.
    """
    address = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LARGE, address, str(rank)],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [process.wait(TIMEOUT) for process in processes] == [0, 0]


@pytest.mark.parametrize(
    ("data", "tower", "numbers", "rows"),
    [
        (1, 2, [0], [(0, 8)]),  # a tower each: all rows for both
        (1, 2, [1], [(0, 8)]),
        (2, 2, [0, 1], [(0, 4)]),
        (2, 2, [2, 3], [(4, 8)]),
        (2, 2, [1], [(0, 4)]),  # four processes
        (4, 1, [0, 1], [(0, 2), (2, 4)]),
        (4, 1, [3, 1], [(2, 4), (6, 8)]),
        (2, 2, [0, 1, 2, 3], [(0, 4), (4, 8)]),
    ],
)
def test_the_rows_of_a_process_are_those_of_its_devices(data, tower, numbers, rows):
    mesh = towers.make_mesh(towers=tower, data=data, batch=8)
    mine = [mesh.devices.flat[number] for number in numbers]
    assert towers.local_rows(mesh, 8, mine) == tuple(slice(*bounds) for bounds in rows)


def test_one_process_reads_all_rows():
    mesh = towers.make_mesh(towers=1, data=4, batch=8)
    covered = np.concatenate([np.arange(8)[block] for block in towers.local_rows(mesh, 8)])
    np.testing.assert_array_equal(covered, np.arange(8))


def test_what_crosses_between_processes_arrives_as_it_was():
    arrays = {"mean": np.arange(12, dtype=np.float32).reshape(2, 2, 3), "axes": np.eye(3)}
    value = [arrays, {"train": {"3": "torn"}}]
    content = processes._outcome(lambda: value)
    arrived = json.loads(content, object_hook=processes._to_array)["result"]
    jax.tree.map(np.testing.assert_array_equal, arrived[0], arrays)
    assert arrived[0]["mean"].dtype == np.float32
    assert arrived[1] == value[1]


@pytest.mark.parametrize(
    ("kind", "error"), [("error", ValueError), ("error", OSError), ("stopped", Stopped)]
)
def test_what_the_first_process_raises_crosses_too(kind, error):
    def make():
        raise error("Why.")

    assert json.loads(processes._outcome(make)) == {kind: "Why."}


def test_the_answer_comes_with_the_next_call():
    flags, asked = iter([False, True, False, False]), []

    def ask(flag):
        asked.append(flag)
        return jnp.asarray(flag)

    answers = processes._delayed_answers(lambda: next(flags), ask)
    assert [next(answers) for _ in range(4)] == [False, False, True, False]
    assert asked == [False, True, False, False]


def test_one_process_agrees_with_itself():
    def asked():
        return True

    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    assert processes.any_process_requests_stop(asked, mesh) is asked
    assert processes.broadcast_from_main("anything", lambda: {1: 2}) == {1: 2}
    processes.check_same_config(Config())


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([(7, 1), (7, 1)], ""),
        ([(7, 1), (8, 2), (7, 1), (8, 2)], ""),  # two towers for each half of the batch
        ([(7, 1), (7, 2)], "Processes 0 and 1 "),
        ([(7, 1), (8, 2), (7, 1), (8, 3)], "Processes 1 and 3 "),
    ],
)
def test_towers_that_were_shown_other_images_are_not_saved(held, said, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: len(held))
    monkeypatch.setattr(processes, "_all_gather", lambda *_: np.array(held, np.uint32))
    if not said:
        processes.check_same_images((slice(0, 8),), 1)
    else:
        with pytest.raises(ValueError, match=f"^{said}hold the towers of the same images"):
            processes.check_same_images((slice(0, 8),), 1)


def test_the_null_writer_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with NullWriter() as writer:
        writer.train(1, 0.5, loss=2.0)
        writer.evaluation("test", 1, 0.5, loss=2.0)
        writer.advance(1, 2.0, 0.5, 100.0)
        writer.print_line("hello")
        writer.flush()
    assert [*tmp_path.iterdir()] == []
    assert capsys.readouterr() == ("", "")


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[01-02]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, 1),
        ({**SLURM, "SLURM_NTASKS": "4"}, 4),
        ({**SLURM, "SLURM_NTASKS": "1"}, 1),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, 1),  # allocated, and not started by srun
        ({"TPU_WORKER_HOSTNAMES": "a,b,c"}, 3),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, 2),
    ],
)
def test_a_scheduler_says_how_many(variables, number, monkeypatch):
    for name in (*SLURM, "SLURM_NTASKS", "TPU_WORKER_HOSTNAMES", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.process_count(DistributedConfig()) == number
    assert distributed.process_count(DistributedConfig(coordinator="none")) == 1


@pytest.mark.parametrize(
    ("mesh", "processes", "devices"),
    [
        (MeshConfig(), 1, 2),
        (MeshConfig(), 2, 2),  # a tower pair each
        (MeshConfig(data=1), 2, 1),
        (MeshConfig(towers=1, data=4), 2, 2),
        (MeshConfig(data=3), 2, 3),
    ],
)
def test_processes_emulate_their_share_of_the_devices(mesh, processes, devices, monkeypatch):
    values = {"jax_num_cpu_devices": -1}
    fresh = types.SimpleNamespace(values=values, update=values.__setitem__)
    monkeypatch.setattr(jax, "config", fresh)
    emulate_devices(mesh, processes)
    assert values == {"jax_num_cpu_devices": devices}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["coordinator", "node1"],
            "coordinator node1: .*; try auto",
        ),
        (["coordinator", "node1:99999"], "coordinator node1:99999: .*; try auto"),
        (
            ["num-processes", "2"],
            "num-processes 2: .*--distributed.coordinator HOST:PORT; give both",
        ),
        (["coordinator", "a:1", "num-processes", "2"], "process-id auto: .*; give both"),
        (
            ["coordinator", "a:1", "num-processes", "2", "process-id", "2"],
            "process-id 2: .*less than --distributed.num-processes 2; give each",
        ),
        (
            ["coordinator", "a:1", "num-processes", "0", "process-id", "0"],
            "num-processes 0: must be at least 1; try 2",
        ),
        (["timeout", "0"], "timeout 0: must be at least 1; try 60"),
    ],
)
def test_bad_options_are_refused(arguments, said, tmp_path, capsys):
    names = [f"--distributed.{name}" for name in arguments[::2]]
    pairs = [part for pair in zip(names, arguments[1::2], strict=True) for part in pair]
    assert main(["--workdir", str(tmp_path / "run"), *pairs]) == 2
    assert re.search(f"--distributed.{said}", capsys.readouterr().err)


def test_a_process_may_be_named(tmp_path):
    arguments = ["--workdir", str(tmp_path), "--distributed.coordinator", "node1:1234"]
    arguments += ["--distributed.num-processes", "2", "--distributed.process-id", "1"]
    asked = parse(arguments).config.distributed
    assert asked == DistributedConfig("node1:1234", 2, 1)
    assert distributed.process_count(asked) == 2


def test_a_mesh_that_leaves_a_process_idle_is_refused(monkeypatch):
    class Device:
        platform = "cpu"

        def __init__(self, number):
            self.process_index = number // 2

    monkeypatch.setattr(jax, "devices", lambda: [Device(number) for number in range(6)])
    with pytest.raises(ValueError, match=r"mesh\.data 1: .*mesh\.towers=2 .*process 1, 2; use "):
        towers.make_mesh(towers=2, data=1, batch=8)
