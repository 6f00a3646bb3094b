"""From rewards to new parameters: the training batch, the gradient and the update."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Array, Rollout, TokenStats, TrainBatch, TrainState
from rlif_jax.config import Loss
from rlif_jax.kernels.compiler_options import product_options
from rlif_jax.loss.aggregation import loss_denominator, trained_completions
from rlif_jax.loss.policy import policy_loss
from rlif_jax.loss.selection import covariance_selection
from rlif_jax.loss.tokens import LossTokens
from rlif_jax.model.lora import divided, trained, with_trained
from rlif_jax.packing import Packing
from rlif_jax.scoring import packed_stats, piece_of, put_piece


def train_batch(
    packing: Packing,
    advantage_B: Array,
    *,
    old_logprob_BC: Array | None,
    sampler_logprob_BC: Array,
    ref_logprob_BC: Array | None,
    trained_B: Array,
    selected_BC: Array | None = None,
    entropy_coef: Array | float = 0.0,
) -> TrainBatch:
    """Join what the update of one mini-batch reads, on the host; B are its completions alone.

    `old_logprob_BC` None: the update starts from the policy before this step. `trained_B` are the
    completions that the loss sees.
    """
    length_B, trained_B = packing.length_B, np.asarray(trained_B)
    nothing_MRT = np.zeros(packing.packed.tokens.shape, np.float32)

    return TrainBatch(
        packed=packing.packed,
        trained=packing.spread(trained_B, False),
        advantage=packing.spread(np.asarray(advantage_B, np.float32)),
        length=packing.spread(length_B.astype(np.float32)),
        old_logprob=nothing_MRT if old_logprob_BC is None else packing.spread(old_logprob_BC),
        sampler_logprob=packing.spread(sampler_logprob_BC),
        ref_logprob=None if ref_logprob_BC is None else packing.spread(ref_logprob_BC),
        selected=None if selected_BC is None else packing.spread(selected_BC),
        on_policy=np.asarray(old_logprob_BC is None),
        trained_tokens=np.asarray(length_B[trained_B].sum(), np.float32),
        completions=np.asarray(trained_B.sum(), np.float32),
        entropy_coef=np.asarray(entropy_coef, np.float32),
    )


def train_batches(
    packings: Sequence[Packing],
    rollout: Rollout,
    advantage_B: Array,
    old_logprobs: Sequence[Array | None],
    reference: TokenStats | None,
    loss: Loss,
    entropy_coef: Array | float,
    key: jax.Array,
    kept_B: Array | None = None,
) -> list[TrainBatch]:
    """The mini-batches of a step on the devices, in order.

    `old_logprobs` of each mini-batch are None where its update starts from the policy before the
    step; `reference` [B, C] is None without a KL term. `entropy_coef` is the weight of the entropy
    bonus in this step; `key` decides what loss variants choose at random. `kept_B` bool are the
    completions that the loss may see, None: all.
    """
    batches, first = [], 0
    trained_B = np.asarray(trained_completions(rollout.truncated, loss))
    if kept_B is not None:
        trained_B = trained_B & kept_B
    for i, (packing, old_BC) in enumerate(zip(packings, old_logprobs, strict=True)):
        rows = slice(first, first + len(packing.length_B))
        first = rows.stop
        sampler_BC, mask_BC = rollout.stats.logprob[rows], rollout.mask[rows]
        selected_BC = covariance_selection(
            sampler_BC if old_BC is None else old_BC,
            advantage_B[rows],
            mask_BC & trained_B[rows, None],
            loss,
            jax.random.fold_in(key, i),
        )
        batch = train_batch(
            packing,
            advantage_B[rows],
            old_logprob_BC=old_BC,
            sampler_logprob_BC=sampler_BC,
            ref_logprob_BC=None if reference is None else reference.logprob[rows],
            trained_B=trained_B[rows],
            selected_BC=selected_BC,
            entropy_coef=entropy_coef,
        )
        batches.append(sharding.put_pieces(batch))
    return batches


def later_epoch(batch: TrainBatch, logprob_MRT: Array) -> TrainBatch:
    """The batch for later epochs, with the log-probabilities that its first update has seen."""
    if not batch.on_policy:
        return batch
    off_policy = sharding.put_pieces(np.asarray(False))
    return dataclasses.replace(batch, old_logprob=logprob_MRT, on_policy=off_policy)


def make_gradient(
    graphdef: nnx.GraphDef, loss: Loss, *, temperature: float, max_new_tokens: int, shared: bool
):
    """Build `gradient(params, batch) -> (grads, metrics, logprob)`, accumulated over micro-batches.

    `grads` are those of the trained parameters. The denominator is that of the whole mini-batch, so
    the pieces add up to the gradient of one batch. Metrics are float32 scalars: `loss/policy`,
    `loss/kl`, `loss/clip_fraction`, ... `logprob` [M, R, T] are those of the targets before the
    update.
    """

    def piece_loss(moving, frozen, piece: TrainBatch, denominator):
        model = nnx.merge(graphdef, moving, frozen)
        stats = packed_stats(model, piece.packed, temperature, shared)
        own_RT = jax.lax.stop_gradient(stats.logprob)
        tokens = LossTokens(
            logprob=stats.logprob,
            entropy=stats.entropy,
            old_logprob=jnp.where(piece.on_policy, own_RT, piece.old_logprob),
            ref_logprob=piece.ref_logprob,
            sampler_logprob=piece.sampler_logprob,
            advantage=piece.advantage,
            mask=piece.trained,
            segment=piece.packed.segment,
            length=piece.length,
            selected=piece.selected,
        )
        total, metrics = policy_loss(tokens, loss, denominator, piece.entropy_coef)
        drift_RT = jnp.where(piece.trained, jnp.abs(own_RT - piece.sampler_logprob), 0.0)
        metrics["drift/sampler_logprob"] = drift_RT.sum() / denominator.tokens
        return total, (metrics, own_RT)

    def gradient(params, batch: TrainBatch):
        moving, frozen = divided(params)
        denominator = loss_denominator(
            batch.trained_tokens, batch.completions, loss, max_new_tokens
        )

        def of_piece(index):
            piece = piece_of(batch, index)
            return jax.grad(piece_loss, has_aux=True)(moving, frozen, piece, denominator)

        if batch.trained.shape[0] == 1:  # nothing to accumulate
            grads, (metrics, logprob_RT) = of_piece(0)
            return grads, metrics, logprob_RT[None]

        def accumulate(index, so_far):
            grads, (metrics, logprob_RT) = of_piece(index)
            total, total_metrics, logprob_MRT = so_far
            return (
                jax.tree.map(jnp.add, total, grads),
                jax.tree.map(jnp.add, total_metrics, metrics),
                put_piece(logprob_MRT, logprob_RT, index),
            )

        _, (metrics, _) = jax.eval_shape(of_piece, 0)
        start = (
            jax.tree.map(jnp.zeros_like, moving),
            dict.fromkeys(metrics, np.float32(0)),
            jnp.zeros(batch.trained.shape, jnp.float32),
        )
        return jax.lax.fori_loop(0, batch.packed.count, accumulate, start)

    return gradient


def make_update(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    temperature: float,
    max_new_tokens: int,
    shared: bool,
):
    """Build `update(state, batch) -> (state, metrics, logprob)`: one optimiser step.

    `state` is donated. It comes back as it was where the loss or the gradient is not finite, which
    `grad/norm` or `loss/policy` shows. `logprob` [M, R, T] are those of the targets before the
    update.
    """
    gradient = make_gradient(
        graphdef, loss, temperature=temperature, max_new_tokens=max_new_tokens, shared=shared
    )

    def update(state: TrainState, batch: TrainBatch):
        grads, metrics, logprob_MRT = gradient(state.params, batch)
        with jax.named_scope("optimizer"):
            before = trained(state.params)
            norm = optax.global_norm(grads)
            updates, opt_state = optimizer.update(grads, state.opt_state, before)
            after: Any = optax.apply_updates(before, updates)
            finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss/policy"])
            after, opt_state = jax.tree.map(
                functools.partial(jnp.where, finite), (after, opt_state), (before, state.opt_state)
            )
            params = with_trained(state.params, after)
        metrics = {**metrics, "grad/norm": norm}
        state = dataclasses.replace(state, params=params, opt_state=opt_state)
        return state, metrics, logprob_MRT

    return jax.jit(update, donate_argnums=0, compiler_options=product_options())
