"""No stage of a step holds an array over all of its tokens and the whole vocabulary."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.kernels.token_stats import plain
from rlif_jax.kernels.token_stats.api import token_stats
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.optimizer import make_optimizer, state_shapes
from rlif_jax.planning.ahead import mesh_of, packed_shapes, train_batch_shapes, with_sharding
from rlif_jax.planning.hlo import largest_array
from rlif_jax.sharding import make_mesh, param_shardings
from rlif_jax.step import make_stages

AXES = {"data": 2, "fsdp": 2, "tensor": 2}
SHARDS, TENSOR = 4, 2


def compiled_stages(mesh, model: ModelConfig, tokens: int):
    """The text of score and of update for rows of so many tokens, compiled for a mesh."""
    cfg = Config(
        data=Data(prompts_per_step=SHARDS, max_prompt_tokens=16),
        sampling=Sampling(samples_per_prompt=8, max_new_tokens=tokens // 2, cache_gib=1),
        loss=Loss(tokens_per_micro_batch=tokens, kl_coef=0.1, entropy_coef=0.1),
    )
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(model, jax.random.key(0))))
    params = with_sharding(params, param_shardings(params, mesh))
    state = state_shapes(params, make_optimizer(cfg.optim))
    with jax.set_mesh(mesh):
        stages = make_stages(cfg, graphdef, pad_id=0)
        assert stages.form.shape[1:] == (SHARDS, tokens)
        score = stages.score.at_sampling.lower(params, packed_shapes(stages.form)).compile()
        batch = train_batch_shapes(stages.form, reference=True)
        update = stages.update.lower(state, batch).compile()
    return {"score": score.as_text(), "update": update.as_text()}


def test_no_stage_holds_the_logits_of_its_tokens():
    """Each of eight devices has 576 tokens, half of 8,192 columns, and small arrays."""
    model = ModelConfig(
        vocab_size=8192, embed=32, ffn=64, layers=2, heads=4, kv_heads=2, head_dim=8, remat="layer"
    )
    texts = compiled_stages(make_mesh(**AXES), model, 576)
    logits = 576 * model.vocab_rows // TENSOR
    for stage, text in texts.items():
        assert largest_array(text) < logits / 2, stage


def test_the_search_finds_logits():
    x, head = (
        jax.ShapeDtypeStruct((640, 32), jnp.float32),
        jax.ShapeDtypeStruct((8192, 32), jnp.float32),
    )
    target = jax.ShapeDtypeStruct((640,), jnp.int32)

    def gradient(fn):
        loss = lambda x, head, target: fn(x, head, target, 1.0).logprob.sum()
        return largest_array(jax.jit(jax.grad(loss)).lower(x, head, target).compile().as_text())

    assert gradient(plain.token_stats) == 640 * 8192
    assert gradient(token_stats) == 512 * 512


@pytest.mark.slow
def test_no_stage_holds_them_on_a_slice_of_tpus():
    """SmolLM2's widths and two layers: 2,560 tokens a chip, and half of its columns."""
    model = ModelConfig(
        vocab_size=49152,
        embed=576,
        ffn=1536,
        layers=2,
        heads=12,
        kv_heads=4,
        head_dim=64,
        dtype="bfloat16",
        remat="layer",
    )
    texts = compiled_stages(mesh_of("v5e:2x4", **AXES), model, 2560)
    for stage, text in texts.items():
        assert largest_array(text) < 2560 * model.vocab_rows // TENSOR, stage
