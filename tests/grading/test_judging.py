"""A stream through the judge: in order, bounded in how far it is read ahead, stopped in order.

The judge here finishes a program when the test says so; grading and the check use the real one.
"""

from concurrent.futures import Future

import pytest

from rlif_jax.console.interrupt import Interrupted
from rlif_jax.execution.pool import SandboxError
from rlif_jax.grading import judging
from rlif_jax.grading.judging import AHEAD_PER_WORKER, UNFINISHED_PER_WORKER, judged_in_order
from rlif_jax.problem import Outcome, Problem, Test, Verdict

PROBLEM = Problem("p", "", (Test("", "", "stdin"),))
OUTCOME = Outcome(Verdict.PASSED, (Verdict.PASSED,), 1, 0.0)


class HandJudge:
    """Finishes what it was given only when it is told to."""

    def __init__(self):
        self.futures: dict[str, Future] = {}

    def submit(self, problem, code):
        self.futures[code] = Future()
        return self.futures[code]

    def finish(self, *codes):
        for code in codes:
            self.futures[code].set_result(OUTCOME)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(judging, "STOP_CHECK_S", 0.001)


def entries(count, read, unjudged=()):
    for n in range(count):
        read.append(n)
        yield n, None if n in unjudged else PROBLEM, str(n)


def test_outcomes_come_in_the_order_of_the_entries():
    judge, read, order = HandJudge(), [], []

    def check():  # the latest first, once all are there
        if len(judge.futures) == 3 and not order:
            order.extend(["3", "2", "0"])
            judge.finish(*order)

    found = list(judged_in_order(judge, 1, entries(4, read, unjudged=[1]), check))
    assert found == [(0, OUTCOME), (1, None), (2, OUTCOME), (3, OUTCOME)]
    assert order == ["3", "2", "0"]


class Stuck(Exception):
    """Nothing more is read or yielded."""


def test_the_stream_is_read_as_far_as_the_judge_has_room():
    """First until so many are unfinished; then, with only the first unfinished, far ahead of it."""
    judge, read, calls = HandJudge(), [], [0]

    def check():
        calls[0] += 1
        if calls[0] > 5 * AHEAD_PER_WORKER:
            raise Stuck

    with pytest.raises(Stuck):
        list(judged_in_order(judge, 1, entries(500, read), check))
    # One more has been read than is handed over.
    assert len(judge.futures) == UNFINISHED_PER_WORKER
    assert len(read) == UNFINISHED_PER_WORKER + 1

    judge, read, calls = HandJudge(), [], [0]

    def finishing():
        check()
        judge.finish(*(c for c, f in judge.futures.items() if c != "0" and not f.done()))

    with pytest.raises(Stuck):
        list(judged_in_order(judge, 1, entries(500, read), finishing))
    assert AHEAD_PER_WORKER <= len(judge.futures) <= AHEAD_PER_WORKER + 1
    assert len(read) <= len(judge.futures) + 1


def test_a_stop_yields_what_is_finished_first():
    judge, found = HandJudge(), []

    def check():
        if "3" in judge.futures:
            judge.finish("0", "1", "3")
            raise Interrupted

    with pytest.raises(Interrupted):
        for item, _ in judged_in_order(judge, 1, entries(9, []), check):
            found.append(item)
    assert found == [0, 1]


def test_a_failure_of_the_judge_comes_after_the_outcomes_before_it():
    judge, found = HandJudge(), []

    def check():
        if len(judge.futures) == 3:
            judge.futures["1"].set_exception(SandboxError("the worker ended"))
            judge.finish("0", "2")

    with pytest.raises(SandboxError, match="the worker ended"):
        for item, _ in judged_in_order(judge, 1, entries(3, []), check):
            found.append(item)
    assert found == [0]
