"""One decoder for Llama, Qwen2 and Qwen3: they differ by flags, not by code.

Layers are stacked on a leading axis and applied with `jax.lax.scan`, so compile time does not grow
with depth; only a sampler on a single CPU has them apart (`per_layer`). Parameters are those that
`config.param_specs` declares.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rlif_jax.kernels.attention.api import attention
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.kernels.precision import head_einsum
from rlif_jax.model.cache import PagedCache, ends_of, extend
from rlif_jax.model.config import ModelConfig, ParamSpec, param_specs
from rlif_jax.model.lora import Adapter, fresh_adapters, linear
from rlif_jax.model.per_layer import PerLayer, layers_of
from rlif_jax.model.rope import rope_angles, rotate
from rlif_jax.model.rounded import Int8
from rlif_jax.sharding import RULES_DECODE, RULES_TRAIN, Rules, constrain

Array = jax.Array

Kept = TypeVar("Kept")


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, float32 inside (arXiv 1910.07467)."""
    x32 = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * scale * weight.astype(jnp.float32)).astype(x.dtype)


class Layers(nnx.Module):
    """The stacked parameters of all layers; each has a leading axis of length L."""

    def __init__(self, params: dict[str, nnx.Param]):
        for name, param in params.items():
            setattr(self, name, param)


class Decoder(nnx.Module):
    """A Llama, Qwen2 or Qwen3 decoder up to its final norm; the vocabulary product is the caller's.

    `make(name, spec)` returns the value of each parameter that `param_specs` lists.
    """

    def __init__(self, cfg: ModelConfig, make: Callable[[str, ParamSpec], Array]):
        self.cfg = cfg
        specs = param_specs(cfg)
        params = {
            name: (Adapter if "rank" in s.axes else nnx.Param)(make(name, s), axes=s.axes)
            for name, s in specs.items()
        }
        self.embed = params["embed"]
        self.layers = Layers(
            {n.removeprefix("layers."): p for n, p in params.items() if n.startswith("layers.")}
        )
        self.final_norm = params["final_norm"]
        if not cfg.tied:
            self.head = params["head"]

    @classmethod
    def init(cls, cfg: ModelConfig, key: Array, scale: float = 0.02) -> "Decoder":
        """Random float32 weights: matrices normal with deviation `scale`, norms 1, biases 0.

        With adapters they are those of the same decoder without.
        """
        names = tuple(param_specs(dataclasses.replace(cfg, lora=None)))
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        adapters = fresh_adapters(cfg, key)

        def make(name: str, spec: ParamSpec) -> Array:
            if name in adapters:
                return adapters[name]
            if spec.init == "normal":
                value = scale * jax.random.normal(keys[name], spec.shape)
                if spec.axes[0] == "vocab":
                    value = value.at[cfg.vocab_size :].set(0.0)
                return value
            return jnp.full(spec.shape, 1.0 if spec.init == "ones" else 0.0, jnp.float32)

        return cls(cfg, make)

    @property
    def head_VD(self) -> Array:
        """The output matrix, float32 [vocab_rows, D]; the embedding itself when tied."""
        return (self.embed if self.cfg.tied else self.head)[...]

    def _weights(self) -> dict[str, Any]:
        """Those of the layers: each an array [L, ...], or `PerLayer`."""
        return {n: p.get_value() for n, p in vars(self.layers).items() if isinstance(p, nnx.Param)}

    def _stacks(self) -> dict[str, Array]:
        """Those of the layers, each an array [L, ...]."""
        return {n: w.stacked if isinstance(w, PerLayer) else w for n, w in self._weights().items()}

    def __call__(
        self,
        tokens_RT: Array,
        position_RT: Array | None = None,
        segments: Segments | None = None,
    ) -> Array:
        """Final-normed hidden states [R, T, D] in the activation dtype.

        `segments` say what a column sees (default: all columns before it); `position_RT` counts the
        tokens of a sequence from 0 (default: those of the row that are in a segment).
        """
        if segments is None:
            segments = Segments.of(jnp.ones(tokens_RT.shape, bool))
        if position_RT is None:
            position_RT = jnp.maximum(jnp.cumsum(segments.own > 0, axis=1) - 1, 0)
        rope = rope_angles(position_RT, self.cfg)
        x_RTD = self._embedded(tokens_RT, RULES_TRAIN)
        see = functools.partial(attention, segments=segments)
        x_RTD, _ = _layers(self.cfg, x_RTD, self._stacks(), rope, see, RULES_TRAIN)
        return rms_norm(x_RTD, self.final_norm[...], self.cfg.rms_eps)

    def prefill(self, tokens_BT: Array) -> tuple[Array, Array, Array]:
        """Hidden states [B, T, D] of prompts, and their keys and values [L, B, T, K, A].

        A prompt starts at the left of its row; the columns behind it do not affect it.
        """
        B, T = tokens_BT.shape
        rope = rope_angles(jnp.broadcast_to(jnp.arange(T), (B, T)), self.cfg)
        x_BTD = self._embedded(tokens_BT, RULES_DECODE)
        see = functools.partial(
            attention, segments=Segments.of(jnp.ones((B, T), bool)), rules=RULES_DECODE
        )
        x_BTD, (k_LBTKA, v_LBTKA) = _layers(
            self.cfg, x_BTD, self._stacks(), rope, see, RULES_DECODE, keep=lambda k, v: (k, v)
        )
        return rms_norm(x_BTD, self.final_norm[...], self.cfg.rms_eps), k_LBTKA, v_LBTKA

    def decode(
        self, token_Q: Array, cache: PagedCache, table_BJ: Array, position_Q: Array, live_Q: Array
    ) -> tuple[Array, PagedCache]:
        """Hidden states [Q, D] of one more token a slot, or W more, and the cache with them.

        Row b * W + w is the w-th of slot b. It goes to `position_Q` of the slot, in the pages that
        `table_BJ` names, which must reach that far. Tokens that are not live change no page in use.
        """
        ends = ends_of(cache, table_BJ, position_Q, live_Q)
        x_QD = self._embedded(token_Q[:, None], RULES_DECODE)[:, 0]
        rope = rope_angles(position_Q, self.cfg)
        weights = self._weights()
        in_columns = isinstance(weights["q"], PerLayer)  # then the residual stream is [D, Q]
        qkv, finish = (_qkv_columns, _finish_columns) if in_columns else (_qkv_rows, _finish_rows)

        def layer(carry, scanned):
            (x, cache), (index, w) = carry, scanned
            q_QHA, k_QKA, v_QKA = qkv(self.cfg, x, w, rope)
            out_QHA, cache = extend(cache, index, q_QHA, k_QKA, v_QKA, table_BJ, ends)
            return (finish(self.cfg, x, out_QHA.astype(x.dtype), w), cache), None

        # The pools travel in the carry and are written where they lie.
        carry = (x_QD.T if in_columns else x_QD, cache)
        if in_columns:
            for numbered in enumerate(layers_of(weights)):
                carry, _ = layer(carry, numbered)
        else:
            carry, _ = jax.lax.scan(layer, carry, (jnp.arange(self.cfg.layers), weights))
        x, cache = carry
        x_QD = x.T if in_columns else x
        return rms_norm(x_QD, self.final_norm[...], self.cfg.rms_eps), cache

    def logits(
        self, tokens_BT: Array, position_BT: Array | None = None, mask_BT: Array | None = None
    ) -> Array:
        """Float32 logits [B, T, vocab_size] in one piece: for small use only.

        `mask_BT` is false on padding, which no token sees (default: no padding).
        """
        segments = None if mask_BT is None else Segments.of(mask_BT)
        x_BTD = self(tokens_BT, position_BT, segments).astype(jnp.float32)
        return head_einsum("BTD,VD->BTV", x_BTD, self.head_VD[: self.cfg.vocab_size])

    @jax.named_scope("embedding")
    def _embedded(self, tokens_BT: Array, rules: Rules) -> Array:
        x_BTD = jnp.take(self.embed[...], tokens_BT, axis=0).astype(self.cfg.dtype)
        return constrain(x_BTD, "batch", "length", "hidden", rules=rules)


@jax.named_scope("attention")
def _qkv(
    cfg: ModelConfig, x_BTD: Array, w: dict[str, Array], rope, rules: Rules
) -> tuple[Array, Array, Array]:
    """Rotated queries [B, T, H, A], rotated keys and values [B, T, K, A] of one layer."""
    x_BTD = rms_norm(x_BTD, w["attn_norm"], cfg.rms_eps)
    q_BTHA, k_BTKA, v_BTKA = (linear(cfg, x_BTD, w, name) for name in "qkv")
    if cfg.qkv_bias:
        q_BTHA = q_BTHA + w["q_bias"].astype(q_BTHA.dtype)
        k_BTKA = k_BTKA + w["k_bias"].astype(k_BTKA.dtype)
        v_BTKA = v_BTKA + w["v_bias"].astype(v_BTKA.dtype)
    if cfg.qk_norm:
        q_BTHA = rms_norm(q_BTHA, w["q_norm"], cfg.rms_eps)
        k_BTKA = rms_norm(k_BTKA, w["k_norm"], cfg.rms_eps)
    axes = ("batch", "length", "kv_heads", "head_dim")
    q_BTHA = constrain(rotate(q_BTHA, *rope), "batch", "length", "heads", "head_dim", rules=rules)
    k_BTKA = constrain(rotate(k_BTKA, *rope), *axes, rules=rules)
    v_BTKA = constrain(v_BTKA, *axes, rules=rules)
    return q_BTHA, k_BTKA, v_BTKA


def _finish(
    cfg: ModelConfig, x_BTD: Array, out_BTHA: Array, w: dict[str, Array], rules: Rules
) -> Array:
    """The residual stream after a layer's output projection and gated feed-forward block."""
    place = functools.partial(constrain, rules=rules)
    with jax.named_scope("attention"):
        x_BTD = place(x_BTD + linear(cfg, out_BTHA, w, "o"), "batch", "length", "hidden")
    with jax.named_scope("mlp"):
        y_BTD = rms_norm(x_BTD, w["ffn_norm"], cfg.rms_eps)
        gate_BTF, up_BTF = (linear(cfg, y_BTD, w, name) for name in ("gate", "up"))
        hidden_BTF = place(jax.nn.silu(gate_BTF) * up_BTF, "batch", "length", "ffn")
        return place(x_BTD + linear(cfg, hidden_BTF, w, "down"), "batch", "length", "hidden")


def _qkv_rows(cfg: ModelConfig, x_BD: Array, w: dict[str, Any], rope) -> list[Array]:
    """Of one token a slot: q [B, H, A], k and v [B, K, A]."""
    rope_B1I = tuple(angle[:, None] for angle in rope)
    return [x_B1[:, 0] for x_B1 in _qkv(cfg, x_BD[:, None], w, rope_B1I, RULES_DECODE)]


def _finish_rows(cfg: ModelConfig, x_BD: Array, out_BHA: Array, w: dict[str, Any]) -> Array:
    return _finish(cfg, x_BD[:, None], out_BHA[:, None], w, RULES_DECODE)[:, 0]


def _qkv_columns(cfg: ModelConfig, x_DB: Array, w: dict[str, Any], rope) -> tuple[Array, ...]:
    """As `_qkv_rows`, of slots in the columns of x."""

    def one(x_D, rope_I):
        return _qkv(cfg, x_D, w, rope_I, RULES_DECODE)

    return jax.vmap(one, in_axes=(-1, 0))(x_DB, rope)


def _finish_columns(cfg: ModelConfig, x_DB: Array, out_BHA: Array, w: dict[str, Any]) -> Array:
    def one(x_D, out_HA):
        return _finish(cfg, x_D, out_HA, w, RULES_DECODE)

    return jax.vmap(one, in_axes=(-1, 0), out_axes=-1)(x_DB, out_BHA)


def _gathered(cfg: ModelConfig, w: dict[str, Any]) -> dict[str, Any]:
    """One layer's weights, whole along the embedding axis and in the type of their products.

    Without this XLA multiplies shard by shard as they come around, and reads and writes a partial
    result of all columns for each: ten times the traffic of the weights.
    """
    specs = param_specs(cfg)

    def gather(name: str, x: Array | Int8) -> Array | Int8:
        if isinstance(x, Int8):  # the sampler's, which is gathered already
            return x
        axes = specs[f"layers.{name}"].axes[1:]
        return constrain(x.astype(cfg.dtype), *axes, rules=RULES_DECODE) if "embed" in axes else x

    return {name: gather(name, x) for name, x in w.items()}


def _layers(
    cfg: ModelConfig,
    x_BTD: Array,
    weights: dict,
    rope,
    see: Callable[[Array, Array, Array], Array],
    rules: Rules,
    keep: Callable[[Array, Array], Kept] = lambda k_BTKA, v_BTKA: None,
) -> tuple[Array, Kept]:
    """All layers over whole rows, which attend through `see(q_BTHA, k_BTKA, v_BTKA)`.

    The second value is what `keep` returns of each layer's keys and values, stacked [L, ...].
    """

    def layer(x_BTD, w):
        x_BTD, w = checkpoint_name(x_BTD, "layer_input"), _gathered(cfg, w)
        q_BTHA, k_BTKA, v_BTKA = _qkv(cfg, x_BTD, w, rope, rules)
        out_BTHA = see(q_BTHA, k_BTKA, v_BTKA)
        return _finish(cfg, x_BTD, out_BTHA, w, rules), keep(k_BTKA, v_BTKA)

    if cfg.remat != "none":
        layer = jax.checkpoint(layer, policy=_KEPT[cfg.remat])
    return jax.lax.scan(layer, x_BTD, weights)


_KEPT = {
    "layer": jax.checkpoint_policies.nothing_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names("attention_out", "attention_lse"),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer_input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
"""What `ModelConfig.remat` keeps of a layer beside its input; "offload" moves the input itself."""
