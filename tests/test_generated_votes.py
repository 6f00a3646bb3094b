"""Tests that the policy writes, from its answers through the real judge to rewards and metrics."""

import json

import jax
import numpy as np
import pytest
from support.small_runs import config, metrics, refused
from support.tokenizers_of_kinds import byte_level

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Execution, Reward, Sampling
from rlif_jax.console.notice import ignore
from rlif_jax.data.generated_tests import pose_tests
from rlif_jax.data.prompts import EncodedPrompt, encode_text, pose
from rlif_jax.execution.pool import Judge
from rlif_jax.experience import Questions, experience, with_generated_tests
from rlif_jax.metrics import execution_metrics, generated_metrics
from rlif_jax.problem import Outcome, Problem, Test, Verdict
from rlif_jax.run.clock import Clock
from rlif_jax.sampler.engine import Usage
from rlif_jax.submissions import UNTESTED, Submissions
from rlif_jax.train import main

G = 3
DOUBLE = Problem(
    "double",
    "Double n.",
    (Test("1", "2", "functional"), Test("4", "8", "functional", private=True)),
    entry_point="f",
)
ECHO = Problem("echo", "Echo.", (Test("a\n", "a", "stdin", private=True),))
PROBLEMS = [DOUBLE, ECHO]

TESTS = [
    # 3 is doubled in two answers; one of the others is wrong, and one repeats the example
    '{"input": [5], "output": 25}\n{"input": [3], "output": 6}',
    'Here:\n```json\n[{"input": [3], "output": 6}, {"input": [1], "output": 2}]\n```',
    '{"input": [0], "output": 0}',
    *("no test", "", '{"input": [1], "output": 1}'),  # for the echo none of its kind
]
DOUBLES = "```python\ndef f(n): return 2 * n\n```"
SQUARES = "```python\ndef f(n): return n * n\n```"
PROGRAMS = [DOUBLES, SQUARES, "none", *["```python\nprint(input())\n```"] * 2, "none"]


def rollout_of(texts: list[str]) -> Rollout:
    B = len(texts)
    zeros = np.zeros((B, 1), np.float32)
    return Rollout(
        prompts=Prompts(np.zeros((B // G, 1), np.int32), np.ones((B // G, 1), bool)),
        tokens=np.zeros((B, 1), np.int32),
        mask=np.ones((B, 1), bool),
        stats=TokenStats(*(zeros,) * 5),
        truncated=np.zeros(B, bool),
        length=np.ones(B, np.int32),
    )


class SaysInTurn:
    """A sampler that gives these texts, a batch for each call, and keeps what it was asked with."""

    def __init__(self, *batches: list[str]):
        self.waiting, self.asked = list(batches), []

    def __call__(self, prompts, key, rows_finished):
        self.asked.append((prompts, tuple(jax.random.key_data(key).tolist())))
        texts = self.waiting.pop(0)
        for rows in np.array_split(np.arange(len(texts))[::-1], 2):  # in another order, in parts
            rows_finished(rows, [np.array(byte_level()(texts[row]).input_ids) for row in rows])
        return rollout_of(texts), Usage(slot_steps=10, useful=len(texts))


@pytest.fixture(scope="module")
def judge():
    execution = Execution(workers=2, time_limit_s=2.0, memory_mb=256)
    with Judge(execution, run_all_tests=True) as judge:
        yield judge


def questions(judge, with_tests: bool = True, notice=ignore) -> Questions:
    tokenizer = byte_level()

    def posed(text: str) -> EncodedPrompt:
        return EncodedPrompt(text, encode_text(tokenizer, text))

    def of(kind: str, judge, phase: str) -> Questions:
        prompts = [posed(f"{kind} {problem.id}") for problem in PROBLEMS]
        desk = Submissions(PROBLEMS, prompts, G, tokenizer, judge, notice, phase=phase)
        return Questions(PROBLEMS, prompts, desk)

    tests = of("test", None, "asking for tests") if with_tests else None
    asked = of("solve", judge, "sampling")
    return Questions(asked.problems, asked.prompts, asked.submissions, tests)


def configured(*terms: str) -> Config:
    return Config(
        data=Data(prompts_per_step=len(PROBLEMS)),
        sampling=Sampling(samples_per_prompt=G, max_new_tokens=4),
        reward=Reward(terms=tuple((name, 1.0) for name in terms), vote_inputs="model"),
    )


def after(judge, draw, cfg, with_tests=True, notice=ignore):
    return experience(
        cfg,
        draw,
        lambda rollout: (None, rollout.stats),
        lambda: questions(judge, with_tests, notice),
        jax.random.key(3),
        Clock(),
        notice,
    )


def test_a_round_asks_for_tests_and_judges_by_them(judge):
    """Tests of doubling: 1 -> 2, the example; 3 -> 6, proposed twice; 5 -> 25, wrong; 0 -> 0.

    Doubling passes all but the wrong one, squaring the last two. The echo has no test to vote on.
    """
    told = []

    def notice(text, done=None, total=None):
        if text not in told:
            told.append(text)

    draw = SaysInTurn(TESTS, PROGRAMS)
    terms = ("generated_tests", "codet", "b4", "majority_vote", "soft_vote")
    seen = after(judge, draw, configured(*terms), notice=notice)
    P, W = Verdict.PASSED, Verdict.WRONG_ANSWER
    assert [vote.results for vote in seen.answers.votes[:3]] == [(P, P, W, P), (W, W, P, P), ()]
    assert seen.answers.votes[3:] == (UNTESTED,) * 3
    assert seen.answers.generated == (3, 3, 3, 0, 0, 0)
    # Of the problem's own tests 4 -> 8 was among none of these.
    assert [outcome.passed for outcome in seen.answers.outcomes] == [1, 0, 0, 1, 1, 0]
    assert seen.terms["generated_tests"].tolist() == [0.75, 0.5, 0, 0, 0, 0]
    assert seen.terms["codet"].tolist() == [1, 0, 0, 0, 0, 0]
    assert seen.terms["b4"].tolist() == [1, 0, 0, 0, 0, 0]
    assert seen.terms["majority_vote"].tolist() == [1, 1, 0, 0, 0, 0]
    assert seen.terms["soft_vote"].tolist() == [0.125, 0.125, 0, 0, 0, 0]  # both answer 0 alike
    assert seen.usage == Usage(slot_steps=20, useful=12)
    assert told[:3] == ["asking for tests", "sampling", "scoring"]
    measured = execution_metrics(
        seen.answers.outcomes, seen.reward, G, seen.answers.votes, seen.answers.generated
    )
    assert measured["exec/generated_tests"] == 1.5  # 3 and 0
    assert measured["exec/generated_tests_right"] == pytest.approx(2 / 3)
    assert measured["exec/label_accuracy"] == 0.25  # of two classes of one, and no class


def test_programs_are_drawn_as_they_would_be_without_asking(judge):
    with_tests, without = SaysInTurn(TESTS, PROGRAMS), SaysInTurn(PROGRAMS)
    cfg = configured("tests_passed")
    seen, bare = after(judge, with_tests, cfg), after(judge, without, cfg, with_tests=False)
    assert with_tests.asked[1] == without.asked[0]
    assert with_tests.asked[0][1] != with_tests.asked[1][1]
    assert seen.keys.tolist() == bare.keys.tolist() and bare.answers.generated is None
    tokenizer = byte_level()
    assert [tokenizer.decode(ids) for ids in with_tests.asked[0][0]] == ["test double", "test echo"]


def test_each_test_of_a_step_is_counted_to_the_most(judge):
    asked, usage = with_generated_tests(
        questions(judge), SaysInTurn(TESTS), jax.random.key(0), most=1
    )
    assert asked.tests is None and usage.useful == len(TESTS)
    SaysInTurn(PROGRAMS)([], jax.random.key(0), asked.submissions.finished)
    answers = asked.submissions.collect()
    assert answers.generated == (1, 1, 1, 0, 0, 0)
    assert [vote.tests_total for vote in answers.votes] == [2, 2, 2, 0, 0, 0]  # with the example


def test_another_desk_differs_in_the_votes_alone(judge):
    """Whatever the constructor takes is handed on."""
    problem = Problem("echo", "?", (Test("b", "b", "stdin"),))
    given = {
        "problems": PROBLEMS,
        "prompts": questions(judge).prompts,
        "group": G,
        "tokenizer": byte_level(),
        "judge": judge,
        "notice": lambda text, done=None, total=None: None,
        "eos_ids": (7,),
        "share": [1],
        "part": "code",
        "phase": "drawing",
        "twice": True,
    }
    plain = Submissions(**given)
    other = plain.voting_on({1: problem}, {1: 1})
    differing = {name for name, value in vars(other).items() if vars(plain)[name] is not value}
    fresh = {"texts", "codes", "parts", "_futures", "_ungiven", "_votes", "_again"}
    fresh |= {"_thinking_open"}
    assert differing - fresh == {"_vote_on", "_generated"}
    taken = Submissions.__init__.__code__.co_varnames[1 : Submissions.__init__.__code__.co_argcount]
    assert {*given, "vote_on", "generated"} == set(taken)


def test_right_tests_are_known_where_a_program_passes():
    """Groups: two programs pass, all and half of two tests; none passes; one passes, no test."""
    P, W = Verdict.PASSED, Verdict.WRONG_ANSWER

    def ran(*results: Verdict) -> Outcome:
        first = next((v for v in results if v is not P), P)
        return Outcome(first, results, len(results), 0.1)

    votes = [ran(W, P, P), ran(P, W, P), ran(P, P, P), ran(W, W, W), ran(P), ran(P)]
    outcomes = [ran(P), ran(P), ran(W), ran(W), ran(P), ran(W)]
    generated = [2, 2, 2, 2, 0, 0]
    assert generated_metrics(votes, outcomes, generated, 2) == pytest.approx(
        {"exec/generated_tests": 4 / 3, "exec/generated_tests_right": (1 + 0.5) / 2}
    )
    flat = generated_metrics(votes[2:4], outcomes[2:4], [2, 2], 2)
    assert flat == {"exec/generated_tests": 2.0, "exec/generated_tests_right": 0.0}


# ---- whole runs


def test_a_run_whose_model_writes_no_test_votes_on_examples(flags, tmp_path):
    """The very small model writes neither JSON nor a program; the stages are those of the step."""
    terms = ("--reward.terms", "codet", "0.5", "b4", "0.5", "--reward.vote-inputs=model")
    run = ["--steps=1", "--eval.every=0", f"--run-dir={tmp_path / 'run'}"]
    main([config("majority_vote"), *flags, *run, *terms])
    (step,) = metrics(tmp_path / "run")
    assert step["exec/generated_tests"] == step["exec/generated_tests_right"] == 0
    assert step["reward/codet"] == step["reward/b4"] == step["exec/unique_behaviours"] == 0
    # What was drawn for tests is counted as well, at least a token for each of 16 answers.
    drawn = step["throughput/sample_tokens_per_s"] * step["time/sample"]
    assert drawn > 16 * step["rollout/response_length"] + 15


def test_a_problem_whose_tests_cannot_be_asked_for_is_left_out(flags, tiny, tmp_path, capsys):
    """The prompt of each problem is short enough, the one for its tests is not."""
    short = [*flags, "--data.max-prompt-tokens=150", f"--run-dir={tmp_path / 'run'}"]
    said = refused([config("majority_vote"), *short, "--reward.vote-inputs=model"], capsys)
    assert "left of 10: 10 with a prompt of more than data.max_prompt_tokens=150 tokens" in said
    problem = Problem("add9", "f(x) adds 9.", (), "def f(x):", "f")
    posed, asked = pose(tiny[2], problem), pose_tests(tiny[2], problem)
    assert len(posed.tokens) < 150 < len(asked.tokens)


def test_problems_without_an_example_are_left_out_before_the_first_step(flags, tmp_path, capsys):
    """All tests of an own row are hidden unless it says otherwise."""
    hidden = {"input": [2], "output": 4}
    rows = [
        {"id": f"p{n}", "prompt": f"Double number {n}.", "entry_point": "f", "difficulty": "easy"}
        | {"tests": [hidden, hidden | ({"public": True} if n else {})]}
        for n in range(5)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    votes = ["--reward.vote-inputs=fuzz", "--eval.every=0", "--steps=1"]
    arguments = [config("majority_vote"), *flags, f"--data.name=jsonl:{path}", *votes]
    main([*arguments, f"--run-dir={tmp_path / 'run'}"])
    said = " ".join(capsys.readouterr().out.split())
    assert "4 of 5 problems" in said
    assert "1 without a public test, which reward.vote_inputs=fuzz votes on" in said
    path.write_text(json.dumps(rows[0]) + "\n")
    text = refused([*arguments, f"--run-dir={tmp_path / 'none'}"], capsys)
    assert "is left of 1: 1 without a public test" in text
    assert not (tmp_path / "none").exists()
