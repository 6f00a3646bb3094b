"""The stages of a small configuration, lowered for a mesh, and the products they must make."""

from math import prod
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.stages import Lowered

from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.model.cache import init_cache
from rlif_jax.model.config import ModelConfig, param_specs
from rlif_jax.model.decoder import Decoder
from rlif_jax.optimizer import make_optimizer, state_shapes
from rlif_jax.planning.ahead import made, packed_shapes, train_batch_shapes, with_sharding
from rlif_jax.sampler.decode import empty_slots
from rlif_jax.sampler.pool_shape import pool_shape
from rlif_jax.sharding import RULES_DECODE, param_shardings, platform, row_shards
from rlif_jax.step import make_stages

SMALL = ModelConfig(
    vocab_size=1024, embed=256, ffn=640, layers=2, heads=4, kv_heads=2, head_dim=64, tied=False
)
PIECES = 2


def lowered_stage(
    mesh: Mesh, model: ModelConfig, tokens: int, stage: Literal["score", "update"]
) -> Lowered:
    """The scorer, or the update, of two micro-batches with one row on each row shard.

    A row has this many tokens, all of one sequence.
    """
    with jax.set_mesh(mesh):
        rows = row_shards()
    cfg = Config(
        data=Data(prompts_per_step=rows, max_prompt_tokens=16),
        sampling=Sampling(samples_per_prompt=PIECES, max_new_tokens=tokens - 15, cache_gib=1),
        loss=Loss(tokens_per_micro_batch=tokens),
    )
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(model, jax.random.key(0))))
    params = with_sharding(params, param_shardings(params, mesh))
    # Outside the mesh: optax makes a counter, which needs a device that is there.
    state = state_shapes(params, make_optimizer(cfg.optim))
    with jax.set_mesh(mesh):
        stages = make_stages(cfg, graphdef, pad_id=0)
        assert stages.form.shape == (PIECES, rows, tokens)
        if stage == "score":
            return stages.score.at_sampling.lower(params, packed_shapes(stages.form))
        return stages.update.lower(state, train_batch_shapes(stages.form, reference=False))


def lowered_decode(mesh: Mesh, model: ModelConfig, slots: int) -> Lowered:
    """A chunk of decoding with this many slots on the mesh, sequences of up to 256 tokens."""
    sampling = Sampling(samples_per_prompt=4, max_new_tokens=128, slots=slots, cache_gib=1)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(model, jax.random.key(0))))
    params = with_sharding(params, param_shardings(params, mesh, RULES_DECODE))
    with jax.set_mesh(mesh):
        engine = make_stages(Config(sampling=sampling), graphdef, pad_id=0).engine
        shape = pool_shape(
            model,
            engine.batching,
            prompt=128,
            new=128,
            samples=4,
            sequences=2 * slots,
            platform=platform(),
        )
        form = {name: getattr(shape, name) for name in ("pages", "page", "dtype", "kernel")}
        cache = made(lambda: init_cache(model, **form))
        table = jax.ShapeDtypeStruct((shape.slots, shape.columns), jnp.int32)
        run = jax.ShapeDtypeStruct((shape.slots,), jnp.bool_)
        state = made(lambda: empty_slots(shape.slots, model.embed, model.dtype))
        leave_after = jax.ShapeDtypeStruct((), jnp.int32)
        return engine.decode_chunk.lower(params, cache, state, table, run, leave_after)


def matrices(model: ModelConfig, *names: str) -> int:
    """Operations of the linear maps of all layers for one token, or of those with these names."""
    names = names or ("q", "k", "v", "o", "gate", "up", "down")
    specs = param_specs(model)
    return 2 * sum(prod(specs[f"layers.{name}"].shape) for name in names)


def head(model: ModelConfig) -> int:
    """Operations of one product with the head for one token."""
    return 2 * model.vocab_rows * model.embed


def attention_product(model: ModelConfig, pairs: float) -> float:
    """Operations of one of attention's products, in all layers, for pairs of query and key."""
    return 2 * model.layers * model.heads * model.head_dim * pairs


def visited(tokens: int, block: int) -> float:
    """Pairs of a query and a key in the blocks that one causal sequence visits."""
    blocks = tokens // block
    return block**2 * blocks * (blocks + 1) / 2
