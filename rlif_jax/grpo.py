"""From rewards to new parameters: the training batch, the gradient and the update."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding

from rlif_jax import sharding
from rlif_jax.batch import Array, Params, Rollout, TrainBatch, TrainState
from rlif_jax.config import Loss, Optim
from rlif_jax.loss.aggregation import loss_denominator, trained_completions
from rlif_jax.loss.policy import policy_loss
from rlif_jax.loss.selection import covariance_selection
from rlif_jax.loss.tokens import LossTokens
from rlif_jax.model.lora import divided, trained, with_trained
from rlif_jax.packing import Packing
from rlif_jax.scoring import Scored, packed_stats, piece_of, put_piece
from rlif_jax.sharding import replicated


def make_optimizer(optim: Optim, updates_per_step: int = 1) -> optax.GradientTransformation:
    """AdamW after clipping by global norm; linear warm-up, then constant; no decay on norms."""
    return optax.chain(
        optax.clip_by_global_norm(optim.clip_norm),
        optax.adamw(
            learning_rate(optim, updates_per_step),
            b1=optim.b1,
            b2=optim.b2,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            mask=decayed,
        ),
    )


def learning_rate(optim: Optim, updates_per_step: int = 1) -> optax.Schedule:
    """lr * min(1, (step + 1) / warmup) as a function of the updates done before, counted from 0.

    Warm-up counts training steps, as verl's does, whose updates all have the same rate. The first
    step already moves the parameters.
    """

    def schedule(count):
        step = count // updates_per_step
        return optim.learning_rate * jnp.minimum(1.0, (step + 1) / max(optim.warmup_steps, 1))

    return schedule


def decayed(params: Params) -> Any:
    """Which parameters weight decay applies to: all but norms and biases, told by name.

    Adapters decay, both factors towards the base model, as with PEFT in transformers' trainer.
    """

    def one(path, _):
        names = jax.tree_util.keystr(path)
        return not ("norm" in names or "bias" in names)

    return jax.tree_util.tree_map_with_path(one, params)


def init_state(
    params: Params, optimizer: optax.GradientTransformation, entropy_coef: float = 0.0
) -> TrainState:
    """Step 0 of training from `params`, which the state keeps."""
    step, opt_state, coefficient = make_init(params, optimizer, entropy_coef)(params)
    return TrainState(step, params, opt_state, coefficient)


def make_init(params: Params, optimizer: optax.GradientTransformation, entropy_coef: float = 0.0):
    """Build `init(params) -> (step, opt_state, entropy_coef)`, laid out as `state_shapes` says.

    The moments are made in the shardings of their parameters, so that no device holds more than its
    share; frozen parameters have none. `params` may be arrays or shapes with shardings.
    """

    def init(params):
        return jnp.zeros((), jnp.int32), optimizer.init(trained(params)), jnp.float32(entropy_coef)

    shapes = state_shapes(params, optimizer)
    made = (shapes.step, shapes.opt_state, shapes.entropy_coef)
    return jax.jit(init, out_shardings=jax.tree.map(lambda x: x.sharding, made))


def state_shapes(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """`init_state` as shapes with shardings around `params`, for a checkpoint to be restored into.

    Moments have the shardings of their trained parameters, all else is replicated. `params` may be
    arrays or such shapes themselves.
    """

    def like(x, sharding) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    placed = jax.tree.leaves(params)[0].sharding
    everywhere = replicated(placed.mesh) if isinstance(placed, NamedSharding) else placed
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda moment, param: like(moment, param.sharding),
        jax.eval_shape(optimizer.init, trained(params)),
        trained(params),
        transform_non_params=lambda x: like(x, everywhere),
    )
    return TrainState(
        step=like(np.int32(0), everywhere),
        params=params,
        opt_state=moments,
        entropy_coef=like(np.float32(0), everywhere),
    )


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
        on_policy=np.bool_(old_logprob_BC is None),
        trained_tokens=np.float32(length_B[trained_B].sum()),
        completions=np.float32(trained_B.sum()),
        entropy_coef=np.float32(entropy_coef),
    )


def train_batches(
    packings: Sequence[Packing],
    rollout: Rollout,
    advantage_B: Array,
    scored: Scored,
    loss: Loss,
    entropy_coef: Array | float,
    key: jax.Array,
) -> list[TrainBatch]:
    """The mini-batches of a step on the devices, in order.

    `entropy_coef` is the weight of the entropy bonus in this step; `key` decides what loss variants
    choose at random.
    """
    batches, first = [], 0
    trained_B = trained_completions(rollout.truncated, loss)
    for i, (packing, old_BC) in enumerate(zip(packings, scored.old_logprob, strict=True)):
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
            ref_logprob_BC=None if scored.reference is None else scored.reference.logprob[rows],
            trained_B=trained_B[rows],
            selected_BC=selected_BC,
            entropy_coef=entropy_coef,
        )
        batches.append(sharding.put_pieces(batch))
    return batches


def seen(batch: TrainBatch, logprob_MRT: Array) -> TrainBatch:
    """The batch for later epochs, with the log-probabilities that its first update has seen."""
    if not batch.on_policy:
        return batch
    off_policy = sharding.put_pieces(np.bool_(False))
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
            dict.fromkeys(metrics, jnp.float32(0)),
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

    `state` is donated. `logprob` [M, R, T] are those of the targets before the update.
    """
    gradient = make_gradient(
        graphdef, loss, temperature=temperature, max_new_tokens=max_new_tokens, shared=shared
    )

    def update(state: TrainState, batch: TrainBatch):
        grads, metrics, logprob_MRT = gradient(state.params, batch)
        with jax.named_scope("optimizer"):
            before = trained(state.params)
            updates, opt_state = optimizer.update(grads, state.opt_state, before)
            after: Any = optax.apply_updates(before, updates)
            params = with_trained(state.params, after)
        metrics = {**metrics, "grad/norm": optax.global_norm(grads)}
        state = dataclasses.replace(state, params=params, opt_state=opt_state)
        return state, metrics, logprob_MRT

    return jax.jit(update, donate_argnums=0)
