"""Measure contestants in turns: each has its own process, and one runs at a time.

A benchmark passes its contestants:

    if __name__ == "__main__":
        side_by_side.main(__file__, CONTESTANTS, unit="images/s")

`CONTESTANTS` maps a name to a function that prepares everything, runs a first step and returns
`run(steps) -> items done`. Every contestant is started once, with the same environment, and warmed
up; then all take turns, so that other load on the machine affects all of them alike.
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
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Run = Callable[[int], int]
VERSIONS = ("jax", "flax", "numpy", "torch", "grain", "array_record", "Pillow", "simplejpeg")
SHOWN = ("GLIBC_TUNABLES", "XLA_FLAGS", "OMP_NUM_THREADS", "JAX_PLATFORMS")


def machine() -> dict[str, Any]:
    """Return processor, cores, versions and environment, for the report."""
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
    """Serve one contestant: reads lines with a number of steps, answers each in JSON."""
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
    """A process that runs steps on request."""

    def __init__(
        self,
        script: str,
        name: str,
        arguments: list[str],
        environment: dict[str, str],
        timeout: float | None = None,
    ):
        """Start the process; it is killed after `timeout` seconds."""
        self.name, began = name, time.perf_counter()
        command = [sys.executable, script, *arguments, "--worker", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._timer = threading.Timer(timeout or 0, self._process.kill)
        self._timer.daemon = True  # if the process fails, nothing waits for the timer
        if timeout:
            self._timer.start()
        self._answer()
        self.first_step = time.perf_counter() - began  # includes the start of the process
        self.rates: list[float] = []
        self.cpu_rates: list[float] = []  # per second of the process's CPU time
        self.peak = 0

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}")

    def run(self, steps: int) -> tuple[float, float]:
        """Run steps; return items per second, and per second of CPU time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.peak = answer["peak"]
        return answer["items"] / answer["seconds"], answer["items"] / answer["cpu"]

    def measure(self, steps: int) -> None:
        """Run the steps twice, and keep the rates of the second time.

        The first step after a pause can be slower, probably because freed memory has returned to
        the host of a virtual machine; see experiments/RESULTS.md.
        """
        self.run(steps)
        rate, cpu_rate = self.run(steps)
        self.rates.append(rate)
        self.cpu_rates.append(cpu_rate)

    def close(self) -> None:
        """End the process."""
        self._timer.cancel()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def result(self) -> dict[str, Any]:
        """Return rates, their median and spread, first step and peak memory."""
        return {
            "median": statistics.median(self.rates),
            "lowest": min(self.rates),
            "highest": max(self.rates),
            "rates": self.rates,
            "cpu_rates": self.cpu_rates,
            "first_step_seconds": self.first_step,
            "peak_gib": self.peak / 2**30,
        }


def compare(
    script: str,
    names: list[str],
    arguments: list[str],
    repetitions: int,
    steps: int,
    environment: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return the result of each contestant."""
    merged = {**os.environ, **environment}
    contestants = [Contestant(script, name, arguments, merged) for name in names]
    for contestant in contestants:
        contestant.run(1)
    for _ in range(repetitions):
        for contestant in contestants:
            contestant.measure(steps)
    for contestant in contestants:
        contestant.close()
    return {contestant.name: contestant.result() for contestant in contestants}


def format_table(results: Mapping[str, Mapping[str, Any]], unit: str) -> str:
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
    """Run the command line of a benchmark; ratios are to the first contestant.

    `prepare` creates what all contestants need, once, before they start.
    """
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("--only", nargs="+", choices=contestants, default=list(contestants))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=steps, help="steps in a repetition")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    parser.add_argument("--worker", choices=contestants, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help="keep the default allocator settings")
    add_arguments(parser)
    args = parser.parse_args()
    if args.worker:
        worker(lambda: contestants[args.worker](args))
        return
    prepare(args)
    own = {"only", "repetitions", "steps", "json", "worker", "plain"}
    rest = {name: value for name, value in vars(args).items() if name not in own}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in rest.items()]
    environment = {} if args.plain else {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    # An empty cache: PyTorch caches compiled programs by default, JAX does not.
    with tempfile.TemporaryDirectory() as empty:
        fresh = environment | {"TORCHINDUCTOR_CACHE_DIR": empty}
        results = compare(script, args.only, arguments, args.repetitions, args.steps, fresh)
    about = {"machine": machine() | environment, "options": rest}
    print(json.dumps(about))
    print(format_table(results, unit))
    if args.json:
        args.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")
