"""From rewards to new parameters: the training batch, the optimiser and the update."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding

from rlif_jax.batch import Array, Params, Rollout, TokenStats, TrainBatch, TrainState
from rlif_jax.config import Loss, Optim
from rlif_jax.loss.aggregation import loss_denominator
from rlif_jax.loss.policy import policy_loss
from rlif_jax.scoring import completion_stats, sequences, split_rows
from rlif_jax.sharding import replicated


def make_optimizer(optim: Optim, updates_per_step: int = 1) -> optax.GradientTransformation:
    """AdamW after clipping by global norm; linear warm-up, then constant; no decay on norms."""
    adamw = optax.chain(
        _adam(optim),
        optax.add_decayed_weights(optim.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(learning_rate(optim, updates_per_step)),
    )
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), adamw)


def _adam(optim: Optim) -> optax.GradientTransformation:
    """Adam (arXiv 1412.6980) in float32, whose first moment is kept in `optim.first_moment_dtype`.

    Optax's own `mu_dtype` has the decay rounded as well, 0.9 to 0.898, which makes steps 1.5%
    smaller. The second moment is float32: an update changes it by 1 - b2 = 0.001 of itself, and
    bfloat16, with steps of 0.004 to 0.008 of a number, would round that away.
    """
    adam = optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps)

    def with_first_moment(state, dtype):
        return state._replace(mu=jax.tree.map(lambda mu: mu.astype(dtype), state.mu))

    def init(params):
        return with_first_moment(adam.init(params), optim.first_moment_dtype)

    def update(updates, state, params=None):
        updates, state = adam.update(updates, with_first_moment(state, jnp.float32), params)
        return updates, with_first_moment(state, optim.first_moment_dtype)

    return optax.GradientTransformation(init, update)


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
    """Which parameters weight decay applies to: all but norms and biases, told by name."""

    def one(path, _):
        names = jax.tree_util.keystr(path)
        return not ("norm" in names or "bias" in names)

    return jax.tree_util.tree_map_with_path(one, params)


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0 of training from `params`, which the state keeps."""
    step, opt_state = make_init(params, optimizer)(params)
    return TrainState(step, params, opt_state)


def make_init(params: Params, optimizer: optax.GradientTransformation):
    """Build `init(params) -> (step, opt_state)`, laid out as `state_shapes` says.

    The moments are made in the shardings of their parameters, so that no device holds more than its
    share. `params` may be arrays or shapes with shardings.
    """

    def init(params):
        return jnp.zeros((), jnp.int32), optimizer.init(params)

    shapes = state_shapes(params, optimizer)
    places = jax.tree.map(lambda x: x.sharding, (shapes.step, shapes.opt_state))
    return jax.jit(init, out_shardings=places)


def state_shapes(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """`init_state` as shapes with shardings, for a checkpoint to be restored into.

    Moments have the shardings of their parameters, all else is replicated. `params` may be arrays
    or such shapes themselves.
    """

    def like(x, sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    placed = jax.tree.leaves(params)[0].sharding
    everywhere = replicated(placed.mesh) if isinstance(placed, NamedSharding) else placed
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda moment, param: like(moment, param.sharding),
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda x: like(x, everywhere),
    )
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return TrainState(step, jax.tree.map(lambda x: like(x, x.sharding), params), moments)


def train_batch(
    rollout: Rollout,
    advantage_B: Array,
    old: TokenStats,
    reference: TokenStats | None,
    samples_per_row: int = 1,
) -> TrainBatch:
    """Join what the update reads; `old` is the sampling policy, `reference` the KL anchor."""
    rows = (-1, samples_per_row)
    shape = (*rows, rollout.tokens.shape[1])
    return TrainBatch(
        sequences=sequences(rollout, samples_per_row),
        completion_mask=rollout.mask.reshape(shape),
        advantage=advantage_B.reshape(rows),
        old_logprob=old.logprob.reshape(shape),
        ref_logprob=None if reference is None else reference.logprob.reshape(shape),
    )


def mini_batches(batch: TrainBatch, loss: Loss) -> Iterator[TrainBatch]:
    """Each epoch's mini-batches in order; rows of a prompt stay together."""
    rows = batch.advantage.shape[0] // loss.mini_batches
    for _ in range(loss.epochs):
        for i in range(loss.mini_batches):
            yield jax.tree.map(lambda x, i=i: x[i * rows : (i + 1) * rows], batch)


def make_gradient(graphdef: nnx.GraphDef, loss: Loss, *, temperature: float, max_new_tokens: int):
    """Build `gradient(params, batch) -> (grads, metrics)`, accumulated over micro-batches.

    The denominator is that of the whole mini-batch, so the pieces add up to the gradient of one
    batch. Metrics are float32 scalars: `loss/policy`, `loss/kl`, `loss/clip_fraction`, ...
    """

    def piece_loss(params, piece: TrainBatch, denominator):
        model = nnx.merge(graphdef, params)
        stats = completion_stats(model, piece.sequences, temperature)

        def flat(x_RgC: Array) -> Array:
            return x_RgC.reshape(-1, x_RgC.shape[-1])

        return policy_loss(
            flat(stats.logprob),
            flat(stats.entropy),
            flat(piece.old_logprob),
            None if piece.ref_logprob is None else flat(piece.ref_logprob),
            piece.advantage.reshape(-1),
            flat(piece.completion_mask),
            loss,
            denominator,
        )

    def gradient(params, batch: TrainBatch):
        C = batch.completion_mask.shape[-1]
        all_rows_BC = batch.completion_mask.reshape(-1, C)
        denominator = loss_denominator(all_rows_BC, loss, max_new_tokens)

        def accumulate(total, piece):
            grads, metrics = jax.grad(piece_loss, has_aux=True)(params, piece, denominator)
            return jax.tree.map(jnp.add, total, grads), metrics

        pieces = split_rows(batch, loss.micro_batches)
        zeros = jax.tree.map(jnp.zeros_like, params)
        grads, metrics = jax.lax.scan(accumulate, zeros, pieces)
        return grads, jax.tree.map(lambda shares: shares.sum(), metrics)

    return gradient


def make_update(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    temperature: float,
    max_new_tokens: int,
):
    """Build `update(state, batch) -> (state, metrics)`: one optimiser step; `state` is donated."""
    gradient = make_gradient(
        graphdef,
        loss,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
    )

    def update(state: TrainState, batch: TrainBatch):
        grads, metrics = gradient(state.params, batch)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = {**metrics, "grad/norm": optax.global_norm(grads)}
        return dataclasses.replace(state, params=params, opt_state=opt_state), metrics

    return jax.jit(update, donate_argnums=0)
