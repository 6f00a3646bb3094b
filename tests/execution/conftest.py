"""One judge for the tests that only need some judge."""

import pytest
from judging import EXECUTION

from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Problem


@pytest.fixture(scope="session")
def shared_judge():
    with Judge(EXECUTION) as judge:
        yield judge


@pytest.fixture(scope="session")
def judge(shared_judge):
    return shared_judge


def await_workers(judge: Judge) -> None:
    """Tests that count processes count these too, of which some may have just been replaced."""
    for slot in judge._slots:
        for worker in slot._workers():
            assert worker.isolation


@pytest.fixture(autouse=True, scope="module")
def workers_are_up_before_a_module(shared_judge):
    await_workers(shared_judge)


@pytest.fixture(autouse=True)
def workers_are_up_before_a_test(shared_judge):
    await_workers(shared_judge)


@pytest.fixture
def run(judge):
    def run(problem: Problem, code: str | None) -> Outcome:
        return judge.submit(problem, code).result(timeout=120)

    return run
