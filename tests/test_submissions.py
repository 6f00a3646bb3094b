"""Completions on their way to the judge: what is looked at before any of them has come."""

import numpy as np
import pytest

from rlif_jax import config
from rlif_jax.errors import UserError
from rlif_jax.execution import judgeable
from rlif_jax.execution.compare import load_json
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Problem, Test, Verdict
from rlif_jax.submissions import Submissions


class Characters:
    """A tokenizer whose tokens are characters."""

    def batch_decode(self, tokens, **options) -> list[str]:
        return ["".join(map(chr, row)) for row in tokens]


def doubles(*tests: str) -> Problem:
    tests = tuple(Test(test, "2", "functional") for test in tests)
    return Problem("double", "Double.", tests, entry_point="f")


def test_tests_are_parsed_once_a_problem_before_the_first_row_comes(monkeypatch):
    parsed = []
    monkeypatch.setattr(judgeable, "load_json", lambda text: parsed.append(text) or load_json(text))
    problems = [doubles("1"), doubles("1", "1.0", "true")]
    texts = ["```\ndef f(n): return 2 * n\n```", "```\nf = str\n```", "none", "```\nf = abs\n```"]
    with Judge(config.Execution(workers=1, time_limit_s=1.0, memory_mb=256)) as judge:
        submissions = Submissions(problems, ["", ""], 4, Characters(), judge)
        assert parsed == ["1", "2", "1", "2", "1.0", "2", "true", "2"]
        for rows in ([7, 0, 3], [1, 2], [4, 5, 6]):
            tokens = [np.array(list(map(ord, texts[row % 4]))) for row in rows]
            submissions.finished(np.array(rows), tokens)
        outcomes = submissions.outcomes()
    assert len(parsed) == 8
    verdicts = [Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.NO_CODE, Verdict.WRONG_ANSWER]
    assert [outcome.verdict for outcome in outcomes] == verdicts * 2


def test_a_problem_that_cannot_be_judged_is_refused_before_rows_are_sampled():
    with Judge(config.Execution(workers=1, time_limit_s=1.0, memory_mb=256)) as judge:
        with pytest.raises(UserError, match=r"'double' cannot be judged: test 2 has '\['"):
            Submissions([doubles("1"), doubles("1", "[")], ["", ""], 4, Characters(), judge)
        Submissions([doubles("[")], [""], 4, Characters(), None)  # nothing is run
