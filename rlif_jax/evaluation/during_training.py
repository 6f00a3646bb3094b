"""Evaluation on held-out problems while a run trains."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from rlif_jax.batch import Params, TokenStats
from rlif_jax.config import Config
from rlif_jax.console.notice import Notice
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.distributed import gathered, process_count, process_index
from rlif_jax.evaluation.drawing import HeldOut, held_out, make_evaluation
from rlif_jax.evaluation.results import metrics_of
from rlif_jax.evaluation.sample_file import Place
from rlif_jax.execution.pool import Judge
from rlif_jax.sampler.filters import Filters
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sync import Sync


def held_out_problems(cfg: Config, tokenizer: Tokenizer, notice: Notice) -> HeldOut | None:
    """The problems of the evaluation; None when it is off."""
    if not cfg.eval.every:
        return None
    return held_out(
        cfg.eval.data or cfg.data.name,
        tokenizer,
        cfg.data,
        limit=cfg.eval.max_problems,
        prefix="data.",
        notice=notice,
    )


def make_evaluate(
    cfg: Config,
    graphdef: nnx.GraphDef,
    tokenizer: Tokenizer,
    sync: Sync,
    unseen: HeldOut | None,
    key: jax.Array,
    judge: Judge | None,
    notice: Notice,
) -> Callable[[int, Any, bool], dict[str, float]]:
    """Build `evaluate(step, params, last) -> metrics` on the held-out problems.

    It gives {} after a step in which none is due and which is not the `last` one.
    It draws with `key` each time and leaves the training stream alone. Each process judges its
    share of the problems. `notice` may raise to stop.
    """
    if unseen is None:
        return lambda step, params, last: {}
    sample = make_evaluation(
        graphdef,
        tokenizer,
        unseen,
        samples_per_problem=cfg.eval.samples_per_problem,
        temperature=cfg.eval.temperature,
        max_new_tokens=cfg.sampling.max_new_tokens,
        batching=Batching.of(cfg.sampling),
        filters=Filters.of(cfg.eval),
    )

    def evaluate(step: int, params: Params, last: bool) -> dict[str, float]:
        if step % cfg.eval.every and not last:
            return {}
        own: dict[Place, dict[str, Any]] = {}

        def keep(row: dict[str, Any], stats: TokenStats) -> None:
            counted = {name: row[name] for name in ("passed", "length", "truncated")}
            own[row["problem"], row["sample"]] = counted  # what processes exchange

        share = range(process_index(), len(unseen.problems), process_count())
        sample(sync(params), key, judge, keep, notice=notice, share=share)
        rows = {place: row for part in gathered(own) for place, row in part.items()}
        return metrics_of(unseen, rows, cfg.eval.samples_per_problem, cfg.eval.pass_at)

    return evaluate
