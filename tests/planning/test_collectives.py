"""Bytes that devices send: hand-written modules whose sums are worked out beside them."""

import pytest

from rlif_jax.planning.collectives import Collectives, group_size
from rlif_jax.planning.hlo import Instruction, Module

HEAD = "HloModule stage, is_scheduled=true, num_partitions=8\n\n"
FOURS = "replica_groups={{0,1,2,3},{4,5,6,7}}"


def sent_by(text: str, name: str) -> dict[str, float]:
    module = Module.parse(text)
    main = module.computations[module.entry]
    return Collectives(module).sent(main, main.instructions[name])


def one(line: str, type_: str = "f32[64]{0}") -> dict[str, float]:
    """What `%out = line` of a parameter %x sends on eight devices."""
    return sent_by(
        f"{HEAD}ENTRY %main (x: f32[]) -> f32[] {{\n"
        f"  %x = {type_} parameter(0)\n  ROOT %out = {line}\n}}\n",
        "out",
    )


@pytest.mark.parametrize(
    "groups, size",
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}, use_global_device_ids=true", 2),
        (f"channel_id=1, {FOURS}, dimensions={{0}}", 4),
        ("replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}", 8),
        ("replica_groups={}, to_apply=%add", 8),
        ("replica_groups=[4,2]<=[8], dimensions={0}", 2),
        ("replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}", 4),
        ("replica_groups=mesh['axis_0'=8] {'axis_0'}, dimensions={1}", 8),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={1}", 4),
        ("replica_groups=mesh[a=2,b=4], device_ids=(1,0,3,2,5,4,7,6) {a,b}, dimensions={1}", 8),
        ("replica_groups=mesh['a'=8] {'a':(2)4}, dimensions={1}", 4),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b':(1)2}, dimensions={1}", 4),
    ],
)
def test_groups_in_all_their_forms(groups, size):
    op = Instruction("out", "f32[8]", "all-reduce", ["x"], "%x", f", channel_id=3, {groups}")
    assert group_size(op, devices=8) == size


def test_unknown_groups_are_refused():
    op = Instruction("out", "f32[8]", "all-reduce", ["x"], "%x", ", replica_groups=new_form")
    with pytest.raises(ValueError, match="out does not say in which groups"):
        group_size(op, devices=8)


def test_devices_are_those_of_all_partitions_and_replicas():
    assert Module.parse(HEAD).devices == 8
    both = "HloModule stage, replica_count=3, num_partitions=4, entry={}\n"
    assert Module.parse(both).devices == 12
    assert Module.parse("HloModule stage\n").devices == 1


@pytest.mark.parametrize(
    "line, kind, sent",
    [
        # Of four devices each has a quarter, and passes on three: its own, and two of others.
        (f"f32[256]{{0}} all-gather(%x), {FOURS}, dimensions={{0}}", "all-gather", 3 * 64 * 4),
        (f"f32[64]{{0}} all-reduce(%x), {FOURS}, to_apply=%add", "all-reduce", 2 * 3 * 16 * 4),
        (
            f"f32[16]{{0}} reduce-scatter(%x), {FOURS}, dimensions={{0}}, to_apply=%add",
            "reduce-scatter",
            3 * 16 * 4,
        ),
        (f"f32[64]{{0}} all-to-all(%x), {FOURS}, dimensions={{0}}", "all-to-all", 3 * 16 * 4),
        (
            "f32[64]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            64 * 4,
        ),
        # Begun here and finished elsewhere: the type holds the operand, too.
        (
            f"(f32[64]{{0}}, f32[256]{{0}}) all-gather-start(%x), {FOURS}, dimensions={{0}}",
            "all-gather",
            3 * 64 * 4,
        ),
        (f"f32[64]{{0}} all-reduce-start(%x), {FOURS}, to_apply=%add", "all-reduce", 384),
        (
            "(f32[64]{0}, f32[64]{0}, u32[], u32[]) collective-permute-start(%x), "
            "source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            64 * 4,
        ),
        (
            f"((f32[64]{{0}}), f32[16]{{0}}) reduce-scatter-start(%x), {FOURS}, dimensions={{0}}",
            "reduce-scatter",
            3 * 16 * 4,
        ),
        # A group of one sends nothing.
        ("f32[64]{0} all-reduce(%x), replica_groups=[8,1]<=[8], to_apply=%add", "all-reduce", 0),
    ],
)
def test_what_each_kind_sends(line, kind, sent):
    assert one(line) == {kind: sent}


def test_several_arrays_in_one_collective():
    line = "(f32[64]{0}, f32[64]{0}) all-reduce(%x, %x), replica_groups={}, to_apply=%add"
    assert one(line) == {"all-reduce": 2 * 7 / 8 * 2 * 64 * 4}
    types = "((f32[64]{0}, f32[64]{0}), (f32[512]{0}, f32[512]{0}))"
    line = f"{types} all-gather-start(%x, %x), replica_groups={{}}, dimensions={{0}}"
    assert one(line) == {"all-gather": 7 * 2 * 64 * 4}


def test_what_lies_on_the_chip_is_sent_too():
    on_chip = "f32[64]{0:S(1)}"
    line = f"{on_chip} all-reduce(%x), replica_groups={{}}, to_apply=%add"
    assert one(line, on_chip) == {"all-reduce": 2 * 7 / 8 * 64 * 4}


def test_the_end_of_a_collective_sends_nothing():
    assert one("f32[256]{0} all-gather-done(%x)") == {}
    assert one("f32[64]{0} negate(%x)") == {}


def test_a_sum_that_is_only_sliced_is_a_reduce_scatter():
    """As libtpu writes it: in a fusion, since no device needs the whole sum."""
    text = f"""{HEAD}%scattered (x.1: f32[64]) -> f32[8] {{
  %x.1 = f32[64]{{0}} parameter(0)
  %sum.1 = f32[64]{{0}} all-reduce(%x.1), replica_groups={{}}, to_apply=%add
  %view.1 = f32[64]{{0}} bitcast(%sum.1)
  %at.1 = s32[] constant(0)
  ROOT %out.1 = f32[8]{{0}} dynamic-slice(%view.1, %at.1), dynamic_slice_sizes={{8}}
}}

ENTRY %main (x: f32[64]) -> f32[8] {{
  %x = f32[64]{{0}} parameter(0)
  ROOT %out = f32[8]{{0}} fusion(%x), kind=kCustom, calls=%scattered
}}
"""
    assert sent_by(text, "out") == {"reduce-scatter": 7 / 8 * 64 * 4}
    whole = text.replace("dynamic-slice(%view.1, %at.1), dynamic_slice_sizes={8}", "tanh(%view.1)")
    assert sent_by(whole, "out") == {"all-reduce": 2 * 7 / 8 * 64 * 4}


CONTEXT = "bf16[8,96]{1,0}, bf16[64,96]{1,0}, s32[2]{0:S(4)}"
GATHER = "channel_id=3, replica_groups={}, dimensions={0}"
BESIDE = f"""{HEAD}%begin (w.1: bf16[8,96]) -> ({CONTEXT}) {{
  %w.1 = bf16[8,96]{{1,0}} parameter(0)
  %all-gather.1 = bf16[64,96]{{1,0}} all-gather(%w.1), {GATHER}
  ROOT %begun.1 = ({CONTEXT}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}}

%beside (w.2: bf16[8,96], whole.2: bf16[64,96], context.2: s32[2], y.2: f32[32]) -> () {{
  %w.2 = bf16[8,96]{{1,0}} parameter(0)
  %whole.2 = bf16[64,96]{{1,0}} parameter(1)
  %all-gather.2 = bf16[64,96]{{1,0}} all-gather(%w.2), {GATHER}
  %context.2 = s32[2]{{0:S(4)}} parameter(2)
  %y.2 = f32[32]{{0}} parameter(3)
  %z.2 = f32[32]{{0}} negate(%y.2)
  ROOT %out.2 = (f32[32]{{0}}, bf16[8,96]{{1,0}}, bf16[64,96]{{1,0}}, bf16[64,96]{{1,0}}, \
s32[2]{{0:S(4)}}) tuple(%z.2, %w.2, %whole.2, %all-gather.2, %context.2)
}}

%finish (w.3: bf16[8,96], whole.3: bf16[64,96], context.3: s32[2]) -> bf16[64,96] {{
  %w.3 = bf16[8,96]{{1,0}} parameter(0)
  %whole.3 = bf16[64,96]{{1,0}} parameter(1)
  %all-gather.3 = bf16[64,96]{{1,0}} all-gather(%w.3), {GATHER}
  %context.3 = s32[2]{{0:S(4)}} parameter(2)
  ROOT %done.3 = bf16[64,96]{{1,0}} custom-call(%w.3, %whole.3, %all-gather.3, %context.3), \
custom_call_target="AsyncCollectiveDone"
}}

ENTRY %main (w: bf16[8,96], y: f32[32]) -> () {{
  %w = bf16[8,96]{{1,0}} parameter(0)
  %y = f32[32]{{0}} parameter(1)
  %begun = ({CONTEXT}) fusion(%w), kind=kCustom, calls=%begin
  %w.4 = bf16[8,96]{{1,0}} get-tuple-element(%begun), index=0
  %whole.4 = bf16[64,96]{{1,0}} get-tuple-element(%begun), index=1
  %context.4 = s32[2]{{0:S(4)}} get-tuple-element(%begun), index=2
  %both = (f32[32]{{0}}, bf16[8,96]{{1,0}}, bf16[64,96]{{1,0}}, bf16[64,96]{{1,0}}, \
s32[2]{{0:S(4)}}) fusion(%w.4, %whole.4, %context.4, %y), kind=kLoop, calls=%beside
  %w.5 = bf16[8,96]{{1,0}} get-tuple-element(%both), index=1
  %whole.5 = bf16[64,96]{{1,0}} get-tuple-element(%both), index=3
  %finished = bf16[64,96]{{1,0}} fusion(%w.5, %whole.5, %context.4), kind=kCustom, calls=%finish
  ROOT %out = (f32[32]{{0}}, bf16[64,96]{{1,0}}) tuple(%y, %finished)
}}
"""
"""Libtpu's form of an all-gather of eight parts that runs beside a negation."""


def test_a_collective_beside_other_work_counts_once():
    assert sent_by(BESIDE, "begun") == {"all-gather": 7 * 8 * 96 * 2}
    assert sent_by(BESIDE, "both") == {}
    assert sent_by(BESIDE, "finished") == {}


def test_its_buffers_are_moved_once():
    from rlif_jax.planning.traffic import Traffic

    traffic = Traffic(Module.parse(BESIDE))
    part, negation = 8 * 96 * 2, 2 * 32 * 4
    # It reads the device's part and writes all eight; the negation reads and writes its own array.
    assert traffic.of("main") == part + 8 * part + negation
