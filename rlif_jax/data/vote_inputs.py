"""Inputs on which the programs of a group vote, when these are not to be those of hidden tests.

A problem's examples are its public tests. Further inputs are made from them by changing one value
at a time, each by its type: an integer stays an integer, a list keeps the type of its elements, a
line of standard input keeps its number of words. Such an input may break a rule that the statement
has; a program that fails on it does not vote. No expected output is used or known.
"""

import itertools
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rlif_jax.config.learning import VoteInputs
from rlif_jax.errors import UserError
from rlif_jax.judgeable import long_integers
from rlif_jax.problem import Problem, Test

_TRIES = 20


def vote_problem(problem: Problem, inputs: VoteInputs, fuzz_inputs: int) -> Problem:
    """The problem with the inputs of a vote in place of its tests; itself for "problem".

    "fuzz" has its examples and `fuzz_inputs` more, or as many as can be told apart. They depend on
    the problem alone. Tests that assert are not changed.

    Raises:
        UserError: it has no public test.
    """
    if inputs == "problem":
        return problem
    examples = [test for test in problem.tests if not test.private]
    if not examples:
        raise UserError(
            f"problem {problem.id!r} has no public test, so reward.vote_inputs={inputs} has no "
            "example to vote on; leave the problem out, or vote on reward.vote_inputs=problem"
        )
    kind = examples[0].kind
    if kind == "assert":
        return replace(problem, tests=tuple(examples))
    texts = [test.input for test in examples]
    if inputs == "fuzz":
        texts += itertools.islice(_further(texts, kind, problem.id), fuzz_inputs)
    no_output = "null" if kind == "functional" else ""
    return replace(problem, tests=tuple(Test(text, no_output, kind, True) for text in texts))


def _further(texts: list[str], kind: str, seed: str) -> Iterator[str]:
    """Inputs like these, each another one, until none is found any more."""
    rng, seen = random.Random(seed), set(texts)
    change = _changed_arguments if kind == "functional" else _changed_lines
    while True:
        for _ in range(_TRIES):
            text = change(rng.choice(sorted(seen)), rng)
            if text not in seen:
                break
        else:
            return
        seen.add(text)
        yield text


@long_integers()
def _changed_arguments(text: str, rng: random.Random) -> str:
    """One of the arguments, a JSON value a line, changed."""
    arguments = [json.loads(line) for line in text.split("\n") if line.strip()]
    if arguments:
        at = rng.randrange(len(arguments))
        arguments[at] = changed(arguments[at], rng)
    return "\n".join(json.dumps(argument, ensure_ascii=False) for argument in arguments)


@long_integers()
def _changed_lines(text: str, rng: random.Random) -> str:
    """One word of standard input changed; the first of several lines, often a count, stays."""
    lines = text.split("\n")
    places = [
        (number, at)
        for number, line in enumerate(lines)
        for at in range(len(line.split(" ")))
        if line.split(" ")[at].strip() and (number or not any(map(str.strip, lines[1:])))
    ]
    if not places:
        return text
    number, at = rng.choice(places)
    words = lines[number].split(" ")
    word = words[at]
    try:
        new: Any = changed(json.loads(word), rng)
        new = word if isinstance(new, list | dict | bool) or new is None else new
    except ValueError:
        new = changed(word, rng).replace(" ", "") or word
    words[at] = str(new)
    lines[number] = " ".join(words)
    return "\n".join(lines)


def changed(value: Any, rng: random.Random) -> Any:
    """Another JSON value of the same type, near this one; itself where there is none."""
    match value:
        case bool():
            return not value
        case int():
            near = [value + 1, value - 1, 2 * value, value // 2, 0, 1]
            # Counts and sizes stay what they can be.
            return rng.choice([one for one in near if value < 0 or one >= 0])
        case float() if math.isfinite(value):
            near = [value + 0.5, 2 * value, value / 2, float(round(value))]
            return rng.choice([one for one in near if math.isfinite(one)])
        case str():
            return _changed_text(value, rng)
        case list() if value:
            return _changed_list(value, rng)
        case dict() if value:
            key = rng.choice(sorted(value))
            return {**value, key: changed(value[key], rng)}
        case _:
            return value


def _changed_text(text: str, rng: random.Random) -> str:
    if not text:
        return "a"
    at = rng.randrange(len(text))
    other = rng.choice(text)
    return rng.choice(
        [
            text[:at] + text[at + 1 :],
            text[:at] + text[at] + text[at:],
            text[:at] + other + text[at + 1 :],
            text[::-1],
            "".join(rng.sample(text, len(text))),
        ]
    )


def _changed_list(values: list, rng: random.Random) -> list:
    at = rng.randrange(len(values))
    inside = [*values[:at], changed(values[at], rng), *values[at + 1 :]]
    return rng.choice(
        [
            inside,
            inside,
            [*values[:at], *values[at + 1 :]],
            [*values[:at], values[at], *values[at:]],
            values[::-1],
            rng.sample(values, len(values)),
        ]
    )
