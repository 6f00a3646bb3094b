"""The training step: every arrow of the flow, and the compiled stages it runs through.

    Problem -> Prompts -> Rollout -> Evidence -> reward_B -> TrainBatch -> TrainState

This is the page to start reading. It is not the life of a run (train.py), nor the mathematics:
rewards/ turn Evidence into rewards, loss/ has the loss, grpo.py the gradient and the update.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Array, Params, Rollout, TrainBatch, TrainState
from rlif_jax.config import Config, Loss
from rlif_jax.console.notice import Notice
from rlif_jax.errors import NotFinite
from rlif_jax.experience import (
    Ask,
    Draw,
    Experience,
    experience,
    informative_experience,
    kept_of,
    of_groups,
    rollout_of_groups,
)
from rlif_jax.grpo import later_epoch, make_update, train_batches
from rlif_jax.loss.advantages import group_advantages
from rlif_jax.loss.entropy import entropy_coefficient, mean_entropy
from rlif_jax.model.config import INPUT_AXES
from rlif_jax.model.lora import with_trained
from rlif_jax.optimizer import average_of, make_optimizer
from rlif_jax.packing import Form, Packing, form_of, pack_rollout
from rlif_jax.rewards import needs_teacher, reward_at
from rlif_jax.run.clock import Clock
from rlif_jax.run.policy import Policy, digest_of_copy
from rlif_jax.sampler.engine import Engine, Usage
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sample import RowsFinished, make_sample
from rlif_jax.sampler.sync import Sync, make_sync
from rlif_jax.scoring import Score, make_scores
from rlif_jax.step_record import Skipped, StepRecord, not_finite

Sample = Callable[
    [Params, Sequence[Sequence[int]], jax.Array, RowsFinished | None], tuple[Rollout, Usage]
]
Update = Callable[[TrainState, TrainBatch], tuple[TrainState, dict[str, Array], Array]]

_SELECTION = 2**31  # apart from the rounds, whose keys are folded with their number


@dataclasses.dataclass(frozen=True)
class Stages:
    """The compiled stages of a configuration; scoring and updating compile once for a whole run.

    `sync(params)` lays parameters out for sampling, with weights of `sampling.weights_dtype`, and
    `sync_unrounded(params)` for evaluation. `sample(params, prompts, key, rows_finished)`
    draws a (Rollout, Usage) of N lists of token ids through `engine`, which holds what it compiles.
    `pack(rollout)` packs each mini-batch of it into the shape `form`, and `score` gives statistics
    of what is packed. `update(state, batch)` gives the next state, using up the old one, its
    metrics and the log-probabilities before it.
    """

    optimizer: optax.GradientTransformation
    sync: Sync
    sync_unrounded: Sync
    engine: Engine
    sample: Sample
    form: Form
    pack: Callable[[Rollout], list[Packing]]
    score: Score
    update: Update


def make_stages(cfg: Config, graphdef: nnx.GraphDef, pad_id: int) -> Stages:
    """The stages of a configuration for the model that `graphdef` describes.

    All that trains, plans, measures or compiles ahead of time takes its stages from here, under the
    mesh of `jax.set_mesh` that they are to run on.
    """
    temperature, new_tokens = cfg.sampling.temperature, cfg.sampling.max_new_tokens
    engine = Engine(graphdef, batching=Batching.of(cfg.sampling), temperature=temperature)
    sample = make_sample(
        engine,
        samples_per_prompt=cfg.sampling.samples_per_prompt,
        max_new_tokens=new_tokens,
        pad_id=pad_id,
        max_prompt_tokens=cfg.data.max_prompt_tokens,
    )
    form = packed_form(cfg)
    rewarded_at = cfg.reward.reward_temperature or temperature
    both = (temperature, rewarded_at)
    score = Score(
        at_sampling=make_scores(graphdef, temperatures=(temperature,), shared=form.shared),
        at_both=None
        if rewarded_at == temperature
        else make_scores(graphdef, temperatures=both, shared=form.shared),
        from_sampler=cfg.reward.stats_from == "sampler",
    )
    optimizer = make_optimizer(cfg.optim, cfg.loss.epochs * cfg.loss.mini_batches)
    update = make_update(
        graphdef,
        optimizer,
        cfg.loss,
        temperature=temperature,
        max_new_tokens=new_tokens,
        shared=form.shared,
    )
    pack = functools.partial(pack_rollout, form=form, mini_batches=cfg.loss.mini_batches)
    unrounded = make_sync(graphdef)
    sync = make_sync(graphdef, cfg.rounded_to) if cfg.rounded_to else unrounded
    return Stages(optimizer, sync, unrounded, engine, sample, form, pack, score, update)


def packed_form(cfg: Config) -> Form:
    """The shape of every mini-batch, on the mesh of `jax.set_mesh`.

    Prompts are shared on CPUs, where it saves work: the kernel of TPUs reads shared keys twice.
    There a row is no wider than a prompt with all its samples, unless the configuration has it so:
    a wider row leaves its processor's cache, and each column takes a tenth longer.
    """
    shared, tokens, on_cpu = cfg.loss.shared_prompts, cfg.row_tokens, sharding.platform() == "cpu"
    shared = on_cpu if shared is None else shared
    G, C = cfg.sampling.samples_per_prompt, cfg.sampling.max_new_tokens
    if on_cpu and shared and not cfg.loss.tokens_per_micro_batch:
        tokens = min(tokens, max(cfg.longest_row + (G - 1) * C, _NARROWEST_ROW))
    return form_of(
        completions=cfg.data.prompts_per_step * G // cfg.loss.mini_batches,
        longest=cfg.longest_row,
        tokens=tokens,
        rows=sharding.row_shards(),
        shared=shared,
        multiple=sharding.axis_size("context"),
    )


_NARROWEST_ROW = 512
"""Columns below which reading the weights for each row takes a share of its time."""


def gather_experience(
    cfg: Config,
    stages: Stages,
    params: Params,
    ask: Ask,
    key: jax.Array,
    clock: Clock,
    notice: Notice,
    teacher: Params | None = None,
) -> tuple[Experience, np.ndarray, str]:
    """What these parameters draw, the groups of it to train on, and the decode copy's digest.

    `teacher` are the parameters of a teacher that draws as well, if rewards read what it draws.
    With reward.vote_inputs=model each round asks the policy for tests first. Each has the sampler's
    copy in turn: two are never held, and the last one is freed. Raises UserError for one that is
    not of the parameters that are to draw.
    """
    copy = DecodeCopy(stages.sync, INPUT_AXES if cfg.rounded_to else ())

    def drawing(params: Params) -> Draw:
        def draw(*asked: Any) -> tuple[Rollout, Usage]:
            with clock("sync"):
                decode_params = copy.of(params)
            return stages.sample(decode_params, *asked)

        return draw

    certainty = functools.partial(stages.score.certainty, params, pack=stages.pack)
    teach = None if teacher is None else drawing(teacher)

    def one_round(round_key: jax.Array) -> Experience:
        draw = drawing(params)
        return experience(cfg, draw, certainty, ask, round_key, clock, notice, teach)

    seen, groups = informative_experience(cfg, one_round, key)
    return seen, groups, copy.digest  # of these parameters, which draw last in a round


class DecodeCopy:
    """The sampler's copy of one tree of parameters at a time, and its digest.

    `rounded` are the weights that `sync` rounds, see `digest_of_copy`.
    """

    def __init__(self, sync: Sync, rounded: Collection[str]):
        self._sync, self._rounded, self.digest = sync, rounded, ""
        self._params: Params | None = None
        self._copy: Any = None

    def of(self, params: Params) -> Any:
        """That of these parameters, made anew where it is another's, which is freed before.

        Raises UserError for one that is not of them.
        """
        if self._params is not params:
            self._params = self._copy = None
            self._copy = jax.block_until_ready(self._sync(params))
            self.digest = digest_of_copy(self._copy, params, self._rounded)
            self._params = params
        return self._copy


def train_step(
    cfg: Config,
    stages: Stages,
    state: TrainState,
    reference: Params | None,
    ask: Ask,
    key: jax.Array,
    clock: Clock,
    notice: Notice,
) -> tuple[TrainState, StepRecord | Skipped]:
    """Questions in; the next state, and on the host the record of the step, out.

    `state` is used up. `reference` are the trained parameters as the run started, None where no KL
    term is anchored there. `ask()` gives the questions of a round. `notice(text)` is called with
    each phase and may raise to stop before the state is used. Where numbers are not finite the
    batch is skipped and the step not counted, though mini-batches before the one that failed have
    been learnt from.
    """
    G, C, loss = cfg.sampling.samples_per_prompt, cfg.sampling.max_new_tokens, cfg.loss
    cfg = dataclasses.replace(cfg, reward=reward_at(cfg.reward, int(state.step) + 1))
    teacher = None
    if needs_teacher(cfg.reward):
        teacher = with_trained(state.params, average_of(state))
    try:
        seen, groups, digest = gather_experience(
            cfg, stages, state.params, ask, key, clock, notice, teacher
        )
    except NotFinite as error:
        return state, Skipped(str(error), error.arrays)
    drawn_by = Policy(int(state.step), digest)
    with clock("reward"):
        advantage_B = np.asarray(group_advantages(seen.reward, G, loss.advantage, loss.std_floor))
        advantage_B = np.where(np.repeat(seen.open, G), advantage_B, np.float32(0))
        rollout = rollout_of_groups(seen.rollout, groups, G)
        learned = (seen.policy, advantage_B, kept_of(cfg, seen))
        policy, trained_advantage_B, kept_B = of_groups(learned, groups, G)
    with clock("score"):
        packings = stages.pack(rollout)
        old_logprobs = stages.score.old_logprobs(state.params, policy, packings, C)
        anchor, anchored_in = None, kl_anchor(loss, state, reference)
        if anchored_in is not None:
            anchored_in = with_trained(state.params, anchored_in)
            anchor = stages.score.reference(anchored_in, packings, C)
    with clock("update"):
        notice("updating")
        entropy = mean_entropy(policy or rollout.stats, rollout.mask)
        coefficient = entropy_coefficient(jax.device_get(state.entropy_coef), entropy, loss)
        selection_key = jax.random.fold_in(key, _SELECTION)
        batches = train_batches(
            packings,
            rollout,
            trained_advantage_B,
            old_logprobs,
            anchor,
            loss,
            coefficient.applied,
            selection_key,
            kept_B,
        )
        updates = []
        for _ in range(loss.epochs):
            for i, batch in enumerate(batches):
                state, measured, logprob_MRT = stages.update(state, batch)
                updates.append(measured)
                batches[i] = later_epoch(batch, logprob_MRT)
        updates = jax.device_get(updates)
        if loss.entropy_target is not None:
            updates = [m | {"loss/entropy_coef": np.asarray(coefficient.applied)} for m in updates]
        if (skipped := not_finite(updates, seen, advantage_B)) is not None:
            return state, skipped
        following = sharding.put_pieces(coefficient.following)
        state = dataclasses.replace(state, step=state.step + 1, entropy_coef=following)
    return state, StepRecord(seen, advantage_B, updates, packings, drawn_by)


def kl_anchor(loss: Loss, state: TrainState, reference: Params | None) -> Params | None:
    """The trained parameters that a step's KL term is anchored in, None without the term.

    Raises UserError for an average that is not kept.
    """
    averaged = loss.kl_coef > 0 and loss.kl_anchor == "average"
    return average_of(state) if averaged else reference
