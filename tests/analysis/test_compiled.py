"""The collectives read from a compiled program's text, in every notation that XLA uses."""

import math

import pytest

from alexnet_jax.analysis import compiled
from alexnet_jax.config import ModelConfig
from alexnet_jax.model import towers
from alexnet_jax.model.partition import Collective, step_collectives
from alexnet_jax.model.variants import build_architecture

GATHER = "  %g.1 = f32[32,7]{1,0} all-gather(%x), channel_id=1, replica_groups=%s, dimensions={1}"


@pytest.mark.parametrize(
    ("groups", "devices", "stride"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", 2, 1),
        ("{{0,2,4,6},{1,3,5,7}}", 4, 2),
        ("[4,2]<=[8]", 2, 1),
        ("[2,4]<=[4,2]T(1,0)", 4, 2),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", 2, 1),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", 4, 2),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8, 1),
    ],
)
def test_groups_of_devices_are_read_in_every_form(groups, devices, stride):
    (collective,) = compiled.collectives(GATHER.replace("%s", groups))
    assert collective == Collective("all-gather", "[32, 7]", devices, stride, 32 * 7)


@pytest.mark.parametrize(
    ("line", "kind", "what", "values"),
    [
        ("(f32[], f32[2]{0}, f32[3,4]{1,0}) all-reduce(%a, %b)", "all-reduce", "2 arrays", 14),
        ("bf16[5]{0} all-reduce-start(%a)", "all-reduce", "[5]", 5),
        ("((f32[5]{0}), f32[5]{0}) all-reduce-start(%a)", "all-reduce", "[5]", 5),
        (
            "((f32[2]{0}, f32[3]{0}), (f32[2]{0}, f32[3]{0})) all-reduce-start(%a, %b)",
            *("all-reduce", "2 arrays", 5),
        ),
        ("(f32[5]{0}, f32[10]{0}) all-gather-start(%a)", "all-gather", "[10]", 10),
        ("f32[4]{0} reduce-scatter(%a)", "reduce-scatter", "[4]", 8),
        ("f32[4,4]{1,0} all-to-all(%a)", "all-to-all", "[4, 4]", 16),
    ],
)
def test_results_are_counted(line, kind, what, values):
    (collective,) = compiled.collectives(f"  %x = {line}, replica_groups={{{{0,1}}}}")
    assert (collective.kind, collective.what, collective.values) == (kind, what, values)


def test_a_halo_exchange_names_pairs():
    text = " %p = f32[6]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}"
    assert compiled.collectives(text) == (Collective("halo exchange", "[6]", 2, 1, 6),)


def test_scalars_groups_of_one_and_other_operations_are_left_out():
    text = (
        " %a = f32[] all-reduce(%x), replica_groups={{0,1}}\n"
        " %b = f32[3] all-reduce(%x), replica_groups={{0},{1}}\n"
        " %c = pred[3] all-reduce(%x), replica_groups={{0,1}}\n"
        " %d = f32[3] get-tuple-element(%all-reduce.1), index=0\n"
    )
    assert compiled.collectives(text) == ()


def test_an_unknown_notation_of_groups_is_an_error():
    with pytest.raises(ValueError, match=r"program .*everybody.*: .*notation"):
        compiled.collectives(GATHER.replace("%s", "everybody"))


def test_the_forward_program_has_the_collectives_of_the_table():
    architecture = build_architecture(ModelConfig(width=0.05, scale_init=False), 10, 36)
    mesh = towers.make_mesh(data=1, towers=2, batch=4)
    program = compiled.collectives(compiled.forward(architecture, mesh, 4))
    step = step_collectives(architecture, 4, 1, 2)
    derived = [collective for collective in step if collective.direction == "forward"]
    assert [(collective.kind, collective.what) for collective in derived] == [
        *(("all-gather", name) for name in ("conv3", "fc6", "fc7")),
        ("all-reduce", "fc8"),
    ]
    assert [(c.kind, c.values) for c in program] == [(c.kind, c.values) for c in derived]


def test_compare_names_few_collectives_counts_many_and_says_nothing_if_there_is_none():
    gathers = [Collective("all-gather", f"fc{n}", 2, 1, 1000) for n in (6, 7)]
    many = [Collective("all-reduce", "x", 4, 2, 2**18)] * 8
    assert compiled.compare([*gathers, *many], gathers).splitlines() == [
        "all-gather, 2 devices",
        "  the table    fc6 + fc7 = 2,000 values, 0.0 MiB",
        "  the program  fc6 + fc7 = 2,000 values, 0.0 MiB",
        "all-reduce, 4 devices, 2 apart",
        "  the table    8 times = 2,097,152 values, 8.0 MiB",
        "  the program  nothing",
    ]
    assert math.isclose(sum(one.bytes for one in many), 8 * 2**20)


def test_a_mesh_of_reordered_devices():
    groups = "mesh['axis_0'=2,'axis_1'=2], device_ids=([2,2]T(1,0)) {'axis_0'}"
    (collective,) = compiled.collectives(GATHER.replace("%s", groups))
    # devices 0 2 / 1 3: along the first axis of this mesh are 0 and 1
    assert (collective.devices, collective.stride) == (2, 1)


PROGRAM = """
%fused (p: f32[4]) -> f32[4] {
  ROOT %scatter.1 = f32[4]{0} scatter(%p, %i, %u), to_apply=%add
}
%unique (p: f32[4]) -> f32[4] {
  ROOT %scatter.2 = f32[4]{0} scatter(%p, %i, %u), unique_indices=true, to_apply=%add
  %scatter.3 = s32[4]{0} scatter(%p, %i, %u), to_apply=%add
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0), metadata={op_name="f32[99] add(%a)"}
  %b = bf16[2,2]{1,0} fusion(%a), kind=kLoop, backend_config={"estimated_cycles":"100","x":"1"}
  %t = (f32[4]{0}, pred[3]{0}) fusion(%a, %b), kind=kLoop, backend_config={"estimated_cycles":"20"}
  %g = f32[4]{0} get-tuple-element(%t), index=0
  %s = (f32[4]{0}, f32[8]{0}) all-gather-start(%g), replica_groups={{0,1}}
  %d = f32[8]{0} all-gather-done(%s)
  ROOT %r = f32[4]{0} fusion(%d), kind=kLoop
}

%after (p: f32[4]) -> f32[4] {
  %x = f32[4]{0} fusion(%p), backend_config={"estimated_cycles":"1000"}
}
"""


def test_cycles_are_those_of_the_top_level():
    assert compiled.estimated_cycles(PROGRAM) == 120


def test_kernels_read_their_operands_and_write_their_results():
    # %b: 16 + 8; %t: 16 + 8 read, 16 + 3 written; the gather: 16 and 32; %r: 32 + 16
    assert compiled.kernels(PROGRAM) == compiled.Kernels(4, 24 + 43 + 48 + 48)


def test_a_scatter_of_floats_is_atomic_unless_its_indices_are_unique():
    assert compiled.atomic_scatters(PROGRAM) == 1


def test_traffic_counts_the_bytes_of_the_programs_own_types():
    lines = (
        "  %a = bf16[4]{0} all-gather(%x), replica_groups={{0,1}}\n"
        "  %b = f32[6]{0} all-gather(%x), replica_groups={{0,1}}\n"
    )
    (traffic,) = compiled.program_traffic(lines)
    assert traffic == compiled.Traffic("all-gather", 2, 1, 2, 10, 8 + 24)
    (derived,) = compiled.table_traffic(compiled.collectives(lines))
    assert derived == compiled.Traffic("all-gather", 2, 1, 2, 10, 40)
