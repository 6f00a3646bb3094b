"""LiveCodeBench rows to problems and back, and the refusal of rows that are not right."""

import base64
import dataclasses
import json
import os
import pickle
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.data.formats.livecodebench import (
    only_public_tests,
    problem_from_row,
    row_from_problem,
)
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test


def packed(value, protocol=4) -> str:
    """`value` as LiveCodeBench packs the text of its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


def test_stdin_row(make_row):
    assert problem_from_row(make_row("abc1")) == Problem(
        id="abc1",
        prompt="Add two numbers (abc1).",
        tests=(Test("3\n4", "7", "stdin"), Test("-1\n1", "0", "stdin", private=True)),
        metadata={
            "question_title": "Sum",
            "platform": "example",
            "contest_id": "c1",
            "contest_date": "2025-01-01T00:00:00",
            "difficulty": "easy",
        },
    )


def test_function_row(make_row):
    metadata = json.dumps({"func_name": "add", "time_limit_s": 2, "source": "x"})
    problem = problem_from_row(make_row("two-sum", func_name="add", metadata=metadata))
    assert problem.entry_point == "add"
    assert problem.starter_code == "def add(a, b):\n    "
    assert problem.time_limit_s == 2.0
    assert problem.metadata["source"] == "x"
    assert [(t.kind, t.private) for t in problem.tests] == [
        ("functional", False),
        ("functional", True),
    ]


def test_row_with_tests_that_assert(make_row):
    checks = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
    row = make_row(
        func_name="add",
        public_test_cases=json.dumps([{"input": checks[0], "testtype": "assert"}]),
        private_test_cases=json.dumps([{"input": checks[1], "output": "", "testtype": "assert"}]),
    )
    problem = problem_from_row(row)
    assert problem.tests == (Test(checks[0], "", "assert"), Test(checks[1], "", "assert", True))
    assert problem_from_row(row_from_problem(problem)) == problem


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_packed_private_tests(make_row, protocol):
    tests = [{"input": "é\n" * 300, "output": "1", "testtype": "stdin"}]
    row = make_row(private_test_cases=packed(json.dumps(tests, ensure_ascii=False), protocol))
    assert problem_from_row(row).tests[1:] == (Test("é\n" * 300, "1", "stdin", private=True),)


@pytest.mark.parametrize("private", ["list", "text", "packed"])
def test_lists_and_objects_instead_of_their_json(make_row, private):
    row = make_row("sum", func_name="add")
    wrapped = dict(row)
    for name in ("public_test_cases", "private_test_cases", "metadata"):
        wrapped[name] = json.loads(row[name])
    if private != "list":
        text = row["private_test_cases"]
        wrapped["private_test_cases"] = packed(text) if private == "packed" else text
    before = json.dumps(wrapped)
    assert problem_from_row(wrapped) == problem_from_row(row)
    assert json.dumps(wrapped) == before  # the row is left as it was


@pytest.mark.parametrize("null", [True, False])
def test_row_without_private_tests(make_row, null):
    row = make_row("abc1")
    whole = problem_from_row(row)
    assert only_public_tests(row) == ""
    row["private_test_cases"] = None
    if not null:
        del row["private_test_cases"]
    assert problem_from_row(row) == dataclasses.replace(whole, tests=whole.tests[:1])
    assert only_public_tests(row).startswith("field private_test_cases is missing: the problem is ")
    assert only_public_tests(row | {"private_test_cases": "[]"}) == ""
    with pytest.raises(UserError, match="add at least one"):
        problem_from_row(row | {"public_test_cases": []})


class MakesFolder:
    """Creates a folder when its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_pickle_is_refused_and_does_nothing(make_row, tmp_path, protocol):
    row = make_row("evil", private_test_cases=packed(MakesFolder(tmp_path / "made"), protocol))
    with pytest.raises(UserError, match=r"evil.*private_test_cases.*refused: it is not a text"):
        problem_from_row(row)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("value", [["[]"], {"a": "[]"}, b"[]", 3, None, ("[]", "[]")])
def test_pickle_of_anything_but_text_is_refused(make_row, value):
    with pytest.raises(UserError, match="private_test_cases holds a pickle that is refused"):
        problem_from_row(make_row(private_test_cases=packed(value)))


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_damaged_pickle_is_refused(make_row, cut):
    data = pickle.dumps("[]" * 20)[:-cut]
    row = make_row(private_test_cases=base64.b64encode(zlib.compress(data)).decode())
    with pytest.raises(UserError, match="private_test_cases holds a pickle that is refused"):
        problem_from_row(row)


@pytest.mark.parametrize("cut", [1, 4, 10])
def test_damaged_zlib_data_is_refused(make_row, cut):
    data = base64.b64encode(zlib.compress(pickle.dumps("[]"))[:-cut]).decode()
    with pytest.raises(
        UserError, match=r"neither JSON nor base64 of zlib data \(its end is missing"
    ):
        problem_from_row(make_row(private_test_cases=data))


def test_what_unpacks_to_more_than_the_largest_field_is_refused_before_it_is_unpacked(
    make_row, monkeypatch
):
    text = json.dumps([TEST | {"input": "0" * 5000}])
    row = make_row(private_test_cases=packed(text))
    largest, size = "rlif_jax.data.formats.packed.LARGEST_BYTES", len(pickle.dumps(text, 4))
    monkeypatch.setattr(largest, size)
    assert problem_from_row(row).tests[1].input == "0" * 5000
    monkeypatch.setattr(
        "rlif_jax.data.formats.packed.LARGEST_BYTES", len(pickle.dumps(text, 4)) - 1
    )
    with pytest.raises(
        UserError, match=r"^f line 2 .*'p0'.*private_test_cases .* more than 50\d\d bytes; split"
    ):
        problem_from_row(row, "f line 2")
    bomb = base64.b64encode(zlib.compress(bytes(1 << 26))).decode()
    monkeypatch.setattr("rlif_jax.data.formats.packed.LARGEST_BYTES", 1 << 16)
    tracemalloc.start()
    with pytest.raises(UserError, match="more than 65536 bytes"):
        problem_from_row(make_row(private_test_cases=bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


TEST = {"input": "1", "output": "1", "testtype": "stdin"}
BAD = {
    "no id": ({"question_id": None}, "field question_id is missing"),
    "empty id": ({"question_id": ""}, "field question_id is empty"),
    "no statement": ({"question_content": None}, r"'p0'.*question_content is missing"),
    "number": ({"starter_code": 3}, "field starter_code is 3, not text"),
    "tests no list": (
        {"public_test_cases": {"input": "1"}},
        "public_test_cases is {'input': '1'}; it must be a list of tests, or its JSON",
    ),
    "no test in a list": ({"private_test_cases": [5]}, "private_test_cases, test 1 is 5, not an"),
    "metadata a list": ({"metadata": []}, r"field metadata is \[\], not text"),
    "no tests": ({"public_test_cases": "[]", "private_test_cases": "[]"}, "add at least one"),
    "bad json": ({"public_test_cases": "[{"}, "public_test_cases is not JSON .*starts with '"),
    "deep json": ({"metadata": "[" * 200_000}, "metadata is not JSON"),
    "private neither": ({"private_test_cases": "hello"}, "neither JSON nor base64 of zlib"),
    "private empty": ({"private_test_cases": ""}, "neither JSON nor base64 of zlib"),
    "private bad json": ({"private_test_cases": "[1,"}, "private_test_cases is not JSON"),
    "packed bad json": ({"private_test_cases": packed("[1,")}, "private_test_cases is not JSON"),
    "not a list": ({"public_test_cases": "{}"}, "public_test_cases must be a list of tests"),
    "not an object": ({"metadata": "[]"}, "metadata must be an object"),
    "not a test": ({"public_test_cases": "[5]"}, "public_test_cases, test 1 is 5, not an object"),
    "no output": (
        {"public_test_cases": json.dumps([TEST, {"input": "1"}])},
        "test 2 has output None",
    ),
    "input not text": (
        {"private_test_cases": json.dumps([TEST | {"input": [1]}])},
        r"private_test_cases, test 1 has input \[1\]; it must be text",
    ),
    "kind without a function": (
        {"public_test_cases": json.dumps([TEST | {"testtype": "functional"}])},
        "testtype 'functional', but the row is stdin because its metadata names no func_name",
    ),
    "function with stdin tests": (
        {"metadata": '{"func_name": "f"}'},
        "testtype 'stdin', but the row is functional because its metadata names a func_name",
    ),
    "assert without a function": (
        {"public_test_cases": json.dumps([TEST | {"testtype": "assert"}])},
        "test 1 has testtype 'assert', but the row is stdin because its metadata names no func_nam",
    ),
    "assert with an output": (
        {
            "metadata": '{"func_name": "f"}',
            "public_test_cases": json.dumps([TEST | {"testtype": "assert"}]),
        },
        "test 1 has output '1', but its input asserts what it expects; leave the output out",
    ),
    "two kinds, assert first": (
        {
            "metadata": '{"func_name": "f"}',
            "public_test_cases": '[{"input": "assert f(1)", "testtype": "assert"}]',
            "private_test_cases": '[{"input": "1", "output": "", "testtype": "functional"}]',
        },
        "private_test_cases, test 1 has testtype 'functional', but the row is assert because its f",
    ),
    "two kinds, functional first": (
        {
            "metadata": '{"func_name": "f"}',
            "public_test_cases": json.dumps([TEST | {"testtype": "functional"}]),
            "private_test_cases": '[{"input": "assert f(1)", "output": "", "testtype": "assert"}]',
        },
        "testtype 'assert', but the row is functional because its metadata names a func_name",
    ),
    "alternatives": (
        {"public_test_cases": json.dumps([TEST | {"alternatives": "1"}])},
        "public_test_cases, test 1 has alternatives '1'; write a list of outputs",
    ),
    "alternative": (
        {"public_test_cases": [TEST | {"alternatives": ["1", 2]}]},
        "public_test_cases, test 1, alternatives is 2, not text",
    ),
    "preamble": ({"metadata": '{"preamble": 1}'}, "field metadata, preamble is 1, not text"),
    "name of no function": ({"metadata": '{"func_name": "f()"}'}, r"func_name 'f\(\)'"),
    "keyword": ({"metadata": '{"func_name": "class"}'}, "'class', which is not the name of a func"),
    "zero time": ({"metadata": '{"time_limit_s": 0}'}, "time_limit_s 0, not a positive number"),
    "endless time": ({"metadata": '{"time_limit_s": 1e999}'}, "time_limit_s inf"),
    "time in words": ({"metadata": '{"time_limit_s": "6"}'}, "time_limit_s '6'"),
    "half a character": ({"question_content": "\ud800"}, "question_content holds .*surrogate"),
    "half a character in a test": (
        {"public_test_cases": json.dumps([TEST | {"output": "\udfff"}])},
        "public_test_cases, test 1, output holds .*surrogate",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_place_field_and_remedy(make_row, name):
    fields, message = BAD[name]
    row = {k: v for k, v in (make_row() | fields).items() if v is not None}
    with pytest.raises(UserError, match=message) as refusal:
        problem_from_row(row, "set.jsonl line 7")
    assert str(refusal.value).startswith("set.jsonl line 7")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("row", [None, 3, "text", ["question_id"]])
def test_row_that_is_no_object(row):
    with pytest.raises(UserError, match="a row must be a JSON object"):
        problem_from_row(row)


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
NAME = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


# Halves of characters, too: JSON can spell them, and what describes a problem is not judged.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def problems(draw) -> Problem:
    entry_point = draw(st.none() | NAME)
    kind = "stdin" if entry_point is None else draw(st.sampled_from(["functional", "assert"]))
    expected = st.just("") if kind == "assert" else TEXT
    pairs = draw(st.lists(st.tuples(TEXT, expected), min_size=1, max_size=5))
    public = draw(st.integers(0, len(pairs)))
    others = st.lists(expected, max_size=2).map(tuple)
    alternatives = draw(st.tuples(*(others for _ in pairs)))
    known = st.dictionaries(st.sampled_from(["difficulty", "platform", "solution"]), JSON)
    unknown = st.dictionaries(NAME.filter(lambda n: n not in ("func_name", "preamble")), JSON)
    return Problem(
        id=draw(TEXT.filter(bool)),
        prompt=draw(TEXT),
        tests=tuple(
            Test(i, o, kind, n >= public, more)
            for n, ((i, o), more) in enumerate(zip(pairs, alternatives, strict=True))
        ),
        starter_code=draw(TEXT),
        entry_point=entry_point,
        time_limit_s=draw(st.just(6.0) | st.floats(0.001, 100)),
        metadata=draw(unknown) | draw(known),
        preamble=draw(TEXT),
    )


@settings(deadline=None)
@given(problems())
def test_round_trip(problem):
    row = row_from_problem(problem)
    assert all(isinstance(value, str) for value in row.values())
    assert all(value.encode().decode() == value for value in row.values())
    assert problem_from_row(json.loads(json.dumps(row))) == problem


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Problem("p", "", ()), "'p' has tests of kind none and the entry point None"),
        (Problem("p", "", (Test("1", "1", "functional"),)), "kind functional and .* point None"),
        (Problem("p", "", (Test("1", "1", "stdin"),), entry_point="f"), "kind stdin and .* 'f'"),
        (
            Problem(
                "p", "", (Test("1", "1", "functional"), Test("", "", "assert")), entry_point="f"
            ),
            "kind assert and functional and the entry point 'f'",
        ),
        (
            Problem("p", "", (Test("1", "1", "stdin"),), metadata={"func_name": "f"}),
            "'func_name' in its metadata, where rows keep something else",
        ),
    ],
)
def test_problem_that_no_row_can_hold(problem, message):
    with pytest.raises(UserError, match=message):
        row_from_problem(problem)
