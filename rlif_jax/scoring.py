"""Certainty of sampled tokens under any parameters, in the trainer's numerics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Packed, Params, Rollout, TokenStats
from rlif_jax.distributed import whole_on_host
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.kernels.token_stats.api import token_stats, token_stats_at
from rlif_jax.model.lora import with_trained
from rlif_jax.packing import Packing


def packed_stats(model: Any, piece: Packed, temperature: float, shared: bool) -> TokenStats:
    """TokenStats [R, T] of a micro-batch's targets, with gradients as `token_stats` gives them.

    `piece` has arrays [R, T]; `shared` says whether prompts are. Columns without a target describe
    token 0, and mean nothing.
    """
    x_RTD, target_RT = _states(model, piece, shared)
    return token_stats(x_RTD, model.head_VD, target_RT, temperature, model.cfg.reachable)


def _states(model: Any, piece: Packed, shared: bool) -> tuple[jax.Array, jax.Array]:
    """Hidden states [R, T, D] and the tokens [R, T] they predict."""
    segments = Segments(own=piece.segment, prefix=piece.prefix if shared else None)
    x_RTD = model(piece.tokens, piece.position, segments)
    return x_RTD, jnp.maximum(piece.target, 0)


def piece_of(tree: Any, index: jax.Array | int) -> Any:
    """Micro-batch `index` of arrays [M, R, T], as [R, T]; scalars stay as they are."""

    def one(x: jax.Array) -> jax.Array:
        return x if x.ndim == 0 else jax.lax.dynamic_index_in_dim(x, index, keepdims=False)

    return jax.tree.map(one, tree)


@dataclass(frozen=True)
class Scored:
    """What the statistics of one rollout are, float32 on the host.

    `old_logprob` of each mini-batch [b, C] under the policy before this step, None where its own
    update sees it first. TokenStats [B, C]: `policy` at the sampling temperature in the trainer's
    numerics, None where not every mini-batch was scored; `reward` what rewards read, at the reward
    temperature; `reference` under the starting model, None without a KL term.
    """

    old_logprob: list[np.ndarray | None]
    policy: TokenStats | None
    reward: TokenStats
    reference: TokenStats | None


Pieces = Callable[[Params, Packed], tuple[TokenStats, ...]]


@dataclass(frozen=True)
class Score:
    """The scoring stage of a run.

    `at_sampling` and `at_both` are what it compiles: the statistics at the sampling temperature,
    and those at the sampling and at the reward temperature, None where these are equal. With
    `from_sampler` rewards read the statistics of sampling; the first mini-batch, whose update
    starts from the policy before the step, is then not scored.
    """

    at_sampling: Pieces
    at_both: Pieces | None
    from_sampler: bool

    def __call__(
        self,
        params: Params,
        reference: Params | None,
        rollout: Rollout,
        packings: Sequence[Packing],
    ) -> Scored:
        """The statistics of a rollout that is packed into these mini-batches.

        `reference` are the trained parameters as the run started, or None without a KL term.
        """
        C = rollout.tokens.shape[1]
        anchor = None
        if reference is not None:
            start = with_trained(params, reference)
            (anchor,) = whole(_on_host(self.at_sampling, start, packings, C))
        if self.from_sampler:
            later = _on_host(self.at_sampling, params, packings[1:], C)
            old_logprob = [None, *(policy.logprob for (policy,) in later)]
            return Scored(old_logprob, None, rollout.stats, anchor)
        scored = _on_host(self.at_both or self.at_sampling, params, packings, C)
        policy, *more = whole(scored)
        old_logprob = [policy.logprob for policy, *_ in scored]
        return Scored(old_logprob, policy, more[0] if more else policy, anchor)


def _on_host(
    scores: Pieces, params: Params, packings: Sequence[Packing], width: int
) -> list[tuple[TokenStats, ...]]:
    """What `scores` says of each mini-batch, [b, `width`]."""
    waiting = [scores(params, sharding.put_pieces(packing.packed)) for packing in packings]
    return [
        jax.tree.map(lambda x, p=packing: p.collect(x, width), whole_on_host(stats))
        for packing, stats in zip(packings, waiting, strict=True)
    ]


def whole(parts: Sequence[Any]) -> Any:
    """Mini-batches of trees [b, ...] one after the other, [B, ...]."""
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def make_scores(graphdef: nnx.GraphDef, *, temperatures: tuple[float, ...], shared: bool):
    """Build `scores(params, packed)`: TokenStats [M, R, T] at each temperature, without gradients.

    All are read from the same logits, in one forward pass. Micro-batches are scored one after the
    other, to bound memory; those that hold nothing are zeros.
    """

    def scores(params, packed: Packed) -> tuple[TokenStats, ...]:
        model = nnx.merge(graphdef, params)

        def score_piece(index, all_MRT):
            x_RTD, target_RT = _states(model, piece_of(packed, index), shared)
            head_VD, reachable = model.head_VD, model.cfg.reachable
            stats = token_stats_at(x_RTD, head_VD, target_RT, temperatures, reachable)
            return put_piece(all_MRT, stats, index)

        empty = jnp.zeros(packed.tokens.shape, jnp.float32)
        start = tuple(TokenStats(*(empty,) * 5) for _ in temperatures)
        return jax.lax.fori_loop(0, packed.count, score_piece, start)

    return jax.jit(scores)


def put_piece(all_MRT: Any, x_RT: Any, index: jax.Array) -> Any:
    """`all_MRT` with micro-batch `index` replaced."""

    def put(into, x):
        x = sharding.constrain(x.astype(into.dtype), "batch", "length")
        return jax.lax.dynamic_update_index_in_dim(into, x, index, axis=0)

    return jax.tree.map(put, all_MRT, x_RT)
