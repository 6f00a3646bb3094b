"""The gradient of a training step written out plainly: the reference for the stage that updates.

Whole rows of one sequence each, all scores and all logits in memory, float32 throughout, layer by
layer, nothing packed and nothing computed again. It is for a few short sequences of a model of few
layers.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Params, Rollout
from rlif_jax.kernels.attention.plain import plain_attention
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.kernels.precision import einsum
from rlif_jax.kernels.token_stats.plain import token_stats
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.rope import rope_angles, rotate

Array = jax.Array
Weights = Mapping[str, Array]


def by_name(params: Params) -> dict[str, Array]:
    """Parameters, or moments of them, by the names that `param_specs` has."""
    return {".".join(map(str, path)): one.get_value() for path, one in params.flat_state()}


def plain_gradient(
    cfg: ModelConfig, params: Params, rollout: Rollout, advantage_B: np.ndarray, temperature: float
) -> tuple[dict[str, Array], np.ndarray]:
    """Gradients by name, and the log-probabilities [B, C] of the completions, 0 behind their ends.

    The loss is that of an update from the policy that has sampled, whose ratios are all 1, so that
    nothing is clipped: -sum(advantage * log-probability) / tokens.
    """
    tokens_BT, length_B, first_B = _rows(rollout)
    B, C = rollout.tokens.shape
    mask_BC = jnp.asarray(rollout.mask)
    at_BC = first_B[:, None] + np.arange(C)  # the column that predicts completion token c
    at_BC = np.minimum(at_BC, tokens_BT.shape[1] - 1)
    target_BC = jnp.asarray(rollout.tokens)
    segments = Segments.of(jnp.arange(tokens_BT.shape[1]) < length_B[:, None])
    advantage_B1 = jnp.asarray(advantage_B, jnp.float32)[:, None]

    @jax.jit
    def gradient(weights: Weights) -> tuple[dict[str, Array], Array]:
        def loss(weights: Weights) -> tuple[Array, Array]:
            x_BTD = _hidden(cfg, weights, jnp.asarray(tokens_BT), segments)
            x_BCD = x_BTD[np.arange(B)[:, None], at_BC]
            head_VD = weights["embed" if cfg.tied else "head"]
            stats = token_stats(x_BCD, head_VD, target_BC, temperature, cfg.reachable)
            logprob_BC = jnp.where(mask_BC, stats.logprob, 0.0)
            return -(advantage_B1 * logprob_BC).sum() / mask_BC.sum(), logprob_BC

        return jax.grad(loss, has_aux=True)(weights)

    gradients, logprob_BC = gradient(by_name(params))
    return gradients, np.asarray(logprob_BC)


def _rows(rollout: Rollout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prompt and completion from the left of each row; their lengths; where prompts end.

    The last value is the column of each prompt's last token, which predicts the first drawn one.
    """
    prompts, G = rollout.prompts, len(rollout.length) // len(rollout.prompts.mask)
    sequences, first = [], []
    for row, (tokens, length) in enumerate(zip(rollout.tokens, rollout.length, strict=True)):
        n = row // G
        prompt = np.asarray(prompts.tokens[n])[np.asarray(prompts.mask[n])]
        sequences.append(np.concatenate([prompt, np.asarray(tokens)[:length]]))
        first.append(len(prompt) - 1)
    length_B = np.array([len(one) for one in sequences])
    tokens_BT = np.zeros((len(sequences), length_B.max()), np.int32)
    for row, one in enumerate(sequences):
        tokens_BT[row, : len(one)] = one
    return tokens_BT, length_B, np.array(first)


def _hidden(cfg: ModelConfig, weights: Weights, tokens_BT: Array, segments: Segments) -> Array:
    """Final-normed hidden states [B, T, D]."""
    x_BTD = weights["embed"][tokens_BT]
    position_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    rope = rope_angles(position_BT, cfg)
    stacked = {n.removeprefix("layers."): x for n, x in weights.items() if "layers." in n}
    for layer in range(cfg.layers):
        w = {n: x[layer] for n, x in stacked.items()}
        x_BTD = _layer(cfg, w, x_BTD, rope, segments)
    return _norm(x_BTD, weights["final_norm"], cfg.rms_eps)


def _layer(cfg: ModelConfig, w: Weights, x_BTD: Array, rope: Any, segments: Segments) -> Array:
    """The residual stream behind one layer."""
    y_BTD = _norm(x_BTD, w["attn_norm"], cfg.rms_eps)
    q, k, v = (einsum("BTD,DHA->BTHA", y_BTD, w[name]) for name in "qkv")
    if cfg.qkv_bias:
        q, k, v = (x + w[f"{name}_bias"] for name, x in zip("qkv", (q, k, v), strict=True))
    if cfg.qk_norm:
        q, k = (_norm(x, w[f"{n}_norm"], cfg.rms_eps) for n, x in (("q", q), ("k", k)))
    out_BTHA = plain_attention(rotate(q, *rope), rotate(k, *rope), v, segments)
    x_BTD = x_BTD + einsum("BTHA,HAD->BTD", out_BTHA, w["o"])
    y_BTD = _norm(x_BTD, w["ffn_norm"], cfg.rms_eps)
    gate_BTF, up_BTF = (einsum("BTD,DF->BTF", y_BTD, w[name]) for name in ("gate", "up"))
    return x_BTD + einsum("BTF,FD->BTD", jax.nn.silu(gate_BTF) * up_BTF, w["down"])


def _norm(x: Array, weight: Array, eps: float) -> Array:
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight
