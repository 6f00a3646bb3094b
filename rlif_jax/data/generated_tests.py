"""Tests that the policy writes for a problem: how it is asked, and what is read in its answers.

It sees the statement and the starter code, never a test, so that what it writes is free of labels.
An answer is searched for JSON objects `{"input": ..., "output": ...}`, on lines of their own, in
fenced blocks or in a list; whatever else it holds is passed over. Nothing is evaluated.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rlif_jax.config import PromptOptions
from rlif_jax.data.extract import THINK_END, find_thought
from rlif_jax.data.prompts import (
    DEFAULT_OPTIONS,
    EncodedPrompt,
    encode_prompt,
    encode_text,
    render_messages,
)
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test

MOST_CASES = 32
"""Test cases that are read in one answer."""
MOST_CHARACTERS = 4096
"""Longest input or output of a test case, as the test has it."""
MOST_LEVELS = 16
"""Lists and objects that may lie in one another, the test case itself included."""

_MOST_TRIES = 256  # of places where an object may begin, so that no answer takes long to read
# Forms that are no JSON themselves: one that is copied from here is no test.
_STDIN_REQUEST = (
    "Do not write a program. Write test cases for one, each a line of JSON: "
    '{"input": TEXT, "output": TEXT}, all that it reads and prints, with \\n for a new line.'
)
_FUNCTION_REQUEST = (
    "Do not write {name}. Write test cases for it, each a line of JSON: "
    '{{"input": [ARGUMENT, ...], "output": RESULT}}.'
)


# ---- the prompt


def messages_for_tests(
    problem: Problem, options: PromptOptions = DEFAULT_OPTIONS
) -> list[dict[str, str]]:
    """Chat messages that ask for test cases: the statement, the starter code, and the form."""
    parts = [problem.prompt.rstrip()]
    if problem.entry_point is None:
        parts.append(_STDIN_REQUEST)
    else:
        if starter := problem.starter_code.rstrip():
            parts.append(f"```python\n{starter}\n```")
        parts.append(_FUNCTION_REQUEST.format(name=problem.entry_point))
    messages = [{"role": "user", "content": "\n\n".join(parts)}]
    if options.system_prompt:
        messages.insert(0, {"role": "system", "content": options.system_prompt})
    return messages


def pose_tests(
    tokenizer: Tokenizer, problem: Problem, options: PromptOptions = DEFAULT_OPTIONS
) -> EncodedPrompt:
    """The prompt that asks for tests, under the chat template whatever the style of the problems.

    Raises UserError for a tokenizer without a chat template, and as `render_messages` does.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "reward.vote_inputs=model asks for tests in chat messages, and the tokenizer "
            f"{tokenizer.name_or_path!r} has no chat template; use an instruction-tuned model, add "
            "a chat_template to its tokenizer files, or vote on reward.vote_inputs=fuzz"
        )
    text = render_messages(tokenizer, messages_for_tests(problem, options), options)
    return EncodedPrompt(text, encode_text(tokenizer, text))


def longer_prompt(
    tokenizer: Tokenizer, problem: Problem, options: PromptOptions = DEFAULT_OPTIONS
) -> list[int]:
    """The token ids of the longer one of the two prompts, of a problem and for its tests."""
    posed = encode_prompt(tokenizer, problem, options)
    return max(posed, pose_tests(tokenizer, problem, options).tokens, key=len)


# ---- the answers


def with_proposed_tests(
    problem: Problem, answers: Sequence[str], most: int, thinking_open: bool = False
) -> tuple[Problem, int]:
    """The problem with its examples, and behind them tests of these answers, as all of its tests.

    Examples are its public tests, if they are of the form that answers have: those that assert are
    left out, and such a problem is tested by values that its function returns. There are at most
    `most` generated tests, those first that most answers propose, of equally many the one that was
    found first. One with the input of an example is none. An answer that is still thinking holds
    none; `thinking_open` says that the prompts end inside the thinking. The second value is their
    number. With neither examples nor generated tests the problem has no test.
    """
    kind = "stdin" if problem.entry_point is None else "functional"
    examples = [test for test in problem.tests if not test.private and test.kind == kind]
    known = {_spelled(test.input, kind) for test in examples}
    counts = Counter(
        case
        for answer in answers
        for case in proposed_cases(_after_thinking(answer, thinking_open), kind)
        if case[0] not in known
    )
    generated = [Test(*case, kind, private=True) for case, _ in counts.most_common(most)]
    return replace(problem, tests=(*examples, *generated)), len(generated)


def proposed_cases(text: str, kind: str) -> list[tuple[str, str]]:
    """The test cases in a text, each once: input and output as a `Test` of this kind has them.

    A case of kind "functional" has a list of arguments as its input, and any value as its output;
    of kind "stdin" both are texts, and something is printed. At most `MOST_CASES` are read.
    """
    cases: dict[tuple[str, str], None] = {}
    at = text.find("{")
    for _ in range(_MOST_TRIES):
        if at < 0 or len(cases) == MOST_CASES:
            break
        end = at + 1  # of what is no case itself, a part may be one
        try:
            value, after = _DECODER.raw_decode(text, at)
            case = _case(value, kind)
        except (ValueError, RecursionError):
            case = None
        if case is not None:
            cases[case], end = None, after
        at = text.find("{", end)
    return list(cases)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Not strict: a line of a text may end with a real line break.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)


def _case(value: Any, kind: str) -> tuple[str, str] | None:
    """Input and output of a decoded test case; None for any other value.

    Raises ValueError for a number or a text that a test cannot have.
    """
    if not (isinstance(value, dict) and {"input", "output"} <= value.keys()):
        return None
    given, wanted = value["input"], value["output"]
    if kind == "functional":
        if not (isinstance(given, list) and _shallow(value)):
            return None
        case = "\n".join(map(_as_json, given)), _as_json(wanted)
    else:
        if not (isinstance(given, str) and isinstance(wanted, str) and wanted.strip()):
            return None
        case = _spelled(given, kind), wanted.strip()
        "".join(case).encode()  # no half of a character
    return case if max(map(len, case)) <= MOST_CHARACTERS else None


def _shallow(value: Any, levels: int = MOST_LEVELS) -> bool:
    """Whether at most `levels` lists and objects lie in one another."""
    if not isinstance(value, list | dict):
        return True
    inner = value if isinstance(value, list) else value.values()
    return levels > 0 and all(_shallow(one, levels - 1) for one in inner)


def _as_json(value: Any) -> str:
    """JSON in one line. Raises ValueError for a number that overflows."""
    return json.dumps(value, allow_nan=False)


def _spelled(text: str, kind: str) -> str:
    """An input in the spelling that cases have, so that equal ones are one text."""
    if kind == "functional":
        try:
            return "\n".join(json.dumps(json.loads(s)) for s in text.split("\n") if s.strip())
        except (ValueError, RecursionError):
            return text
    return f"{text.rstrip()}\n" if text.strip() else ""


def _after_thinking(text: str, thinking_open: bool) -> str:
    """What follows the thinking of an answer: "" while it is still open."""
    thought = find_thought(text, thinking_open)
    return text if thought is None else text[thought[1] :].removeprefix(THINK_END)
