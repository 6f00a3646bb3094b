"""The certainty of each token that a training records beside its rollouts."""

import json

import numpy as np
import pytest
from support.small_runs import config, metrics
from support.tokenizers_of_kinds import byte_level

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.data.prompts import EncodedPrompt
from rlif_jax.experience import Experience
from rlif_jax.problem import Problem
from rlif_jax.run.policy import Policy
from rlif_jax.run.token_record import read_token_record
from rlif_jax.sampler.engine import Usage
from rlif_jax.step_record import StepRecord
from rlif_jax.submissions import Answers
from rlif_jax.train import main
from rlif_jax.weights.source import open_model
from rlif_jax.weights.token_ends import make_token_ends
from rlif_jax.weights.tokenizer import decode


@pytest.mark.parametrize("stats_from", ["scorer", "sampler"])
def test_the_tokens_of_the_first_and_each_nth_step_are_recorded(
    flags, tiny_path, tmp_path, stats_from
):
    """Cut by them, a completion is the text of its tokens, and their means are the metrics."""
    folder = tmp_path / "run"
    arguments = [config("prob_disparity"), *flags, "--steps=3", "--eval.every=0"]
    arguments += [f"--reward.stats-from={stats_from}", "--checkpoint.every=0"]
    main([*arguments, "--log.token-stats-every=2", f"--run-dir={folder}"])
    names = sorted(path.name for path in (folder / "rollouts").glob("*.npz"))
    assert names == ["step_000001.tokens.npz", "step_000002.tokens.npz"]

    tokenizer, shares = open_model(str(tiny_path)).tokenizer, []
    for step in (1, 2):
        record, measured = read_token_record(folder, step), metrics(folder)[step - 1]
        assert record is not None
        rows = (folder / f"rollouts/step_{step:06d}.jsonl").read_text().splitlines()
        means = {name: [] for name in ("logprob", "entropy", "self_certainty")}
        means["probability_disparity"] = []
        for number, row in enumerate(map(json.loads, rows)):
            own, text = record.row(number), row["completion"]
            assert own.lengths.tolist() == [row["length"]] == [len(own.ends)]
            assert own.ends[-1] == len(text) and (np.diff(own.ends.astype(int)) >= 0).all()
            for token, first, end in zip(row["tokens"], [0, *own.ends], own.ends, strict=False):
                if (said := decode(tokenizer, [token])).isascii() and text[first:end]:
                    assert text[first:end] == said
                    shares.append(said)
            for name, found in means.items():
                found.append(getattr(own, name).astype(np.float64).mean())
        assert measured["stats/trajectory_entropy"] == pytest.approx(
            -np.mean(means["logprob"]), rel=1e-3
        )
        for name, metric in (
            ("entropy", "token_entropy"),
            ("self_certainty", "self_certainty"),
            ("probability_disparity", "probability_disparity"),
        ):
            assert measured[f"stats/{metric}"] == pytest.approx(np.mean(means[name]), rel=1e-3)
    assert len(shares) > 100  # half of the tokens are letters


@pytest.mark.parametrize("scored", [True, False])
def test_the_scorers_numbers_are_recorded_where_there_are_any(scored):
    """Two problems with two samples; the second of each has one token and the end."""
    tokenizer = byte_level()
    a, b = tokenizer("ab").input_ids
    tokens = np.array([[a, b, b], [b, tokenizer.eos_token_id, 0]] * 2, np.int32)
    mask, length = np.array([[1, 1, 1], [1, 1, 0]] * 2, bool), np.array([3, 2, 3, 2], np.int32)
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    sampler, scorer = TokenStats(*(values,) * 5), TokenStats(*(values + 0.5,) * 5)
    prompts = Prompts(np.full((2, 1), a, np.int32), np.ones((2, 1), bool))
    zeros = np.zeros(4, np.float32)
    seen = Experience(
        problems=(Problem("p0", "?", ()), Problem("p1", "?", ())),
        prompts=(EncodedPrompt("a", [a]),) * 2,
        rollout=Rollout(prompts, tokens, mask, sampler, zeros.astype(bool), length),
        policy=scorer if scored else None,
        answers=Answers(("abb", "b") * 2, (None,) * 4, None),
        reward=zeros,
        terms={},
        usage=Usage(),
        keys=np.zeros((4, 2), np.uint32),
        open=np.ones(2, bool),
    )
    record = StepRecord(seen, zeros, [], [], Policy(0, "")).tokens(make_token_ends(tokenizer, ()))
    expected = np.array([0, 1, 2, 3, 4, 6, 7, 8, 9, 10]) + 0.5 * scored
    assert record.entropy.tolist() == record.logprob.tolist() == expected.tolist()
    assert record.ends.tolist() == [1, 2, 3, 1, 1] * 2
    assert record.lengths.tolist() == [3, 2, 3, 2]
