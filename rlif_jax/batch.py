"""The pytrees that travel between the stages, and the letters their names carry.

    B  rows = N * G; row = n * G + g            T  tokens of a row, P + C
    N  prompts of a step                        D  embedding width
    G  samples per prompt                       F  feed-forward width
    P  prompt tokens, padded on the LEFT        H  query heads, K key/value heads, A head width
    C  completion tokens, padded on the right   V  vocabulary, L layers, U tests

`x_BC[:, t]` describes completion token t given everything before it. Prompts are padded on the
left and completions on the right, so the first completion token sits at column P in every row, and
the hidden state that predicts completion token t is column P + t - 1.
"""

import jax
import numpy as np
import optax
from flax import nnx, struct

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
    """

    stats: TokenStats
    mask: Array
    truncated: Array
    key: Array
    group_size: int = struct.field(pytree_node=False)
    outcomes: tuple[Outcome, ...] | None = struct.field(pytree_node=False, default=None)
    max_new_tokens: int | None = struct.field(pytree_node=False, default=None)


@struct.dataclass
class Sequences:
    """Prompts joined with their completions: R rows of one prompt and g completions each.

    `tokens` int32, `position` int32 and `mask` bool are [R, P + g * C]: a prompt, padded on the
    left, then its completions, each padded on the right to C columns. `position` counts the real
    tokens before a token in its own sequence. `prompt` is P and `samples` is g. R * g = B, and row
    r holds completions r * g to r * g + g - 1.
    """

    tokens: Array
    position: Array
    mask: Array
    prompt: int = struct.field(pytree_node=False)
    samples: int = struct.field(pytree_node=False)


@struct.dataclass
class TrainBatch:
    """What the policy update reads: `sequences` of R rows, and what is known of their completions.

    `completion_mask` bool [R, g, C] selects the trained tokens; `advantage` float32 [R, g];
    `old_logprob` float32 [R, g, C] under the policy that sampled; `ref_logprob` the same under the
    reference model, or None without a KL term.
    """

    sequences: Sequences
    completion_mask: Array
    advantage: Array
    old_logprob: Array
    ref_logprob: Array | None


@struct.dataclass
class TrainState:
    """Arrays of the training run; `step` int32 [] counts training steps."""

    step: Array
    params: Params
    opt_state: optax.OptState
