"""Every stage of a step compiles for a TPU slice, split over all three mesh axes, without a TPU.

The shapes are SmolLM2's, with fewer layers.
"""

import dataclasses
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.model.cache import init_cache
from rlif_jax.model.config import ModelConfig, RopeScaling
from rlif_jax.model.decoder import Decoder
from rlif_jax.planning.ahead import (
    local_bytes,
    made,
    made_by,
    mesh_of,
    packed_shapes,
    with_sharding,
)
from rlif_jax.sampler.pool_shape import pool_shape
from rlif_jax.sampler.slots import Admission, empty_slots
from rlif_jax.sharding import param_shardings
from rlif_jax.step import make_stages

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
    remat="layer",
)


@pytest.fixture(scope="module")
def mesh():
    return mesh_of("v5e:2x4", data=2, fsdp=2, tensor=2)


@pytest.fixture(scope="module")
def model(mesh):
    """The graph definition, and parameters that are shapes and shardings only."""
    return shapes_of(CFG, mesh)


def shapes_of(cfg: ModelConfig, mesh):
    shapes = nnx.eval_shape(lambda: Decoder.init(cfg, jax.random.key(0)))
    graphdef, params = nnx.split(shapes)
    return graphdef, with_sharding(params, param_shardings(params, mesh))


def stages_of(graphdef, N=N, G=G, P=P, C=C, drafts=0, **loss):
    """The stages that a run of these sizes trains with, on the mesh of `jax.set_mesh`."""
    slots = {"slots": N * G, "cache_gib": 1, "draft_tokens": drafts}
    cfg = Config(
        data=Data(prompts_per_step=N, max_prompt_tokens=P),
        sampling=Sampling(samples_per_prompt=G, max_new_tokens=C, **slots),
        loss=Loss(**loss),
    )
    return make_stages(cfg, graphdef, pad_id=0)


def test_parameters_are_split(model):
    whole = sum(x.dtype.itemsize * x.size for x in jax.tree.leaves(model[1]))
    assert local_bytes(model[1]) < whole / 3.9  # over fsdp and tensor; norms are replicated


@pytest.mark.parametrize("drafts", [0, 3])
def test_sampling(mesh, model, drafts):
    """Each stage with what the one before it gives: prefill, admit, decode a chunk, narrow."""
    graphdef, params = model

    def ints(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    with jax.set_mesh(mesh):
        engine = stages_of(graphdef, drafts=drafts).engine
        asked = {"prompt": P, "new": C, "samples": G, "sequences": 2 * N * G, "platform": "tpu"}
        shape = pool_shape(CFG, engine.batching, **asked)
        form = {name: getattr(shape, name) for name in ("pages", "page", "dtype", "kernel")}
        cache = made(lambda: init_cache(CFG, **form))
        slots = made(lambda: empty_slots(shape.slots, CFG.embed, CFG.dtype, drafts))
        rows, B = 4, shape.slots  # data x fsdp
        pools = 2 * CFG.layers * shape.pages * shape.page * CFG.kv_heads // 2 * 128 * 2
        flags = jax.ShapeDtypeStruct((B,), bool)

        def compiled(stage, *args, in_place=pools):
            lowered = stage.lower(*args)
            done = lowered.compile()
            memory = done.memory_analysis()
            # The pools are split eight ways, and each stage writes into them where they lie.
            most = 1.05 * in_place + 2**16 + local_bytes(slots)
            assert in_place <= memory.alias_size_in_bytes < most
            assert memory.temp_size_in_bytes < pools / 4
            return made_by(lowered, done)

        prompt_x = jax.ShapeDtypeStruct((rows, CFG.embed), jnp.bfloat16)
        tokens = (ints(rows, P), ints(rows), ints(rows, P // shape.page), ints(rows))
        cache, prompt_x = compiled(engine.prefill, params, cache, prompt_x, *tokens)
        copies = {"copy_from": ints(B), "copy_to": ints(B), "copies": ints(rows)}
        if drafts:
            copies["prompt"] = ints(rows, shape.columns * shape.page)
        key = jax.ShapeDtypeStruct((B, 2), jnp.uint32)
        new = Admission(fresh=flags, length=ints(B), limit=ints(B), key=key, **copies)
        cache, slots = compiled(engine.admit, cache, slots, prompt_x, new)
        chunk = (ints(B, shape.columns), flags, ints())
        cache, slots, block = compiled(engine.decode_chunk, params, cache, slots, *chunk)
        # Every process sees all that has been drawn.
        assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(block))
        slots = compiled(engine.narrow, slots, ints(B // 2), in_place=0)
        assert slots.x.shape == (B // 2, CFG.embed)
        assert slots.x.sharding.shard_shape(slots.x.shape) == (B // 8, CFG.embed)


def scoring_memory(stages, params):
    """Memory of the scorer, compiled for mini-batches of its form."""
    lowered = stages.score.at_sampling.lower(params, packed_shapes(stages.form))
    return lowered.compile().memory_analysis()


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
    with jax.set_mesh(mesh):
        stages = stages_of(graphdef)
        memory = scoring_memory(stages, params)
    _, rows, columns = stages.form.shape
    assert rows == 4 and not stages.form.shared  # on TPUs sequences are whole
    assert memory.temp_size_in_bytes < columns * cfg.vocab_size * 4 // 2 / 2
    # One device is given its share of the parameters: none is gathered before the stage starts.
    assert memory.argument_size_in_bytes < 1.1 * local_bytes(params)


def test_float32_is_multiplied_as_float32(mesh):
    """XLA keeps the precision that the stages ask for: see test_precision.py."""
    cfg = dataclasses.replace(CFG, layers=1, embed=128, ffn=256, vocab_size=1024, dtype="float32")
    graphdef, params = shapes_of(cfg, mesh)
    with jax.set_mesh(mesh):
        stages = stages_of(graphdef, N=4, P=32, C=32)
        lowered = stages.score.at_sampling.lower(params, packed_shapes(stages.form))
        text = lowered.compile().as_text()
    products = re.findall(r".* = f32\S* (?:convolution|dot)\(.*", text)
    assert len(products) >= 10
    rounded = [one for one in products if "operand_precision={highest,highest}" not in one]
    assert not rounded, rounded


def test_an_installed_libtpu_is_left_alone_where_there_is_no_tpu():
    """Without JAX_PLATFORMS the CPU comes up at once, and nothing is said about TPUs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TPU_"))}
    program = "from rlif_jax.sharding import make_mesh; print(make_mesh().devices.flat[0].platform)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "cpu\n"
    assert "TPU" not in done.stderr
