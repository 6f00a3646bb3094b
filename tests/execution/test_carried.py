"""Programs that pass one test because of another, or claim what they did not do: none passes.

Each prints in its later tests what only a process could know that is told of the earlier ones.
"""

import pytest
from support.execution.judging import assert_problem, function_problem, stdin_problem
from support.execution.published import judged, read_published

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

CARRIED = read_published("carried.jsonl")
# What the kernel itself tells of other processes, wherever they run. A program that is made for it
# may pass a test by such a bit; no answer fits into one.
MAY_PASS = {
    "pipe_inode_counter": "pipes get their inode numbers from one counter for the whole kernel",
    "page_cache": "files that were read stay in the memory of the kernel",
}
TIME_LIMIT = {
    "claims_and_never_ends": "its end is that of its process, which never comes",
    "fork_budget": "a child's CPU time is that of the test",
    "fork_budget_function": "a child's CPU time is that of the test, though nobody waits for it",
    "two_children_assert": "the CPU time of both children is that of the test",
}


@pytest.fixture(scope="module")
def outcomes():
    with judged(CARRIED, memory_mb=256) as futures:
        yield futures


@pytest.mark.parametrize("name", CARRIED)
def test_what_must_not_pass_does_not(outcomes, name):
    outcome, note = outcomes[name].result(timeout=120), CARRIED[name]["note"]
    if name in TIME_LIMIT:
        assert outcome.verdict is Verdict.TIME_LIMIT, f"{note}: {outcome}, but {TIME_LIMIT[name]}"
    elif name not in MAY_PASS:
        assert outcome.passed == CARRIED[name]["expected_passed"], f"{note}: {outcome}"


def test_every_exception_is_a_row_that_should_not_pass():
    assert not any(CARRIED[name]["expected_passed"] for name in (*MAY_PASS, *TIME_LIMIT))
    assert MAY_PASS.keys().isdisjoint(TIME_LIMIT)


def test_a_program_that_is_hard_to_read_stalls_no_other():
    """Its text takes long to read, and then it never ends; the other worker goes on meanwhile."""
    hard = CARRIED["nested_subscripts"]["code"] + "while True: pass\n"
    echo = stdin_problem(("7", "7"), ("8", "8"))
    with Judge(config.Execution(workers=2, time_limit_s=6.0)) as judge:
        endless = judge.submit(echo, hard)
        for _ in range(5):
            assert judge.submit(echo, "print(input())").result(timeout=120).passed
        assert not endless.done()


def test_work_of_children_within_the_limit_is_allowed(run):
    """A pool of processes is an ordinary means: its time counts, but it is not refused."""
    code = (
        "import multiprocessing\ndef g(x): return x * x\n"
        "def f(n):\n    with multiprocessing.Pool(2) as pool: return sum(pool.map(g, range(n)))"
    )
    assert run(function_problem("f", ("3", "5"), ("4", "14")), code).passed
    assert run(assert_problem("f", "assert f(3) == 5", "assert f(4) == 14"), code).passed
