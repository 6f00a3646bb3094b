"""Completions on their way through the judge."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from typing import Any

import numpy as np

from rlif_jax.data.extract import extract_code
from rlif_jax.data.prompts import encode_text, opens_thinking
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Problem
from rlif_jax.weights.tokenizer import continuation, without_end

LOOK_EVERY_S = 0.2
"""How often the caller is told, while it waits for tests."""


class Submissions:
    """Text, program and pending outcome of each row of a batch, filled in as rows finish.

    `finished` is what the sampler calls; `outcomes` waits for the judge. Row = n * G + g belongs to
    problem n. Without a judge programs are extracted but not run. `notice(text, done, total)` is
    told how many rows have been sampled, then judged, and may raise to stop. `prompts` are the
    texts that posed the problems: where one ends inside the thinking, a completion that does not
    end it holds no answer. `texts` are the completions as sampled: a prompt and one of them are
    together the decoding of all their tokens, less the end-of-sequence and padding tokens at the
    end. `eos_ids` are the model's ends.

    Raises UserError when a problem cannot be judged: now, and not while rows are sampled.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        group: int,
        tokenizer: Any,
        judge: Judge | None,
        notice: Callable[..., None] | None = None,
        eos_ids: Collection[int] = (),
    ):
        self.problems, self._group = problems, group
        self.prompts = prompts
        self._tokenizer, self._judge, self._eos_ids = tokenizer, judge, eos_ids
        self._notice, self._seen = notice, 0
        self._prompt_tokens_of = dict[int, list[int]]()
        self._thinking_open = [opens_thinking(prompt) for prompt in prompts]
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
            answer = without_end(self._tokenizer, sampled, self._eos_ids)
            text = continuation(self._tokenizer, self._prompt_tokens(n), answer)
            self.texts[row] = text
            self.codes[row] = extract_code(text, self._thinking_open[n])
            if self._judge is not None:
                future = self._judge.submit(self.problems[n], self.codes[row])
                self._futures[row], self._ungiven[future] = future, row
        self._seen += len(tokens)
        if self._notice is not None:
            self._notice("sampling", self._seen, len(self.texts))

    def _prompt_tokens(self, n: int) -> list[int]:
        if n not in self._prompt_tokens_of:
            self._prompt_tokens_of[n] = encode_text(self._tokenizer, self.prompts[n])
        return self._prompt_tokens_of[n]

    def judged(self, wait_s: float | None = None) -> list[tuple[int, Outcome]]:
        """Rows whose outcomes are there and were not given before, in the order of their end.

        With `wait_s` it waits so long for one; nothing comes when none is left. Raises what the
        judge raises.
        """
        if wait_s is not None and self._ungiven:
            wait(self._ungiven, wait_s, FIRST_COMPLETED)
        done = [future for future in self._ungiven if future.done()]
        return [(self._ungiven.pop(future), future.result()) for future in done]

    def outcomes(self) -> tuple[Outcome, ...] | None:
        """Outcomes in row order, once all are there; None without a judge.

        Raises what the judge raises when its own machinery fails, and what `notice` raises.
        """
        if self._judge is None:
            return None
        futures = [self._futures[row] for row in range(len(self.texts))]
        while (left := wait(futures, LOOK_EVERY_S, FIRST_EXCEPTION)).not_done:
            if self._notice is not None:
                self._notice("waiting for tests", len(left.done), len(futures))
            for future in left.done:
                future.result()
        return tuple(future.result() for future in futures)
