"""Programs as people write them: the right ones pass, their wrong variants do not."""

import pytest
from support.execution.published import judged, read_published

from rlif_jax.problem import Verdict

HONEST = read_published("honest.jsonl")


@pytest.fixture(scope="module")
def outcomes():
    with judged(HONEST, memory_mb=512) as futures:
        yield futures


@pytest.mark.parametrize("name", HONEST)
def test_honest_program(outcomes, name):
    outcome = outcomes[name].result(timeout=120)
    assert outcome.passed == HONEST[name]["expected_passed"], outcome
    if name == "function_too_heavy":
        assert outcome.verdict is Verdict.TIME_LIMIT
    elif not outcome.passed:
        assert outcome.verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR), outcome
