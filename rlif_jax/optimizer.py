"""The optimiser, and the state of training that it works on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from rlif_jax.batch import Params, TrainState
from rlif_jax.config import Optim
from rlif_jax.errors import UserError
from rlif_jax.model.lora import trained
from rlif_jax.sharding import replicated


def make_optimizer(optim: Optim, updates_per_step: int = 1) -> optax.GradientTransformation:
    """AdamW after clipping by global norm; linear warm-up, then constant; no decay on norms.

    With `optim.average_decay` its state has the parameters' average as well, see `average_of`.
    """
    adamw = optax.chain(
        _adam(optim),
        optax.add_decayed_weights(optim.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(learning_rate(optim, updates_per_step)),
    )
    clip = optax.clip_by_global_norm(optim.clip_norm)
    if optim.average_decay is None:
        return optax.chain(clip, adamw)
    return optax.chain(clip, adamw, _averaging(optim.average_decay ** (1 / updates_per_step)))


class Average(NamedTuple):
    """The state of averaging: float32, of the trained parameters."""

    average: Params


def _averaging(decay: float) -> optax.GradientTransformation:
    """average <- decay * average + (1 - decay) * parameters, as an update leaves the parameters.

    Source: the teacher of Co-rewarding-II (arXiv 2508.00410) and M-GRPO (arXiv 2512.13070), where a
    step has one update. Where a step has k of them, each has the k-th root of a step's decay: after
    the step the average before it counts as much as it would after one. That needs no count of
    updates, which a batch that is skipped halfway would leave wrong.
    """

    def init(params):
        # Copies: the parameters themselves are used up by the first update.
        return Average(jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params))

    def update(updates, state, params: Any = None):
        after = optax.apply_updates(params, updates)
        # In this form an average that equals the parameters stays as it is, bit for bit.
        moved = jax.tree.map(lambda a, x: a + (1 - decay) * (x - a), state.average, after)
        return updates, Average(moved)

    return optax.GradientTransformation(init, update)


def average_of(state: TrainState) -> Params:
    """The exponential moving average of the trained parameters, with all updates done so far.

    Raises:
        UserError: no average is kept.
    """
    parts: Any = state.opt_state
    for part in parts:
        if isinstance(part, Average):
            return part.average
    raise UserError(
        "the average of the parameters is read, and none is kept: set optim.average_decay, such as "
        "0.99"
    )


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
        return (
            jnp.zeros((), jnp.int32),
            optimizer.init(trained(params)),
            jnp.float32(entropy_coef),
        )

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
