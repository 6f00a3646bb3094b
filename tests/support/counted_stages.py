"""The stages of a small configuration, lowered for a mesh, and the products they must make."""

import dataclasses
from math import prod

import jax
from flax import nnx
from jax.sharding import Mesh
from jax.stages import Lowered

from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.model.config import ModelConfig, param_specs
from rlif_jax.model.decoder import Decoder
from rlif_jax.optimizer import make_optimizer, state_shapes
from rlif_jax.packing import Form
from rlif_jax.planning.ahead import packed_shapes, train_batch_shapes, with_sharding
from rlif_jax.sharding import param_shardings, row_shards
from rlif_jax.step import make_stages

SMALL = ModelConfig(
    vocab_size=1024, embed=256, ffn=640, layers=3, heads=4, kv_heads=2, head_dim=64, tied=False
)
PIECES = 2


@dataclasses.dataclass(frozen=True)
class Lowerings:
    """The scorer and the update of mini-batches of two micro-batches, one row on each row shard."""

    form: Form
    score: Lowered
    update: Lowered


def lowered_on(mesh: Mesh, model: ModelConfig, tokens: int) -> Lowerings:
    """The stages for rows of this many tokens, each filled by one sequence."""
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
        score = stages.score.at_sampling.lower(params, packed_shapes(stages.form))
        batch = train_batch_shapes(stages.form, reference=False)
        return Lowerings(stages.form, score, stages.update.lower(state, batch))


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
