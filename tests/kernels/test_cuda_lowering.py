"""Kernels and stages lowered for NVIDIA GPUs without one: what they are made of, how exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.cuda import assert_precise, h100, lowered, products
from support.packed_rows import attention_arrays, segments_of

from benchmarks.on_device.runs import config_of
from benchmarks.on_device.sizes import FULL
from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.kernels.attention.api import attention
from rlif_jax.kernels.token_stats.api import token_stats
from rlif_jax.model.cache import init_cache
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.optimizer import state_shapes
from rlif_jax.planning.ahead import packed_shapes, train_batch_shapes
from rlif_jax.sampler.pool_shape import pool_shape
from rlif_jax.sampler.slots import empty_slots
from rlif_jax.sharding import make_mesh
from rlif_jax.step import Stages, make_stages

MODEL = ModelConfig(
    vocab_size=1000,
    embed=64,
    ffn=96,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=64,
    family="qwen2",
    qkv_bias=True,
    remat="layer",
)
CFG = Config(
    data=Data(prompts_per_step=2, max_prompt_tokens=64),
    sampling=Sampling(samples_per_prompt=2, max_new_tokens=64, slots=4, cache_gib=1),
    loss=Loss(tokens_per_micro_batch=1536),
)
DTYPES = ("float32", "bfloat16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocked_attention(dtype):
    """Packed rows with shared prompts, in blocks of 512 of the arrays' own type."""
    q, k, v, weight = attention_arrays(R=2, T=700, H=4, K=2, A=64)
    segments = segments_of([[300, -200, -100, 90], [700]], T=700)

    def total(q, k, v):
        return (attention(q, k, v, segments).astype(jnp.float32) * weight).sum()

    q, k, v = (x.astype(dtype) for x in (q, k, v))
    text = lowered(jax.jit(jax.grad(total, (0, 1, 2))), q, k, v)
    assert_precise(text, dtype)
    assert "700x700" not in text and "1024x1024" not in text  # no scores of whole rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_token_stats(dtype):
    x_TD, head_VD = jnp.zeros((3000, 64), dtype), jnp.zeros((20000, 64))
    target_T = jnp.zeros(3000, jnp.int32)

    def total(x_TD, head_VD):
        stats = token_stats(x_TD, head_VD, target_T, 1.0)
        return (stats.logprob + stats.entropy).sum()

    text = lowered(jax.jit(jax.grad(total, (0, 1))), x_TD, head_VD)
    assert_precise(text, dtype)
    # Products with the head are exact in either type. There are two by three tiles.
    assert all(exact for *_, exact in products(text))
    assert "1500x6784xf32" in text and "3000x20000" not in text


def run(dtype: str, model: ModelConfig = MODEL, cfg: Config = CFG):
    """The model and the stages of a run on an H100, and its parameters as shapes."""
    model = dataclasses.replace(model, dtype=dtype)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(model, jax.random.key(0))))
    with h100():
        return model, make_stages(cfg, graphdef, pad_id=0), params


def sampler_shapes(model: ModelConfig, stages: Stages, cfg: Config = CFG):
    """The pool of an H100 for as many sequences as slots, and cache and slots as shapes."""
    shape = pool_shape(
        model,
        stages.engine.batching,
        prompt=cfg.data.max_prompt_tokens,
        new=cfg.sampling.max_new_tokens,
        samples=cfg.sampling.samples_per_prompt,
        sequences=cfg.sampling.slots,
        platform="gpu",
    )
    assert shape.kernel == "gpu"
    form = {"pages": shape.pages, "page": shape.page, "dtype": shape.dtype}
    cache = jax.eval_shape(lambda: init_cache(model, kernel=shape.kernel, **form))
    return shape, cache, jax.eval_shape(lambda: empty_slots(shape.slots, model.embed, model.dtype))


def decode_chunk(model: ModelConfig, stages: Stages, params, cfg: Config = CFG) -> str:
    """The decode chunk for CUDA."""
    shape, cache, slots = sampler_shapes(model, stages, cfg)
    B, J = shape.slots, shape.columns
    host = (np.zeros((B, J), np.int32), np.zeros(B, bool), np.int32(0))
    return lowered(stages.engine.decode_chunk, params, cache, slots, *host)


def scorer_and_update(stages: Stages, params) -> list[str]:
    """Both for CUDA."""
    with jax.set_mesh(make_mesh()):
        shapes = packed_shapes(stages.form), train_batch_shapes(stages.form, reference=False)
    packed, batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)
    state = state_shapes(params, stages.optimizer)
    scorer = lowered(stages.score.at_sampling, params, packed)
    return [scorer, lowered(stages.update, state, batch)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_decode_chunk(dtype):
    """With the kernel for GPUs, for which the pool of pages is laid out."""
    text = decode_chunk(*run(dtype))
    assert "__gpu$xla.gpu.triton" in text
    assert_precise(text, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_prefill(dtype, monkeypatch):
    """Prompts attend through cuDNN in bfloat16, which takes no float32."""
    # JAX asks the installed cuDNN for its version; here there is none.
    monkeypatch.setattr(
        "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000
    )
    model, stages, params = run(dtype)
    _, cache, _ = sampler_shapes(model, stages)
    prompt_x = jax.ShapeDtypeStruct((1, model.embed), dtype)
    host = (np.zeros((1, 64), np.int32), np.ones(1, np.int32), np.ones((1, 1), np.int32))
    text = lowered(stages.engine.prefill, params, cache, prompt_x, *host, np.ones(1, np.int32))
    assert ("__cudnn$fmhaSoftmax" in text) == (dtype == "bfloat16")
    assert_precise(text, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_scorer_and_the_update(dtype):
    """Neither has scores of whole rows."""
    _, stages, params = run(dtype)
    T = stages.form.columns
    assert stages.form.shared is False  # as on every device but CPUs
    for text in scorer_and_update(stages, params):
        assert_precise(text, dtype)
        assert f"{T}x{T}x" not in text


@pytest.mark.parametrize(("name", "model"), FULL.models)
def test_what_the_first_run_on_an_accelerator_measures(name, model):
    """Its models at its sizes: 512 slots of a pool for the GPU's kernel, and rows of a step."""
    cfg = config_of(FULL.many_step, FULL.many_slots, judged=True)
    sampling = dataclasses.replace(cfg.sampling, cache_gib=20)
    cfg = dataclasses.replace(cfg, sampling=sampling)
    model_bf16, stages, params = run("bfloat16", model, cfg)
    assert sampler_shapes(model_bf16, stages, cfg)[0].slots == 512
    texts = [decode_chunk(model_bf16, stages, params, cfg)]
    _, stages, params = run("bfloat16", model, config_of(FULL.step, 64, judged=True))
    for text in [*texts, *scorer_and_update(stages, params)]:
        assert_precise(text, "bfloat16")
