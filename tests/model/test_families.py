"""The decoder's flags against transformers: Llama, Qwen2 and Qwen3, padded on either side."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_gguf import positions

from rlif_jax.model.decoder import Decoder, ModelConfig

GOLDEN = Path(__file__).parent.parent / "goldens" / "tiny_families.npz"

BASE = ModelConfig(
    vocab_size=48,
    embed=16,
    ffn=24,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=4,
    rope_theta=500.0,
    rms_eps=1e-5,
)
FAMILIES = {
    "llama": dataclasses.replace(BASE, tied=False),
    "qwen2": dataclasses.replace(BASE, qkv_bias=True),
    "qwen3": dataclasses.replace(BASE, qk_norm=True, head_dim=8),
}
HF_NAMES = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attn_norm": "input_layernorm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}


def from_golden(golden, family: str) -> Decoder:
    def make(name, spec):
        leaf = name.removeprefix("layers.")
        if leaf == name:
            return jnp.asarray(golden[f"{family}/w:{HF_NAMES[name]}"])
        layers = [golden[f"{family}/w:model.layers.{i}.{HF_NAMES[leaf]}"] for i in range(2)]
        if layers[0].ndim == 2:  # torch keeps [out, in]
            layers = [w.T for w in layers]
        return jnp.asarray(np.stack(layers)).reshape(spec.shape)

    return Decoder(FAMILIES[family], make)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(family, side):
    golden = np.load(GOLDEN)
    model = from_golden(golden, family)
    mask_BT = golden[side]
    logits_BTV = model.logits(jnp.asarray(golden["tokens"]), positions(mask_BT), mask_BT)
    np.testing.assert_allclose(logits_BTV[mask_BT], golden[f"{family}/{side}"], atol=2e-5)
    assert np.isfinite(logits_BTV).all()  # padding included


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_activations_stay_near_float32(family):
    golden = np.load(GOLDEN)
    model = from_golden(golden, family)
    mask_BT = golden["left"]
    model.cfg = dataclasses.replace(model.cfg, dtype="bfloat16")
    x_BTD, _ = model(jnp.asarray(golden["tokens"]), positions(mask_BT), mask_BT)
    assert x_BTD.dtype == jnp.bfloat16
    logits_BTV = model.logits(jnp.asarray(golden["tokens"]), positions(mask_BT), mask_BT)
    assert logits_BTV.dtype == jnp.float32
    want = golden[f"{family}/left"]
    assert np.abs(logits_BTV[mask_BT] - want).mean() < 0.03 * want.std()
