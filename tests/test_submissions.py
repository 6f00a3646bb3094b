"""Waiting for the judge, with real programs."""

import numpy as np
import pytest

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.interrupt import Interrupted
from rlif_jax.problem import Problem, Test
from rlif_jax.submissions import Submissions

PROBLEM = Problem("echo", "?", (Test("1", "1", "stdin"),), time_limit_s=15.0)
ENDLESS = "```python\nwhile True: pass\n```"
RIGHT = "```python\nprint(input())\n```"


class Texts:
    """A tokenizer whose tokens are the texts themselves."""

    def batch_decode(self, tokens, **options):
        return list(tokens)


def test_waiting_for_tests_can_be_stopped():
    """Told of the wait, a caller stops it; otherwise this one ends with the time limit."""
    told = []

    def notice(text, done, total):
        told.append((text, total))
        if text == "waiting for tests":
            raise Interrupted

    execution = config.Execution(workers=1, time_limit_s=15.0, allow_weak_isolation=True)
    with Judge(execution) as judge:
        submissions = Submissions([PROBLEM], ["?"], 2, Texts(), judge, notice)
        submissions.finished(np.arange(2), [ENDLESS, RIGHT])
        submissions.finished(np.arange(0), [])  # a chunk in which no row has ended
        with pytest.raises(Interrupted):
            submissions.outcomes()
    assert told == [("sampling", 2), ("sampling", 2), ("waiting for tests", 2)]


def test_outcomes_come_in_row_order():
    execution = config.Execution(workers=2, time_limit_s=0.3, allow_weak_isolation=True)
    with Judge(execution) as judge:
        submissions = Submissions([PROBLEM], ["?"], 3, Texts(), judge)
        submissions.finished(np.array([2, 0, 1]), [RIGHT, ENDLESS, "no program"])
        outcomes = submissions.outcomes()
    assert [o.verdict.value for o in outcomes] == ["time_limit", "no_code", "passed"]
