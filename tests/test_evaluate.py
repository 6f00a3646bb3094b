"""Evaluation: what it writes, batches that do not divide, repeatability, refusals."""

import json

import jax
import pytest
from tiny import write_problems

from rlif_jax.config import Execution
from rlif_jax.errors import UserError
from rlif_jax.evaluate import Arguments, held_out, main, make_evaluate, run
from rlif_jax.execution.pool import Judge


@pytest.fixture
def arguments(tiny_path, tmp_path, monkeypatch):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    problems = write_problems(tmp_path / "adding.jsonl")
    return {"model": str(tiny_path), "data": str(problems), "max_new_tokens": 8, "n": 2, "k": 2}


def test_the_file_has_the_metrics_and_what_made_them(arguments, tmp_path, monkeypatch):
    out = tmp_path / "result.json"
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in arguments.items()]
    monkeypatch.setattr("sys.argv", ["evaluate", *flags, f"--out={out}"])
    main()
    result = json.loads(out.read_text())
    assert result["arguments"]["n"] == 2
    metrics = result["metrics"]
    names = ("avg@2", "avg@2_low", "avg@2_high", "pass@2", "response_length")
    assert metrics.keys() == {f"eval/adding/{name}" for name in names}
    assert metrics["eval/adding/avg@2"] == 0  # a random model solves nothing
    assert 1 <= metrics["eval/adding/response_length"] <= 8


def test_it_repeats_with_its_seed(arguments):
    assert run(Arguments(**arguments)) == run(Arguments(**arguments))
    assert run(Arguments(**arguments)) != run(Arguments(**{**arguments, "seed": 1}))


def test_a_last_batch_that_is_not_full_counts_each_problem_once(tiny, arguments):
    """Three problems in batches of two: the filler's rows must not reach the numbers."""
    graphdef, params, tokenizer = tiny
    problems = held_out(arguments["data"], tokenizer, 400)
    three = [*problems, problems[0]]
    seen = []

    def evaluate(problems, rows):
        settings = {"samples_per_problem": 2, "temperature": 1.0, "max_new_tokens": 30}
        fixed = {"dataset": "d", "pass_at": 1, "bucket": 64}
        program = make_evaluate(graphdef, tokenizer, problems, rows=rows, **settings, **fixed)
        with Judge(Execution()) as judge:
            notice = lambda text, done, total: seen.append((done, total))
            return program(params, jax.random.key(0), judge, notice)

    whole = evaluate(three, rows=4)["eval/d/response_length"]
    assert seen == [(0, 6), (4, 6)]
    first = evaluate(three[:2], rows=4)["eval/d/response_length"]
    # The last batch is problem 3 and its repeat under the batch's own key; only problem 3 counts.
    assert whole != first
    assert (whole * 6 - first * 4) == pytest.approx(round(whole * 6 - first * 4))


def test_bad_input_is_refused(arguments, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="--k 3 must be between 1 and --n, which is 2"):
        run(Arguments(**{**arguments, "k": 3}))
    with pytest.raises(UserError, match="no held-out problem"):
        run(Arguments(**{**arguments, "max_prompt_tokens": 3}))
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in arguments.items()]
    monkeypatch.setattr("sys.argv", ["evaluate", *flags, f"--out={tmp_path}/no/such.json"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "such.json cannot be written" in capsys.readouterr().err
