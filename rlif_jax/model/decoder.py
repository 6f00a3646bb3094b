"""One decoder for Llama, Qwen2 and Qwen3: they differ by flags, not by code.

Layers are stacked on a leading axis and applied with `jax.lax.scan`, so compile time does not grow
with depth. Each parameter is declared once, with its shape, its logical axes and how a random one
is drawn; shardings and weight loading are derived from that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax.model.attention import attention, rope_angles, rotate, shared_prompt_attention
from rlif_jax.sharding import constrain

if TYPE_CHECKING:
    from rlif_jax.model.cache import KVCache

Array = jax.Array


@dataclass(frozen=True)
class ModelConfig:
    """Shape and flags of a decoder, and the numerics it runs in.

    `eos_ids` are the token ids that end a completion. `dtype` is the type of activations and matrix
    products; parameters are float32. `remat` recomputes each layer in the backward pass, saving
    only its input.
    """

    vocab_size: int
    embed: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float = 10000.0
    rms_eps: float = 1e-6
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int = 2048
    eos_ids: tuple[int, ...] = ()
    dtype: str = "float32"
    remat: bool = False


class ParamSpec(NamedTuple):
    """Declaration of one parameter: `axes` are logical names, one for each entry of `shape`."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: str  # "normal", "ones" or "zeros"


def param_specs(cfg: ModelConfig) -> dict[str, ParamSpec]:
    """Every parameter of the decoder by name; those of the layers begin with `layers.`."""
    L, D, F, H, K, A = cfg.layers, cfg.embed, cfg.ffn, cfg.heads, cfg.kv_heads, cfg.head_dim
    specs = {
        "embed": ParamSpec((cfg.vocab_size, D), ("vocab", "embed"), "normal"),
        "final_norm": ParamSpec((D,), ("norm",), "ones"),
        "layers.attn_norm": ParamSpec((L, D), ("layer", "norm"), "ones"),
        "layers.q": ParamSpec((L, D, H, A), ("layer", "embed", "heads", "head_dim"), "normal"),
        "layers.k": ParamSpec((L, D, K, A), ("layer", "embed", "kv_heads", "head_dim"), "normal"),
        "layers.v": ParamSpec((L, D, K, A), ("layer", "embed", "kv_heads", "head_dim"), "normal"),
        "layers.o": ParamSpec((L, H, A, D), ("layer", "heads", "head_dim", "embed"), "normal"),
        "layers.ffn_norm": ParamSpec((L, D), ("layer", "norm"), "ones"),
        "layers.gate": ParamSpec((L, D, F), ("layer", "embed", "ffn"), "normal"),
        "layers.up": ParamSpec((L, D, F), ("layer", "embed", "ffn"), "normal"),
        "layers.down": ParamSpec((L, F, D), ("layer", "ffn", "embed"), "normal"),
    }
    if cfg.qkv_bias:
        specs["layers.q_bias"] = ParamSpec((L, H, A), ("layer", "heads", "head_dim"), "zeros")
        specs["layers.k_bias"] = ParamSpec((L, K, A), ("layer", "kv_heads", "head_dim"), "zeros")
        specs["layers.v_bias"] = ParamSpec((L, K, A), ("layer", "kv_heads", "head_dim"), "zeros")
    if cfg.qk_norm:
        specs["layers.q_norm"] = ParamSpec((L, A), ("layer", "norm"), "ones")
        specs["layers.k_norm"] = ParamSpec((L, A), ("layer", "norm"), "ones")
    if not cfg.tied:
        specs["head"] = ParamSpec((cfg.vocab_size, D), ("vocab", "embed"), "normal")
    return specs


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
        params = {name: nnx.Param(make(name, s), axes=s.axes) for name, s in specs.items()}
        self.embed = params["embed"]
        self.layers = Layers(
            {n.removeprefix("layers."): p for n, p in params.items() if n.startswith("layers.")}
        )
        self.final_norm = params["final_norm"]
        if not cfg.tied:
            self.head = params["head"]

    @classmethod
    def init(cls, cfg: ModelConfig, key: Array, scale: float = 0.02) -> "Decoder":
        """Random float32 weights: matrices normal with deviation `scale`, norms 1, biases 0."""
        names = tuple(param_specs(cfg))
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

        def make(name: str, spec: ParamSpec) -> Array:
            if spec.init == "normal":
                return scale * jax.random.normal(keys[name], spec.shape)
            return jnp.full(spec.shape, 1.0 if spec.init == "ones" else 0.0)

        return cls(cfg, make)

    @property
    def head_VD(self) -> Array:
        """The output matrix, float32 [V, D]; the embedding itself when tied."""
        return (self.embed if self.cfg.tied else self.head)[...]

    def _stacked(self) -> dict[str, Array]:
        return {n: p[...] for n, p in vars(self.layers).items() if isinstance(p, nnx.Param)}

    def __call__(
        self,
        tokens_BT: Array,
        position_BT: Array,
        mask_BT: Array,
        cache: "KVCache | None" = None,
        samples: int = 0,
        prompt: int | None = None,
    ) -> tuple[Array, "KVCache | None"]:
        """Final-normed hidden states [B, T, D] in the activation dtype, and the updated cache.

        `position_BT` counts real tokens of a row from 0; `mask_BT` is false on padding, which is
        never attended. With a cache the T tokens become its columns `length`..`length + T - 1`,
        which must exist. With `samples` = g a row is a prompt of `prompt` columns followed by g
        completions of equal width, each of which sees the prompt and itself, so that a prompt is
        computed once for all its completions.
        """
        cfg = self.cfg
        x_BTD = jnp.take(self.embed[...], tokens_BT, axis=0).astype(cfg.dtype)
        x_BTD = constrain(x_BTD, "batch", "length", "hidden")
        rope = rope_angles(position_BT, cfg.head_dim, cfg.rope_theta)
        if cache is not None:
            x_BTD, cache = _layers_cached(cfg, x_BTD, self._stacked(), rope, mask_BT, cache)
        else:
            P = tokens_BT.shape[1] if prompt is None else prompt
            x_BTD = _layers(cfg, x_BTD, self._stacked(), rope, mask_BT, P, samples)
        return rms_norm(x_BTD, self.final_norm[...], cfg.rms_eps), cache

    def logits(self, tokens_BT: Array, position_BT: Array, mask_BT: Array) -> Array:
        """Float32 logits [B, T, V] in one piece: for tests and small vocabularies only."""
        x_BTD, _ = self(tokens_BT, position_BT, mask_BT)
        return jnp.einsum("BTD,VD->BTV", x_BTD.astype(jnp.float32), self.head_VD)


def _qkv(cfg: ModelConfig, x_BTD: Array, w: dict[str, Array], rope) -> tuple[Array, Array, Array]:
    """Rotated queries [B, T, H, A], rotated keys and values [B, T, K, A] of one layer."""
    x_BTD = rms_norm(x_BTD, w["attn_norm"], cfg.rms_eps)
    q_BTHA, k_BTKA, v_BTKA = (
        jnp.einsum("BTD,DHA->BTHA", x_BTD, w[name].astype(x_BTD.dtype)) for name in "qkv"
    )
    if cfg.qkv_bias:
        q_BTHA = q_BTHA + w["q_bias"].astype(q_BTHA.dtype)
        k_BTKA = k_BTKA + w["k_bias"].astype(k_BTKA.dtype)
        v_BTKA = v_BTKA + w["v_bias"].astype(v_BTKA.dtype)
    if cfg.qk_norm:
        q_BTHA = rms_norm(q_BTHA, w["q_norm"], cfg.rms_eps)
        k_BTKA = rms_norm(k_BTKA, w["k_norm"], cfg.rms_eps)
    q_BTHA = constrain(rotate(q_BTHA, *rope), "batch", "length", "heads", "head_dim")
    k_BTKA = constrain(rotate(k_BTKA, *rope), "batch", "length", "kv_heads", "head_dim")
    v_BTKA = constrain(v_BTKA, "batch", "length", "kv_heads", "head_dim")
    return q_BTHA, k_BTKA, v_BTKA


def _finish(cfg: ModelConfig, x_BTD: Array, out_BTHA: Array, w: dict[str, Array]) -> Array:
    """The residual stream after a layer's output projection and gated feed-forward block."""
    dtype = x_BTD.dtype
    x_BTD = x_BTD + jnp.einsum("BTHA,HAD->BTD", out_BTHA, w["o"].astype(dtype))
    x_BTD = constrain(x_BTD, "batch", "length", "hidden")
    y_BTD = rms_norm(x_BTD, w["ffn_norm"], cfg.rms_eps)
    gate_BTF = jnp.einsum("BTD,DF->BTF", y_BTD, w["gate"].astype(dtype))
    up_BTF = jnp.einsum("BTD,DF->BTF", y_BTD, w["up"].astype(dtype))
    hidden_BTF = constrain(jax.nn.silu(gate_BTF) * up_BTF, "batch", "length", "ffn")
    x_BTD = x_BTD + jnp.einsum("BTF,FD->BTD", hidden_BTF, w["down"].astype(dtype))
    return constrain(x_BTD, "batch", "length", "hidden")


def _heads_first(x_BSKA: Array) -> Array:
    return x_BSKA.swapaxes(1, 2)


def _layers(cfg: ModelConfig, x_BTD: Array, weights: dict, rope, mask_BT, P: int, g: int) -> Array:
    """All layers over whole rows of a prompt with P columns and g completions."""

    def layer(x_BTD, w):
        q_BTHA, k_BTKA, v_BTKA = _qkv(cfg, x_BTD, w, rope)
        out_BTHA = shared_prompt_attention(q_BTHA, k_BTKA, v_BTKA, mask_BT, P, g)
        return _finish(cfg, x_BTD, out_BTHA, w), None

    if cfg.remat:
        layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.nothing_saveable)
    return jax.lax.scan(layer, x_BTD, weights)[0]


def _extend_mask(cache: "KVCache", mask_BT: Array) -> tuple[Array, Array]:
    """The cache's valid slots [B, S] with T new columns, and who may see what, [B, T, S]."""
    T, S = mask_BT.shape[1], cache.mask.shape[1]
    valid_BS = jax.lax.dynamic_update_slice(cache.mask, mask_BT, (0, cache.length))
    causal_TS = jnp.arange(S)[None, :] <= cache.length + jnp.arange(T)[:, None]
    return valid_BS, valid_BS[:, None, :] & causal_TS


def _layers_cached(cfg: ModelConfig, x_BTD: Array, weights: dict, rope, mask_BT, cache: "KVCache"):
    """All layers over T new columns, scanned, reading and extending the stacked cache.

    The whole cache travels in the scan's carry and only a [1, B, T, K, A] slice is written: as
    scanned-over input and output it would be copied at every step.
    """
    valid_BS, mask_BTS = _extend_mask(cache, mask_BT)

    def layer(carry, scanned):
        x_BTD, k_all, v_all = carry
        w, index = scanned
        q_BTHA, k_BTKA, v_BTKA = _qkv(cfg, x_BTD, w, rope)
        at = (index, 0, cache.length, 0, 0)
        k_all = jax.lax.dynamic_update_slice(k_all, k_BTKA[None].astype(k_all.dtype), at)
        v_all = jax.lax.dynamic_update_slice(v_all, v_BTKA[None].astype(v_all.dtype), at)
        k_BSKA = jax.lax.dynamic_index_in_dim(k_all, index, keepdims=False)
        v_BSKA = jax.lax.dynamic_index_in_dim(v_all, index, keepdims=False)
        out_BTHA = attention(q_BTHA, _heads_first(k_BSKA), _heads_first(v_BSKA), mask_BTS)
        return (_finish(cfg, x_BTD, out_BTHA.astype(x_BTD.dtype), w), k_all, v_all), None

    carry = (x_BTD, cache.k, cache.v)
    carry, _ = jax.lax.scan(layer, carry, (weights, jnp.arange(cfg.layers)))
    x_BTD, k_all, v_all = carry
    length = cache.length + mask_BT.shape[1]
    return x_BTD, cache.replace(k=k_all, v=v_all, mask=valid_BS, length=length)
