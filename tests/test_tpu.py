"""Every program of a step compiles for a TPU slice, split over all three mesh axes, without a TPU.

libtpu compiles ahead of time for a topology it is told about
(https://docs.jax.dev/en/latest/aot.html); the shapes are SmolLM2's, with fewer layers.
"""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Loss, Optim
from rlif_jax.grpo import make_optimizer, make_update, state_shapes, train_batch
from rlif_jax.model.config import ModelConfig, RopeScaling
from rlif_jax.model.decoder import Decoder
from rlif_jax.sampler.sample import make_decode_chunk, make_prefill
from rlif_jax.scoring import make_score
from rlif_jax.sharding import MESH_AXES, batch_sharding, param_shardings, replicated

N, G, P, C = 8, 8, 128, 128
CFG = ModelConfig(
    vocab_size=49152,
    embed=576,
    ffn=1536,
    layers=3,
    heads=12,
    kv_heads=4,
    head_dim=64,
    eos_ids=(0, 2),
    dtype="bfloat16",
    remat=True,
)


@pytest.fixture(scope="module")
def mesh():
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    devices = np.asarray(topology.devices).reshape(2, 2, 2)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.fixture(scope="module")
def model(mesh):
    """The graph definition, and parameters that are shapes and shardings only."""
    return shapes_of(CFG, mesh)


def shapes_of(cfg: ModelConfig, mesh):
    shapes = nnx.eval_shape(lambda: Decoder.init(cfg, jax.random.key(0)))
    graphdef, params = nnx.split(shapes)
    return graphdef, with_sharding(params, param_shardings(params, mesh))


def with_sharding(tree, shardings):
    if not isinstance(shardings, nnx.State):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings), tree
        )
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def prompts(mesh):
    tokens = jax.ShapeDtypeStruct((N, P), jnp.int32)
    return with_sharding(Prompts(tokens, jax.ShapeDtypeStruct((N, P), bool)), batch_sharding(mesh))


def rollout(mesh):
    B = N * G
    f32 = jax.ShapeDtypeStruct((B, C), jnp.float32)
    shapes = Rollout(
        prompt_tokens=jax.ShapeDtypeStruct((B, P), jnp.int32),
        prompt_mask=jax.ShapeDtypeStruct((B, P), bool),
        tokens=jax.ShapeDtypeStruct((B, C), jnp.int32),
        mask=jax.ShapeDtypeStruct((B, C), bool),
        stats=TokenStats(f32, f32, f32, f32, f32),
        truncated=jax.ShapeDtypeStruct((B,), bool),
        length=jax.ShapeDtypeStruct((B,), jnp.int32),
    )
    return with_sharding(shapes, batch_sharding(mesh))


def param_bytes(params) -> int:
    """Bytes of one device's share of the parameters."""
    return sum(
        x.dtype.itemsize * int(np.prod(x.sharding.shard_shape(x.shape)))
        for x in jax.tree.leaves(params)
    )


def test_parameters_are_split(model):
    whole = sum(x.dtype.itemsize * x.size for x in jax.tree.leaves(model[1]))
    assert param_bytes(model[1]) < whole / 3.9  # over fsdp and tensor; norms are replicated


def test_sampling(mesh, model):
    graphdef, params = model
    with jax.set_mesh(mesh):
        prefill = make_prefill(graphdef, samples_per_prompt=G, max_new_tokens=C, pad_id=2)
        key = jax.eval_shape(lambda: jax.random.key(0))
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))
        lowered = prefill.lower(params, prompts(mesh), key)
        state, made = lowered.out_info, lowered.compile()
        placed = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            state,
            made.output_shardings,
        )
        decode = make_decode_chunk(graphdef, temperature=1.0, pad_id=2)
        memory = decode.lower(params, placed).compile().memory_analysis()
    cache = 2 * CFG.layers * N * G * (P + C) * CFG.kv_heads * CFG.head_dim * 2
    # The cache is split eight ways, and a step writes into it where it lies.
    assert 1 <= memory.alias_size_in_bytes / (cache / 8) < 1.05
    assert memory.temp_size_in_bytes < cache / 8


def test_scoring_never_holds_the_logits(mesh, model):
    graphdef, params = model
    score = make_score(graphdef, temperature=1.0, samples_per_row=G, micro_batches=2)
    with jax.set_mesh(mesh):
        memory = score.lower(params, rollout(mesh)).compile().memory_analysis()
    logits = N * G * C * CFG.vocab_size * 4 // 8
    assert memory.temp_size_in_bytes < logits / 2


def test_every_flag_at_once(mesh):
    """Biases, qk-norm, an untied head, yarn and a padded vocabulary: scoring, split eight ways."""
    cfg = dataclasses.replace(
        CFG,
        layers=2,
        vocab_size=49100,
        token_ids=48900,
        tied=False,
        qkv_bias=True,
        qk_norm=True,
        rope_scaling=RopeScaling("yarn", factor=4.0, original_positions=32768),
    )
    graphdef, params = shapes_of(cfg, mesh)
    score = make_score(graphdef, temperature=1.0, samples_per_row=G, micro_batches=2)
    with jax.set_mesh(mesh):
        memory = score.lower(params, rollout(mesh)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < N * G * C * cfg.vocab_size * 4 // 8 / 2
    # One device is given its share of the parameters: none is gathered before the program starts.
    assert memory.argument_size_in_bytes < 1.1 * param_bytes(params)


def test_update_fits_beside_its_state(mesh, model):
    graphdef, params = model
    optimizer = make_optimizer(Optim())
    update = make_update(
        graphdef, optimizer, Loss(micro_batches=2), temperature=1.0, max_new_tokens=C
    )
    batch = jax.eval_shape(
        lambda r: train_batch(r, jnp.zeros(N * G), r.stats, None, G), rollout(mesh)
    )
    batch = with_sharding(batch, batch_sharding(mesh))
    state = state_shapes(params, optimizer)
    with jax.set_mesh(mesh):
        memory = update.lower(state, batch).compile().memory_analysis()
    logits = N * G * C * CFG.vocab_size * 4 // 8
    assert memory.temp_size_in_bytes < logits / 2
    # Parameters and both moments are updated in place.
    assert memory.alias_size_in_bytes >= 3 * param_bytes(params)


def test_an_installed_libtpu_is_left_alone_where_there_is_no_tpu():
    """Without JAX_PLATFORMS the CPU comes up at once, and nothing is said about TPUs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TPU_"))}
    program = "from rlif_jax.sharding import make_mesh; print(make_mesh().devices.flat[0].platform)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "cpu\n"
    assert "TPU" not in done.stderr
