"""Contestants measured in turn: each lives in its own process, and one runs at a time.

A benchmark names its contestants and how to make them:

    if __name__ == "__main__":
        side_by_side.main(__file__, CONTESTANTS, unit="images/s")

`CONTESTANTS` maps a name to a function that prepares everything, takes a first step and returns
`run(repetitions) -> items done`. Every contestant is started once, with the same environment, and
warmed up; then all take turns, so that what the machine does beside them falls on all alike.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Run = Callable[[int], int]
VERSIONS = ("jax", "flax", "numpy", "torch", "grain", "array_record", "Pillow")
SHOWN = ("GLIBC_TUNABLES", "XLA_FLAGS", "OMP_NUM_THREADS", "JAX_PLATFORMS")


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    installed = {}
    for name in VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count(),
        "python": platform.python_version(),
        **installed,
        **{name: os.environ[name] for name in SHOWN if name in os.environ},
    }


def worker(make: Callable[[], Run]) -> None:
    """Serve one contestant: a line with a number of steps in, a line of JSON out."""
    run = make()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        steps = int(line)
        began, used = time.perf_counter(), time.process_time()
        items = run(steps)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer = {"seconds": seconds, "cpu": cpu, "items": items, "peak": peak}
        print(json.dumps(answer), flush=True)


class Contestant:
    """A process that waits to be asked."""

    def __init__(self, script: str, name: str, arguments: list[str], environment: dict[str, str]):
        self.name, began = name, time.perf_counter()
        command = [sys.executable, script, *arguments, "--worker", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()
        self.first_step = time.perf_counter() - began  # the start of the process included
        self.rates: list[float] = []
        self.cpu_rates: list[float] = []  # a second of CPU time, of this process but no child's
        self.peak = 0

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}")

    def run(self, steps: int) -> tuple[float, float]:
        """Take steps; return the rates, in items a second and a second of CPU time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.peak = answer["peak"]
        return answer["items"] / answer["seconds"], answer["items"] / answer["cpu"]

    def measure(self, steps: int) -> None:
        """Take steps twice, and keep the rates of the second time.

        Behind a wait for its turn a process was seen to take up to a quarter longer for its next
        step, in system time: probably as freed memory had gone back to a virtual machine's host.
        """
        self.run(steps)
        rate, cpu_rate = self.run(steps)
        self.rates.append(rate)
        self.cpu_rates.append(cpu_rate)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(
    script: str,
    names: list[str],
    arguments: list[str],
    repetitions: int,
    steps: int,
    environment: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return for each contestant the rates, their median and spread, first step and peak memory."""
    merged = {**os.environ, **environment}
    contestants = [Contestant(script, name, arguments, merged) for name in names]
    for contestant in contestants:
        contestant.run(1)
    for _ in range(repetitions):
        for contestant in contestants:
            contestant.measure(steps)
    for contestant in contestants:
        contestant.close()
    return {
        contestant.name: {
            "median": statistics.median(contestant.rates),
            "lowest": min(contestant.rates),
            "highest": max(contestant.rates),
            "rates": contestant.rates,
            "cpu_rates": contestant.cpu_rates,
            "first_step_seconds": contestant.first_step,
            "peak_gib": contestant.peak / 2**30,
        }
        for contestant in contestants
    }


def architecture(results: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    """Return a Markdown table; ratios are to the first contestant."""
    base = next(iter(results.values()))["median"]
    rates = f"{unit}, median (lowest to highest) | ratio | {unit} of CPU time"
    lines = [f"| | {rates} | first step, s | peak, GiB |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {name} | {r['median']:.1f} ({r['lowest']:.1f} to {r['highest']:.1f}) | "
        f"{r['median'] / base:.2f} | {statistics.median(r['cpu_rates']):.1f} | "
        f"{r['first_step_seconds']:.1f} | {r['peak_gib']:.2f} |"
        for name, r in results.items()
    ]
    return "\n".join(lines)


def main(
    script: str,
    contestants: Mapping[str, Callable[[argparse.Namespace], Run]],
    unit: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    steps: int = 2,
    prepare: Callable[[argparse.Namespace], None] = lambda _: None,
) -> None:
    """Run the command line of a benchmark; the first contestant is what the others are held to.

    `prepare` makes what all of them need, once, before any is started.
    """
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("--only", nargs="+", choices=contestants, default=list(contestants))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=steps, help="steps in a repetition")
    parser.add_argument("--json", type=Path, help="write everything here too")
    parser.add_argument("--worker", choices=contestants, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help="leave the allocator's settings alone")
    add_arguments(parser)
    asked = parser.parse_args()
    if asked.worker:
        worker(lambda: contestants[asked.worker](asked))
        return
    prepare(asked)
    own = {"only", "repetitions", "steps", "json", "worker", "plain"}
    rest = {name: value for name, value in vars(asked).items() if name not in own}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in rest.items()]
    environment = {} if asked.plain else {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    # Nothing compiled before: PyTorch keeps its programs unless told where; JAX does if told.
    with tempfile.TemporaryDirectory() as empty:
        fresh = environment | {"TORCHINDUCTOR_CACHE_DIR": empty}
        results = compare(script, asked.only, arguments, asked.repetitions, asked.steps, fresh)
    about = {"machine": machine() | environment, "options": rest}
    print(json.dumps(about))
    print(architecture(results, unit))
    if asked.json:
        asked.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")
