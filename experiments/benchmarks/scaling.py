"""What AlexNet would do on more devices than there are here: traffic and time of a training step.

    python experiments/benchmarks/scaling.py --hardware h100
    python experiments/benchmarks/scaling.py --hardware k20 --devices-per-host 8 --global-batch 1024
    python experiments/benchmarks/scaling.py --hardware measured --utilization 1 --figure ''

N devices, b images each (`--per-device`; or one batch of `--global-batch`), three arrangements:

towers   N/2 shards x 2 towers, this package's mesh; a pair of devices shares 2 b images.
data     N shards, both towers on each device.
weird    "One weird trick" (Krizhevsky 2014), its scheme (a): convolutions by data on all N,
         fully connected layers by units on groups of K (all N, and `--groups`), each group on the
         b K images of all its devices, and by data over the N/K groups.

A ring of n moves S bytes as follows; each device sends, in messages that wait for each other,

all-gather, reduce-scatter   (n-1)/n S      n-1
all-reduce                   2 (n-1)/n S    2 (n-1)
exchange of two              S              1

    t = bytes sent / bandwidth + messages * latency

with S of a step of the two towers, in float32 values for each image of a pair of devices (2012's
network; `model/traffic.py`, which a test compares with the compiled program):

forward    all-gather  43,264 (into conv3), 9,216 (fc6), 4,096 (fc7);  all-reduce 1,000 (logits)
backward   all-reduce  43,264, 9,216, 4,096: whole, where a reduce-scatter would send half
and over N/2 shards the all-reduce of the gradients of what a device holds, 30.5 million.

"data" has only the last, of all 60,965,224 over N. "weird", for each image of a group: all-gathers
forward and reduce-scatters backward of 9,216 (fc6) and 4,096 (fc7), an all-reduce of the logits;
the gradients of the convolutions over N, and of 1/K of the rest over N/K.

A ring whose devices lie on several nodes goes at the links between those: what leaves a node is
dealt out over as many links as the ring has members there. Compute: 2 operations a multiply-add,
three passes (forward, gradients of weights, of inputs; none of the image) over flops x utilization.
Nothing overlaps: a step is compute + communication, as in this package's program, whose gradients
are summed in one all-reduce at its end. "Bound" is where communication takes longer than compute.
The ring's latency grows with n; trees, and rings along two axes of a torus, do not have that end.
"""

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from pathlib import Path

from alexnet_jax.model.architecture import TOWERS, Architecture, Dense, trace, weighted_rows
from alexnet_jax.model.partition import Collective, parameters_held, step_collectives
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

DEVICES = tuple(2**n for n in range(1, 13))
GB = 1e9


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What one device can do."""

    flops: float  # operations a second, at most
    bandwidth: float  # bytes a second to its neighbor in the same node, one way
    latency: float  # seconds a message; assumed, no maker states it
    node: int  # devices that `bandwidth` connects
    between: float  # bytes a second of a device's share of what leaves the node
    source: str


HARDWARE = {
    "gtx580": Hardware(
        1.581e12,
        8 * GB,
        10e-6,
        2,
        0.125 * GB,
        "NVIDIA GTX 580: 1.581 Tflop/s float32; PCIe 2.0 x16: 8 GB/s; 1 Gbit/s Ethernet",
    ),
    "k20": Hardware(
        3.52e12,
        8 * GB,
        10e-6,
        8,
        0.85 * GB,
        "NVIDIA K20 data sheet: 3.52 Tflop/s float32; PCIe 2.0 x16: 8 GB/s; InfiniBand FDR "
        "(54.5 Gbit/s) shared by the 8 devices of a node",
    ),
    "h100": Hardware(
        494.7e12,
        450 * GB,
        5e-6,
        8,
        50 * GB,
        "NVIDIA H100 SXM5 data sheet: 494.7 Tflop/s TF32, dense; NVLink 4: 450 GB/s each way; a "
        "400 Gbit/s adapter a device",
    ),
    "tpu-v5e": Hardware(
        197e12,
        100 * GB,
        1e-6,
        256,
        3.125 * GB,
        "Google Cloud, TPU v5e: 197 Tflop/s bfloat16; 400 GB/s over 4 ports, both ways: 50 GB/s "
        "out of each of an axis's 2; 6.4 Tbit/s leave a pod of 256",
    ),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A step on some devices."""

    name: str
    devices: int
    images: int  # of the whole batch
    traffic: tuple[Collective, ...]


def towers(architecture: Architecture, devices: int, images: int) -> Plan:
    """Return the mesh of this package, two towers."""
    shards = devices // TOWERS
    return Plan("towers", devices, images, step_collectives(architecture, images, shards, TOWERS))


def data(architecture: Architecture, devices: int, images: int) -> Plan:
    """Return the mesh of this package, both towers on each device."""
    return Plan("data", devices, images, step_collectives(architecture, images, devices, 1))


def weird(architecture: Architecture, devices: int, images: int, group: int) -> Plan:
    """Return One weird trick's hybrid; `group` devices share the fully connected layers."""
    name = "weird" if group == devices else f"weird, groups of {group}"
    groups, rows = devices // group, {row.name: row for row in trace(architecture)}
    held, found = parameters_held(architecture, 1), []

    def add(kind, what: str, over: int, stride: int, values: int) -> None:
        if over > 1:
            found.append(Collective(kind, what, over, stride, values))

    for layer in architecture.layers:
        if isinstance(layer, Dense) and layer.sees == "rows":
            add("all-reduce", layer.name, group, 1, images // groups * layer.features)
        elif isinstance(layer, Dense):
            entering = images // groups * rows[layer.name].kernel_shape[0]
            add("all-gather", layer.name, group, 1, entering)
            add("reduce-scatter", layer.name, group, 1, entering)
    units = sum(held[layer.name] for layer in architecture.layers if isinstance(layer, Dense))
    add("all-reduce", "gradients of convolutions", devices, 1, sum(held.values()) - units)
    add("all-reduce", "gradients of units", groups, group, units // group)
    return Plan(name, devices, images, tuple(found))


def plans(architecture: Architecture, devices: int, images: int, groups: int) -> Iterator[Plan]:
    """Yield every arrangement of so many devices that deals the images out evenly."""
    if images % devices:
        return
    yield towers(architecture, devices, images)
    yield data(architecture, devices, images)
    yield weird(architecture, devices, images, devices)
    if groups < devices:
        yield weird(architecture, devices, images, groups)


def operations(architecture: Architecture) -> int:
    """Return the operations of one image in one training step."""
    rows = weighted_rows(architecture)
    return 2 * (3 * sum(row.multiply_adds for row in rows) - rows[0].multiply_adds)


def seconds(one: Collective, hardware: Hardware) -> float:
    """Return how long a ring takes."""
    bandwidth = hardware.bandwidth
    if one.devices * one.stride > hardware.node:
        members = max(1, hardware.node // one.stride)
        bandwidth = min(bandwidth, hardware.between * members)
    return one.sent / bandwidth + one.hops * hardware.latency


@dataclasses.dataclass(frozen=True)
class Step:
    """What a plan costs."""

    plan: Plan
    sent: float  # bytes that each device sends
    compute: float  # seconds
    communication: float  # seconds
    host_images: float  # images a second that each host has to make ready
    host_bytes: float  # of them, as uint8 crops

    @property
    def rate(self) -> float:
        """Images a second, of all devices together."""
        return self.plan.images / (self.compute + self.communication)


def cost(
    plan: Plan, architecture: Architecture, hardware: Hardware, asked: argparse.Namespace
) -> Step:
    """Return what a plan costs on that hardware."""
    compute = plan.images / plan.devices * operations(architecture)
    compute /= hardware.flops * asked.utilization
    communication = sum(seconds(one, hardware) for one in plan.traffic)
    hosts = math.ceil(plan.devices / asked.devices_per_host)
    images = plan.images / (compute + communication) / hosts
    return Step(
        plan,
        sum(one.sent for one in plan.traffic),
        compute,
        communication,
        images,
        images * architecture.crop**2 * 3,
    )


def measured(images: int) -> Hardware:
    """Time this machine: training steps of `images` images on one device, sums over two."""
    import side_by_side  # which lies beside this file

    benchmark = str(Path(__file__).with_name("step.py"))
    names, arguments = ["ours, 1 device", "ours, 2 devices"], [f"--batch={images}"]
    tuned = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    rates = side_by_side.compare(benchmark, names, arguments, 3, 2, tuned)
    one, two = (rates[name]["median"] for name in names)
    bandwidth, latency = ring_of_two()
    # The one device has all the cores; of two, each has half.
    flops = one * operations(build_architecture(PRESETS["paper"].model, 1000, 224)) / 2
    where = side_by_side.machine()
    source = (
        f"measured: each half of {where['cores']} cores of {where['processor']}, jax "
        f"{where['jax']}; {images} images a step: one device {one:.1f} images/s, two {two:.1f}"
    )
    return Hardware(flops, bandwidth, latency, 2, bandwidth, source)


def ring_of_two() -> tuple[float, float]:
    """Return bytes a second and seconds a message of an all-reduce over two emulated devices."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_num_cpu_devices", 2)
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = jax.P("x"), jax.P()

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=split, out_specs=whole)
    def total(x):
        return jax.lax.psum(x, "x")

    def best(values: int) -> float:
        x = jax.device_put(jnp.zeros(2 * values), jax.NamedSharding(mesh, split))
        times = []
        for _ in range(10):
            began = time.perf_counter()
            total(x).block_until_ready()
            times.append(time.perf_counter() - began)
        return min(times)

    return 4 * 2**24 / best(2**24), best(1) / 2


def steps(
    architecture: Architecture, hardware: Hardware, asked: argparse.Namespace, batch: int | None
) -> dict[str, list[Step]]:
    """Return by arrangement what each number of devices costs; `batch` None: so many a device."""
    found: dict[str, list[Step]] = {}
    for devices in DEVICES:
        images = batch or devices * asked.per_device
        for plan in plans(architecture, devices, images, asked.groups):
            step = cost(plan, architecture, hardware, asked)
            found.setdefault(plan.name, []).append(step)
    return found


def print_table(name: str, found: list[Step]) -> None:
    """Print an arrangement, a row for each number of devices."""
    print(f"\n{name}\n")
    heads = ("devices", "batch", "sent by each, MB", "compute, ms", "communication, ms")
    heads += ("images/s", "of it computing", "each host: images/s", "MB/s")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for step in found:
        share = step.compute / (step.compute + step.communication)
        bound = " bound" if step.communication > step.compute else ""
        print(
            f"| {step.plan.devices:,} | {step.plan.images:,} | {step.sent / 1e6:,.1f} "
            f"| {step.compute * 1e3:,.2f} | {step.communication * 1e3:,.2f}{bound} "
            f"| {step.rate:,.0f} | {share:.0%} | {step.host_images:,.0f} "
            f"| {step.host_bytes / 1e6:,.0f} |"
        )
    bound = [step.plan.devices for step in found if step.communication > step.compute]
    print(f"\nBound by communication: {', '.join(f'{n:,}' for n in bound) or 'nowhere'}.")


def draw(panels: dict[str, dict[str, list[Step]]], title: str, path: Path) -> None:
    """Draw time against devices, a panel for each way to choose the batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.6), sharey=True, squeeze=False)
    for axis, (name, found) in zip(axes[0], panels.items(), strict=True):
        longest = max(found.values(), key=len)
        axis.loglog(
            [step.plan.devices for step in longest],
            [step.compute * 1e3 for step in longest],
            "k--",
            label="compute",
        )
        for plan, row in found.items():
            axis.loglog(
                [step.plan.devices for step in row],
                [step.communication * 1e3 for step in row],
                "o-",
                markersize=3,
                label=plan,
            )
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("devices")
        axis.set_xscale("log", base=2)
        axis.set_xticks(DEVICES, [f"{n:,}" for n in DEVICES], rotation=45, fontsize=8)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("ms a step; solid: communication")
    axes[0][0].legend(fontsize=8)
    figure.suptitle(title, fontsize=9, wrap=True)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hardware", choices=[*HARDWARE, "measured"], default="h100")
    for field in dataclasses.fields(Hardware)[:-1]:
        parser.add_argument(f"--{field.name}", type=float, help="in place of the hardware's")
    parser.add_argument("--utilization", type=float, default=0.3, help="share of flops reached")
    parser.add_argument("--model", choices=list(PRESETS), default="paper")
    parser.add_argument("--per-device", type=int, default=64, help="images a device")
    parser.add_argument("--global-batch", type=int, default=8192, help="images, where it is fixed")
    parser.add_argument("--groups", type=int, default=8, help="devices that share the units")
    parser.add_argument("--devices-per-host", type=int, default=8)
    parser.add_argument("--figure", default="experiments/figures/scaling.png", help="'': none")
    return parser.parse_args()


def main() -> None:
    """Print the tables, draw the figure."""
    asked = arguments()
    hardware = (
        measured(2 * asked.per_device) if asked.hardware == "measured" else HARDWARE[asked.hardware]
    )
    fields = [field.name for field in dataclasses.fields(Hardware)]
    given = {name: value for name in fields if (value := getattr(asked, name, None)) is not None}
    hardware = dataclasses.replace(hardware, **given)
    config = PRESETS[asked.model]
    architecture = build_architecture(config.model, 1000, config.data.crop)
    print(f"{hardware.source}.", *(f"{name} {value:g}" for name, value in given.items()))
    print(
        f"{asked.model}: {operations(architecture) / 1e9:.2f} Gop an image; per device "
        f"{hardware.flops * asked.utilization / 1e12:,.3g} Tflop/s (utilization "
        f"{asked.utilization:g}), {hardware.bandwidth / GB:g} GB/s in a node of {hardware.node:g}, "
        f"{hardware.between / GB:g} out of it, {hardware.latency * 1e6:g} us a message."
    )
    panels = {
        f"{asked.per_device} images a device": steps(architecture, hardware, asked, None),
        f"a batch of {asked.global_batch:,}": steps(
            architecture, hardware, asked, asked.global_batch
        ),
    }
    for panel, found in panels.items():
        for plan, row in found.items():
            print_table(f"{panel}: {plan}", row)
    if asked.figure:
        draw(panels, f"{asked.model}: {hardware.source}", Path(asked.figure))


if __name__ == "__main__":
    main()
