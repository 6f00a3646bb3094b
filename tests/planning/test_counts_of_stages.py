"""What is counted in the stages of a run agrees with what their shapes say, on CPUs and on TPUs."""

import dataclasses

import jax.numpy as jnp
import pytest
from support.counted_stages import (
    PIECES,
    SMALL,
    attention_product,
    head,
    lowered_on,
    matrices,
    visited,
)

from rlif_jax.planning.counts import Work, work_of
from rlif_jax.sharding import make_mesh

TOKENS, BLOCK = 512, 128  # of a row, and of the blocks of attention on CPUs
BLOCKS_OF_KEYS = (TOKENS // BLOCK + 1) / 2  # that a block of queries visits, on average
PAIRS = visited(TOKENS, BLOCK)


def counted(lowered, **more) -> Work:
    return work_of(lowered.compile().as_text(), turns=PIECES, inner=BLOCKS_OF_KEYS, **more)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_scorer_makes_the_products_of_a_forward_pass(dtype):
    model = dataclasses.replace(SMALL, dtype=dtype)
    work = counted(lowered_on(make_mesh(), model, TOKENS).score)
    row = TOKENS * (matrices(model) + head(model)) + 2 * attention_product(model, PAIRS)
    assert work.flops == pytest.approx(PIECES * row, rel=0.02)
    assert not work.sent


AGAIN = ("q", "k", "v", "o", "gate", "up")  # `down` gives the output, which no gradient needs


@pytest.mark.parametrize(
    "remat, again, products",
    [
        ("none", (), 2 + 5),  # the scores once more, and four products of gradients
        ("layer", AGAIN, 2 + 2 + 5),
        ("attention", AGAIN, 2 + 5),
    ],
)
def test_an_update_makes_three_passes_and_what_remat_repeats(remat, again, products):
    model = dataclasses.replace(SMALL, remat=remat)
    work = counted(lowered_on(make_mesh(), model, TOKENS).update)
    of_token = 3 * matrices(model) + 4 * head(model)  # logits are computed again
    of_token += matrices(model, *again) if again else 0
    row = TOKENS * of_token + products * attention_product(model, PAIRS)
    assert work.flops == pytest.approx(PIECES * row, rel=0.02)


@pytest.mark.parametrize("axes, parts", [({"fsdp": 4}, 1), ({"fsdp": 2, "tensor": 2}, 2)])
def test_a_mesh_divides_the_work(axes, parts):
    """Each row shard has a row of its own; `tensor` splits what is done for it."""
    work = counted(lowered_on(make_mesh(**axes), SMALL, TOKENS).score)
    row = TOKENS * (matrices(SMALL) + head(SMALL)) + 2 * attention_product(SMALL, PAIRS)
    assert work.flops == pytest.approx(PIECES * row / parts, rel=0.02)
    assert jnp.isfinite(work.bytes)
    assert work.sent.keys() >= {"all-gather"}
