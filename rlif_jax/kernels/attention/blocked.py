"""Attention in blocks of columns, in memory that grows with the length: plain JAX for any device.

A running softmax goes over blocks of keys (arXiv 2205.14135, section 3), and only over those that
some query of the block sees: trip counts are data, so the gradient is written out below. It
recomputes the scores, and weights from each query's maximum m and sum s0 = sum e^(z-m). These are
kept apart: at large scores their logsumexp m + ln s0, rounded, would lose ln s0.

Letters beyond `batch.py`'s: N blocks of columns in all rows, J = N / R of a row, b columns of a
block; G = H / K query heads that share a key/value head; X = G * b queries of a key/value head in a
block.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from rlif_jax.kernels.attention.segments import Segments, needed_blocks, visible, whole_blocks
from rlif_jax.kernels.precision import einsum

Array = jax.Array

# Finite, so that a block without any visible key gives numbers that can be multiplied by zero.
_MASKED = -1e30


class Form(NamedTuple):
    """Columns of a block, and the type of the operands of products."""

    block: int
    operands: str


def form_for(platform: str, dtype: str) -> Form:
    """The fastest form on a platform.

    On CPUs scores of a block stay in the processor's cache, and products of bfloat16 take twice the
    time of those of float32, which are the same numbers.
    """
    return Form(128, "float32") if platform == "cpu" else Form(512, dtype)


def blocked_attention(
    q_RTHA: Array, k_RTKA: Array, v_RTKA: Array, segments: Segments, form: Form
) -> Array:
    """Attention as `api.attention` defines it, [R, T, H, A]."""
    R, T, H, A = q_RTHA.shape
    K = k_RTKA.shape[2]
    block = min(form.block, T)
    q, k, v, own_RT, prefix_RT = (
        whole_blocks(x, block)
        for x in (q_RTHA, k_RTKA, v_RTKA, segments.own, segments.prefix_or_own)
    )
    q_NKGbA = q.reshape(-1, block, K, H // K, A).transpose(0, 2, 3, 1, 4)
    q_NKXA = q_NKGbA.reshape(-1, K, H // K * block, A)
    k_NKbA, v_NKbA = (x.reshape(-1, block, K, A).swapaxes(1, 2) for x in (k, v))
    out_NKXA = _attention(form.operands, q_NKXA, k_NKbA, v_NKbA, own_RT, prefix_RT)
    out_NbKGA = out_NKXA.reshape(-1, K, H // K, block, A).transpose(0, 3, 1, 2, 4)
    return out_NbKGA.reshape(R, -1, H, A)[:, :T]


def _values(
    operands: str, q_NKXA: Array, k_NKbA: Array, v_NKbA: Array, own_RT: Array, prefix_RT: Array
) -> Array:
    return _forward(operands, q_NKXA, k_NKbA, v_NKbA, own_RT, prefix_RT)[0]


def _forward(
    operands: str, q_NKXA: Array, k_NKbA: Array, v_NKbA: Array, own_RT: Array, prefix_RT: Array
) -> tuple[Array, Array, Array]:
    """What the queries read, [N, K, X, A] in their type; their m and s0, float32 [N, K, X]."""
    product = functools.partial(_product, operands)

    def queries(_, q_KXA, key_blocks):
        def keys(n, seen_Xb, carry):
            m_KX, s0_KX, out_KXA = carry
            z_KXb = jnp.where(seen_Xb, _scores(operands, q_KXA, k_NKbA[n]), _MASKED)
            new_m_KX = jnp.maximum(m_KX, z_KXb.max(axis=-1))
            scale_KX = jnp.exp(m_KX - new_m_KX)
            weight_KXb = jnp.where(seen_Xb, jnp.exp(z_KXb - new_m_KX[..., None]), 0.0)
            add_KXA = product("KXb,KbA->KXA", weight_KXb, v_NKbA[n])
            s0_KX = s0_KX * scale_KX + weight_KXb.sum(axis=-1)
            return new_m_KX, s0_KX, out_KXA * scale_KX[..., None] + add_KXA

        zero_KX = jnp.zeros(q_KXA.shape[:2], jnp.float32)
        start = (zero_KX + _MASKED, zero_KX, jnp.zeros(q_KXA.shape, jnp.float32))
        m_KX, s0_KX, out_KXA = key_blocks(keys, start)
        s0_KX = jnp.where(s0_KX > 0, s0_KX, 1.0)  # a query that sees no key: zeros
        return None, ((out_KXA / s0_KX[..., None]).astype(q_KXA.dtype), m_KX, s0_KX)

    _, (out_NKXA, *lse) = _over_blocks(queries, None, q_NKXA, own_RT, prefix_RT)
    m_NKX, s0_NKX = (checkpoint_name(x, "attention_lse") for x in lse)
    return checkpoint_name(out_NKXA, "attention_out"), m_NKX, s0_NKX


def _forward_rule(operands, q_NKXA, k_NKbA, v_NKbA, own_RT, prefix_RT):
    out_NKXA, *lse = _forward(operands, q_NKXA, k_NKbA, v_NKbA, own_RT, prefix_RT)
    return out_NKXA, (q_NKXA, k_NKbA, v_NKbA, own_RT, prefix_RT, out_NKXA, *lse)


def _backward_rule(operands, residuals, dout_NKXA):
    """Gradients of queries, keys and values (arXiv 2205.14135, algorithm 4), float32 sums."""
    q_NKXA, k_NKbA, v_NKbA, own_RT, prefix_RT, out_NKXA, m_NKX, s0_NKX = residuals
    scale = q_NKXA.shape[-1] ** -0.5
    product = functools.partial(_product, operands)

    def queries(dkv, xs, key_blocks):
        q_KXA, dout_KXA, out_KXA, m_KX, s0_KX = xs
        delta_KX = (dout_KXA.astype(jnp.float32) * out_KXA.astype(jnp.float32)).sum(axis=-1)

        def keys(n, seen_Xb, carry):
            dq_KXA, dk_NKbA, dv_NKbA = carry
            z_KXb = _scores(operands, q_KXA, k_NKbA[n])
            weight_KXb = jnp.exp(z_KXb - m_KX[..., None]) / s0_KX[..., None]
            weight_KXb = jnp.where(seen_Xb, weight_KXb, 0.0)
            dweight_KXb = product("KXA,KbA->KXb", dout_KXA, v_NKbA[n])
            dz_KXb = weight_KXb * (dweight_KXb - delta_KX[..., None]) * scale
            dv_KbA = product("KXb,KXA->KbA", weight_KXb, dout_KXA)
            dk_KbA = product("KXb,KXA->KbA", dz_KXb, q_KXA)
            return (
                dq_KXA + product("KXb,KbA->KXA", dz_KXb, k_NKbA[n]),
                lax.dynamic_update_index_in_dim(dk_NKbA, dk_NKbA[n] + dk_KbA, n, 0),
                lax.dynamic_update_index_in_dim(dv_NKbA, dv_NKbA[n] + dv_KbA, n, 0),
            )

        dq_KXA, *dkv = key_blocks(keys, (jnp.zeros(q_KXA.shape, jnp.float32), *dkv))
        return tuple(dkv), dq_KXA.astype(q_KXA.dtype)

    zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (k_NKbA, v_NKbA))
    xs = (q_NKXA, dout_NKXA, out_NKXA, m_NKX, s0_NKX)
    (dk_NKbA, dv_NKbA), dq_NKXA = _over_blocks(queries, zeros, xs, own_RT, prefix_RT)
    return dq_NKXA, dk_NKbA.astype(k_NKbA.dtype), dv_NKbA.astype(v_NKbA.dtype), None, None


_attention = jax.custom_vjp(_values, nondiff_argnums=(0,))
_attention.defvjp(_forward_rule, _backward_rule)


def _over_blocks(
    queries: Callable, carry: Any, xs: Any, own_RT: Array, prefix_RT: Array
) -> tuple[Any, Any]:
    """`lax.scan` of `queries(carry, x, key_blocks)` over the blocks of queries of all rows.

    `key_blocks(keys, carry)` goes over the blocks of keys that a block of queries needs: it applies
    `keys(n, seen_Xb, carry)` to each, where n is the place of the block of keys among N.
    """
    N, _, X, _ = jax.tree.leaves(xs)[0].shape
    R, T = own_RT.shape
    block = R * T // N
    needed_RJJ = needed_blocks(own_RT, own_RT, block) | needed_blocks(own_RT, prefix_RT, block)
    order_RJJ = jnp.argsort(~needed_RJJ, axis=-1, stable=True)
    own_RJb, prefix_RJb = (x.reshape(R, -1, block) for x in (own_RT, prefix_RT))

    def one(carry: Any, scanned: tuple) -> tuple[Any, Any]:
        n, order_J, count, x = scanned
        row, j = n // (N // R), n % (N // R)

        def key_blocks(keys: Callable, start: Any) -> Any:
            def step(i: Array, carry: Any) -> Any:
                at = order_J[i]
                seen_1bb = visible(
                    own_RJb[row, j][None],
                    prefix_RJb[row, j][None],
                    own_RJb[row, at][None],
                    j * block + jnp.arange(block),
                    at * block + jnp.arange(block),
                )
                seen_Xb = jnp.tile(seen_1bb[0], (X // block, 1))
                return keys(n - j + at, seen_Xb, carry)

            return lax.fori_loop(0, count, step, start)

        return queries(carry, x, key_blocks)

    places = (jnp.arange(N), order_RJJ.reshape(N, -1), needed_RJJ.sum(axis=-1).reshape(N))
    return lax.scan(one, carry, (*places, xs))


def _scores(operands: str, q_KXA: Array, k_KbA: Array) -> Array:
    return _product(operands, "KXA,KbA->KXb", q_KXA, k_KbA) * q_KXA.shape[-1] ** -0.5


def _product(operands: str, subscripts: str, x: Array, y: Array) -> Array:
    """A product of numbers rounded to the type `operands`, with float32 sums."""
    x, y = x.astype(operands), y.astype(operands)
    return einsum(subscripts, x, y, preferred_element_type=jnp.float32)
