"""Tests that the policy writes: how it is asked, and what is read in answers of every kind."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_jax.data.generated_tests import (
    MOST_CASES,
    MOST_CHARACTERS,
    MOST_LEVELS,
    longer_prompt,
    messages_for_tests,
    pose_tests,
    proposed_cases,
    with_proposed_tests,
)
from rlif_jax.data.prompts import PromptOptions, pose
from rlif_jax.errors import UserError
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Problem, Test

STDIN = Problem(
    "sum",
    "Add the numbers.\n",
    (Test("3\n1 2 3\n", "6", "stdin"), Test("2\n5 5\n", "10", "stdin", private=True)),
)
CALL = Problem(
    "find",
    "Find the name.",
    (
        Test('[1,2]\n"ab"', "0", "functional"),
        Test('[9]\n"y"', "2", "functional", private=True),
    ),
    starter_code="def find(numbers, name):\n    ",
    entry_point="find",
)
ASSERT = Problem(
    "f",
    "Add one.",
    (Test("assert f(1) == 2", "", "assert"), Test("assert f(3) == 4", "", "assert", True)),
    entry_point="f",
)


# ---- the prompt


def test_messages():
    assert messages_for_tests(STDIN) == [
        {
            "role": "user",
            "content": "Add the numbers.\n\n"
            "Do not write a program. Write test cases for one, each a line of JSON: "
            '{"input": TEXT, "output": TEXT}, all that it reads and prints, '
            "with \\n for a new line.",
        }
    ]
    system, user = messages_for_tests(CALL, PromptOptions(system_prompt="Be brief."))
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == (
        "Find the name.\n\n```python\ndef find(numbers, name):\n```\n\n"
        "Do not write find. Write test cases for it, each a line of JSON: "
        '{"input": [ARGUMENT, ...], "output": RESULT}.'
    )
    assert "5 5" not in str(messages_for_tests(STDIN)) and "```" not in str(
        messages_for_tests(ASSERT)
    )


@pytest.mark.parametrize("problem", [STDIN, CALL, ASSERT])
def test_a_copy_of_the_request_is_no_test(problem):
    kind = "stdin" if problem is STDIN else "functional"
    assert proposed_cases(messages_for_tests(problem)[0]["content"], kind) == []


def test_the_prompt_follows_the_chat_template_and_switches_thinking(tokenizer):
    asked = pose_tests(tokenizer, STDIN)
    text = messages_for_tests(STDIN)[0]["content"]
    assert asked.text == f"<bos><|user|>{text}<|end|><|assistant|>"
    assert tokenizer.decode(asked.tokens) == asked.text
    assert longer_prompt(tokenizer, STDIN) == asked.tokens
    styled = PromptOptions(prompt_style="livecodebench")
    posed = pose(tokenizer, STDIN, styled)
    assert len(posed.tokens) > len(pose_tests(tokenizer, STDIN, styled).tokens)
    assert longer_prompt(tokenizer, STDIN, styled) == posed.tokens


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(UserError, match=r"reward\.vote_inputs=model asks for tests in chat mess"):
        pose_tests(tokenizer, STDIN)


# ---- the answers


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ('{"input": [1, [2]], "output": {"a": null}}', [("1\n[2]", '{"a": null}')]),
        ('{"input": [], "output": 3}', [("", "3")]),
        # Lines amid prose, a list in a block over several lines, an object around them
        (
            'Sure!\n1. {"input": [1], "output": 1.0},\n- {"output": "b", "input": ["\\n"]} (hard)',
            [("1", "1.0"), ('"\\n"', '"b"')],
        ),
        (
            '```json\n[\n  {\n    "input": [1],\n    "output": 2\n  },\n  {"input": [2], '
            '"output": 3}\n]\n```',
            [("1", "2"), ("2", "3")],
        ),
        ('{"tests": [{"input": [1], "output": 2}]}', [("1", "2")]),
        # What is broken is passed over, and what follows it is not
        (
            '{"input": [1], "output": }\n{"input": [1, "output": 2}\n{"input": [5], "output": 6}\n'
            '{"input": [7], "out',
            [("5", "6")],
        ),
        # Neither JSON nor finite
        ('{"input": [NaN], "output": 1}{"input": [1], "output": 1e999}', []),
        ("{'input': [1], 'output': 2}", []),
        ('{"input": [__import__("os")], "output": 2}', []),
        # A case twice is one; 1 and 1.0 are two
        (
            '{"input": [1], "output": 2}\n{"output": 2, "input": [1]}{"input": [1.0], "output": 2}',
            [("1", "2"), ("1.0", "2")],
        ),
        ('{"input": 1, "output": 2}{"input": {"x": 1}, "output": 2}{"input": [1]}', []),
        ('{"input": ["\\ud800"], "output": 1}', [('"\\ud800"', "1")]),
    ],
)
def test_calls(text, cases):
    assert proposed_cases(text, "functional") == cases


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ('{"input": "3\\n1 2 3\\n", "output": "6\\n"}', [("3\n1 2 3\n", "6")]),
        ('{"input": "3\n1 2 3", "output": "6"}', [("3\n1 2 3\n", "6")]),  # real line breaks
        ('{"input": "", "output": "0"}{"input": " \\n", "output": "0 "}', [("", "0")]),
        (
            '{"input": "3", "output": " "}{"input": "3", "output": 4}{"input": [], "output": "1"}',
            [],
        ),
        ('{"input": "\\ud800", "output": "1"}', []),  # half a character
    ],
)
def test_standard_input(text, cases):
    assert proposed_cases(text, "stdin") == cases


def nested(levels: int) -> str:
    return json.dumps({"input": json.loads("[" * levels + "]" * levels), "output": 1})


def test_what_is_too_much_is_left_out():
    many = "\n".join(json.dumps({"input": [n], "output": n}) for n in range(100))
    assert [given for given, _ in proposed_cases(many, "functional")] == [
        str(n) for n in range(MOST_CASES)
    ]
    for length, count in ((MOST_CHARACTERS, 1), (MOST_CHARACTERS + 1, 0)):
        long = json.dumps({"input": [1], "output": "a" * (length - 2)})
        assert len(proposed_cases(long, "functional")) == count
    for levels, count in ((MOST_LEVELS - 1, 1), (MOST_LEVELS, 0)):
        assert len(proposed_cases(nested(levels), "functional")) == count
    assert proposed_cases("{" * 100_000 + many, "functional") == []
    assert proposed_cases('{"input": ' + "[" * 100_000, "functional") == []
    assert proposed_cases('{"input": [1' + "0" * 5000 + '], "output": 1}', "functional") == []


def lines(*cases) -> str:
    return "\n".join(json.dumps({"input": given, "output": wanted}) for given, wanted in cases)


A, B, C = ([[1], "a"], 1), ([[2], "b"], 2), ([[3], "c"], 3)


def test_examples_come_first_then_what_most_answers_propose():
    """B is in three answers, A and C in two, of which C was found first; nothing counts twice."""
    answers = [lines(C, B, A), lines(B), lines(A, C, A, A), lines(B, B)]
    made, count = with_proposed_tests(CALL, answers, 8)
    example, *generated = made.tests
    assert example == CALL.tests[0] and count == 3
    want = [('[2]\n"b"', "2"), ('[3]\n"c"', "3"), ('[1]\n"a"', "1")]
    assert [(test.input, test.output) for test in generated] == want
    assert {(test.kind, test.private) for test in generated} == {("functional", True)}
    check_judgeable(made, "a vote")
    few, count = with_proposed_tests(CALL, answers, 2)
    assert few.tests == made.tests[:3] and count == 2


def test_the_hidden_tests_play_no_part_and_an_example_is_not_contradicted():
    """However the example's input is spelled, it has one output: that of the statement."""
    answers = [lines(([[1, 2], "ab"], 5), ([[9], "y"], 3))]
    made, count = with_proposed_tests(CALL, answers, 8)
    assert [test.output for test in made.tests] == ["0", "3"] and count == 1
    made, count = with_proposed_tests(STDIN, [lines(("3\n1 2 3", "7"), ("1\n4\n", "4\n"))], 8)
    assert [(t.input, t.output) for t in made.tests] == [("3\n1 2 3\n", "6"), ("1\n4\n", "4")]
    assert count == 1
    check_judgeable(made, "a vote")


def test_tests_that_assert_are_replaced_by_calls():
    made, count = with_proposed_tests(ASSERT, [lines(([5], 6))], 8)
    assert made.tests == (Test("5", "6", "functional", private=True),) and count == 1
    check_judgeable(made, "a vote")


def test_without_an_example_and_a_proposal_there_is_no_test():
    assert with_proposed_tests(ASSERT, ["", "none"], 8) == (
        Problem("f", "Add one.", (), entry_point="f"),
        0,
    )


@pytest.mark.parametrize(
    ("answer", "thinking_open", "count"),
    [
        (f"<think>{lines(A)}</think>{lines(B)}", False, 1),
        (f"{lines(A)}</think>\n{lines(B)}", True, 1),
        (f"{lines(A)}\n{lines(B)}", True, 0),  # still thinking
        (f"<think>{lines(A)}\n{lines(B)}", False, 0),
        (f"{lines(A)}\n{lines(B)}", False, 2),
    ],
)
def test_a_thought_holds_no_test(answer, thinking_open, count):
    assert with_proposed_tests(CALL, [answer], 8, thinking_open)[1] == count


CASE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
PIECES = st.lists(
    st.text(max_size=8)
    | st.sampled_from(['{"input": ', '"output": ', "{", "}", "[", "]", '"', ",", "\n", "```json\n"])
    | st.builds(lambda i, o: json.dumps({"input": i, "output": o}), CASE, CASE)
    | st.builds(lambda i, o: json.dumps({"input": [i], "output": o}), CASE, CASE)
)


@given(PIECES)
def test_whatever_is_answered_the_tests_can_be_judged(pieces):
    for problem in (STDIN, CALL, ASSERT):
        made, count = with_proposed_tests(problem, ["".join(pieces), *pieces], 4)
        assert 0 <= count <= 4
        generated = made.tests[len(made.tests) - count :]
        assert len({(test.input, test.output) for test in generated}) == count
        if made.tests:
            check_judgeable(made, "a vote")


@given(st.lists(st.tuples(st.lists(CASE, max_size=3), CASE), max_size=4))
def test_what_is_written_well_is_read_back(cases):
    cases = [case for case in cases if "NaN" not in lines(case) and "Infinity" not in lines(case)]
    read = proposed_cases(lines(*cases), "functional")
    want = {("\n".join(map(json.dumps, given)), json.dumps(wanted)) for given, wanted in cases}
    assert set(read) == want and len(read) == len(want)
