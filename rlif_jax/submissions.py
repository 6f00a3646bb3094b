"""Completions on their way through the judge."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass

import numpy as np

from rlif_jax.console.notice import Notice, ignore
from rlif_jax.data.extract import find_code, find_thought
from rlif_jax.data.prompts import EncodedPrompt, opens_thinking
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.distributed import all_of, gathered
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Problem, Verdict
from rlif_jax.weights.tokenizer import continuation, tokens_of, without_end

LOOK_EVERY_S = 0.2
"""Seconds between two notices while the tests run."""
UNTESTED = Outcome(Verdict.NO_CODE, (), 0, 0.0, "no input to vote on")
"""Of every program where there is nothing to vote on: it does not vote."""


@dataclass(frozen=True)
class Answers:
    """The completions of a step once all are judged, row = n * G + g.

    `texts` as sampled; `codes` the extracted programs, None where there is no program; `outcomes`
    are None when no program was run. `votes` are the outcomes on the inputs of votes, None where
    these are the tests; `generated` says how many of these inputs, the last ones, are of tests that
    the policy has written, None where it was not asked. `parts` are the tokens [first, end) of the
    part that was asked for, which are none, (0, 0), where a text lacks it; None: none was asked
    for.
    """

    texts: tuple[str, ...]
    codes: tuple[str | None, ...]
    outcomes: tuple[Outcome, ...] | None
    parts: tuple[tuple[int, int], ...] | None = None
    votes: tuple[Outcome, ...] | None = None
    generated: tuple[int, ...] | None = None


class Submissions:
    """The rows of a batch on their way through the judge: text, program and pending outcome.

    `finished` is the sampler's callback; `collect` waits for the judge. Row = n * G + g belongs to
    problem n, which `prompts[n]` poses. Without a judge programs are extracted but not run.
    `notice` is called with `phase` and the number of rows that are sampled, then judged, and
    may raise to stop. Where a prompt ends inside the thinking, a completion that does not end the
    thinking holds no answer. `texts` are the completions as sampled: a prompt and one of them are
    together the decoding of all their tokens, less the end-of-sequence and padding tokens at the
    end. `eos_ids` are the model's end-of-sequence tokens. `part`, code or thinking, is to be found
    in each. Programs are run on the tests of `vote_on[n]` as well, if it is given; where it has
    none they do not vote. The policy has written the last `generated[n]` of them. With `twice`
    they are run once more on the inputs of votes: one that answers otherwise then has no vote. Of
    several processes each decodes and judges its own `share` of the problems, whole groups, and
    `collect` gives all of them the same.

    Raises UserError when a problem cannot be judged: now, and not while rows are sampled.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[EncodedPrompt],
        group: int,
        tokenizer: Tokenizer,
        judge: Judge | None,
        notice: Notice = ignore,
        eos_ids: Collection[int] = (),
        share: Collection[int] | None = None,
        part: str = "",
        vote_on: Mapping[int, Problem] | None = None,
        generated: Mapping[int, int] | None = None,
        phase: str = "sampling",
        twice: bool = False,
    ):
        self._problems, self._prompts, self._group = problems, prompts, group
        self._tokenizer, self._judge, self._eos_ids = tokenizer, judge, eos_ids
        self._notice, self._seen = notice, 0
        self._thinking_open = [opens_thinking(prompt.text) for prompt in prompts]
        self._share = range(len(problems)) if share is None else share
        self._part, self._phase = part, phase
        self._vote_on, self._generated = None if judge is None else vote_on, generated
        self._twice = twice and judge is not None
        if judge is not None:
            for n in self._share:
                judge.check(problems[n])
                asked = None if self._vote_on is None else self._vote_on[n]
                if asked is not None and asked.tests:
                    judge.check(asked)
        rows = len(problems) * group
        self.texts: list[str] = [""] * rows
        self.codes: list[str | None] = [None] * rows
        self.parts: list[tuple[int, int]] = [(0, 0)] * rows
        self._futures: dict[int, Future[Outcome]] = {}
        self._ungiven: dict[Future[Outcome], int] = {}
        self._votes: dict[int, Future[Outcome]] = {}
        self._again: dict[int, Future[Outcome]] = {}

    def voting_on(
        self, vote_on: Mapping[int, Problem], generated: Mapping[int, int]
    ) -> "Submissions":
        """The same before its first row, with these inputs of votes."""
        return Submissions(
            self._problems,
            self._prompts,
            self._group,
            self._tokenizer,
            self._judge,
            notice=self._notice,
            eos_ids=self._eos_ids,
            share=self._share,
            part=self._part,
            vote_on=vote_on,
            generated=generated,
            phase=self._phase,
            twice=self._twice,
        )

    def finished(self, rows: np.ndarray, tokens: list[np.ndarray]) -> None:
        """Decode these rows, if any, extract their programs and hand them to the judge."""
        for row, sampled in zip(rows.tolist(), tokens, strict=True):
            n = row // self._group
            if n not in self._share:
                continue
            answer = without_end(self._tokenizer, sampled.tolist(), self._eos_ids)
            text = continuation(self._tokenizer, self._prompts[n].tokens, answer)
            self.texts[row] = text
            code = find_code(text, self._thinking_open[n])
            self.codes[row] = None if code is None else code.text
            if self._part:
                if self._part == "thinking":
                    where = find_thought(text, self._thinking_open[n])
                else:
                    where = None if code is None else (code.start, code.end)
                before = self._prompts[n].tokens
                self.parts[row] = tokens_of(self._tokenizer, before, answer, where)
            if self._judge is not None:
                future = self._judge.submit(self._problems[n], self.codes[row])
                self._futures[row], self._ungiven[future] = future, row
                asked = self._problems[n] if self._vote_on is None else self._vote_on[n]
                if self._vote_on is not None and asked.tests:
                    self._votes[row] = self._judge.submit(asked, self.codes[row])
                if self._twice and asked.tests:
                    self._again[row] = self._judge.submit(asked, self.codes[row])
        self._seen += len(tokens)
        self._notice(self._phase, self._seen, len(self.texts))

    def judged(self, wait_s: float | None = None) -> list[tuple[int, Outcome]]:
        """Rows that were judged since the last call, in the order in which they were judged.

        Waits up to `wait_s` seconds for the first of them. Raises what the judge raises.
        """
        if wait_s is not None and self._ungiven:
            wait(self._ungiven, wait_s, FIRST_COMPLETED)
        done = [future for future in self._ungiven if future.done()]
        return [(self._ungiven.pop(future), future.result()) for future in done]

    def collect(self) -> Answers:
        """Every row once all are judged; without a judge at once.

        Raises what the judge raises when its own machinery fails, and what `notice` raises.
        """
        self._wait()
        rows = [n * self._group + g for n in self._share for g in range(self._group)]
        own = {
            row: (
                self.texts[row],
                self.codes[row],
                self.parts[row],
                None if self._judge is None else self._futures[row].result(),
                self._vote(row),
                0 if self._generated is None else self._generated[row // self._group],
            )
            for row in rows
        }
        everyone = {row: one for part in gathered(own) for row, one in part.items()}
        texts, codes, parts, outcomes, votes, generated = zip(
            *(everyone[row] for row in sorted(everyone)), strict=True
        )
        return Answers(
            texts,
            codes,
            None if self._judge is None else outcomes,
            parts if self._part else None,
            votes if self._twice or self._vote_on is not None else None,
            None if self._generated is None else generated,
        )

    def _vote(self, row: int) -> Outcome | None:
        """The outcome on the inputs of votes, if these are not just the tests."""
        if not self._twice and self._vote_on is None:
            return None
        futures = self._futures if self._vote_on is None else self._votes
        if row not in futures:
            return UNTESTED
        first = futures[row].result()
        if not self._twice or self._again[row].result().answers == first.answers:
            return first
        tests = len(first.results)  # of which it is not to be believed on any
        no_answers, not_passed = (None,) * tests, (Verdict.WRONG_ANSWER,) * tests
        return dataclasses.replace(first, answers=no_answers, results=not_passed)

    def _wait(self) -> None:
        """Wait for the tests of all processes, which look together so that all stop together."""
        futures = [*self._futures.values(), *self._votes.values(), *self._again.values()]
        while True:
            looked = wait(futures, LOOK_EVERY_S, FIRST_EXCEPTION)
            for future in looked.done:
                future.result()
            if all_of(not looked.not_done):
                return
            self._notice("waiting for tests", len(looked.done), len(futures))
