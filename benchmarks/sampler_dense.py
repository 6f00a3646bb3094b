"""The yardstick of benchmarks/sampler.py: a bare loop with a dense cache, and nothing else.

One jitted program computes the prompt once, repeats its keys and values into a cache
[L, B, S, K, A] of S = prompt + new columns for all B rows, and draws token after token with the
sampler's own `choose`. No refills, no pages, no ends, no looks of the host; the weights, the
layers' products and the drawing are the sampler's. Attention reads all S columns at every step, so
that all shapes are fixed; the last token drawn is not put through the model. On CPU the layouts
[L, B, K, S, A] and [L, B, K, A, S] of the cache have given the same tokens, no faster.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax.batch import TokenStats
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder, _finish, _qkv, rms_norm
from rlif_jax.model.rope import rope_angles
from rlif_jax.sampler.filters import choose
from rlif_jax.sharding import RULES_DECODE

Array = jax.Array


def make_bare(graphdef: Any, *, new_tokens: int):
    """Build the jitted `bare(params, prompt_P, key_B) -> (tokens, stats)`, each [B, new_tokens].

    `key_B` are PRNG keys, one a row; temperature 1 and no filter; statistics are TokenStats.
    """

    def bare(params: Any, prompt_P: Array, key_B: Array) -> tuple[Array, TokenStats]:
        model = nnx.merge(graphdef, params)
        (P,), B = prompt_P.shape, key_B.shape[0]
        x_1PD, k_L1PKA, v_L1PKA = model.prefill(prompt_P[None])

        def repeated(kv_L1PKA: Array) -> Array:
            longer = ((0, 0), (0, 0), (0, new_tokens), (0, 0), (0, 0))
            return jnp.repeat(jnp.pad(kv_L1PKA, longer), B, axis=1)

        def drawn(x_BD: Array, t: Array | int, out: tuple) -> tuple[Array, tuple]:
            logits_BV = jnp.einsum(
                "BD,VD->BV", x_BD, model.head_VD, preferred_element_type=jnp.float32
            )
            token_B, stats_B = choose(logits_BV, key_B, t, 1.0, reachable=model.cfg.reachable)
            put = lambda all_BT, one_B: all_BT.at[:, t].set(one_B)
            return token_B, jax.tree.map(put, out, (token_B, stats_B))

        def step(t: Array, carry: tuple) -> tuple:
            x_BD, k, v, out = carry
            token_B, out = drawn(x_BD, t, out)
            return *_decode(model, token_B, k, v, P + t), out

        number_BT = jnp.zeros((B, new_tokens))
        out = jnp.zeros((B, new_tokens), jnp.int32), TokenStats(*(number_BT,) * 5)
        x_BD = jnp.repeat(x_1PD[:, -1], B, axis=0)
        start = x_BD, repeated(k_L1PKA), repeated(v_L1PKA), out
        x_BD, _, _, out = jax.lax.fori_loop(0, new_tokens - 1, step, start)
        return drawn(x_BD, new_tokens - 1, out)[1]

    return jax.jit(bare)


def _decode(
    model: Decoder, token_B: Array, k_LBSKA: Array, v_LBSKA: Array, column: Array
) -> tuple[Array, Array, Array]:
    """Hidden states [B, D] of one more token a row, in `column`, and the cache with it."""
    cfg, rows = model.cfg, token_B.shape[0]
    rope = rope_angles(jnp.broadcast_to(column, (rows, 1)), cfg)

    def layer(carry: tuple, scanned: tuple) -> tuple:
        (x_B1D, k, v), (w, index) = carry, scanned
        q_B1HA, k_B1KA, v_B1KA = _qkv(cfg, x_B1D, w, rope, RULES_DECODE)
        at = index, 0, column, 0, 0
        k = jax.lax.dynamic_update_slice(k, k_B1KA[None], at)
        v = jax.lax.dynamic_update_slice(v, v_B1KA[None], at)
        out_B1HA = _attend(cfg, q_B1HA, k[index], v[index], column)
        return (_finish(cfg, x_B1D, out_B1HA, w, RULES_DECODE), k, v), None

    # The cache travels in the carry: as scanned-over input and output it would be copied.
    scanned = model._weights(), jnp.arange(cfg.layers)
    start = model._embedded(token_B[:, None], RULES_DECODE), k_LBSKA, v_LBSKA
    (x_B1D, k, v), _ = jax.lax.scan(layer, start, scanned)
    return rms_norm(x_B1D[:, 0], model.final_norm[...], cfg.rms_eps), k, v


def _attend(cfg: ModelConfig, q_B1HA: Array, k_BSKA: Array, v_BSKA: Array, column: Array) -> Array:
    """Softmax(q k^T / sqrt(A)) v over the columns up to `column`, [B, 1, H, A]."""
    B, _, H, A = q_B1HA.shape
    q_BKRA = q_B1HA.reshape(B, cfg.kv_heads, H // cfg.kv_heads, A) * A**-0.5
    z_BKRS = jnp.einsum("BKRA,BSKA->BKRS", q_BKRA, k_BSKA, preferred_element_type=jnp.float32)
    seen_S = jnp.arange(k_BSKA.shape[1]) <= column
    weight_BKRS = jax.nn.softmax(jnp.where(seen_S, z_BKRS, -jnp.inf), axis=-1)
    out_BKRA = jnp.einsum("BKRS,BSKA->BKRA", weight_BKRS.astype(v_BSKA.dtype), v_BSKA)
    return out_BKRA.reshape(B, 1, H, A)
