"""The real SmolLM2-135M-Instruct, downloaded as users get it, against transformers' reading."""

import jax.numpy as jnp
import numpy as np
import pytest
from support import GOLDENS

GOLDEN = GOLDENS / "smollm2.npz"


@pytest.mark.parametrize("prompt", [0, 1])
def test_logits_equal_transformers(smollm2, prompt):
    model, _ = smollm2
    golden = {n.removesuffix(f"_{prompt}"): v for n, v in np.load(GOLDEN).items()}
    # left padding must change nothing
    ids = np.concatenate([np.zeros(3, np.int32), golden["ids"]])[None]
    mask = np.arange(ids.shape[1])[None] >= 3
    position = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    logits_TV = np.asarray(model.logits(jnp.asarray(ids), position, mask))[0, 3:]
    at = logits_TV[golden["where"]]
    top = np.take_along_axis(at, golden["top_ids"], axis=-1)
    np.testing.assert_allclose(top, golden["top"], atol=2e-4)
    stride = at.shape[-1] // golden["strided"].shape[-1]
    np.testing.assert_allclose(at[:, ::stride], golden["strided"], atol=2e-4)
    peak = logits_TV.max(-1, keepdims=True)
    logsumexp = np.log(np.exp(logits_TV - peak).sum(-1)) + peak[:, 0]
    np.testing.assert_allclose(logsumexp, golden["logsumexp"], atol=2e-4)


def test_config_read_from_the_file(smollm2):
    cfg = smollm2[0].cfg
    assert (cfg.vocab_size, cfg.embed, cfg.ffn, cfg.layers) == (49152, 576, 1536, 30)
    assert (cfg.heads, cfg.kv_heads, cfg.head_dim, cfg.rope_theta) == (9, 3, 64, 100000.0)
    assert cfg.tied and not cfg.qkv_bias and not cfg.qk_norm
    assert cfg.eos_ids == (0, 2)  # <|endoftext|> and <|im_end|>
