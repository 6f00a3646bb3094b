"""Evaluation: what it writes, one run of continuous batching, repeatability, refusals."""

import json

import jax
import numpy as np
import pytest
from tiny import write_problems

from rlif_jax.config import Execution
from rlif_jax.data.prompts import encode_prompt, pad_prompts
from rlif_jax.errors import UserError
from rlif_jax.evaluate import Arguments, held_out, main, make_evaluate, run
from rlif_jax.execution.pool import Judge
from rlif_jax.sampler.budget import Batching
from rlif_jax.sampler.sample import make_sample


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


def test_all_completions_are_one_run_through_few_slots(tiny, arguments):
    """Six of three problems through two slots: each is counted and told once, as it ends."""
    graphdef, params, tokenizer = tiny
    problems = held_out(arguments["data"], tokenizer, 400)
    three = [*problems, problems[0]]

    def evaluate(slots):
        told = []
        program = make_evaluate(
            graphdef,
            tokenizer,
            three,
            dataset="d",
            samples_per_problem=2,
            temperature=1.0,
            max_new_tokens=30,
            pass_at=1,
            batching=Batching(slots=slots, page=8),
        )
        with Judge(Execution()) as judge:
            notice = lambda text, done, total: told.append((text, done, total))
            return program(params, jax.random.key(0), judge, notice), told

    metrics, told = evaluate(slots=2)
    assert {(text, total) for text, _, total in told} == {("evaluating d", 6)}
    done = [count for _, count, _ in told]
    assert done[0] == 0 and done[-1] == 6 and done == sorted(set(done)) and len(done) > 3
    prompts = pad_prompts([encode_prompt(tokenizer, problem) for problem in three], 2, 1)
    rollout = make_sample(
        graphdef, samples_per_prompt=2, temperature=1.0, max_new_tokens=30, pad_id=2
    )(params, prompts, jax.random.key(0))
    assert metrics["eval/d/response_length"] == pytest.approx(float(np.mean(rollout.length)))
    assert len(set(rollout.length.tolist())) > 1
    assert evaluate(slots=64)[0] == metrics


def test_stop_strings_shorten_completions(arguments):
    """Every letter that the tokenizer has a token of its own for ends a completion."""
    letters = tuple(map(chr, range(32, 127)))
    whole = run(Arguments(**{**arguments, "max_new_tokens": 30}))
    stopped = run(Arguments(**{**arguments, "max_new_tokens": 30, "stop": letters}))
    name = "eval/adding/response_length"
    assert 1 <= stopped[name] < 10 < whole[name]
    with pytest.raises(UserError, match="--stop has an empty string"):
        run(Arguments(**arguments, stop=("a", "")))


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
