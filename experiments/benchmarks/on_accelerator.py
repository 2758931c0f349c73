"""Check and measure this package on the GPUs or TPUs of this machine, in one run of 8 minutes.

    pip install '.[cuda,parity]'    # or .[tpu]; with a PyTorch for CUDA it is measured too
    python experiments/benchmarks/on_accelerator.py --json accelerator.json

1. Gradients of the full network, with both towers on one device and, if there are two, with one on
   each, against the CPU backend of the same process: float32, products at the highest precision.
   Expected: within 0.1 % of the norm of each parameter's gradient. The same at JAX's default
   precision is printed, and not judged.
2. Images a second of a training step (see step.py) at several batch sizes, next to PyTorch's on the
   same card; TFLOP/s, their share of this device's matrix product and of its published peak. The
   sizes are measured in the order given, one contestant at a time, as a TPU takes one process.
3. A run that is stopped and resumed, against one that is not: bit for bit.

Each part has its own process; what does not fit into `--minutes` is left out, and that is said.
Exit code 1 if part 1 or 3 failed. `--smoke` does all of it in tiny sizes, also on a CPU, to see
that everything works. JAX_PLATFORMS, if it is set, must include cpu.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import side_by_side
import step

from alexnet_jax.model.architecture import training_flop
from alexnet_jax.model.devices import peak
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

sys.path.append(str(Path(__file__).parents[1] / "reliability"))

Dtype = Literal["bfloat16", "float32"]
TOLERANCE = 1e-3  # of a gradient's norm
RESUME_SECONDS = 90  # kept for part 3


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is computed."""

    width: float
    crop: int
    checked: int  # images whose gradients are compared
    side: int  # of the matrices multiplied
    batches: tuple[int, ...]
    seconds: float  # of a repetition
    repetitions: int
    run: Mapping[str, object]  # options of the run that is resumed; see `crash_test.arguments`


RUN = {"--schedule.epochs": 2, "--schedule.milestones": 1}
FULL = Sizes(
    width=1.0,
    crop=224,
    checked=32,
    side=8192,
    batches=(1024, 128, 4096),
    seconds=1.0,
    repetitions=3,
    run=RUN
    | {"--data.image-size": 256, "--data.crop": 224, "--model.width": 1}
    | {"--optimizer.batch-size": 20},
)
SMOKE = Sizes(
    width=0.05,
    crop=36,
    checked=4,
    side=64,
    batches=(4,),
    seconds=0.02,
    repetitions=1,
    run=RUN | {"--optimizer.batch-size": 45},
)


def contestants(sizes: Sizes) -> dict[str, tuple[Dtype, int, Callable[..., side_by_side.Run]]]:
    """Return type of the products, number of devices, and contestant, by name."""
    shape: dict[str, Any] = {"width": sizes.width, "crop": sizes.crop}
    fast = shape | {"dtype": "bfloat16"}
    return {
        "alexnet_jax": ("float32", 1, step.alexnet_jax(towers=1, **shape)),
        "alexnet_jax, bf16": ("bfloat16", 1, step.alexnet_jax(towers=1, **fast)),
        "alexnet_jax, bf16, a tower on each of 2": (
            *("bfloat16", 2),
            step.alexnet_jax(towers=2, **fast),
        ),
        "PyTorch eager": ("float32", 1, step.pytorch(compiled=False, device="cuda")),
        "torch.compile": ("float32", 1, step.pytorch(compiled=True, device="cuda")),
        "torch.compile, bf16 AMP, channels last": (
            *("bfloat16", 1),
            step.pytorch(compiled=True, fast=True, device="cuda"),
        ),
    }


def check_device(sizes: Sizes) -> dict[str, Any]:
    """Return what the devices are, their rate of matrix products, and errors of gradients."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import roofline

    from alexnet_jax.model import towers
    from alexnet_jax.training.step import make_gradient

    def gradients(devices: list[Any], number: int, params: Any = None) -> tuple[Any, Any]:
        """Return initial parameters and their gradients, on the host."""
        job = step.training(
            sizes.checked,
            number,
            crop=sizes.crop,
            devices=devices,
            width=sizes.width,
            conv345_init_std=0.03,  # with 0.01 gradients nearly vanish
        )
        variables = job.state.variables
        if params is not None:
            variables = jax.tree.map(
                lambda leaf, like: jax.device_put(leaf, like.sharding), params, variables
            )
        gradient = make_gradient(job.architecture, job.mesh, job.constants, seed=0)
        _, grads = towers.jit(gradient, job.mesh)(variables, np.int32(0), job.images)
        return jax.device_get(variables), jax.device_get(grads)

    cpus = jax.devices("cpu")
    with jax.default_device(cpus[0]), jax.default_matmul_precision("highest"):
        params, expected = gradients(cpus, 1)
    rows = []
    for number in (1, 2)[: jax.local_device_count()]:
        # A CPU has one precision.
        for precision in ("highest", None)[: 1 if jax.default_backend() == "cpu" else 2]:
            with jax.default_matmul_precision(precision):
                _, found = gradients(jax.local_devices(), number, params)
            paths, _ = jax.tree.flatten_with_path(expected)
            errors = {
                jax.tree_util.keystr(path[1:]): float(np.linalg.norm(a - b) / np.linalg.norm(b))
                for (path, b), a in zip(paths, jax.tree.leaves(found), strict=True)
            }
            worst = max(errors, key=lambda name: (errors[name] != errors[name], errors[name]))
            row = {"devices": number, "precision": precision or "default", "worst": worst}
            row |= {"error": errors[worst]}
            rows.append(row | {"passed": errors[worst] < TOLERANCE if precision else None})
    device = jax.devices()[0]
    rates = {
        dtype: roofline.product_rate(sizes.side, jnp.dtype(dtype), 10) / 1e3
        for dtype in ("bfloat16", "float32")
    }
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.local_device_count(),
        "product_tflop_per_second": rates,
        "gradients": rows,
    }


def check_resume(sizes: Sizes) -> dict[str, Any]:
    """Return whether a run that was stopped and resumed ends like one that was not."""
    import crash_test
    import numpy as np

    from alexnet_jax import main
    from alexnet_jax.training.loop import train_and_evaluate
    from alexnet_jax.training.metrics import read_metrics
    from alexnet_jax.training.stopping import Stopped

    stopped_after = None
    with tempfile.TemporaryDirectory() as folder:
        images, whole, resumed = (Path(folder, name) for name in ("images", "whole", "resumed"))
        crash_test.draw_images(images)
        commands = [
            crash_test.arguments(images, workdir, sizes.run) for workdir in (whole, resumed)
        ]
        configs = [main.parse(command).config for command in commands]
        summary = train_and_evaluate(configs[0], whole)
        try:
            train_and_evaluate(configs[1], resumed, lambda: len(read_metrics(resumed)) >= 3)
        except Stopped:
            stopped_after = read_metrics(resumed)[-1]["step"]
        train_and_evaluate(configs[1], resumed)
        states = [crash_test.final_state(command) for command in commands]
    differences = {
        name: float(np.max(np.abs(value.astype(float) - states[1][name])))
        for name, value in states[0].items()
        if value.tobytes() != states[1][name].tobytes()
    }
    return {
        "steps": summary["steps"],
        "stopped_after": stopped_after,
        "differs": sorted(differences),
        "largest_difference": max(differences.values(), default=0.0),
        "passed": stopped_after is not None and not differences,
    }


PARTS = {"device": check_device, "resume": check_resume}


def run_part(name: str, options: list[str], timeout: float) -> dict[str, Any]:
    """Return what a part found, from a process of its own; {"failed": reason} if it found nothing.

    This process never opens the device: a TPU belongs to one process at a time.
    """
    command = [sys.executable, __file__, "--part", name, *options]
    try:
        # pyrefly: ignore [bad-argument-type]
        result = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no result within {timeout:.0f} seconds"}
    if result.returncode:
        return {"failed": f"exit code {result.returncode}"}
    return json.loads(result.stdout.splitlines()[-1])


def why_not_pytorch(platform: str) -> str:
    """Return why PyTorch is not measured; "" if it is."""
    if platform != "gpu":
        return f"PyTorch is not measured: it is compared on CUDA devices, and these are {platform}."
    check = [sys.executable, "-c", "import torch; assert torch.cuda.is_available()"]
    if subprocess.run(check, capture_output=True, check=False).returncode:
        return "PyTorch is not measured: a PyTorch that sees a CUDA device is not installed."
    return ""


def measure(name: str, batch: int, options: list[str], sizes: Sizes, timeout: float) -> Any:
    """Return the result of a contestant, or {"failed": reason}."""
    if timeout <= 0:
        return {"failed": "no time was left"}
    arguments = [*options, f"--batch={batch}"]
    try:
        contestant = side_by_side.Contestant(
            __file__, name, arguments, dict(os.environ), timeout=timeout
        )
        contestant.run(1)
        rate, _ = contestant.run(2)
        steps = max(1, round(sizes.seconds * rate / batch))
        for _ in range(sizes.repetitions):
            contestant.measure(steps)
        contestant.close()
    except (RuntimeError, OSError) as error:
        return {"failed": str(error)}
    return contestant.result()


def measure_all(
    device: Mapping[str, Any], batches: list[int], options: list[str], sizes: Sizes, until: float
) -> list[dict[str, Any]]:
    """Return speed, TFLOP/s and shares of every contestant at every batch size."""
    model = dataclasses.replace(PRESETS["paper"].model, width=sizes.width)
    flop = training_flop(build_architecture(model, 1000, sizes.crop))
    without_pytorch = why_not_pytorch(device["platform"])
    if without_pytorch:
        print(without_pytorch, file=sys.stderr)
    rows = []
    for batch in batches:
        for name, (dtype, devices, _) in contestants(sizes).items():
            if devices > device["devices"] or (without_pytorch and "torch" in name.lower()):
                continue
            result = measure(name, batch, options, sizes, until - time.monotonic())
            row = {"contestant": name, "batch": batch, "devices": devices, **result}
            if "median" in result:
                rate = flop * result["median"] / 1e12
                product = device["product_tflop_per_second"][dtype]
                limit = peak(device["device_kind"], dtype)
                row["tflop_per_second"] = rate
                row["share_of_product"] = rate / devices / product
                row["peak_share"] = rate / devices / limit if limit else None
            rows.append(row)
            print(format_rates([row]).splitlines()[-1], file=sys.stderr)
    return rows


def format_rates(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the speeds."""
    rates = "images/s, median (lowest to highest) | TFLOP/s | of its product | of its peak"
    lines = [f"| batch | | {rates} | first step, s |", "|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: row["batch"]):
        if "failed" in row:
            measured = f"not measured: {row['failed']} | | | | "
        else:
            peak_share = row["peak_share"]
            measured = (
                f"{row['median']:,.1f} ({row['lowest']:,.1f} to {row['highest']:,.1f}) | "
                f"{row['tflop_per_second']:.3g} | {row['share_of_product']:.3f} | "
                f"{'not known' if peak_share is None else f'{peak_share:.3f}'} | "
                f"{row['first_step_seconds']:.1f}"
            )
        lines.append(f"| {row['batch']:,} | {row['contestant']} | {measured} |")
    return "\n".join(lines)


def format_device(device: Mapping[str, Any]) -> str:
    """Return the devices, and a Markdown table of the errors of gradients."""
    products = device["product_tflop_per_second"]
    lines = [
        f"{device['devices']} x {device['device_kind']}; matrix product: "
        + ", ".join(f"{rate:.3g} TFLOP/s {dtype}" for dtype, rate in products.items()),
        "",
        "| devices | precision | gradients: relative error against the CPU, largest | |",
        "|---|---|---|---|",
    ]
    verdicts = {True: "as expected", False: f"FAILED: above {TOLERANCE:g}", None: "not judged"}
    lines += [
        f"| {row['devices']} | {row['precision']} | {row['error']:.2g} in {row['worst']} | "
        f"{verdicts[row['passed']]} |"
        for row in device["gradients"]
    ]
    return "\n".join(lines)


def format_resume(resume: Mapping[str, Any]) -> str:
    """Return how the resumed run ended, in a sentence."""
    if "failed" in resume:
        return f"Resumed run: not compared: {resume['failed']}."
    start = f"Resumed run: {resume['steps']} steps, stopped after {resume['stopped_after']}"
    if resume["passed"]:
        return f"{start}: the same bits as the run that was not stopped."
    names = len(resume["differs"])
    return f"{start}: FAILED: {names} arrays differ, by at most {resume['largest_difference']:.2g}."


def run_all(args: argparse.Namespace, sizes: Sizes) -> int:
    """Run every part, print the tables, and return the exit code."""
    began = time.monotonic()
    until = began + 60 * args.minutes
    options = ["--smoke"] if args.smoke else []
    device = run_part("device", options, until - RESUME_SECONDS - began)
    if "failed" in device:
        print(f"Gradients and matrix products: {device['failed']}.")
        return 1
    print(format_device(device), flush=True)
    if device["platform"] == "cpu" and not args.smoke:
        print("There is no accelerator; to see that everything works use --smoke.")
        return 1
    batches = args.batch or list(sizes.batches)
    rates = measure_all(device, batches, options, sizes, until - RESUME_SECONDS)
    print(f"\n{format_rates(rates)}\n", flush=True)
    resume = run_part("resume", options, max(1.0, until - time.monotonic()))
    print(format_resume(resume))
    about = {"machine": side_by_side.machine(), "smoke": args.smoke}
    about |= {"device": device, "rates": rates, "resume": resume}
    about["seconds"] = round(time.monotonic() - began, 1)
    if args.json:
        args.json.write_text(json.dumps(about, indent=2) + "\n")
    passed = all(row["passed"] is not False for row in device["gradients"])
    return 0 if passed and resume.get("passed") else 1


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", help="batch sizes, the first one first")
    parser.add_argument("--minutes", type=float, default=7.5, help="for everything")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, also on a CPU")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=contestants(FULL), help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = SMOKE if args.smoke else FULL
    if args.smoke:
        os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # before jax is configured
    if args.worker:
        (args.batch,) = args.batch
        side_by_side.worker(lambda: contestants(sizes)[args.worker][2](args))
        return 0
    if args.part:
        with contextlib.redirect_stdout(sys.stderr):
            answer = PARTS[args.part](sizes)
        print(json.dumps(answer))
        return 0
    return run_all(args, sizes)


if __name__ == "__main__":
    sys.exit(main())
