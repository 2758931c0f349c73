"""What devices send each other according to the compiled program, to hold against the table.

`traffic.py` says what has to cross; XLA's text says what does. A number alone (a loss, a flag) is
left aside here as it is there.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.partition import Collective, Kind

FEW = 6  # things that are named in a line
KINDS: dict[str, Kind] = {
    "all-gather": "all-gather",
    "all-reduce": "all-reduce",
    "reduce-scatter": "reduce-scatter",
    "all-to-all": "all-to-all",
    "collective-permute": "exchange",
}
COLLECTIVE = re.compile(
    rf" = (?P<result>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\((?P<rest>.*)$",
    re.MULTILINE,
)
ARRAY = re.compile(r"(?:f32|bf16)\[([\d,]+)\]")
# Groups of devices: written out, as a reshaped and transposed range, or as axes of a mesh.
GROUPS = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}")
RANGE = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(r"replica_groups=mesh\[((?:'\w+'=\d+,?)+)\] \{((?:'\w+',?)+)\}")


def forward(architecture: Architecture, mesh: Mesh, images: int) -> str:
    """Return the program that computes the logits of `images` images, as XLA compiled it.

    Compiled from shapes alone: no array is made.
    """
    variables = jax.eval_shape(towers.initializer(architecture), jax.random.key(0))
    laid = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        variables,
        towers.state_shardings(variables, architecture, mesh),
    )
    rows = towers.batch_sharding(mesh)
    shape = (images, architecture.crop, architecture.crop, 3)
    batch = jax.ShapeDtypeStruct(shape, np.float32, sharding=rows)
    apply: Any = towers.jit(towers.forward(architecture, mesh), mesh, out_shardings=rows)
    return apply.lower(laid, batch).compile().as_text()


def collectives(program: str) -> tuple[Collective, ...]:
    """Return what devices do together in a compiled program, in the order of its text.

    `what` is the shape of what arrives, or how many arrays arrive together.

    Raises:
        ValueError: it is written in a way that is not known here.
    """
    found = []
    for match in COLLECTIVE.finditer(program):
        shapes = [_numbers(shape) for shape in ARRAY.findall(match["result"])]
        if match["start"] and match["kind"] != "all-reduce":
            shapes = shapes[len(shapes) // 2 :]  # what is sent stands before what arrives
        if not shapes:
            continue
        group = _group(match["rest"])
        if len(group) > 1:
            what = str(list(shapes[0])) if len(shapes) == 1 else f"{len(shapes)} arrays"
            values, stride = sum(map(math.prod, shapes)), abs(group[1] - group[0])
            if match["kind"] == "reduce-scatter":
                values *= len(group)  # each receives its part
            found.append(Collective(KINDS[match["kind"]], what, len(group), stride, values))
    return tuple(found)


def beside(architecture: Iterable[Collective], program: Iterable[Collective]) -> str:
    """Return both as text: for each kind and group of devices, what and how many values."""
    sides = {"the table": list(architecture), "the program": list(program)}
    kinds = dict.fromkeys(_kind(one) for side in sides.values() for one in side)
    lines = []
    for kind in kinds:
        lines.append(kind)
        for name, side in sides.items():
            lines.append(f"  {name:11}  {_sum([one for one in side if _kind(one) == kind])}")
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
        over = re.findall(r"\w+", meshed[2])
        dims = [int(size) for _, size in axes]
        first = tuple(slice(None) if name in over else 0 for name, _ in axes)
        return tuple(np.arange(math.prod(dims)).reshape(dims)[first].ravel().tolist())
    raise ValueError(f"{rest[-300:]}: no known way to write groups of devices; add it here.")


def _kind(one: Collective) -> str:
    apart = f", {one.stride} apart" if one.stride > 1 else ""
    return f"{one.kind}, {one.devices} devices{apart}"


def _sum(side: Sequence[Collective]) -> str:
    if not side:
        return "nothing"
    total = f"{sum(one.values for one in side):,} values"
    total += f", {sum(one.bytes for one in side) / 2**20:,.1f} MiB"
    if len(side) > FEW:
        return f"{len(side)} times = {total}"
    return f"{' + '.join(one.what for one in side)} = {total}"
