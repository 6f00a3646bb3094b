"""Certainty of sampled tokens under any parameters, in the trainer's numerics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Array, Packed, Params, Rollout, TokenStats
from rlif_jax.distributed import whole_on_host
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.kernels.compiler_options import product_options
from rlif_jax.kernels.token_stats.api import token_stats, token_stats_at
from rlif_jax.loss.reference import on_devices
from rlif_jax.packing import Packing


def packed_stats(model: Any, piece: Packed, temperature: float, shared: bool) -> TokenStats:
    """TokenStats [R, T] of a micro-batch's targets, with gradients as `token_stats` gives them.

    `piece` has arrays [R, T]; `shared` says whether prompts are. A column without a target has a
    log-probability near -3e38.
    """
    x_RTD, target_RT = _states(model, piece, shared)
    return token_stats(x_RTD, model.head_VD, target_RT, temperature, model.cfg.reachable)


def _states(model: Any, piece: Packed, shared: bool) -> tuple[jax.Array, Array]:
    """Hidden states [R, T, D] and the tokens [R, T] they predict."""
    own_RT, prefix_RT = jnp.asarray(piece.segment), jnp.asarray(piece.prefix)
    segments = Segments(own_RT, prefix_RT if shared else None)
    x_RTD = model(piece.tokens, piece.position, segments)
    return x_RTD, piece.target


def piece_of(tree: Any, index: Array | int) -> Any:
    """Micro-batch `index` of arrays [M, R, T], as [R, T]; scalars stay as they are."""

    def one(x: jax.Array) -> jax.Array:
        return x if x.ndim == 0 else jax.lax.dynamic_index_in_dim(x, index, keepdims=False)

    return jax.tree.map(one, tree)


Pieces = Callable[[Params, Packed], tuple[TokenStats, ...]]


@dataclass(frozen=True)
class Score:
    """The scoring stage of a run; what it gives lies on the host.

    `at_sampling` and `at_both` are what it compiles: the statistics at the sampling temperature,
    and those at the sampling and at the reward temperature, None where these are equal. With
    `from_sampler` rewards read the statistics of sampling.
    """

    at_sampling: Pieces
    at_both: Pieces | None
    from_sampler: bool

    def certainty(
        self, params: Params, rollout: Rollout, pack: Callable[[Rollout], Sequence[Packing]]
    ) -> tuple[TokenStats | None, TokenStats]:
        """Statistics [B, C]: the policy's in the trainer's numerics, and those that rewards read.

        The first are at the sampling temperature, the second at the reward temperature and often
        the same object. With `from_sampler` nothing is scored, and the first are None.
        """
        if self.from_sampler:
            return None, rollout.stats
        scores = self.at_both or self.at_sampling
        policy, *more = whole(_on_host(scores, params, pack(rollout), rollout.tokens.shape[1]))
        return policy, more[0] if more else policy

    def old_logprobs(
        self, params: Params, policy: TokenStats | None, packings: Sequence[Packing], width: int
    ) -> list[np.ndarray | None]:
        """Log-probabilities [b, `width`] of each mini-batch under the policy before its updates.

        They are `policy`'s where that was scored. Otherwise the first mini-batch has None, since
        its own update starts from that policy, and the others are scored now.
        """
        if policy is not None:
            ends = np.cumsum([len(packing.length_B) for packing in packings])
            return list(np.split(np.asarray(policy.logprob), ends[:-1]))
        later = _on_host(self.at_sampling, params, packings[1:], width)
        return [None, *(np.asarray(stats.logprob) for (stats,) in later)]

    def reference(self, params: Params, packings: Sequence[Packing], width: int) -> TokenStats:
        """Statistics [B, `width`] at the sampling temperature under the anchor of the KL term."""
        return whole(_on_host(self.at_sampling, on_devices(params), packings, width))[0]


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
    """Trees of host arrays [b, ...] one after the other, [B, ...]."""
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

    return jax.jit(scores, compiler_options=product_options())


def put_piece(all_MRT: Any, x_RT: Any, index: jax.Array) -> Any:
    """`all_MRT` with micro-batch `index` replaced."""

    def put(into, x):
        x = sharding.constrain(x.astype(into.dtype), "batch", "length")
        return jax.lax.dynamic_update_index_in_dim(into, x, index, axis=0)

    return jax.tree.map(put, all_MRT, x_RT)
