"""The sampler's stages, as a run makes them, compiled for TPU slices without a TPU.

Real models at 8,192 tokens a sequence: what a chip holds, what a decode step moves, what the chips
send each other. Figures are those of XLA's own memory analysis and of the optimised HLO.
"""

import functools
import re
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import Mesh

from rlif_jax import sharding
from rlif_jax.config import Config, Data, Model, Sampling
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.planning.ahead import Ahead, local_bytes, mesh_of, total_bytes, with_sharding
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.planning.traffic import bytes_per_step, collectives_in_loops, dearest
from rlif_jax.sampler.slots import Admission
from rlif_jax.sampler.sync import make_sync

pytestmark = pytest.mark.slow

CHIP = 16 * 2**30  # bytes of a v5e
TILE_ROWS = 16  # of a page that the write of a token loads and stores

QWEN = ModelConfig(
    vocab_size=151936,
    embed=1536,
    ffn=8960,
    layers=28,
    heads=12,
    kv_heads=2,
    head_dim=128,
    family="qwen2",
    tied=False,
    qkv_bias=True,
    eos_ids=(151643,),
    max_positions=32768,
    dtype="bfloat16",
)
"""DeepSeek-R1-Distill-Qwen-1.5B."""

CODER = replace(
    QWEN, vocab_size=152064, embed=3584, ffn=18944, heads=28, kv_heads=4, eos_ids=(151645, 151643)
)
"""Qwen2.5-Coder-7B."""

SMOL = ModelConfig(
    vocab_size=49152,
    embed=576,
    ffn=1536,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    eos_ids=(2,),
    max_positions=8192,
    dtype="bfloat16",
)
"""SmolLM2-135M: heads of 64, which fill half of the lanes."""


@dataclass(frozen=True)
class Case:
    """A model on a slice, with `slots` sequences of 8,192 tokens on each row shard of the mesh."""

    cfg: ModelConfig
    topology: str
    data: int
    tensor: int
    slots: int = 32
    prompt: int = 2048
    new: int = 6144

    @property
    def length(self) -> int:
        return self.prompt + self.new


CASES = {
    "1.5B": Case(QWEN, "v5e:2x2", data=4, tensor=1),
    "7B": Case(CODER, "v5e:4x4", data=4, tensor=4),  # 32 slots for four chips: eight a chip
    "1.5B-repeated-heads": Case(QWEN, "v5e:2x2", data=1, tensor=4),
    "135M": Case(SMOL, "v5e:2x2", data=4, tensor=1),
}
every_case = pytest.mark.parametrize("name", CASES)


def params_of(cfg: ModelConfig):
    """The graph definition, and parameters that are shapes only."""
    return nnx.split(nnx.eval_shape(lambda: Decoder.init(cfg, jax.random.key(0))))


def in_train_layout(cfg: ModelConfig, mesh: Mesh):
    graphdef, params = params_of(cfg)
    return graphdef, with_sharding(params, sharding.param_shardings(params, mesh))


def synced(graphdef, params):
    """What the sync stage makes of parameters that are shapes, and what it compiles."""
    ahead = Ahead()
    return make_sync(graphdef, jit=ahead)(params), ahead.compiled


def int32(*shape: int):
    return jax.ShapeDtypeStruct(shape, jnp.int32)  # from the host, as the sampler passes them


def bool_(*shape: int):
    return jax.ShapeDtypeStruct(shape, jnp.bool_)


class Compiled:
    """The sampler's stages of a case, compiled when first asked for."""

    def __init__(self, case: Case):
        slots = case.slots * case.data
        cfg = Config(
            model=Model(dtype="bfloat16"),
            data=Data(prompts_per_step=slots // 2, max_prompt_tokens=case.prompt),
            sampling=Sampling(
                samples_per_prompt=8, max_new_tokens=case.new, slots=slots, cache_gib=10
            ),
        )
        mesh = mesh_of(case.topology, data=case.data, tensor=case.tensor)
        self.case, self.ahead = case, StagesAhead(cfg, case.cfg, mesh, None)
        self.params, self.cache = self.ahead.decode_params, self.ahead.cache
        self.slots, self.prompt_x, self.shape = (
            self.ahead.slots,
            self.ahead.prompt_x,
            self.ahead.pool,
        )

    @functools.cached_property
    def decode(self):
        return self.ahead.lowered("decode").compile()

    @functools.cached_property
    def prefill(self):
        """Of the longest prompt, one on each row shard."""
        return self.ahead.lowered("prefill").compile()

    @functools.cached_property
    def admit(self):
        B = self.shape.slots
        key = jax.ShapeDtypeStruct((B, 2), jnp.uint32)
        copies = {"copy_from": int32(B), "copy_to": int32(B), "copies": int32(self.case.data)}
        new = Admission(fresh=bool_(B), length=int32(B), limit=int32(B), key=key, **copies)
        with jax.set_mesh(self.ahead.mesh):
            admit = self.ahead.stages.engine.admit
            return admit.lower(self.cache, self.slots, self.prompt_x, new).compile()

    @property
    def live_bytes(self) -> int:
        """Of the cache on a chip, when each of its slots holds a sequence of full length."""
        K, _, _, width = self.cache.k.sharding.shard_shape(self.cache.k.shape)
        itemsize = self.cache.k.dtype.itemsize
        return 2 * self.case.cfg.layers * self.case.slots * self.case.length * K * width * itemsize

    @property
    def kernels(self) -> dict[str, int]:
        """Bytes that one call of the kernels moves, in one layer: live pages, and a tile a slot."""
        layer = self.live_bytes // self.case.cfg.layers
        return {
            "paged_attention": layer,
            "write_token": 2 * layer // self.case.length * TILE_ROWS,
        }


@functools.cache
def stages_of(name: str) -> Compiled:
    return Compiled(CASES[name])


def in_place(compiled, given: Compiled) -> bool:
    """Whether the pools are written where they lie, and neither is made again on the way."""
    memory, pools = compiled.memory_analysis(), local_bytes(given.cache)
    return memory.alias_size_in_bytes >= pools and memory.temp_size_in_bytes < pools / 4


@every_case
def test_the_pool_holds_every_slot_at_full_length(name):
    its, case = stages_of(name), CASES[name]
    assert its.shape.kernel == "tpu"
    assert its.shape.slots == case.slots * case.data
    assert its.shape.columns * its.shape.page == case.length == 8192
    # Eight samples share a prompt: their own pages, and those of the four prompts.
    own, prompt = its.shape.own_pages(case.prompt, case.new), case.prompt // its.shape.page
    assert its.shape.pages > case.slots * own + case.slots // 8 * prompt


@every_case
def test_a_decode_step_moves_weights_and_cache_once(name):
    its = stages_of(name)
    text = its.decode.as_text()
    floor = local_bytes(its.params) + its.live_bytes
    moved = bytes_per_step(text, its.kernels)
    assert 0.9 * floor < moved < 1.3 * floor, dearest(text, its.kernels)


@every_case
def test_nothing_large_is_sent_in_a_step(name):
    found = collectives_in_loops(stages_of(name).decode.as_text())
    assert max(size for _, size in found) < 1e6, found
    # Each layer's two sums over the heads and the feed-forward block, where these are split.
    case = CASES[name]
    sums = [size for kind, size in found if kind == "all-reduce"]
    assert sums.count(2 * case.slots * case.cfg.embed) >= (2 if case.tensor > 1 else 0)


@every_case
def test_decoding_fits_and_writes_the_pools_in_place(name):
    its = stages_of(name)
    assert total_bytes(its.decode) < CHIP
    assert in_place(its.decode, its)
    assert its.decode.memory_analysis().temp_size_in_bytes < 2**26
    # What lies on the chip is what the case says: weights, pools, and little else.
    held = local_bytes(its.params) + local_bytes(its.cache)
    assert its.decode.memory_analysis().argument_size_in_bytes < 1.02 * held


@every_case
def test_admission_copies_no_pool(name):
    its = stages_of(name)
    assert total_bytes(its.admit) < CHIP
    assert in_place(its.admit, its)
    assert its.admit.memory_analysis().temp_size_in_bytes < 2**20


@pytest.mark.parametrize("name", ["1.5B", "7B"])
def test_a_long_prompt_fits_beside_weights_and_pools(name):
    its = stages_of(name)
    assert total_bytes(its.prefill) < CHIP
    assert in_place(its.prefill, its)
    assert its.prefill.memory_analysis().temp_size_in_bytes < 2**29


def test_states_come_back_as_they_went_in():
    """So that the next call takes the compiled stage, not a new one for other shardings."""
    its = stages_of("7B")
    outputs = {
        "decode": (its.decode, (its.cache, its.slots)),
        "admit": (its.admit, (its.cache, its.slots)),
        "prefill": (its.prefill, (its.cache, its.prompt_x)),
    }
    for stage, states in outputs.values():
        for given, state in zip(stage.output_shardings, states, strict=False):
            for returned, x in zip(jax.tree.leaves(given), jax.tree.leaves(state), strict=True):
                assert returned.is_equivalent_to(x.sharding, x.ndim)


@pytest.mark.parametrize(
    "cfg, topology, axes",
    [
        (QWEN, "v5e:2x2", {"fsdp": 4}),
        (QWEN, "v5e:2x2", {"fsdp": 2, "tensor": 2}),
        (CODER, "v5e:4x4", {"fsdp": 4, "tensor": 4}),
    ],
)
def test_the_trainers_parameters_become_the_samplers(cfg, topology, axes):
    mesh = mesh_of(topology, **axes)
    with jax.set_mesh(mesh):
        graphdef, params = in_train_layout(cfg, mesh)
        decode_params, compiled = synced(graphdef, params)
        again, compiled_again = synced(graphdef, decode_params)
    assert not compiled_again
    assert all(x is y for x, y in zip(*map(jax.tree.leaves, (again, decode_params)), strict=True))
    wanted = sharding.param_shardings(params, mesh, sharding.RULES_DECODE)
    for x, place in zip(jax.tree.leaves(decode_params), jax.tree.leaves(wanted), strict=True):
        assert x.sharding.is_equivalent_to(place, x.ndim)
    # bfloat16, split over tensor only: one chip's share, but for tiles and the norms.
    matrices = sum(x.size for x in jax.tree.leaves(params)) * 2 / axes.get("tensor", 1)
    assert local_bytes(decode_params) == pytest.approx(matrices, rel=0.002)
    # They are cast before they are sent.
    sent = re.findall(r"= (\w+)\[\S* all-gather", "\n".join(c.as_text() for c in compiled))
    assert sent
    assert set(sent) == {"bf16"}
    # XLA copies what it has gathered. It fits beside parameters and both moments.
    temporary = max(c.memory_analysis().temp_size_in_bytes for c in compiled)
    assert temporary < 1.35 * local_bytes(decode_params)
    assert 3 * local_bytes(params) + local_bytes(decode_params) + temporary < CHIP
