"""Reading HLO text: hand-written modules, and one that XLA has just compiled."""

import jax
import jax.numpy as jnp
import pytest

from rlif_jax.planning.hlo import Module, array_bytes, bytes_of

COUNTED = """HloModule counted

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = f32[8]{0} get-tuple-element(%state), index=1
  %y = f32[8]{0} negate(%x)
  ROOT %result = (s32[], f32[8]{0}) tuple(%next, %y)
}

%condition (state.1: (s32[], f32[8])) -> pred[] {
  %state.1 = (s32[], f32[8]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %end = s32[] constant(7)
  %end.1 = s32[] copy(%end)
  ROOT %less = pred[] compare(%i.1, %end.1), direction=LT
}

ENTRY %main (x.1: f32[8]) -> f32[8] {
  %x.1 = f32[8]{0} parameter(0)
  %start = s32[] constant(2)
  %initial = (s32[], /*index=1*/f32[8]{0}) tuple(%start, %x.1)
  %loop = (s32[], f32[8]{0}) while(%initial), condition=%condition, body=%body
  ROOT %out = f32[8]{0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    "type_, sizes",
    [
        ("f32[2,3]{1,0}", [24]),
        ("bf16[]", [2]),
        ("pred[5]{0}", [5]),
        ("s4[6]{0}", [3]),
        ("f8e4m3fn[4]{0}", [4]),
        ("(f32[2]{0}, (s32[], u8[3]{0}))", [8, 4, 3]),
        ("token[]", [0]),
        ("f32[0,4]{1,0}", [0]),
    ],
)
def test_bytes_of_types(type_, sizes):
    assert array_bytes(type_) == sizes
    assert bytes_of(type_) == sum(sizes)


@pytest.mark.parametrize(
    "type_, size",
    [
        ("f32[3,100]{1,0:T(8,128)}", 8 * 128 * 4),
        ("f32[3,100]{0,1:T(8,128)}", 104 * 128 * 4),  # column-major: the rows are the minor ones
        ("bf16[5,3,100]{2,1,0:T(8,128)(2,1)}", 5 * 8 * 128 * 2),
        ("f32[100]{0:T(128)}", 128 * 4),
        ("f32[10]{0:T(8,128)}", 128 * 4),
    ],
)
def test_tiles_are_filled_up(type_, size):
    assert bytes_of(type_) == size


def test_arrays_on_the_chip_count_where_asked_for():
    assert array_bytes("(f32[4]{0:S(1)}, f32[4]{0:S(5)}, f32[4]{0:S(0)})") == [0, 16, 16]
    assert array_bytes("f32[4]{0:S(1)}", on_chip=True) == [16]


def test_a_module_is_read_into_instructions():
    module = Module.parse(COUNTED)
    assert module.entry == "main"
    assert set(module.computations) == {"body", "condition", "main"}
    body = module.computations["body"]
    assert body.root == "result"
    add = body.instructions["next"]
    assert (add.opcode, add.operands, add.type) == ("add", ["i", "one"], "s32[]")
    assert [(user.name, place) for user, place in body.users("i")] == [("next", 0)]
    assert body.parameter(0).name == "state"
    assert body.constant(body.instructions["one"]) == 1
    with pytest.raises(ValueError, match="no parameter 1"):
        body.parameter(1)
    with pytest.raises(ValueError, match="next is not a constant: its opcode is add"):
        body.constant(add)
    with pytest.raises(ValueError, match="next has no body"):
        _ = add.body


def test_elements_of_tuples_in_the_short_form():
    """`x#0` is what `get-tuple-element(%x), index=0` gives."""
    text = """ENTRY %main (x: (s32[], (f32[8,2], bf16[4]))) -> (f32[8,2], s32[]) {
  %x = (s32[], (f32[8,2]{1,0:T(8,128)}, bf16[4]{0})) parameter(0)
  %y = f32[8,2]{1,0:T(8,128)} negate(%x#1#0)
  ROOT %out = (f32[8,2]{1,0:T(8,128)}, s32[]) tuple(%y, %x#0)
}
"""
    main = Module.parse(text).computations["main"]
    inner = main.operand(main.instructions["y"], 0)
    assert (inner.name, inner.type) == ("x#1#0", "f32[8,2]{1,0:T(8,128)}")
    assert (inner.opcode, inner.attribute(r"index=(\d+)")) == ("get-tuple-element", "0")
    outer = main.operand(inner, 0)
    assert outer.type == "(f32[8,2]{1,0:T(8,128)}, bf16[4]{0})"
    assert main.operand(outer, 0).opcode == "parameter"
    assert main.operand(main.instructions["out"], 1).type == "s32[]"

    short = COUNTED.replace("compare(%i.1, %end.1)", "compare(%state.1#0, %end.1)")
    module = Module.parse(short)
    (loop,) = module.loops("main")
    assert module.turns(module.computations["main"], loop) == 5


def test_turns_are_counted_from_the_condition():
    module = Module.parse(COUNTED)
    (loop,) = module.loops("main")
    assert (loop.body, loop.condition) == ("body", "condition")
    assert module.turns(module.computations["main"], loop) == 7 - 2
    by_twos = Module.parse(COUNTED.replace("%one = s32[] constant(1)", "%one = s32[] constant(2)"))
    assert by_twos.turns(by_twos.computations["main"], loop) == 3  # 2, 4 and 6


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("direction=LT", "direction=NE", "does not end by a count"),
        ("%next = s32[] add(", "%next = s32[] multiply(", "does not count up"),
    ],
)
def test_a_loop_that_is_not_counted_is_refused(old, new, said):
    module = Module.parse(COUNTED.replace(old, new))
    (loop,) = module.loops("main")
    with pytest.raises(ValueError, match=said):
        module.turns(module.computations["main"], loop)


def test_what_xla_knows_of_a_loop_comes_first():
    known = ', backend_config={"known_trip_count":{"n":"11"}}'
    module = Module.parse(COUNTED.replace("body=%body", f"body=%body{known}"))
    (loop,) = module.loops("main")
    assert module.turns(module.computations["main"], loop) == 11


def test_branches_are_called():
    line = "%out = f32[] conditional(%i, %a, %b), branch_computations={%first, %second.1}"
    text = f"ENTRY %main (i: s32[]) -> f32[] {{\n  {line}\n}}\n"
    (op,) = Module.parse(text).computations["main"].instructions.values()
    assert op.called == ["first", "second.1"]


def test_a_loop_that_xla_compiled():
    def stage(x):
        return jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, jnp.ones((13, 8, 8)))[0]

    module = Module.parse(jax.jit(stage).lower(jnp.ones((8, 8))).compile().as_text())
    (loop,) = module.loops(module.entry)
    assert module.turns(module.computations[module.entry], loop) == 13
