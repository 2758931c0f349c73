"""Predict the traffic and the time of a training step of AlexNet on up to 4,096 devices.

    python experiments/benchmarks/scaling.py --hardware h100
    python experiments/benchmarks/scaling.py --hardware k20 --devices-per-host 8 --global-batch 1024
    python experiments/benchmarks/scaling.py --hardware measured --utilization 1 --figure ''

N devices, b images each (`--per-device`; or one batch of `--global-batch`), three arrangements:

towers   N/2 shards x 2 towers, this package's mesh; a pair of devices shares 2 b images.
data     N shards, both towers on each device.
weird    "One weird trick" (Krizhevsky 2014), its scheme (a): convolutions by data on all N,
         fully connected layers by units on groups of K (all N, and `--groups`), each group on the
         b K images of all its devices, and by data over the N/K groups.

For a collective of S bytes in a ring of n, each device sends so many bytes in so many sequential
messages:

all-gather, reduce-scatter   (n-1)/n S      n-1
all-reduce                   2 (n-1)/n S    2 (n-1)
halo exchange of two         S              1

    t = bytes sent / bandwidth + messages * latency

For the two towers of 2012's network S is, in float32 values for each image of a pair of devices
(`model/partition.py`; a test compares it with the compiled program):

forward    all-gather  43,264 (into conv3), 9,216 (fc6), 4,096 (fc7);  all-reduce 1,000 (logits)
backward   all-reduce  43,264, 9,216, 4,096: whole, where a reduce-scatter would send half
and over N/2 shards the all-reduce of the gradients of what a device holds, 30.5 million.

"data" has only the last, of all 60,965,224 over N. "weird", for each image of a group: all-gathers
forward and reduce-scatters backward of 9,216 (fc6) and 4,096 (fc7), an all-reduce of the logits;
the gradients of the convolutions over N, and of 1/K of the rest over N/K.

A ring over several nodes has the speed of the links between them, as many links for each node as
the ring has members there. Compute: 2 operations a multiply-add, three passes (forward, gradients
of weights, of inputs; none of the image) over flops x utilization. Nothing overlaps: a step is
compute + communication, as in this package's program, which sums its gradients in one all-reduce at
the end. "Bound": communication takes longer than compute. The latency of a ring grows with n; that
of trees and of rings along two axes of a torus grows more slowly.
"""

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from pathlib import Path

from alexnet_jax.model.architecture import TOWERS, Architecture, Dense, training_flop
from alexnet_jax.model.partition import Collective, Kind, partition_layers, step_collectives
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

DEVICES = tuple(2**n for n in range(1, 13))
GB = 1e9


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Speed of one device and of its links."""

    flops: float  # operations a second, at most
    bandwidth: float  # bytes a second to its neighbor in the same node, one way
    latency: float  # seconds a message; an assumption, as no manufacturer states it
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
    """A training step on some devices."""

    name: str
    devices: int
    images: int  # of the whole batch
    traffic: tuple[Collective, ...]


def towers(architecture: Architecture, devices: int, images: int) -> Plan:
    """Return the plan of this package's mesh with two towers."""
    shards = devices // TOWERS
    return Plan("towers", devices, images, step_collectives(architecture, images, shards, TOWERS))


def data(architecture: Architecture, devices: int, images: int) -> Plan:
    """Return the plan of this package's mesh with both towers on each device."""
    return Plan("data", devices, images, step_collectives(architecture, images, devices, 1))


def weird(architecture: Architecture, devices: int, images: int, group: int) -> Plan:
    """Return One weird trick's hybrid; `group` devices share the fully connected layers."""
    name = "weird" if group == devices else f"weird, groups of {group}"
    groups = devices // group
    collectives: list[Collective] = []

    def add(kind: Kind, what: str, over: int, stride: int, values: int) -> None:
        if over > 1:
            collectives.append(Collective(kind, what, over, stride, values))

    partitions = partition_layers(architecture, 1)
    dense = [part for part in partitions if isinstance(part.layer, Dense)]
    for part in dense:
        if part.layer.sees == "row-split":
            add("all-reduce", part.name, group, 1, images // groups * part.layer.features)
        else:
            add("all-gather", part.name, group, 1, images // groups * part.inputs)
            add("reduce-scatter", part.name, group, 1, images // groups * part.inputs)
    units = sum(part.parameters for part in dense)
    convolutions = sum(part.parameters for part in partitions) - units
    add("all-reduce", "gradients of convolutions", devices, 1, convolutions)
    add("all-reduce", "gradients of units", groups, group, units // group)
    return Plan(name, devices, images, tuple(collectives))


def plans(architecture: Architecture, devices: int, images: int, groups: int) -> Iterator[Plan]:
    """Yield every plan of `devices` devices if the images divide evenly over them."""
    if images % devices:
        return
    yield towers(architecture, devices, images)
    yield data(architecture, devices, images)
    yield weird(architecture, devices, images, devices)
    if groups < devices:
        yield weird(architecture, devices, images, groups)


def seconds(collective: Collective, hardware: Hardware) -> float:
    """Return the time of a collective in a ring."""
    bandwidth = hardware.bandwidth
    if collective.devices * collective.stride > hardware.node:
        members = max(1, hardware.node // collective.stride)
        bandwidth = min(bandwidth, hardware.between * members)
    return collective.sent / bandwidth + collective.hops * hardware.latency


@dataclasses.dataclass(frozen=True)
class Step:
    """Predicted cost of a plan."""

    plan: Plan
    sent: float  # bytes that each device sends
    compute: float  # seconds
    communication: float  # seconds
    host_images: float  # images a second that each host must prepare
    host_bytes: float  # of them, as uint8 crops

    @property
    def rate(self) -> float:
        """Images a second, of all devices together."""
        return self.plan.images / (self.compute + self.communication)


def cost(
    plan: Plan, architecture: Architecture, hardware: Hardware, args: argparse.Namespace
) -> Step:
    """Return the cost of a plan on the hardware."""
    compute = plan.images / plan.devices * training_flop(architecture)
    compute /= hardware.flops * args.utilization
    communication = sum(seconds(collective, hardware) for collective in plan.traffic)
    hosts = math.ceil(plan.devices / args.devices_per_host)
    images = plan.images / (compute + communication) / hosts
    return Step(
        plan,
        sum(collective.sent for collective in plan.traffic),
        compute,
        communication,
        images,
        images * architecture.crop**2 * 3,
    )


def measured(images: int) -> Hardware:
    """Time this machine: training steps of `images` images on one device, sums over two."""
    import side_by_side  # in the same folder

    benchmark = str(Path(__file__).with_name("step.py"))
    names = ["alexnet_jax, 1 device", "alexnet_jax, 2 devices"]
    arguments = [f"--batch={images}"]
    tuned = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    rates = side_by_side.compare(benchmark, names, arguments, 3, 2, tuned)
    one, two = (rates[name]["median"] for name in names)
    bandwidth, latency = ring_of_two()
    # The one device has all the cores; of two, each has half.
    flops = one * training_flop(build_architecture(PRESETS["paper"].model, 1000, 224)) / 2
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
    architecture: Architecture, hardware: Hardware, args: argparse.Namespace, batch: int | None
) -> dict[str, list[Step]]:
    """Return by arrangement what each number of devices costs; `batch` None: so many a device."""
    by_plan: dict[str, list[Step]] = {}
    for devices in DEVICES:
        images = batch or devices * args.per_device
        for plan in plans(architecture, devices, images, args.groups):
            step = cost(plan, architecture, hardware, args)
            by_plan.setdefault(plan.name, []).append(step)
    return by_plan


def print_table(name: str, rows: list[Step]) -> None:
    """Print an arrangement, a row for each number of devices."""
    print(f"\n{name}\n")
    heads = ("devices", "batch", "sent by each, MB", "compute, ms", "communication, ms")
    heads += ("images/s", "of it computing", "each host: images/s", "MB/s")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for step in rows:
        share = step.compute / (step.compute + step.communication)
        bound = " bound" if step.communication > step.compute else ""
        print(
            f"| {step.plan.devices:,} | {step.plan.images:,} | {step.sent / 1e6:,.1f} "
            f"| {step.compute * 1e3:,.2f} | {step.communication * 1e3:,.2f}{bound} "
            f"| {step.rate:,.0f} | {share:.0%} | {step.host_images:,.0f} "
            f"| {step.host_bytes / 1e6:,.0f} |"
        )
    bound = [step.plan.devices for step in rows if step.communication > step.compute]
    print(f"\nBound by communication: {', '.join(f'{n:,}' for n in bound) or 'nowhere'}.")


def draw(panels: dict[str, dict[str, list[Step]]], title: str, path: Path) -> None:
    """Draw time against devices, a panel for each way to choose the batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.6), sharey=True, squeeze=False)
    for axis, (name, by_plan) in zip(axes[0], panels.items(), strict=True):
        longest = max(by_plan.values(), key=len)
        axis.loglog(
            [step.plan.devices for step in longest],
            [step.compute * 1e3 for step in longest],
            "k--",
            label="compute",
        )
        for plan, row in by_plan.items():
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
    """Parse the arguments."""
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
    args = arguments()
    hardware = (
        measured(2 * args.per_device) if args.hardware == "measured" else HARDWARE[args.hardware]
    )
    fields = [field.name for field in dataclasses.fields(Hardware)]
    given = {name: value for name in fields if (value := getattr(args, name, None)) is not None}
    hardware = dataclasses.replace(hardware, **given)
    config = PRESETS[args.model]
    architecture = build_architecture(config.model, 1000, config.data.crop)
    print(f"{hardware.source}.", *(f"{name} {value:g}" for name, value in given.items()))
    print(
        f"{args.model}: {training_flop(architecture) / 1e9:.2f} Gop an image; per device "
        f"{hardware.flops * args.utilization / 1e12:,.3g} Tflop/s (utilization "
        f"{args.utilization:g}), {hardware.bandwidth / GB:g} GB/s in a node of {hardware.node:g}, "
        f"{hardware.between / GB:g} out of it, {hardware.latency * 1e6:g} us a message."
    )
    panels = {
        f"{args.per_device} images a device": steps(architecture, hardware, args, None),
        f"a batch of {args.global_batch:,}": steps(architecture, hardware, args, args.global_batch),
    }
    for panel, by_plan in panels.items():
        for plan, row in by_plan.items():
            print_table(f"{panel}: {plan}", row)
    if args.figure:
        draw(panels, f"{args.model}: {hardware.source}", Path(args.figure))


if __name__ == "__main__":
    main()
