"""Causal attention over rows in which sequences stand side by side.

Four implementations share this contract. `plain` is the reference for the others: it alone holds
all scores. `blocked` runs anywhere. `splash` and `cudnn` are JAX's own kernels for TPUs and for
NVIDIA GPUs; each computes a part of what `blocked` does. All see whole rows: on a mesh they run on
every device's own rows and heads.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from rlif_jax import sharding
from rlif_jax.errors import UserError
from rlif_jax.kernels.attention import cudnn, splash
from rlif_jax.kernels.attention.blocked import Form, blocked_attention, form_for
from rlif_jax.kernels.attention.plain import plain_attention
from rlif_jax.kernels.attention.segments import Segments

Array = jax.Array
Implementation = Literal["plain", "blocked", "splash", "cudnn"]


@jax.named_scope("attention")
def attention(
    q_RTHA: Array,
    k_RTKA: Array,
    v_RTKA: Array,
    segments: Segments,
    *,
    implementation: Implementation | Literal["auto"] = "auto",
    rules: sharding.Rules = sharding.RULES_TRAIN,
) -> Array:
    """softmax(q . k / sqrt(A)) . v over the keys that each query sees, [R, T, H, A] in q's type.

    A query sees the keys of its own segment and of its prefix, up to its own column; an empty
    column gives zeros and gets no gradient. Query head h reads key/value head h // (H / K). The
    softmax is float32, and so are the sums of products.

    On the mesh of `jax.set_mesh` rows are split over "batch" and heads over "attention_heads" of
    `rules`; what these do not divide is replicated. A remat policy can save what the gradient needs
    beside the arguments by the names "attention_out" and "attention_lse" (not of `plain` and
    `cudnn`).

    Raises:
        UserError: the implementation that was asked for cannot compute this on this platform.
    """
    (R, _, H, A), K = q_RTHA.shape, k_RTKA.shape[2]
    platform = sharding.platform()
    chosen = choose(implementation, platform, q_RTHA.dtype.name, A, segments)
    parts = sharding.parts_of("attention_heads", H, rules)
    # Fewer key/value heads than devices are repeated: each device has those that its queries read.
    k_RTKA, v_RTKA = (jnp.repeat(x, math.lcm(K, parts) // K, axis=2) for x in (k_RTKA, v_RTKA))
    rows = "batch" if sharding.parts_of("batch", R, rules) > 1 else None
    per_head = (rows, None, "attention_heads" if parts > 1 else None, None)
    on_device = _on_device(chosen, form_for(platform, q_RTHA.dtype.name))
    run = sharding.on_shards(
        lambda *part: (on_device(*part),),
        (per_head, per_head, per_head, (rows,)),
        (per_head,),
        rules,
    )
    (out_RTHA,) = run(q_RTHA, k_RTKA, v_RTKA, segments)
    return out_RTHA


def choose(
    implementation: Implementation | Literal["auto"],
    platform: str,
    dtype: str,
    head_dim: int,
    segments: Segments,
) -> Implementation:
    """The implementation asked for, or for "auto" the fastest that can compute this.

    Raises:
        UserError: the implementation that was asked for cannot.
    """
    refusals: dict[Implementation, str | None] = {
        "splash": splash.refusal(platform, dtype, segments),
        "cudnn": cudnn.refusal(platform, dtype, head_dim, segments),
        "blocked": None,
        "plain": None,
    }
    if implementation == "auto":
        return next(name for name, refusal in refusals.items() if refusal is None)
    if refusals[implementation] is not None:
        raise UserError(
            f'The attention implementation "{implementation}" cannot be used here: it '
            f'{refusals[implementation]}. Choose "auto", which takes the fastest that can be used, '
            'or "blocked", which runs everywhere.'
        )
    return implementation


def _on_device(implementation: Implementation, form: Form) -> Callable[..., Array]:
    """The implementation of this name: a function of one device's part."""
    return {
        "plain": plain_attention,
        "blocked": functools.partial(blocked_attention, form=form),
        "splash": splash.splash_attention,
        "cudnn": cudnn.cudnn_attention,
    }[implementation]
