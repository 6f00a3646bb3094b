"""What is counted in the stages of a run agrees with what their shapes say, on CPUs and on TPUs."""

import dataclasses

import pytest
from support.counted_stages import (
    PIECES,
    SMALL,
    attention_product,
    head,
    lowered_decode,
    lowered_stage,
    matrices,
    visited,
)

from rlif_jax.config import Sampling
from rlif_jax.planning.ahead import compile_with_text, mesh_of
from rlif_jax.planning.counts import Work, work_of
from rlif_jax.sharding import make_mesh

TOKENS, BLOCK = 512, 128  # of a row, and of the blocks of attention on CPUs
BLOCKS_OF_KEYS = (TOKENS // BLOCK + 1) / 2  # that a block of queries visits, on average
ATTENTION = attention_product(SMALL, visited(TOKENS, BLOCK))  # one of its products, for a row


def counted(lowered) -> Work:
    _, text = compile_with_text(lowered)
    return work_of(text, turns=PIECES, inner=BLOCKS_OF_KEYS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_scorer_makes_the_products_of_a_forward_pass(dtype):
    model = dataclasses.replace(SMALL, dtype=dtype)
    work = counted(lowered_stage(make_mesh(), model, TOKENS, "score"))
    row = TOKENS * (matrices(model) + head(model)) + 2 * ATTENTION
    assert work.flops == pytest.approx(PIECES * row, rel=0.001)
    assert not work.sent


AGAIN = ("q", "k", "v", "o", "gate", "up")  # `down` gives the output, which no gradient needs


@pytest.mark.parametrize(
    "remat, again, products",
    [
        ("none", (), 2 + 5),  # the scores once more, and four products of gradients
        ("layer", AGAIN, 2 + 2 + 5),
        pytest.param("attention", AGAIN, 2 + 5, marks=pytest.mark.slow),
    ],
)
def test_an_update_makes_three_passes_and_what_remat_repeats(remat, again, products):
    model = dataclasses.replace(SMALL, remat=remat)
    work = counted(lowered_stage(make_mesh(), model, TOKENS, "update"))
    of_token = 3 * matrices(model) + 4 * head(model)  # logits are computed again
    of_token += matrices(model, *again) if again else 0
    row = TOKENS * of_token + products * ATTENTION
    assert work.flops == pytest.approx(PIECES * row, rel=0.001)


@pytest.mark.parametrize("axes, tensor", [({"fsdp": 4}, 1), ({"fsdp": 2, "tensor": 2}, 2)])
def test_a_mesh_divides_the_work(axes, tensor):
    """Each row shard has a row of its own; `tensor` splits what is done for it."""
    work = counted(lowered_stage(make_mesh(**axes), SMALL, TOKENS, "score"))
    row = TOKENS * (matrices(SMALL) + head(SMALL)) + 2 * ATTENTION
    assert work.flops == pytest.approx(PIECES * row / tensor, rel=0.001)
    # Each device gathers the matrices that it multiplies by, in float32, from `fsdp` parts.
    gathered = (matrices(SMALL) + head(SMALL)) / 2 * 4 / tensor
    if tensor > 1:  # and the embeddings of its row, of which each has a part of the features
        gathered += TOKENS * SMALL.embed * 4
    gathered *= 1 - 1 / axes["fsdp"]
    assert work.sent["all-gather"] == pytest.approx(PIECES * gathered, rel=0.03)


def test_a_step_of_decoding_with_split_heads():
    """Eight slots a row shard; two devices have half of the heads, features and columns each."""
    slots, parts, pages = 8, 2, 3
    _, text = compile_with_text(lowered_decode(make_mesh(data=2, tensor=parts), SMALL, 2 * slots))
    step = work_of(text, turns=5, inner=pages) + -1 * work_of(text, turns=4, inner=pages)
    keys = pages * Sampling().page
    flops = slots * (matrices(SMALL) + head(SMALL)) + 2 * attention_product(SMALL, slots * keys)
    assert step.flops == pytest.approx(flops / parts, rel=0.001)
    # Sums over heads and over features in each layer, the embedding, and the draw's; [8, 1, 256].
    sums = 2 * SMALL.layers + 1 + 1
    sent = sums * slots * SMALL.embed * 4 * 2 * (parts - 1) / parts
    assert step.sent["all-reduce"] == pytest.approx(sent, rel=0.01)
    assert step.bytes > (matrices(SMALL) + head(SMALL)) / 2 * 4 / parts  # the weights at least


KERNEL = Work(flops=1e6, bytes=1e3)
WIDE = dataclasses.replace(
    SMALL, embed=512, ffn=1024, head_dim=128, dtype="bfloat16", vocab_size=16384, remat="layer"
)
ROW = 1024  # tokens
GENERATIONS = {  # a gather from the larger vocabulary runs on the SparseCores of a v5p
    "v4:2x2x2": (8, 16384),
    "v5e:2x2": (4, 16384),
    "v5p:2x2x2": (8, 151936),
    "v6e:2x4": (8, 16384),
}


@pytest.mark.slow
@pytest.mark.parametrize("topology", GENERATIONS)
def test_the_scorer_on_each_generation_of_tpus(topology):
    chips, vocab = GENERATIONS[topology]
    model = dataclasses.replace(WIDE, vocab_size=vocab)
    lowered = lowered_stage(mesh_of(topology, fsdp=chips), model, ROW, "score")
    compiled, text = compile_with_text(lowered)
    kernels = {"splash_mha_fwd": KERNEL}
    work = work_of(text, turns=PIECES, kernels=kernels)
    if not topology.startswith("v5p"):  # of which JAX cannot write the text
        assert work == work_of(compiled.as_text(), turns=PIECES, kernels=kernels)
    row = ROW * (matrices(model) + head(model)) + model.layers * KERNEL.flops
    assert work.flops == pytest.approx(PIECES * row, rel=0.02)
    # Matrices in bfloat16, and the tokens of all rows, whose embeddings are then exchanged.
    gathered = (matrices(model) + head(model)) / 2 * 2 + chips * ROW * 4
    part = PIECES * (chips - 1) / chips
    assert work.sent["all-gather"] == pytest.approx(part * gathered, rel=0.02)
    assert work.sent["all-to-all"] == pytest.approx(part * ROW * model.embed * 2, rel=0.02)
    assert work.bytes > PIECES * row / 2 / ROW * 2 / chips  # its part of the weights at least


@pytest.mark.slow
def test_an_update_on_tpus():
    mesh = mesh_of("v5e:2x2", fsdp=4)
    _, text = compile_with_text(lowered_stage(mesh, WIDE, ROW, "update"))
    kernels = {f"splash_mha_{part}": KERNEL for part in ("fwd", "dkv", "dq")}
    work = work_of(text, turns=PIECES, kernels=kernels)
    of_token = 3 * matrices(WIDE) + matrices(WIDE, *AGAIN) + 4 * head(WIDE)
    row = ROW * of_token + WIDE.layers * (2 + 1 + 1) * KERNEL.flops
    assert work.flops == pytest.approx(PIECES * row, rel=0.02)
