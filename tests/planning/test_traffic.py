"""Counting bytes: hand-written modules whose sums are worked out beside them."""

import pytest

from rlif_jax.planning.traffic import bytes_per_step, collectives_in_loops, dearest

STATE = "(f32[64,16]{1,0}, f32[3,16]{1,0}, s32[])"
KNOWN = 'backend_config={"known_trip_count":{"n":"3"}}'

# A decode step's bones: a token is written into a pool, a layer of weights is read in each of three
# turns of an inner loop, a kernel reads what the text does not say, and a sum goes between chips.
STEP = f"""HloModule step

%inplace (pool.2: f32[64,16], new.2: f32[1,16], at.2: s32[]) -> f32[64,16] {{
  %pool.2 = f32[64,16]{{1,0}} parameter(0)
  %new.2 = f32[1,16]{{1,0}} parameter(1)
  %at.2 = s32[] parameter(2)
  %zero.2 = s32[] constant(0)
  ROOT %written.2 = f32[64,16]{{1,0}} dynamic-update-slice(%pool.2, %new.2, %at.2, %zero.2)
}}

%slicing (weights.3: f32[3,16], at.3: s32[]) -> f32[16] {{
  %weights.3 = f32[3,16]{{1,0}} parameter(0)
  %at.3 = s32[] parameter(1)
  %zero.3 = s32[] constant(0)
  %row.3 = f32[1,16]{{1,0}} dynamic-slice(%weights.3, %at.3, %zero.3), dynamic_slice_sizes={{1,16}}
  ROOT %flat.3 = f32[16]{{0}} bitcast(%row.3)
}}

%layers (state.4: (s32[], f32[3,16])) -> (s32[], f32[3,16]) {{
  %state.4 = (s32[], f32[3,16]{{1,0}}) parameter(0)
  %i.4 = s32[] get-tuple-element(%state.4), index=0
  %weights.4 = f32[3,16]{{1,0}} get-tuple-element(%state.4), index=1
  %row.4 = f32[16]{{0}} fusion(%weights.4, %i.4), kind=kLoop, calls=%slicing
  ROOT %result.4 = (s32[], f32[3,16]{{1,0}}) tuple(%i.4, %weights.4)
}}

%never (state.5: (s32[], f32[3,16])) -> pred[] {{
  %state.5 = (s32[], f32[3,16]{{1,0}}) parameter(0)
  ROOT %yes.5 = pred[] constant(true)
}}

%decode (state.6: (f32[64,16], f32[3,16], s32[])) -> (f32[64,16], f32[3,16], s32[]) {{
  %state.6 = {STATE} parameter(0)
  %pool.6 = f32[64,16]{{1,0}} get-tuple-element(%state.6), index=0
  %weights.6 = f32[3,16]{{1,0}} get-tuple-element(%state.6), index=1
  %at.6 = s32[] get-tuple-element(%state.6), index=2
  %new.6 = f32[1,16]{{1,0:S(1)}} custom-call(%pool.6), custom_call_target="paged_attention"
  %pool.7 = f32[64,16]{{1,0}} fusion(%pool.6, %new.6, %at.6), kind=kLoop, calls=%inplace
  %inner.6 = (s32[], f32[3,16]{{1,0}}) tuple(%at.6, %weights.6)
  %loop.6 = (s32[], f32[3,16]{{1,0}}) while(%inner.6), condition=%never, body=%layers, {KNOWN}
  %sum.6 = f32[3,16]{{1,0}} all-reduce(%weights.6), to_apply=%never
  ROOT %result.6 = {STATE} tuple(%pool.7, %sum.6, %at.6)
}}

%until (state.8: (f32[64,16], f32[3,16], s32[])) -> pred[] {{
  %state.8 = {STATE} parameter(0)
  ROOT %yes.8 = pred[] constant(true)
}}

ENTRY %main (state.9: (f32[64,16], f32[3,16], s32[])) -> (f32[64,16], f32[3,16], s32[]) {{
  %state.9 = {STATE} parameter(0)
  %before.9 = f32[64,16]{{1,0}} get-tuple-element(%state.9), index=0
  %outside.9 = f32[64,16]{{1,0}} all-gather(%before.9), dimensions={{0}}
  ROOT %loop.9 = {STATE} while(%state.9), condition=%until, body=%decode
}}
"""
SCALAR, ROW, POOL, WEIGHTS = 4, 16 * 4, 64 * 16 * 4, 3 * 16 * 4

# The token on its way from the kernel to the pool stays on the chip: its write alone counts.
WRITE = ROW + SCALAR
# Each turn reads the slice and the index, and writes the slice.
LAYERS = 3 * (ROW + SCALAR + ROW)
SUM = 2 * WEIGHTS


def test_a_step_counts_slices_updates_and_turns():
    assert bytes_per_step(STEP) == POOL + WRITE + LAYERS + SUM  # a kernel reads its operand
    assert bytes_per_step(STEP, {"new.6": 100}) == 100 + WRITE + LAYERS + SUM


def test_the_costliest_come_first():
    rows = dearest(STEP, {"new.6": 100}, top=3)
    assert rows == [(LAYERS, 3, "row.4"), (SUM, 1, "sum.6"), (100, 1, "new.6")]


def test_only_collectives_in_loops_are_found():
    assert collectives_in_loops(STEP) == [("all-reduce", WEIGHTS)]


def test_a_copy_of_the_pool_counts():
    """Which XLA puts before an update that it cannot do in place."""
    copied = STEP.replace(
        "  %pool.7 = f32[64,16]{1,0} fusion(%pool.6,",
        "  %copied.6 = f32[64,16]{1,0} copy(%pool.6)\n"
        "  %pool.7 = f32[64,16]{1,0} fusion(%copied.6,",
    )
    assert bytes_per_step(copied) == bytes_per_step(STEP) + 2 * POOL


def test_a_buffer_brought_to_the_chip_counts_once():
    started = STEP.replace(
        "  %sum.6 = f32[3,16]{1,0} all-reduce(%weights.6)",
        "  %begin.6 = (f32[3,16]{1,0:S(1)}, f32[3,16]{1,0}, u32[]) copy-start(%weights.6)\n"
        "  %there.6 = f32[3,16]{1,0:S(1)} copy-done(%begin.6)\n"
        "  %sum.6 = f32[3,16]{1,0} all-reduce(%there.6)",
    )
    # The copy reads main memory, the sum only writes it.
    assert bytes_per_step(started) == bytes_per_step(STEP)


def test_weights_laid_out_anew_inside_a_fusion_count_as_far_as_they_are_read():
    """XLA puts other tiles on int8 weights before it slices them; only the slices are computed."""
    tiled = STEP.replace(
        "dynamic-slice(%weights.3,",
        "dynamic-slice(%tiled.3,",
    ).replace(
        "  %at.3 = s32[] parameter(1)\n",
        "  %tiled.3 = f32[3,16]{1,0} fusion(%weights.3), kind=kLoop, calls=%tiling\n"
        "  %at.3 = s32[] parameter(1)\n",
    )
    tiled += (
        "\n%tiling (w.10: f32[3,16]) -> f32[3,16] {\n"
        "  %w.10 = f32[3,16]{1,0} parameter(0)\n"
        "  ROOT %copy.10 = f32[3,16]{1,0} copy(%w.10)\n}\n"
    )
    assert bytes_per_step(tiled) == bytes_per_step(STEP)
    summed = tiled.replace("ROOT %copy.10", "%copy.10").replace(
        "copy(%w.10)\n", "copy(%w.10)\n  ROOT %all.10 = f32[3,16]{1,0} negate(%copy.10)\n"
    )
    assert bytes_per_step(summed) == bytes_per_step(STEP) + 3 * (WEIGHTS - ROW)


def test_custom_calls_that_name_a_buffer_move_nothing():
    named = STEP.replace(
        "  %sum.6 =",
        '  %room.6 = f32[64,16]{1,0} custom-call(), custom_call_target="AllocateBuffer"\n'
        "  %view.6 = f32[6,16]{1,0} custom-call(%weights.6, %weights.6), "
        'custom_call_target="ConcatBitcast"\n'
        "  %sum.6 =",
    )
    assert bytes_per_step(named) == bytes_per_step(STEP)


def test_the_costlier_branch_counts():
    branches = STEP.replace(
        "  %sum.6 = f32[3,16]{1,0} all-reduce(%weights.6), to_apply=%never\n",
        "  %sum.6 = f32[3,16]{1,0} conditional(%at.6, %weights.6, %weights.6), "
        "branch_computations={%cheap, %dear}\n",
    ) + "".join(
        f"\n%{name} (w.{name}: f32[3,16]) -> f32[3,16] {{\n"
        f"  %w.{name} = f32[3,16]{{1,0}} parameter(0)\n"
        f"  ROOT %o.{name} = f32[3,16]{{1,0}} {line}\n}}\n"
        for name, line in (("cheap", "bitcast(%w.cheap)"), ("dear", "negate(%w.dear)"))
    )
    assert bytes_per_step(branches) == bytes_per_step(STEP) - SUM + 2 * WEIGHTS


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match=r"no custom call named \['write_token'\]"):
        bytes_per_step(STEP, {"new.6": 0, "write_token": 0})
    with pytest.raises(ValueError, match="no loop"):
        bytes_per_step(STEP.replace(" while(%state.9)", " custom-call(%state.9)"))
