"""Grouped-query attention, as plain einsums.

Letters beyond `batch.py`'s: S key columns, R = H / K query heads that share a key/value head.
"""

import jax
import jax.numpy as jnp

from rlif_jax.kernels.precision import einsum

Array = jax.Array

# Finite, so that a row without any valid key gives a uniform average instead of NaN.
_MASKED = -1e30


def attention(q_BTHA: Array, k_BKSA: Array, v_BKSA: Array, mask_BTS: Array) -> Array:
    """Softmax(q k^T / sqrt(A)) v over the keys where `mask_BTS` is true; returns [B, T, H, A].

    Query head h reads key/value head h // (H / K); keys and values are not repeated. The softmax
    is float32. A query without any valid key gives the plain mean of the values, which is finite.
    """
    B, T, H, A = q_BTHA.shape
    K = k_BKSA.shape[1]
    q_BTKRA = q_BTHA.reshape(B, T, K, H // K, A)
    score_BKRTS = einsum("BTKRA,BKSA->BKRTS", q_BTKRA, k_BKSA, preferred_element_type=jnp.float32)
    score_BKRTS = jnp.where(mask_BTS[:, None, None], score_BKRTS * A**-0.5, _MASKED)
    prob_BKRTS = jax.nn.softmax(score_BKRTS, axis=-1).astype(v_BKSA.dtype)
    out_BTKRA = einsum("BKRTS,BKSA->BTKRA", prob_BKRTS, v_BKSA)
    return out_BTKRA.reshape(B, T, H, A)


@jax.named_scope("attention")
def shared_prompt_attention(
    q_BTHA: Array, k_BTKA: Array, v_BTKA: Array, mask_BT: Array, prompt: int, samples: int
) -> Array:
    """Causal attention in rows of one prompt and several completions of it; returns [B, T, H, A].

    The first `prompt` = P columns are the prompt, the rest `samples` = g completions of C columns
    each. A prompt token sees the prompt up to itself, a completion token the whole prompt and its
    own completion up to itself; keys where `mask_BT` is false are masked for all queries. With
    `samples` 0 this is ordinary causal attention.
    """
    P, g = prompt, samples
    B, T, H, A = q_BTHA.shape
    heads_first = (0, 2, 1, 3)
    k_BKTA, v_BKTA = k_BTKA.transpose(heads_first), v_BTKA.transpose(heads_first)
    seen_BPP = mask_BT[:, None, :P] & jnp.tril(jnp.ones((P, P), bool))
    out_BPHA = attention(q_BTHA[:, :P], k_BKTA[:, :, :P], v_BKTA[:, :, :P], seen_BPP)
    if g == 0:
        return out_BPHA
    K, C = k_BKTA.shape[1], (T - P) // g
    q_BgCKRA = q_BTHA[:, P:].reshape(B, g, C, K, H // K, A)
    kp_BKPA, vp_BKPA = k_BKTA[:, :, :P], v_BKTA[:, :, :P]
    kc_BKgCA, vc_BKgCA = (x[:, :, P:].reshape(B, K, g, C, A) for x in (k_BKTA, v_BKTA))
    score = jnp.concatenate(
        [
            einsum(to, q_BgCKRA, keys, preferred_element_type=jnp.float32)
            for to, keys in (
                ("BgCKRA,BKPA->BKgRCP", kp_BKPA),
                ("BgCKRA,BKgSA->BKgRCS", kc_BKgCA),
            )
        ],
        axis=-1,
    )
    prompt_Bg1P = jnp.broadcast_to(mask_BT[:, None, None, :P], (B, g, C, P))
    own_BgCC = mask_BT[:, P:].reshape(B, g, 1, C) & jnp.tril(jnp.ones((C, C), bool))
    seen_BgCS = jnp.concatenate([prompt_Bg1P, own_BgCC], axis=-1)
    score = jnp.where(seen_BgCS[:, None, :, None], score * A**-0.5, _MASKED)
    prob = jax.nn.softmax(score, axis=-1).astype(v_BTKA.dtype)
    out_BgCKRA = einsum("BKgRCP,BKPA->BgCKRA", prob[..., :P], vp_BKPA)
    out_BgCKRA += einsum("BKgRCS,BKgSA->BgCKRA", prob[..., P:], vc_BKgCA)
    return jnp.concatenate([out_BPHA, out_BgCKRA.reshape(B, g * C, H, A)], axis=1)
