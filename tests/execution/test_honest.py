"""Programs as people write them: the right ones pass, their wrong variants do not."""

import pytest
from published import published_problem, read_published

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

HONEST = read_published("honest.jsonl")


@pytest.fixture(scope="module")
def outcomes():
    """The future of an Outcome for each row."""
    execution = config.Execution(workers=2, time_limit_s=6.0, memory_mb=512)
    with Judge(execution) as judge:
        yield {
            name: judge.submit(published_problem(row), row["code"]) for name, row in HONEST.items()
        }


@pytest.mark.parametrize("name", HONEST)
def test_honest_program(outcomes, name):
    outcome = outcomes[name].result(timeout=120)
    assert outcome.passed == HONEST[name]["expected_passed"], outcome
    if name == "function_too_heavy":
        assert outcome.verdict is Verdict.TIME_LIMIT
    elif not outcome.passed:
        assert outcome.verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR), outcome
