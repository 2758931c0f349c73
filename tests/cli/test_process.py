"""The command's own process: large pages, kept programs, traces; a library call leaves it alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax.cli import process

CHECKOUT = Path(__file__).parents[2]
# Starts the way the command does, and says what became of it.
SCRIPT = """
import os, sys
sys.path.insert(0, {checkout!r})
from alexnet_jax.cli import process
from alexnet_jax.config import ProcessConfig
config = ProcessConfig(large_pages={pages}, compilation_cache={cache!r})
process.restart_with_large_pages(config)
process.enable_compilation_cache(config)
print(os.getpid(), os.environ.get("GLIBC_TUNABLES", ""), sys.argv[1:])
print(process.describe_process())
"""


def start(tmp_path, pages=True, cache="", **environment):
    """Return whether the script kept its process, its GLIBC_TUNABLES, arguments and sentence."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(checkout=str(CHECKOUT), pages=pages, cache=cache))
    kept = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    started = subprocess.Popen(
        [sys.executable, str(script), "--a", "b c"],
        env=kept | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = started.communicate(timeout=60)
    assert started.returncode == 0
    first, sentence = out.splitlines()
    number, _, rest = first.partition(" ")
    tunables, _, arguments = rest.partition(" ")
    return int(number) == started.pid, tunables, arguments, sentence


@pytest.fixture
def needs_glibc():
    if not process.large_pages_help():
        pytest.fail("this machine's C library has no large pages; the tests want Linux with glibc")


@pytest.mark.usefixtures("needs_glibc")
def test_the_command_starts_again_with_large_pages_in_the_same_process(tmp_path):
    same, tunables, arguments, sentence = start(tmp_path)
    assert same
    assert tunables == "glibc.malloc.hugetlb=1"
    assert arguments == "['--a', 'b c']"
    assert sentence.startswith("Process: large pages for malloc")


@pytest.mark.usefixtures("needs_glibc")
def test_other_tunables_stay_and_a_choice_of_ones_own_is_kept(tmp_path):
    _, tunables, *_ = start(tmp_path, GLIBC_TUNABLES="glibc.malloc.check=1")
    assert tunables == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"
    _, tunables, _, sentence = start(tmp_path, GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert tunables == "glibc.malloc.hugetlb=0"
    assert sentence.startswith("Process: ordinary pages for malloc")


def test_output_that_nobody_reads_any_more_ends_a_command_without_a_word():
    says = (
        "import sys\nfrom alexnet_jax.cli.errors import run_command\nfrom alexnet_jax.main import "
    )
    says += "Command\ndef say(): [print(n, flush={flush}) for n in range(10**5)]\n"
    says += "sys.exit(run_command(say, Command, ''))"
    for flush in (True, False):
        started = subprocess.Popen(
            [sys.executable, "-c", says.format(flush=flush)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert started.stdout is not None
        assert started.stderr is not None
        assert started.stdout.readline() == b"0\n"
        started.stdout.close()
        assert started.stderr.read() == b""
        started.stderr.close()
        assert started.wait(30) == 128 + signal.SIGPIPE


def test_the_process_can_be_left_alone(tmp_path):
    _, tunables, _, sentence = start(tmp_path, pages=False)
    assert tunables == ""
    assert sentence.startswith("Process: ordinary pages for malloc")
    assert "not cached" in sentence


def test_compiled_programs_are_kept_by_kind_of_machine(tmp_path):
    *_, sentence = start(tmp_path, pages=False, cache=str(tmp_path / "kept"))
    assert f" {tmp_path / 'kept'}/" in sentence
    *_, sentence = start(
        tmp_path,
        pages=False,
        cache=str(tmp_path / "kept"),
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "chosen"),
    )
    assert sentence.endswith(f" {tmp_path / 'chosen'}.")


@pytest.mark.slow
def test_a_trace_of_the_steps_asked_for_and_the_time_spent_waiting(tmp_path):
    workdir = tmp_path / "a"
    arguments = ["--workdir", workdir, "--model.width", "0.05", "--schedule.epochs", "1"]
    arguments += ["--data.image-size", "40", "--data.crop", "36"]
    arguments += [
        "--optimizer.batch-size",
        "500",
        "--log.every",
        "1",
        "--log.figures",
        "False",
    ]
    arguments += ["--profile.steps", "3:4", "--process.compilation-cache", ""]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "alexnet_jax.main", *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "Process: " in ended.stdout
    traces = list((workdir / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    waits = [line["waiting_for_data"] for line in lines if line["split"] == "train"]
    assert len(waits) == 8
    assert all(0 <= wait <= 1 for wait in waits)
