"""The work of a stage: a hand-written module whose sums are worked out beside it."""

import pytest

from rlif_jax.planning.counts import Work, work_of

KNOWN = 'backend_config={"known_trip_count":{"n":"3"}}'
STATE = "(f32[4,8]{1,0}, f32[8,8]{1,0}, s32[])"

# Two loops of unknown length, one in the other, around a product; and a loop of three sums.
STAGE = f"""HloModule stage, num_partitions=2

%yes (state.0: (f32[4,8], f32[8,8], s32[])) -> pred[] {{
  %state.0 = {STATE} parameter(0)
  ROOT %yes.0 = pred[] constant(true)
}}

%multiply (state.1: (f32[4,8], f32[8,8], s32[])) -> (f32[4,8], f32[8,8], s32[]) {{
  %state.1 = {STATE} parameter(0)
  %x.1 = f32[4,8]{{1,0}} get-tuple-element(%state.1), index=0
  %w.1 = f32[8,8]{{1,0}} get-tuple-element(%state.1), index=1
  %i.1 = s32[] get-tuple-element(%state.1), index=2
  %y.1 = f32[4,8]{{1,0}} dot(%x.1, %w.1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %out.1 = {STATE} tuple(%y.1, %w.1, %i.1)
}}

%outer (state.2: (f32[4,8], f32[8,8], s32[])) -> (f32[4,8], f32[8,8], s32[]) {{
  %state.2 = {STATE} parameter(0)
  %x.2 = f32[4,8]{{1,0}} get-tuple-element(%state.2), index=0
  %w.2 = f32[8,8]{{1,0}} get-tuple-element(%state.2), index=1
  %i.2 = s32[] get-tuple-element(%state.2), index=2
  %splash_mha_fwd.2 = f32[4,8]{{1,0}} custom-call(%x.2), custom_call_target="tpu_custom_call"
  %in.2 = {STATE} tuple(%splash_mha_fwd.2, %w.2, %i.2)
  ROOT %loop.2 = {STATE} while(%in.2), condition=%yes, body=%multiply
}}

%sums (state.3: (f32[4,8], f32[8,8], s32[])) -> (f32[4,8], f32[8,8], s32[]) {{
  %state.3 = {STATE} parameter(0)
  %x.3 = f32[4,8]{{1,0}} get-tuple-element(%state.3), index=0
  %w.3 = f32[8,8]{{1,0}} get-tuple-element(%state.3), index=1
  %i.3 = s32[] get-tuple-element(%state.3), index=2
  %sum.3 = f32[8,8]{{1,0}} all-reduce(%w.3), replica_groups={{}}, to_apply=%add
  ROOT %out.3 = {STATE} tuple(%x.3, %sum.3, %i.3)
}}

%called (state.4: (f32[4,8], f32[8,8], s32[])) -> (f32[4,8], f32[8,8], s32[]) {{
  %state.4 = {STATE} parameter(0)
  ROOT %loop.4 = {STATE} while(%state.4), condition=%yes, body=%outer
}}

ENTRY %main (state.5: (f32[4,8], f32[8,8], s32[])) -> (f32[4,8], f32[8,8], s32[]) {{
  %state.5 = {STATE} parameter(0)
  %pieces.5 = {STATE} call(%state.5), to_apply=%called
  ROOT %loop.5 = {STATE} while(%pieces.5), condition=%yes, body=%sums, {KNOWN}
}}
"""
X, W = 4 * 8 * 4, 8 * 8 * 4
PRODUCT = Work(flops=2 * 4 * 8 * 8, bytes=X + W + X)
KERNEL = Work(bytes=2 * X)  # of which nothing is said
SUMS = Work(bytes=3 * 2 * W, sent={"all-reduce": 3 * W})  # of two devices each sends a half, twice


def test_works_add_up_and_repeat():
    a = Work(flops=1.0, bytes=2.0, sent={"all-gather": 3.0})
    b = Work(bytes=5.0, sent={"all-gather": 1.0, "all-reduce": 2.0})
    assert a + b == Work(1.0, 7.0, {"all-gather": 4.0, "all-reduce": 2.0})
    assert 3 * a == a * 3 == a + a + a == Work(3.0, 6.0, {"all-gather": 9.0})
    assert Work() + a == a
    assert 0.5 * b == Work(0.0, 2.5, {"all-gather": 0.5, "all-reduce": 1.0})


def test_loops_of_unknown_length_turn_as_they_are_told():
    assert work_of(STAGE, inner=2) == KERNEL + 2 * PRODUCT + SUMS
    assert work_of(STAGE, turns=5, inner=2.5) == 5 * (KERNEL + 2.5 * PRODUCT) + SUMS
    assert work_of(STAGE, turns=0, inner=2) == SUMS


def test_kernels_do_what_they_are_said_to():
    kernel = Work(flops=1000, bytes=10, sent={"collective-permute": 1})
    told = work_of(STAGE, turns=2, inner=1, kernels={"splash_mha_fwd": kernel})
    assert told == 2 * (kernel + PRODUCT) + SUMS


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match=r"how often loop\.2 turns: say it by `inner`"):
        work_of(STAGE)
    with pytest.raises(ValueError, match=r"no custom call named \['paged_attention'\]"):
        work_of(STAGE, inner=1, kernels={"paged_attention": Work(), "splash_mha": Work()})
