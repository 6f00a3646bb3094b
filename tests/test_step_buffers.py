"""No stage of a step holds an array over all of its tokens and the whole vocabulary."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.grpo import state_shapes, train_batch
from rlif_jax.kernels.token_stats import plain
from rlif_jax.kernels.token_stats.api import token_stats
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.planning.ahead import mesh_of, with_sharding
from rlif_jax.planning.hlo import largest_array
from rlif_jax.sharding import batch_sharding, make_mesh, param_shardings
from rlif_jax.step import make_stages

AXES = {"data": 2, "fsdp": 2, "tensor": 2}
SHARDS, TENSOR = 4, 2


def compiled_stages(mesh, model: ModelConfig, *, N: int, G: int, P: int, C: int):
    """The text of score and of update for N prompts with G completions, compiled for a mesh."""
    cfg = Config(
        data=Data(prompts_per_step=N, max_prompt_tokens=P),
        sampling=Sampling(samples_per_prompt=G, max_new_tokens=C, slots=N * G, cache_gib=1),
        loss=Loss(micro_batches=1, kl_coef=0.1, entropy_coef=0.1),
    )
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(model, jax.random.key(0))))
    params = with_sharding(params, param_shardings(params, mesh))
    stages = make_stages(cfg, graphdef, pad_id=0)

    def shape(dtype, *axes):
        return jax.ShapeDtypeStruct(axes, dtype)

    f32 = shape(jnp.float32, N * G, C)
    rollout = Rollout(
        prompts=Prompts(shape(jnp.int32, N, P), shape(bool, N, P)),
        tokens=shape(jnp.int32, N * G, C),
        mask=shape(bool, N * G, C),
        stats=TokenStats(f32, f32, f32, f32, f32),
        truncated=shape(bool, N * G),
        length=shape(jnp.int32, N * G),
    )
    batch = jax.eval_shape(
        lambda r: train_batch(r, r.stats.logprob[:, 0], r.stats, r.stats, G), rollout
    )
    rollout, batch = (with_sharding(x, batch_sharding(mesh)) for x in (rollout, batch))
    state = state_shapes(params, stages.optimizer)
    with jax.set_mesh(mesh):
        score = stages.score.at_sampling.lower(params, rollout).compile()
        update = stages.update.lower(state, batch).compile()
    return {"score": score.as_text(), "update": update.as_text()}


def test_no_stage_holds_the_logits_of_its_tokens():
    """Each of eight devices has 576 completion tokens, half of 8,192 columns, and small arrays."""
    model = ModelConfig(
        vocab_size=8192, embed=32, ffn=64, layers=2, heads=4, kv_heads=2, head_dim=8, remat="layer"
    )
    texts = compiled_stages(make_mesh(**AXES), model, N=SHARDS, G=4, P=16, C=144)
    logits = 4 * 144 * model.vocab_rows // TENSOR
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
    """SmolLM2's widths and two layers: 2,560 completion tokens a chip, and half of its columns."""
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
    texts = compiled_stages(mesh_of("v5e:2x4", **AXES), model, N=SHARDS, G=20, P=128, C=128)
    for stage, text in texts.items():
        assert largest_array(text) < 20 * 128 * model.vocab_rows // TENSOR, stage
