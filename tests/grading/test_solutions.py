"""Why the solution of a row fails, and what to do about it; the command is in test_check."""

import pytest

from rlif_jax.grading.solutions import failure
from rlif_jax.problem import Outcome, Problem, Test, Verdict


@pytest.mark.parametrize(
    ("statement", "several"),
    [
        ("If there are multiple answers, print any.", True),
        ("If there are several possible solutions, output any of them.", True),
        ("If there is more than one valid sequence, print whichever you like.", True),
        ("You may return the answer in any order.", True),
        ("Print any such array.", True),
        ("Any valid construction is accepted.", True),
        ("Does any number of them divide n? Print YES or NO.", False),
        ("There are many ways of life; print the company's name.", False),
        ("Print the order of the group.", False),
    ],
)
def test_statements_that_allow_several_answers(statement, several):
    outcome = Outcome(Verdict.WRONG_ANSWER, (Verdict.WRONG_ANSWER,), 1, 0.1)
    problem = Problem("p", statement, (), metadata={"solution": ""})
    assert ("several answers may be right" in failure(outcome, problem)) == several


def test_failure_of_a_program_that_says_nothing():
    results = (Verdict.PASSED, Verdict.RUNTIME_ERROR)
    outcome = Outcome(Verdict.RUNTIME_ERROR, results, 2, 0.1)
    problem = Problem("p", "", (Test("", "", "stdin"),) * 2, metadata={"solution": "x = 1"})
    assert failure(outcome, problem).startswith(
        "its own solution fails 1 of 2 tests (2 runtime_error): runtime_error; correct"
    )
