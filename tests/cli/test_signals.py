"""SIGTERM and Ctrl-C: one asks a command to stop, a second ends it at once, and none is lost."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.metrics import read_metrics

WAITS = """
import hashlib, time
from alexnet_jax.cli import signals
signals.install_handlers()
print("ready", flush=True)
while not signals.stop_requested():
    time.sleep(0.01)
print("asked", flush=True)
{then}
"""
SLEEPS = "time.sleep(60)"
# As compiling does: neither holds Python's lock nor looks for signals.
COMPUTES = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
BECOMES = """
import os, signal, sys
from alexnet_jax.cli import signals
signals.install_handlers()
signals.block_signals()
os.kill(os.getpid(), signal.SIGTERM)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line_of(process):
    """Wait for a line of its output."""
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("then", [SLEEPS, COMPUTES], ids=["asleep", "computing"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_asks_and_a_second_ends_at_once(number, code, then):
    process = start("-c", WAITS.format(then=then))
    assert line_of(process) == "ready\n"
    process.send_signal(number)
    assert line_of(process) == "asked\n"
    sent = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert process.returncode == code
    first, second = said.splitlines()
    name = signal.Signals(number).name
    assert first.startswith(f"alexnet_jax: {name}: ")
    assert second.startswith(f"alexnet_jax: {name} again: ")


def test_a_signal_during_the_restart_with_large_pages_waits_for_the_new_program():
    process = start("-c", BECOMES, WAITS.format(then=""))
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "ready\nasked\n")


def test_what_nohup_ignores_stays_ignored():
    ignores = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    process = start("-c", ignores + WAITS.format(then=""))
    assert line_of(process) == "ready\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "asked\n")


TINY = {
    "--model.width": 0.05,
    "--data.image-size": 40,
    "--data.crop": 36,
    "--optimizer.batch-size": 16,
    "--schedule.epochs": 200,
    "--log.every": 1,
    "--log.figures": False,
}


def train(workdir, **changes):
    options = {**TINY, **{name.replace("_", "-"): value for name, value in changes.items()}}
    pairs = [str(part) for pair in options.items() for part in pair]
    return start("-m", "alexnet_jax.main", "--workdir", str(workdir), *pairs)


def wait_until_it_listens(process):
    """Return when the process takes SIGTERM itself, which Python alone does not: Linux says so."""
    taken, status = 1 << (signal.SIGTERM - 1), Path(f"/proc/{process.pid}/status")
    while not int(re.findall(r"SigCgt:\s*(\w+)", status.read_text())[0], 16) & taken:
        assert process.poll() is None
        time.sleep(0.001)
    time.sleep(0.01)  # Ctrl-C comes next


def end(process, number):
    """Send a signal; return the output, the complaints and the seconds until the end."""
    sent = time.monotonic()
    process.send_signal(number)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return out, said, time.monotonic() - sent


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.15, 0.4, 1, 2.4])
def test_ctrl_c_in_the_first_seconds_is_one_sentence(delay, tmp_path):
    process = train(tmp_path / "run")
    wait_until_it_listens(process)  # which takes Python itself some time on a busy machine
    time.sleep(delay)
    out, said, seconds = end(process, signal.SIGINT)
    assert seconds < 30
    assert out.splitlines()[-1].startswith("Stopped ")
    (line,) = said.splitlines()
    assert line.startswith("alexnet_jax: SIGINT: ")


@pytest.mark.slow
def test_sigterm_in_training_saves_and_the_same_command_resumes(tmp_path):
    workdir = tmp_path / "run"
    process = train(workdir)
    while len(read_metrics(workdir)) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    out, _, seconds = end(process, signal.SIGTERM)
    assert seconds < 30
    with Checkpoints(workdir, read_only=True) as checkpoints:
        saved = checkpoints.latest()
    assert saved == read_metrics(workdir)[-1]["step"]  # nothing is lost
    last = out.splitlines()[-1]
    assert last.startswith(f"Stopped after step {saved:,} of 50,000")
    assert f"; --workdir {workdir} resumes" in last
    process = train(workdir, **{"--schedule.epochs": 1})
    out, said = process.communicate(timeout=300)
    assert (process.returncode, said) == (0, "")
    assert f"Resumed after step {saved:,}, epoch 0, from {workdir}." in out
    steps = [line["step"] for line in read_metrics(workdir) if line["split"] == "train"]
    assert steps == [*range(1, 251)]
    assert json.loads((workdir / "summary.json").read_text())["steps"] == 250
