"""Float32 is multiplied as float32: read from every stage that a training step compiles."""

import re
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from support.packed import batches_of
from support.tiny import V

from rlif_jax.config import Config, Loss, Reward, Sampling
from rlif_jax.data.prompts import encode_prompt
from rlif_jax.kernels.precision import products_of
from rlif_jax.optimizer import init_state
from rlif_jax.problem import Problem
from rlif_jax.sharding import make_mesh
from rlif_jax.step import make_stages
from rlif_jax.weights.source import load_model

pytestmark = pytest.mark.slow

VOCAB_ROWS = 384
"""Rows of the very small model's head: no other array has an axis of this size."""

_PRODUCT = re.compile(r'"?stablehlo\.(dot_general|dot|convolution)"?\W.*')
_TYPES = re.compile(r": \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>")


@dataclass(frozen=True)
class Product:
    """A matrix product of a stage: `types` of its operands and result, as `8x32xf32`."""

    stage: str
    types: tuple[str, ...]
    exact: bool

    @property
    def kinds(self) -> set[str]:
        return {one.rpartition("x")[2] for one in self.types[:2]}

    @property
    def of_head(self) -> bool:
        return any(str(VOCAB_ROWS) in one.split("x") for one in self.types)


def products_in(folder: Path) -> list[Product]:
    """The matrix products of the StableHLO modules that JAX has left in a folder."""
    found = []
    for path in sorted(folder.glob("*_compile.mlir")):
        stage = re.fullmatch(r"jax_ir\d+_(.*)_compile\.mlir", path.name)[1]
        for line in _PRODUCT.finditer(path.read_text()):
            exact = "precision = [HIGHEST, HIGHEST]" in line[0]
            found.append(Product(stage, _TYPES.search(line[0]).groups(), exact))
    return found


def products_of_a_step(tiny_path, folder: Path, dtype: str) -> list[Product]:
    """Those of `step.make_stages` in a whole step, with a reference and a temperature."""
    cfg = Config(
        sampling=Sampling(samples_per_prompt=2, max_new_tokens=8, slots=4),
        reward=Reward(terms=(("self_certainty", 1.0),), reward_temperature=0.7),
        loss=Loss(kl_coef=0.1, entropy_coef=0.1),
    )
    ir, mesh = folder / "ir", make_mesh()
    model, tokenizer = load_model(str(tiny_path), dtype, remat="layer", mesh=mesh)
    graphdef, params = nnx.split(model)
    with jax.set_mesh(mesh):
        stages = make_stages(cfg, graphdef, tokenizer.pad_token_id)
    problems = [Problem(name, f"Return {name}.", ()) for name in ("one", "two")]
    prompts = [encode_prompt(tokenizer, problem) for problem in problems]
    jax.config.update("jax_dump_ir_to", str(ir))
    try:
        with jax.set_mesh(mesh):
            rollout, _ = stages.sample(stages.sync(params), prompts, jax.random.key(0), None)
            advantage_B = np.array([1.0, -1.0, 1.0, -1.0])
            (batch,) = batches_of(stages, cfg, params, rollout, advantage_B, reference=params)
            stages.update(init_state(params, stages.optimizer), batch)
    finally:
        jax.config.update("jax_dump_ir_to", "")
    return products_in(ir)


@pytest.fixture(scope="module")
def steps(tiny_path, tmp_path_factory):
    """The products of a step of a float32 and of a bfloat16 model."""
    return {
        dtype: products_of_a_step(tiny_path, tmp_path_factory.mktemp(dtype), dtype)
        for dtype in ("float32", "bfloat16")
    }


def test_a_float32_model_multiplies_float32_alone(steps):
    other = [one for one in steps["float32"] if one.kinds != {"f32"} or not one.exact]
    assert not other, other


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_products_with_the_head_are_exact(steps, dtype, kind):
    head = [one for one in steps[dtype] if one.of_head]
    assert all(one.exact and one.kinds == {kind} for one in head), head
    # Logits in decoding, in scoring and (twice, as the backward pass makes them again) in the
    # update, beside its two gradients.
    assert {"jit_decode_chunk", "jit_scores", "jit_update"} <= {one.stage for one in head}
    assert sum(one.stage == "jit_update" for one in head) == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_record_says_what_the_stages_do(steps, dtype):
    """Seven weights of a layer, and attention's two, which are float32 on CPUs in any case.

    There are two scorers: at both temperatures, and at one for the reference.
    """
    body = [one for one in steps[dtype] if one.stage == "jit_scores" and not one.of_head]
    assert len(body) == 2 * 9
    if dtype == "bfloat16":
        attention = [one for one in body if one.kinds == {"f32"}]
        assert len(attention) == 2 * 2 and all(one.exact for one in attention)
        body = [one for one in body if one not in attention]
    recorded = products_of(dtype)
    assert {one.exact for one in body} == {recorded["products"] == "highest"}
    assert all({"float32": "f32", "bfloat16": "bf16"}[dtype] in one.kinds for one in body)
    assert (recorded["operands"], recorded["head"]) == (dtype, "highest")


def test_the_very_small_head_has_rows_of_its_own():
    assert V < VOCAB_ROWS == 128 * -(-V // 128)
