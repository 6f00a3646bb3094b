"""Samples of held-out problems, drawn and judged: by the trainer and by the evaluation alike."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from flax import nnx

from rlif_jax.batch import Params, TokenStats
from rlif_jax.config import ProblemOptions
from rlif_jax.console.notice import Notice, ignore
from rlif_jax.data.formats.evalplus import is_evalplus
from rlif_jax.data.pipeline import Subset
from rlif_jax.data.prompts import EncodedPrompt, pose
from rlif_jax.data.selection import errata_filter, length_filter, listed, select
from rlif_jax.data.sets.livecodebench import is_livecodebench
from rlif_jax.data.sets.named import problem_source
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.distributed import any_of
from rlif_jax.evaluation.sample_file import Place
from rlif_jax.execution.pool import Judge
from rlif_jax.grading.judged_row import judged_row
from rlif_jax.problem import Problem
from rlif_jax.sampler.draw import key_data, row_keys
from rlif_jax.sampler.engine import Engine, Usage
from rlif_jax.sampler.filters import NO_FILTERS, Filters
from rlif_jax.sampler.pool_shape import Batching, PoolShape, pool_shape
from rlif_jax.sampler.requests import Finished, Request
from rlif_jax.sampler.stop import make_stop
from rlif_jax.submissions import LOOK_EVERY_S, Submissions

_KEPT_PROBLEMS = 64
"""Problems with their tests in memory, so that the samples of one share one reading of it."""


@dataclass(frozen=True)
class HeldOut:
    """Problems to evaluate on, and their prompts.

    `statements` are the problems without their tests, which may be gigabytes together; `problems`
    are read when they are asked for. Prompts or tests that differ have another `digest`.
    """

    name: str
    problems: Sequence[Problem]
    statements: Sequence[Problem]
    prompts: Sequence[EncodedPrompt]
    digest: str

    @property
    def title(self) -> str:
        """The name as it stands in metrics, without folders."""
        if is_livecodebench(self.name) or is_evalplus(self.name):
            return self.name.partition("@")[0]
        file = Path(self.name.removeprefix("jsonl:")).name
        return file.removesuffix(".gz").removesuffix(".jsonl")


def held_out(
    name: str,
    tokenizer: Tokenizer,
    options: ProblemOptions,
    *,
    limit: int = 0,
    prefix: str = "",
    notice: Notice = ignore,
) -> HeldOut:
    """The held-out problems of a set whose prompts fit; the first `limit` of them when not 0.

    `notice` is told how many problems are left out and why; `prefix` stands before the options that
    it names. Raises UserError when no problem is left.
    """
    source = problem_source(name, "validation", skip_bad=options.skip_bad, notice=notice)
    posed: dict[str, EncodedPrompt] = {}

    def tokens(problem: Problem) -> list[int]:
        posed[problem.id] = pose(tokenizer, problem, options)
        return posed[problem.id].tokens

    filters = [] if options.keep_errata else [errata_filter(f"--{prefix}keep-errata")]
    longest = options.max_prompt_tokens
    filters.append(length_filter(tokens, longest, f"{prefix}max_prompt_tokens"))
    chosen, removed = select(source, filters, name)
    if removed:
        notice(f"left out of {name}: {listed(removed)}")
    picks = chosen.indices[: limit or None]
    statements = [source.statement(i) for i in picks]
    prompts = [posed[statement.id] for statement in statements]
    known = [[source.entry(i).digest for i in picks], [prompt.tokens for prompt in prompts]]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    problems = cast(Sequence[Problem], Subset(source, picks, _KEPT_PROBLEMS))
    return HeldOut(name, problems, statements, prompts, digest)


def make_evaluation(
    graphdef: nnx.GraphDef,
    tokenizer: Tokenizer,
    held_out: HeldOut,
    *,
    samples_per_problem: int,
    temperature: float,
    max_new_tokens: int,
    batching: Batching,
    filters: Filters = NO_FILTERS,
    stop: Sequence[str] = (),
):
    """Build `evaluate(params, key, judge, keep, *, done, notice, usage, share)`.

    It draws `samples_per_problem` samples of each problem, but for the places in `done`, tests each
    while others are still being drawn, and gives each to `keep` once it is judged: a row as in the
    samples file, but for its rewards, and its TokenStats [tokens]. `params` are laid out for
    sampling (`sampler.sync`). A sample depends on the parameters, its prompt, `key` and its place,
    and not on `done` where `batching.narrow_for` is 0. `notice` is told how many are drawn, and may
    raise to stop. A process keeps the samples of its `share` of the problems, by default of all;
    without a judge it only helps to sample. Returns the seconds spent waiting for the judge after
    the last sample was drawn.
    """
    n, problems = samples_per_problem, held_out.problems
    tokens_of = [prompt.tokens for prompt in held_out.prompts]
    engine = Engine(graphdef, batching=batching, temperature=temperature, filters=filters)
    stops = make_stop(tokenizer, stop) if stop else None
    shape: PoolShape | None = None

    def evaluate(
        params: Params,
        key: jax.Array,
        judge: Judge | None,
        keep: Callable[[dict[str, Any], TokenStats], None],
        *,
        done: Collection[Place] = (),
        notice: Notice = ignore,
        usage: Usage | None = None,
        share: Collection[int] | None = None,
    ) -> float:
        nonlocal shape
        cfg = nnx.merge(engine.graphdef, params).cfg
        if shape is None:  # once: what is free changes, what is compiled must not
            shape = pool_shape(
                cfg,
                batching,
                prompt=max(map(len, tokens_of)),
                new=max_new_tokens,
                samples=n,
                sequences=n * len(problems),
            )
        keys = key_data(row_keys(key, n * len(problems)))
        rows = [row for row in range(n * len(problems)) if divmod(row, n) not in done]
        requests = [Request(row // n, keys[row], max_new_tokens) for row in rows]
        share = range(len(problems)) if share is None else share
        submissions = Submissions(
            problems, held_out.prompts, n, tokenizer, judge, eos_ids=cfg.eos_ids, share=share
        )
        drawn: dict[int, Finished] = {}

        def keep_judged(wait_s: float | None = None) -> None:
            for row, outcome in submissions.judged(wait_s):
                one = drawn.pop(row)
                assert one.stats is not None  # the engine was asked for them
                keep(
                    {
                        "problem": row // n,
                        "sample": row % n,
                        **judged_row(
                            held_out.statements[row // n].id, submissions.codes[row], outcome
                        ),
                        "completion": submissions.texts[row],
                        "code": submissions.codes[row],
                        "length": len(one.tokens),
                        "truncated": one.truncated,
                    },
                    one.stats,
                )

        count = 0

        def tell() -> None:
            notice(f"evaluating {held_out.name}", count, len(rows))

        tell()
        for finished in engine.run(
            params, tokens_of, requests, shape=shape, stop=stops, usage=usage
        ):
            ended = [rows[one.request] for one in finished]
            drawn |= {r: one for r, one in zip(ended, finished, strict=True) if r // n in share}
            if finished:
                submissions.finished(np.asarray(ended), [one.tokens for one in finished])
            count += len(finished)
            keep_judged()
            tell()
        begun = time.monotonic()
        while any_of(judge is not None and bool(drawn)):
            keep_judged(LOOK_EVERY_S)
            tell()
        return time.monotonic() - begun

    return evaluate
