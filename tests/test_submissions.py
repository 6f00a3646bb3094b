"""Sampled tokens to texts, programs and the judge, for tokenizers of several kinds."""

import dataclasses

import numpy as np
import pytest
from support.tokenizers_of_kinds import byte_fallback, byte_level
from tokenizers import normalizers

from rlif_jax import config, judgeable
from rlif_jax.console.interrupt import Interrupted
from rlif_jax.data.prompts import EncodedPrompt, encode_text
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Problem, Test, Verdict
from rlif_jax.submissions import Submissions
from rlif_jax.weights.tokenizer import continuation, decode

PROBLEM = Problem("p", "Echo.", (Test("1\n", "1\n", "stdin"),))
BLOCK = "```python\n{}\n```\n"
FORCED = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
PROGRAM = "print(' , '.join(x) != '<|fim_prefix|>')"

# (prompt, completion): the program
ANSWERS = {
    ("Q\n<think>\n", f"easy</think>\n{BLOCK.format(PROGRAM)}"): PROGRAM,
    ("Q\n", f"<think>easy</think>\n{BLOCK.format(PROGRAM)}"): PROGRAM,
    ("Q\n", f"<think>First try:\n{BLOCK.format('print(0)')}no, wrong"): None,
    ("Q\n<think>\n", f"First try:\n{BLOCK.format('print(0)')}no, wrong"): None,
    ("Q\n", BLOCK.format("x = '</s>'")): "x = '</s>'",
    ("Q\n", BLOCK.format("x = '<think>'")): "x = '<think>'",
}


def posed(tokenizer, text: str) -> EncodedPrompt:
    return EncodedPrompt(text, encode_text(tokenizer, text))


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize(("prompt", "answer"), ANSWERS)
def test_thoughts_and_programs_of_special_tokens(make, prompt, answer):
    tokenizer = make(clean_up_tokenization_spaces=True, **{FORCED: True})
    if make is byte_fallback:  # encodes a space before each piece between special tokens
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    submissions = Submissions([PROBLEM], [posed(tokenizer, prompt)], 1, tokenizer, None)
    sampled = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    submissions.finished(np.array([0]), [np.array(sampled, np.int32)])
    assert submissions.texts == [answer]
    assert submissions.codes == [ANSWERS[prompt, answer]]


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize("part", ["code", "thinking"])
def test_tokens_of_the_part_that_is_asked_for(make, part):
    """They are the fewest that hold its characters; a text without it has none."""
    tokenizer = make()
    answer = "<think>Was sonst: \u00e4?</think>\n```python\nprint('\u00e4')\n```\nDone."
    want = {"code": "print('\u00e4')\n", "thinking": "Was sonst: \u00e4?"}[part]
    prompts = [posed(tokenizer, "Q\n")]
    submissions = Submissions([PROBLEM], prompts, 2, tokenizer, None, part=part)
    rows = [tokenizer(text, add_special_tokens=False).input_ids for text in (answer, "no")]
    submissions.finished(np.array([0, 1]), [np.array(row, np.int32) for row in rows])
    (first, end), none = submissions.collect().parts
    text = submissions.texts[0]
    assert none == (0, 0) and 0 < first < end < len(rows[0])

    def said(count: int) -> str:
        return continuation(tokenizer, prompts[0].tokens, rows[0][:count])

    start = text.index(want)
    # A decoder may show a space only once something follows it, so that it is at either side.
    assert len(said(first)) <= start <= len(said(first + 1)) and start < len(said(first + 2))
    assert len(said(end - 1)) < start + len(want) <= len(said(end))


def test_a_text_keeps_its_first_space_and_loses_every_end():
    """The model's ends may be more than the tokenizer's; padding has none of them."""
    tokenizer = byte_fallback()
    other = tokenizer.convert_tokens_to_ids("<|fim_prefix|>")
    tokens = np.array([tokenizer.convert_tokens_to_ids("\u2581a"), other], np.int32)
    for eos_ids, text in (((other,), " a"), ((), " a<|fim_prefix|>")):
        submissions = Submissions(
            [PROBLEM], [posed(tokenizer, "Q")], 2, tokenizer, None, eos_ids=eos_ids
        )
        padded = np.append(tokens, [tokenizer.pad_token_id] * 3)
        submissions.finished(np.array([1, 0]), [tokens, padded])
        assert submissions.texts == [text, text]
        begun = tokenizer("Q", add_special_tokens=False).input_ids
        kept = tokens[:-1] if eos_ids else tokens
        assert decode(tokenizer, begun) + text == decode(tokenizer, [*begun, *kept])


EMPTY = EncodedPrompt("", [])


def doubles(*tests: str) -> Problem:
    tests = tuple(Test(test, "2", "functional") for test in tests)
    return Problem("double", "Double.", tests, entry_point="f")


def test_tests_are_parsed_once_a_problem_before_the_first_row_comes(monkeypatch):
    parsed = []
    monkeypatch.setattr(judgeable, "json_error", lambda text: parsed.append(text))
    problems = [doubles("1"), doubles("1", "1.0", "true")]
    tokenizer = byte_level()
    texts = ["```\ndef f(n): return 2 * n\n```", "```\nf = str\n```", "none", "```\nf = abs\n```"]
    with Judge(config.Execution(workers=1, time_limit_s=1.0, memory_mb=256)) as judge:
        submissions = Submissions(problems, [EMPTY, EMPTY], 4, tokenizer, judge)
        assert parsed == ["1", "2", "1", "2", "1.0", "2", "true", "2"]
        for rows in ([7, 0, 3], [1, 2], [4, 5, 6]):
            tokens = [np.array(tokenizer(texts[row % 4]).input_ids) for row in rows]
            submissions.finished(np.array(rows), tokens)
        outcomes = submissions.collect().outcomes
    assert len(parsed) == 8
    verdicts = [Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.NO_CODE, Verdict.WRONG_ANSWER]
    assert [outcome.verdict for outcome in outcomes] == verdicts * 2


def test_programs_are_run_on_the_inputs_of_votes_as_well():
    """Its answers there, whatever the tests expect; a row without a program has none."""
    problem = doubles("1", "2")
    vote_on = {0: dataclasses.replace(problem, tests=(Test("5", "null", "functional"),))}
    texts = ["```\ndef f(n): return 2 * n\n```", "```\ndef f(n): return n + 1\n```", "none"]
    tokenizer = byte_level()
    with Judge(config.Execution(workers=1, time_limit_s=1.0, memory_mb=256), True) as judge:
        submissions = Submissions([problem], [EMPTY], 3, tokenizer, judge, vote_on=vote_on)
        tokens = [np.array(tokenizer(text).input_ids) for text in texts]
        submissions.finished(np.arange(3), tokens)
        answers = submissions.collect()
    assert [len(outcome.results) for outcome in answers.outcomes] == [2, 2, 0]
    ten, six, none = (outcome.answers for outcome in answers.votes)
    assert len(ten) == len(six) == 1 and ten != six and none == ()


@pytest.mark.parametrize("apart", [False, True])
def test_programs_that_do_not_repeat_themselves_do_not_vote(apart):
    """Their outcome on the tests stays; `apart` votes have an input of their own."""
    problem = doubles("1", "2")
    vote_on = {0: dataclasses.replace(problem, tests=(Test("5", "null", "functional"),))}
    bodies = ["return 2 * n", "return os.urandom(8).hex()", "return 1 / 0"]
    texts = [f"```\nimport os\ndef f(n): {body}\n```" for body in bodies] + ["none"]
    tokenizer = byte_level()
    with Judge(config.Execution(workers=1, time_limit_s=1.0, memory_mb=256), True) as judge:
        submissions = Submissions(
            [problem], [EMPTY], 4, tokenizer, judge, vote_on=vote_on if apart else None, twice=True
        )
        submissions.finished(np.arange(4), [np.array(tokenizer(t).input_ids) for t in texts])
        answers = submissions.collect()
    inputs = 1 if apart else 2
    steady, other, crashed, none = (outcome.answers for outcome in answers.votes)
    assert len(steady) == inputs and None not in steady
    assert other == crashed == (None,) * inputs and none == ()
    assert None not in answers.outcomes[1].answers
    assert not any(verdict is Verdict.PASSED for verdict in answers.votes[1].results)
    if not apart:
        assert steady == answers.outcomes[0].answers


def test_a_problem_that_cannot_be_judged_is_refused_before_rows_are_sampled():
    with Judge(config.Execution(workers=1, time_limit_s=1.0, memory_mb=256)) as judge:
        with pytest.raises(UserError, match=r"'double' cannot be judged: test 2 of .* has '\['"):
            Submissions([doubles("1"), doubles("1", "[")], [EMPTY] * 2, 4, byte_level(), judge)
        Submissions([doubles("[")], [EMPTY], 4, byte_level(), None)  # nothing is run


ECHO = Problem("echo", "?", (Test("1", "1", "stdin"),), time_limit_s=15.0)
ENDLESS = "```python\nwhile True: pass\n```"
RIGHT = "```python\nprint(input())\n```"


def tokens(text: str) -> np.ndarray:
    return np.array(byte_level()(text).input_ids)


def test_waiting_for_tests_can_be_stopped():
    """Told of the wait, a caller stops it; otherwise this one ends with the time limit."""
    told = []

    def notice(text, done, total):
        told.append((text, total))
        if text == "waiting for tests":
            raise Interrupted

    execution = config.Execution(workers=1, time_limit_s=15.0, allow_weak_isolation=True)
    with Judge(execution) as judge:
        submissions = Submissions([ECHO], [EMPTY], 2, byte_level(), judge, notice)
        submissions.finished(np.arange(2), [tokens(ENDLESS), tokens(RIGHT)])
        submissions.finished(np.arange(0), [])  # a chunk in which no row has ended
        with pytest.raises(Interrupted):
            submissions.collect()
    assert told == [("sampling", 2), ("sampling", 2), ("waiting for tests", 2)]


def test_outcomes_come_in_row_order():
    execution = config.Execution(workers=2, time_limit_s=0.3, allow_weak_isolation=True)
    with Judge(execution) as judge:
        submissions = Submissions([ECHO], [EMPTY], 3, byte_level(), judge)
        submissions.finished(np.array([2, 0, 1]), list(map(tokens, (RIGHT, ENDLESS, "no program"))))
        answers = submissions.collect()
    assert answers.texts == tuple(submissions.texts) and answers.codes[0] == "while True: pass"
    with pytest.raises(dataclasses.FrozenInstanceError):
        answers.outcomes = None
    outcomes = answers.outcomes
    assert [o.verdict.value for o in outcomes] == ["time_limit", "no_code", "passed"]
