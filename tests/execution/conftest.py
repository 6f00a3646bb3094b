"""One judge for the tests that only need some judge."""

import pytest
from judging import EXECUTION

from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Problem


@pytest.fixture(scope="session")
def judge():
    with Judge(EXECUTION) as judge:
        yield judge


@pytest.fixture
def run(judge):
    def run(problem: Problem, code: str | None) -> Outcome:
        return judge.submit(problem, code).result(timeout=120)

    return run
