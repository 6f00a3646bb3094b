"""Inputs of votes: the examples, and others like them, without any expected output."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_jax.data.vote_inputs import changed, vote_problem
from rlif_jax.errors import UserError
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Problem, Test

STDIN = Problem(
    "sum",
    "?",
    (Test("3\n1 2 3\n", "6", "stdin"), Test("2\n5 5\n", "10", "stdin", private=True)),
)
CALL = Problem(
    "find",
    "?",
    (
        Test('[1, 2]\n"ab"', "0", "functional"),
        Test('[]\n"x"', "1", "functional"),
        Test('[9]\n"y"', "2", "functional", private=True),
    ),
    entry_point="find",
)
ASSERT = Problem(
    "f",
    "?",
    (
        Test("assert f(1) == 2", "", "assert"),
        Test("assert f(3) == 4", "", "assert", private=True),
    ),
    entry_point="f",
)


def inputs(problem: Problem, kind, count: int = 12) -> list[str]:
    return [test.input for test in vote_problem(problem, kind, count).tests]


def test_examples_are_the_public_tests_without_their_outputs():
    assert inputs(STDIN, "examples") == ["3\n1 2 3\n"]
    assert inputs(CALL, "examples") == ['[1, 2]\n"ab"', '[]\n"x"']
    for problem in (STDIN, CALL):
        voted = vote_problem(problem, "examples", 0)
        assert {test.output for test in voted.tests} <= {"", "null"}
        check_judgeable(voted, "a vote")
    assert vote_problem(STDIN, "problem", 3) is STDIN


@pytest.mark.parametrize("problem", [STDIN, CALL])
def test_further_inputs_are_others_and_always_the_same(problem):
    texts = inputs(problem, "fuzz")
    examples = inputs(problem, "examples")
    assert texts[: len(examples)] == examples
    assert len(texts) == len(set(texts)) == len(examples) + 12
    assert not set(texts) & {test.input for test in problem.tests if test.private}
    assert (
        inputs(problem, "fuzz") == texts
        and inputs(problem, "fuzz", 3) == texts[: len(examples) + 3]
    )
    check_judgeable(vote_problem(problem, "fuzz", 12), "a vote")


def test_a_count_and_the_words_of_a_line_stay():
    for text in inputs(STDIN, "fuzz", 40):
        count, words, end = text.split("\n")
        assert (count, end) == ("3", "") and len(words.split()) == 3
        assert all(int(word) >= 0 for word in words.split())


def test_arguments_keep_their_types():
    for text in inputs(CALL, "fuzz", 40):
        numbers, name = map(json.loads, text.split("\n"))
        assert isinstance(name, str) and all(type(one) is int for one in numbers)


def test_few_inputs_are_all_that_there_are():
    one = Problem("flag", "?", (Test("true", "1", "functional"),), entry_point="flag")
    assert inputs(one, "fuzz") == ["true", "false"]
    none = Problem("pi", "?", (Test("", "3", "functional"),), entry_point="pi")
    assert inputs(none, "fuzz") == [""]


def test_sources_are_not_changed():
    assert inputs(ASSERT, "fuzz") == inputs(ASSERT, "examples") == ["assert f(1) == 2"]


def test_a_problem_without_examples_is_refused():
    hidden = Problem("sum", "?", STDIN.tests[1:])
    with pytest.raises(
        UserError, match=r"problem 'sum' has no public test, so reward\.vote_inputs=fuzz"
    ):
        vote_problem(hidden, "fuzz", 3)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, width=32) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.integers(0, 2**32))
def test_a_value_keeps_its_type_and_its_sign(value, seed):
    got = changed(value, random.Random(seed))
    assert type(got) is type(value)
    if type(value) is int and value >= 0:
        assert got >= 0
    if isinstance(value, dict):
        assert got.keys() == value.keys()
    if isinstance(value, list):
        assert abs(len(got) - len(value)) <= 1
