"""The stages of a small configuration, lowered for a mesh, and the products they must make."""

from math import prod
from typing import Literal

import jax
from jax.sharding import Mesh
from jax.stages import Lowered

from rlif_jax.config import Config, Data, Loss, Model, Sampling
from rlif_jax.model.config import ModelConfig, param_specs
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.sharding import row_shards

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
        model=Model(dtype=model.dtype, remat=model.remat),
        data=Data(prompts_per_step=rows, max_prompt_tokens=16),
        sampling=Sampling(samples_per_prompt=PIECES, max_new_tokens=tokens - 15, cache_gib=1),
        loss=Loss(tokens_per_micro_batch=tokens),
    )
    ahead = StagesAhead(cfg, model, mesh, None)
    assert ahead.stages.form.shape == (PIECES, rows, tokens)
    return ahead.lowered(stage)


def lowered_decode(mesh: Mesh, model: ModelConfig, slots: int) -> Lowered:
    """A chunk of decoding with this many slots on the mesh, sequences of up to 256 tokens."""
    cfg = Config(
        model=Model(dtype=model.dtype, remat=model.remat),
        data=Data(prompts_per_step=slots // 2, max_prompt_tokens=128),
        sampling=Sampling(samples_per_prompt=4, max_new_tokens=128, slots=slots, cache_gib=1),
    )
    return StagesAhead(cfg, model, mesh, None).lowered("decode")


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
