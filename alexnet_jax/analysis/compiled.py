"""The collectives of a compiled program, to compare with those that the layers need.

`partition.step_collectives` derives the collectives from the layers; this module reads them from
the text of the program that XLA compiled. Both leave out scalars (a loss, a flag).
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import invalid
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.partition import Collective, Kind

MAX_NAMED = 6  # collectives that a line names
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
ARRAY = re.compile(r"(?:f32|bf16)\[([\d,]+)\]")
# Groups of devices: as lists, as a reshaped and transposed range, or as axes of a mesh.
GROUPS = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}")
RANGE = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(r"replica_groups=mesh\[((?:'\w+'=\d+,?)+)\] \{((?:'\w+',?)+)\}")


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
    parsed = []
    for match in COLLECTIVE.finditer(program):
        shapes = [_numbers(shape) for shape in ARRAY.findall(match["result"])]
        if match["start"] and match["kind"] != "all-reduce":
            shapes = shapes[len(shapes) // 2 :]  # operands come before results
        if not shapes:
            continue
        group = _group(match["rest"])
        if len(group) > 1:
            what = str(list(shapes[0])) if len(shapes) == 1 else f"{len(shapes)} arrays"
            values, stride = sum(map(math.prod, shapes)), abs(group[1] - group[0])
            if match["kind"] == "reduce-scatter":
                values *= len(group)  # each device receives its part
            parsed.append(Collective(KINDS[match["kind"]], what, len(group), stride, values))
    return tuple(parsed)


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
        over = re.findall(r"\w+", meshed[2])
        dims = [int(size) for _, size in axes]
        first = tuple(slice(None) if name in over else 0 for name, _ in axes)
        return tuple(np.arange(math.prod(dims)).reshape(dims)[first].ravel().tolist())
    rule = "must name groups of devices in a known notation"
    raise invalid(
        "program", rest[-300:], rule, "add the notation to alexnet_jax/analysis/compiled.py"
    )


def _kind(collective: Collective) -> str:
    apart = f", {collective.stride} apart" if collective.stride > 1 else ""
    return f"{collective.kind}, {collective.devices} devices{apart}"


def _summary(collectives: Sequence[Collective]) -> str:
    if not collectives:
        return "nothing"
    values = sum(collective.values for collective in collectives)
    size = sum(collective.bytes for collective in collectives) / 2**20
    total = f"{values:,} values, {size:,.1f} MiB"
    if len(collectives) > MAX_NAMED:
        return f"{len(collectives)} times = {total}"
    return f"{' + '.join(collective.what for collective in collectives)} = {total}"
