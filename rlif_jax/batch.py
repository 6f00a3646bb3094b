"""The pytrees that travel between the stages, and the letters their names carry.

    B  completions = N * G; number n * G + g    M  micro-batches of a mini-batch
    N  prompts of a step                        R  rows of a micro-batch
    G  samples per prompt                       T  columns of a row, which sequences fill
    P  prompt tokens, padded on the LEFT        D  embedding width, F feed-forward width
    C  completion tokens, padded on the right   H  query heads, K key/value heads, A head width
                                                V  vocabulary, L layers, U tests

`x_BC[:, t]` describes completion token t given everything before it; `x_MRT` says the same of a
column that predicts such a token (see `packing`, where the shift by one is made).
"""

import jax
import numpy as np
import optax
from flax import nnx, struct

from rlif_jax.config.learning import Reward
from rlif_jax.problem import Outcome

Array = jax.Array | np.ndarray  # on the devices, or on the host before a stage takes it
Params = nnx.State  # parameters by name, without the module that they belong to


@struct.dataclass
class Prompts:
    """Encoded prompts, padded on the left. `tokens` int32 [N, P], `mask` bool [N, P]."""

    tokens: Array
    mask: Array


@struct.dataclass
class TokenStats:
    """Certainty of the distribution each token was drawn from: float32, all of one shape.

    With z = logits / temperature over the reachable vocabulary (nats throughout):
    `logprob` ln p(token); `entropy` H(p); `self_certainty` lse(z) - mean(z) = KL(U||p) + ln V;
    `top1`, `top2` the two largest probabilities.
    """

    logprob: Array
    entropy: Array
    self_certainty: Array
    top1: Array
    top2: Array


@struct.dataclass
class Rollout:
    """Sampled completions of N prompts with G samples each, row = n * G + g.

    `prompts` [N, P]; `tokens` int32 [B, C]; `mask` bool [B, C], true up to and including the first
    end-of-sequence token; `stats` [B, C] as seen by the sampler; `truncated` bool [B], no
    end-of-sequence token within C; `length` int32 [B], true entries of `mask`.
    """

    prompts: Prompts
    tokens: Array
    mask: Array
    stats: TokenStats
    truncated: Array
    length: Array


@struct.dataclass
class Evidence:
    """All that a reward may see of B rows.

    `stats` and `mask` [B, C], `truncated` bool [B], `key` a PRNG key of this step for the control
    rewards, `group_size` G, `outcomes`, one per row, or None when no program was run, and
    `max_new_tokens`, the longest completion that sampling allows, or None where it had no limit.
    `votes` are the outcomes on the inputs of votes, one per row, None where these are the tests.
    `teacher` are those of a teacher's samples on the inputs of votes, G for each prompt in order,
    None where no term needs a teacher.
    `read` bool [B, C] are the tokens of the part that reward.over names, None where that is not a
    part of the text, and `settings` the whole section. `texts` are the responses and `codes` their
    programs, None where there is none, one per row; both None where nothing was decoded.
    """

    stats: TokenStats
    mask: Array
    truncated: Array
    key: Array
    group_size: int = struct.field(pytree_node=False)
    outcomes: tuple[Outcome, ...] | None = struct.field(pytree_node=False, default=None)
    max_new_tokens: int | None = struct.field(pytree_node=False, default=None)
    votes: tuple[Outcome, ...] | None = struct.field(pytree_node=False, default=None)
    teacher: tuple[Outcome, ...] | None = struct.field(pytree_node=False, default=None)
    read: Array | None = None
    settings: Reward = struct.field(pytree_node=False, default_factory=Reward)
    texts: tuple[str, ...] | None = struct.field(pytree_node=False, default=None)
    codes: tuple[str | None, ...] | None = struct.field(pytree_node=False, default=None)


@struct.dataclass
class Packed:
    """Sequences side by side in rows: M micro-batches of R rows of T columns, all int32 [M, R, T].

    `tokens`; `position`, the tokens before it in its sequence; `segment`, a number above 0 for each
    run of columns that belong together, never falling from left to right, and 0 where a column is
    empty; `prefix`, the segment of the prompt that this one continues, or this segment itself where
    it holds its own prompt; `target`, the completion token that the column predicts, -1 where it
    predicts none. A column sees those at or before it whose segment is its own or its prefix. The
    targets of one completion are neighbours, in order, and alone in their segment. `count` int32 []
    are the micro-batches that hold anything: the first ones.
    """

    tokens: Array
    position: Array
    segment: Array
    prefix: Array
    target: Array
    count: Array


@struct.dataclass
class TrainBatch:
    """What the update reads of a mini-batch: sequences, and facts of their targets [M, R, T].

    `trained` bool selects the targets that the loss sees; `advantage` and `length`, the tokens of
    the completion, are float32 and the same throughout a completion. Float32 log-probabilities:
    `old_logprob` under the policy before this step; `sampler_logprob` as the sampler saw them;
    `ref_logprob` under the reference model, None without a KL term. `on_policy` bool [] says that
    the update starts from the policy before this step, so that its own log-probabilities are the
    old ones and `old_logprob` is not read. `selected` bool are the targets that a loss variant
    treats apart, None where it selects none. Float32 []: `trained_tokens` and `completions` count
    those of the whole mini-batch, `entropy_coef` is the weight of the entropy bonus in this step.
    """

    packed: Packed
    trained: Array
    advantage: Array
    length: Array
    old_logprob: Array
    sampler_logprob: Array
    ref_logprob: Array | None
    selected: Array | None
    on_policy: Array
    trained_tokens: Array
    completions: Array
    entropy_coef: Array


@struct.dataclass
class TrainState:
    """Arrays of the training run.

    `step` int32 [] counts training steps; `entropy_coef` float32 [] is the state of the entropy
    bonus's weight, which moves with loss.entropy_target.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    entropy_coef: Array
