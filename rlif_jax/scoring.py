"""Certainty of sampled tokens under any parameters, in the trainer's numerics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Params, Rollout, Sequences, TokenStats
from rlif_jax.kernels.token_stats.api import token_stats, token_stats_at
from rlif_jax.loss.reference import on_devices


def sequences(rollout: Rollout, samples_per_row: int = 1) -> Sequences:
    """Lay a rollout out with `samples_per_row` completions behind each prompt; it divides G."""
    g, (B, C), (N, P) = samples_per_row, rollout.tokens.shape, rollout.prompts.tokens.shape
    prompt_RP, prompt_mask_RP = (
        jnp.repeat(x_NP, B // N // g, axis=0)
        for x_NP in (rollout.prompts.tokens, rollout.prompts.mask)
    )
    mask_RgC = rollout.mask.reshape(B // g, g, C)
    prompt_position_RP = jnp.cumsum(prompt_mask_RP, axis=1) - 1
    position_RgC = prompt_position_RP[:, -1:, None] + jnp.cumsum(mask_RgC, axis=2)

    def join(prompt_RP, completion_RgC):
        flat_RC = completion_RgC.reshape(B // g, g * C)
        return jnp.concatenate([prompt_RP, flat_RC], axis=1)

    return Sequences(
        tokens=join(prompt_RP, rollout.tokens),
        position=jnp.maximum(join(prompt_position_RP, position_RgC), 0),
        mask=join(prompt_mask_RP, mask_RgC),
        prompt=P,
        samples=g,
    )


def completion_stats(model: Any, rows: Sequences, temperature: float) -> TokenStats:
    """TokenStats [R, g, C] of the completions, with gradients as `token_stats` gives them."""
    x_RgCD, target_RgC = completion_states(model, rows)
    return token_stats(x_RgCD, model.head_VD, target_RgC, temperature, model.cfg.reachable)


def completion_states(model: Any, rows: Sequences) -> tuple[jax.Array, jax.Array]:
    """Hidden states [R, g, C, D] and the tokens [R, g, C] they predict: the one shift by one.

    The hidden state of a token describes the next one. So the first token of every completion is
    described by the last of the prompt, at column P - 1, and each other by the one before it.
    """
    P, g = rows.prompt, rows.samples
    x_RTD = model(rows.tokens, rows.position, rows.mask, prompt=P, samples=g)
    R, T, D = x_RTD.shape
    C = (T - P) // g
    first_Rg1D = jnp.broadcast_to(x_RTD[:, None, P - 1 : P], (R, g, 1, D))
    later_RgCD = x_RTD[:, P:].reshape(R, g, C, D)[:, :, :-1]
    x_RgCD = jnp.concatenate([first_Rg1D, later_RgCD], axis=2)
    x_RgCD = sharding.constrain(x_RgCD, "batch", None, "length", "hidden")
    return x_RgCD, jnp.asarray(rows.tokens)[:, P:].reshape(R, g, C)


@dataclass(frozen=True)
class Scored:
    """TokenStats [B, C] of one rollout, float32.

    `policy` at the sampling temperature, `reward` at the reward temperature (often the same
    object), `reference` under the starting model, or None without a KL term.
    """

    policy: TokenStats
    reward: TokenStats
    reference: TokenStats | None


@dataclass(frozen=True)
class Score:
    """The scoring stage of a run: `score(params, reference, rollout) -> Scored`.

    `at_sampling` and `at_both` are what it compiles: the statistics at the sampling temperature,
    and those at the sampling and at the reward temperature, None where these are equal. With
    `from_sampler` the policy keeps the statistics of its sampling. `reference` are the starting
    model's parameters, or None without a KL term.
    """

    at_sampling: Callable[[Any, Rollout], TokenStats]
    at_both: Callable[[Any, Rollout], tuple[TokenStats, ...]] | None
    from_sampler: bool

    def __call__(self, params: Params, reference: Params | None, rollout: Rollout) -> Scored:
        if self.from_sampler:
            policy = reward = rollout.stats
        elif self.at_both is None:
            policy = reward = self.at_sampling(params, rollout)
        else:
            policy, reward = self.at_both(params, rollout)
        anchor = None
        if reference is not None:
            anchor = self.at_sampling(on_devices(reference), rollout)
        return Scored(*jax.block_until_ready((policy, reward, anchor)))


def make_scores(
    graphdef: nnx.GraphDef,
    *,
    temperatures: tuple[float, ...],
    samples_per_row: int = 1,
    micro_batches: int = 1,
):
    """Build `scores(params, rollout)`: TokenStats [B, C] at each temperature, float32, no gradient.

    All are read from the same logits, in one forward pass. The B / samples_per_row rows are scored
    in `micro_batches` pieces, one after the other, to bound memory.
    """

    def scores(params, rollout: Rollout) -> tuple[TokenStats, ...]:
        model = nnx.merge(graphdef, params)

        def piece(rows):
            x_RgCD, target_RgC = completion_states(model, rows)
            head_VD, reachable = model.head_VD, model.cfg.reachable
            return token_stats_at(x_RgCD, head_VD, target_RgC, temperatures, reachable)

        pieces = split_rows(sequences(rollout, samples_per_row), micro_batches)
        stats = join_rows(jax.lax.map(piece, pieces))
        return jax.tree.map(lambda x: x.reshape(rollout.tokens.shape), stats)

    return jax.jit(scores)


def make_score(graphdef: nnx.GraphDef, *, temperature: float, **layout: int):
    """Build `score(params, rollout) -> TokenStats`: `make_scores` at one temperature."""
    scores = make_scores(graphdef, temperatures=(temperature,), **layout)

    def score(params, rollout: Rollout) -> TokenStats:
        (stats,) = scores(params, rollout)
        return stats

    return jax.jit(score)


def split_rows(tree: Any, pieces: int) -> Any:
    """[B, ...] -> [pieces, B / pieces, ...], piece i holding rows i, i + pieces, ...

    Strided, so that each piece keeps the rows where the mesh has put them.
    """

    def split(x):
        return jnp.swapaxes(x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]), 0, 1)

    return jax.tree.map(split, tree)


def join_rows(tree: Any) -> Any:
    """The inverse of `split_rows`."""

    def join(x):
        return jnp.swapaxes(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    return jax.tree.map(join, tree)
