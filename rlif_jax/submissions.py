"""Completions on their way through the judge."""

from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass

import numpy as np

from rlif_jax.console.notice import Notice, ignore
from rlif_jax.data.extract import extract_code
from rlif_jax.data.prompts import EncodedPrompt, opens_thinking
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Problem
from rlif_jax.weights.tokenizer import continuation, without_end

LOOK_EVERY_S = 0.2
"""Seconds between two notices while the tests run."""


@dataclass(frozen=True)
class Answers:
    """The completions of a step once all are judged, row = n * G + g.

    `texts` as sampled; `codes` the extracted programs, None where there is no program; `outcomes`
    are None when no program was run.
    """

    texts: tuple[str, ...]
    codes: tuple[str | None, ...]
    outcomes: tuple[Outcome, ...] | None


class Submissions:
    """The rows of a batch on their way through the judge: text, program and pending outcome.

    `finished` is the sampler's callback; `collect` waits for the judge. Row = n * G + g belongs to
    problem n, which `prompts[n]` poses. Without a judge programs are extracted but not run.
    `notice` is called with the number of rows that are sampled, then judged, and
    may raise to stop. Where a prompt ends inside the thinking, a completion that does not end the
    thinking holds no answer. `texts` are the completions as sampled: a prompt and one of them are
    together the decoding of all their tokens, less the end-of-sequence and padding tokens at the
    end. `eos_ids` are the model's end-of-sequence tokens.

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
    ):
        self._problems, self._prompts, self._group = problems, prompts, group
        self._tokenizer, self._judge, self._eos_ids = tokenizer, judge, eos_ids
        self._notice, self._seen = notice, 0
        self._thinking_open = [opens_thinking(prompt.text) for prompt in prompts]
        if judge is not None:
            for problem in problems:
                judge.check(problem)
        rows = len(problems) * group
        self.texts: list[str] = [""] * rows
        self.codes: list[str | None] = [None] * rows
        self._futures: dict[int, Future[Outcome]] = {}
        self._ungiven: dict[Future[Outcome], int] = {}

    def finished(self, rows: np.ndarray, tokens: list[np.ndarray]) -> None:
        """Decode these rows, if any, extract their programs and hand them to the judge."""
        for row, sampled in zip(rows.tolist(), tokens, strict=True):
            n = row // self._group
            answer = without_end(self._tokenizer, sampled.tolist(), self._eos_ids)
            text = continuation(self._tokenizer, self._prompts[n].tokens, answer)
            self.texts[row] = text
            self.codes[row] = extract_code(text, self._thinking_open[n])
            if self._judge is not None:
                future = self._judge.submit(self._problems[n], self.codes[row])
                self._futures[row], self._ungiven[future] = future, row
        self._seen += len(tokens)
        self._notice("sampling", self._seen, len(self.texts))

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
        return Answers(tuple(self.texts), tuple(self.codes), self._outcomes())

    def _outcomes(self) -> tuple[Outcome, ...] | None:
        if self._judge is None:
            return None
        futures = [self._futures[row] for row in range(len(self.texts))]
        while (left := wait(futures, LOOK_EVERY_S, FIRST_EXCEPTION)).not_done:
            self._notice("waiting for tests", len(left.done), len(futures))
            for future in left.done:
                future.result()
        return tuple(future.result() for future in futures)
