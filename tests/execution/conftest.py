"""One judge for the tests that only need some judge."""

import pytest
from support.execution.host import at_rest
from support.execution.judging import EXECUTION

from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Problem


@pytest.fixture(scope="session")
def shared_judge():
    with Judge(EXECUTION) as judge:
        yield judge


@pytest.fixture(scope="session")
def judge(shared_judge):
    return shared_judge


@pytest.fixture(autouse=True, scope="module")
def judge_is_at_rest_before_a_module(shared_judge):
    at_rest(shared_judge)


@pytest.fixture(autouse=True)
def judge_is_at_rest_before_a_test(shared_judge):
    """Tests that count processes count its, too."""
    at_rest(shared_judge)


@pytest.fixture
def run(judge):
    def run(problem: Problem, code: str | None) -> Outcome:
        return judge.submit(problem, code).result(timeout=120)

    return run
