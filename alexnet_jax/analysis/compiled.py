"""What the text of a compiled program says: its collectives, and for accelerators their work.

`partition.step_collectives` derives the collectives from the layers; this module reads them from
the text of the program that XLA compiled. Both leave out scalars (a loss, a flag).
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import invalid
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.partition import Collective, Kind

MAX_NAMED = 6  # collectives that a line names
WIDTHS = {"f32": 4, "bf16": 2}  # bytes of a number
KINDS: dict[str, Kind] = {
    "all-gather": "all-gather",
    "all-reduce": "all-reduce",
    "reduce-scatter": "reduce-scatter",
    "all-to-all": "all-to-all",
    "collective-permute": "halo exchange",
}
COLLECTIVE = re.compile(
    rf" = (?P<result>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\((?P<rest>.*)$",
    re.MULTILINE,
)
ARRAY = re.compile(r"(f32|bf16)\[([\d,]+)\]")
# Groups of devices: as lists, as a reshaped and transposed range, or as axes of a mesh.
GROUPS = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}")
RANGE = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(
    r"replica_groups=mesh\[((?:'\w+'=\d+,?)+)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{((?:'\w+',?)+)\}"
)
# An instruction: its name, result, operation and operands.
INSTRUCTION = re.compile(
    r"^  (?:ROOT )?(%[\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*?)\)(?:, |$)", re.MULTILINE
)
ANY_ARRAY = re.compile(r"\b(pred|[a-z]+?(\d+)(?:e\w+)?)\[([\d,]*)\]")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# A scatter adds with atomic operations, in no fixed order, unless its indices are unique.
SCATTER = re.compile(r" = \(?(?:f|bf)\d+\[.* scatter\(.*$", re.MULTILINE)
# Top-level instructions for which a GPU starts no kernel.
NO_KERNEL = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id"),
    *("replica-id", "after-all"),
}


@dataclasses.dataclass(frozen=True)
class Traffic:
    """The collectives of one kind between equally placed devices."""

    kind: str
    devices: int
    stride: int  # places apart in the mesh
    number: int
    values: int
    bytes: int

    @property
    def title(self) -> str:
        """The kind and its devices in words."""
        return _title(self.kind, self.devices, self.stride)


@dataclasses.dataclass(frozen=True)
class Kernels:
    """What a GPU does for a program: kernels started, bytes read and written."""

    number: int
    bytes: int


def forward(architecture: Architecture, mesh: Mesh, images: int) -> str:
    """Return the text of the compiled program that computes the logits of `images` images.

    It is compiled from shapes; no array is allocated.
    """
    variables = jax.eval_shape(towers.initializer(architecture), jax.random.key(0))
    sharded = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        variables,
        towers.state_shardings(variables, architecture, mesh),
    )
    rows = towers.batch_sharding(mesh)
    shape = (images, architecture.crop, architecture.crop, 3)
    batch = jax.ShapeDtypeStruct(shape, np.float32, sharding=rows)
    apply: Any = towers.jit(towers.forward(architecture, mesh), mesh, out_shardings=rows)
    return apply.lower(sharded, batch).compile().as_text()


def collectives(program: str) -> tuple[Collective, ...]:
    """Return the collectives of a compiled program, in the order of its text.

    `what` is the shape of the result, or the number of arrays in it.

    Raises:
        ValueError: the groups of devices have a notation that this module cannot read.
    """
    return tuple(collective for collective, _ in _parse(program))


def program_traffic(program: str) -> tuple[Traffic, ...]:
    """Return the collectives of a compiled program by kind and devices, in its own data types."""
    return _traffic(_parse(program))


def table_traffic(derived: Iterable[Collective]) -> tuple[Traffic, ...]:
    """Return derived collectives by kind and devices, in float32."""
    return _traffic((collective, collective.bytes) for collective in derived)


def estimated_cycles(program: str) -> int:
    """Return the TPU compiler's estimate: the sum over the top-level instructions.

    It counts neither waiting for collectives nor the start of the program, and no loop, reversal or
    select-and-scatter (the gradient of `reduce_window`), for which the compiler has no estimate.
    """
    return sum(int(found[1]) for line in _entry(program) if (found := CYCLES.search(line)))


def kernels(program: str) -> Kernels:
    """Return the kernels of a GPU program, and the bytes of their operands and results."""
    number = moved = 0
    sizes: dict[str, int] = {}
    for line in _entry(program):
        if not (instruction := INSTRUCTION.match(line)):
            continue
        name, result, operation, operands = instruction.groups()
        sizes[name] = size = _bytes(result)
        if operation in NO_KERNEL:
            continue
        read = sum(sizes.get(operand, 0) for operand in re.findall(r"%[\w.-]+", operands))
        # The result of a `-start` has its operands in it, and `-done` is not a kernel.
        number += not operation.endswith("-done")
        moved += 0 if operation.endswith("-done") else read
        moved += 0 if operation.endswith("-start") else size
    return Kernels(number, moved)


def atomic_scatters(program: str) -> int:
    """Return how many scatters of a GPU program add floats in no fixed order."""
    return sum("unique_indices=true" not in line for line in SCATTER.findall(program))


def _entry(program: str) -> list[str]:
    """Return the lines of the entry computation."""
    lines = program.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("ENTRY"))
    return lines[first + 1 : lines.index("}", first)]


def _bytes(shapes: str) -> int:
    """Return the size of the arrays in the type of a result."""
    total = 0
    for kind, bits, dims in ANY_ARRAY.findall(shapes):
        size = 1 if kind == "pred" else max(1, int(bits) // 8)
        total += size * math.prod(int(side) for side in dims.split(",") if side)
    return total


def _parse(program: str) -> Iterator[tuple[Collective, int]]:
    """Yield the collectives of a compiled program and their bytes."""
    for match in COLLECTIVE.finditer(program):
        arrays = [(kind, _numbers(shape)) for kind, shape in ARRAY.findall(match["result"])]
        # Operands come before results; those of an all-reduce only from XLA of jax 0.12 on.
        if match["start"] and (match["kind"] != "all-reduce" or match["result"].startswith("((")):
            arrays = arrays[len(arrays) // 2 :]
        if not arrays:
            continue
        group = _group(match["rest"])
        if len(group) > 1:
            what = str(list(arrays[0][1])) if len(arrays) == 1 else f"{len(arrays)} arrays"
            counts = [(kind, math.prod(shape)) for kind, shape in arrays]
            # Of a scatter each device receives its part.
            parts = len(group) if match["kind"] == "reduce-scatter" else 1
            values = parts * sum(count for _, count in counts)
            size = parts * sum(WIDTHS[kind] * count for kind, count in counts)
            stride = abs(group[1] - group[0])
            yield Collective(KINDS[match["kind"]], what, len(group), stride, values), size


def _traffic(collectives: Iterable[tuple[Collective, int]]) -> tuple[Traffic, ...]:
    groups: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
    for collective, size in collectives:
        key = collective.kind, collective.devices, collective.stride
        groups.setdefault(key, []).append((collective.values, size))
    return tuple(
        Traffic(*key, len(members), sum(v for v, _ in members), sum(size for _, size in members))
        for key, members in groups.items()
    )


def compare(derived: Iterable[Collective], program: Iterable[Collective]) -> str:
    """Return a text with the collectives of both sources for each kind and group of devices."""
    sources = {"the table": list(derived), "the program": list(program)}
    kinds = dict.fromkeys(_kind(collective) for side in sources.values() for collective in side)
    lines = []
    for kind in kinds:
        lines.append(kind)
        for name, side in sources.items():
            same_kind = [collective for collective in side if _kind(collective) == kind]
            lines.append(f"  {name:11}  {_summary(same_kind)}")
    return "\n".join(lines)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _group(rest: str) -> tuple[int, ...]:
    """Return the first of the groups."""
    if written := GROUPS.search(rest):
        return _numbers(written[1])
    if ranged := RANGE.search(rest):
        shape, dims = _numbers(ranged[1]), _numbers(ranged[2])
        order = _numbers(ranged[3]) if ranged[3] else None
        groups = np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)
        return tuple(groups[0].tolist())
    if meshed := MESH.search(rest):
        axes = re.findall(r"'(\w+)'=(\d+)", meshed[1])
        over = re.findall(r"\w+", meshed[4])
        dims = [int(size) for _, size in axes]
        devices = np.arange(math.prod(dims))
        if meshed[2]:
            order = _numbers(meshed[3]) if meshed[3] else None
            devices = devices.reshape(_numbers(meshed[2])).transpose(order)
        first = tuple(slice(None) if name in over else 0 for name, _ in axes)
        return tuple(devices.reshape(dims)[first].ravel().tolist())
    rule = "must name groups of devices in a known notation"
    raise invalid(
        "program", rest[-300:], rule, "add the notation to alexnet_jax/analysis/compiled.py"
    )


def _kind(collective: Collective) -> str:
    return _title(collective.kind, collective.devices, collective.stride)


def _title(kind: str, devices: int, stride: int) -> str:
    apart = f", {stride} apart" if stride > 1 else ""
    return f"{kind}, {devices} devices{apart}"


def _summary(collectives: Sequence[Collective]) -> str:
    if not collectives:
        return "nothing"
    values = sum(collective.values for collective in collectives)
    size = sum(collective.bytes for collective in collectives) / 2**20
    total = f"{values:,} values, {size:,.1f} MiB"
    if len(collectives) > MAX_NAMED:
        return f"{len(collectives)} times = {total}"
    return f"{' + '.join(collective.what for collective in collectives)} = {total}"
