"""Work and seconds of a step, by hand."""

import numpy as np
import pytest

from rlif_jax.config import Config, Eval
from rlif_jax.model.config import ModelConfig
from rlif_jax.packing import Form
from rlif_jax.planning.chips import Chip
from rlif_jax.planning.counts import Work
from rlif_jax.planning.estimate import MEMORY, NETWORK, PRODUCTS, Seconds
from rlif_jax.planning.lengths import Lengths
from rlif_jax.planning.report import run_seconds
from rlif_jax.planning.rollout import Chunk
from rlif_jax.planning.step_work import (
    DecodeSteps,
    PackedLengths,
    decode_hops,
    forward_flops,
    matrix_parameters,
    train_flops,
)

MODEL = ModelConfig(
    vocab_size=100, embed=8, ffn=16, layers=2, heads=4, kv_heads=2, head_dim=2, qkv_bias=True
)
CHIP = Chip("made up", 100.0, 10.0, 1.0, 1.0, "")


def test_matrices_are_counted_once_a_token():
    """q, o: 8 x 8 each; k, v: 8 x 4; three of 8 x 16; two layers; the tied head 100 x 8."""
    assert matrix_parameters(MODEL) == 2 * (2 * 64 + 2 * 32 + 3 * 128) + 800


def test_a_forward_pass_by_hand():
    """Sequences of 3 and 1: 6 + 1 pairs, each 4 operations for 4 heads of width 2 in 2 layers."""
    flops = forward_flops(MODEL, 4, np.array([3, 1]))
    assert flops == 2 * matrix_parameters(MODEL) * 4 + 4 * 2 * 4 * 2 * 7
    lengths = Lengths(np.array([2]), np.array([1, 3]), "")  # sequences of 3 and 5
    assert train_flops(MODEL, lengths, 10) == 3 * forward_flops(MODEL, 10, np.array([3, 5]))


def test_the_slowest_part_binds_and_hops_are_waited_for():
    work = Work(flops=60.0, bytes=8.6, sent={"all-gather": 1.0, "all-reduce": 0.6})
    seconds = Seconds.of(work, CHIP)
    assert seconds.products == pytest.approx(60 / (PRODUCTS * 100))
    assert seconds.memory == pytest.approx(8.6 / (MEMORY * 10))
    assert seconds.network == pytest.approx(1.6 / NETWORK)
    assert (seconds.together, seconds.bound) == (seconds.network, "network")
    later = Seconds.of(work, CHIP, hops=1_000_000)
    assert later.together == pytest.approx(seconds.together + 1)
    both = Seconds.in_turn([(2, seconds), (1, later)])
    assert both.together == pytest.approx(3 * seconds.together + 1)
    assert both.memory == pytest.approx(3 * seconds.memory)


def test_all_reduces_of_a_decode_step():
    """Two a layer and one after the head: 5 rings, of 2 (n - 1) hops."""
    assert decode_hops(MODEL, 1) == 0
    assert decode_hops(MODEL, 4) == 5 * 6


def test_a_decode_step_reads_weights_once_and_each_token_in_the_cache():
    steps = DecodeSteps(
        fixed=Work(bytes=1000), slot=Work(flops=3, bytes=5), token=Work(flops=2, bytes=7)
    )
    work = steps.of_chunk(Chunk(steps=4, slots=8, cached=10.0), shards=2)
    assert (work.flops, work.bytes) == (4 * 3 + 10 * 2, 1000 + 4 * 5 + 10 * 7)


def test_packed_lengths_of_two_row_shards():
    """Six sequences of 128 columns in rows of 256: three rows on two shards, two micro-batches.

    A row of two sequences visits its two blocks on the diagonal, an empty row too.
    """
    lengths = Lengths(np.full(3, 65), np.full(6, 64), "")
    form = Form(pieces=3, rows=2, columns=256, shared=False)
    packed = PackedLengths.of(lengths, np.arange(3), form, "cpu")
    assert (packed.pieces, packed.columns, packed.filled) == (2, 2 * 2 * 256, 6 * 128)
    assert (packed.edge, packed.blocks, packed.queries) == (128, 2 * 2, 2 * 2 * 2)


def test_one_long_sequence_visits_all_blocks_before_its_own():
    """1,024 columns in two blocks of 512 on a TPU: 1 + 2."""
    lengths = Lengths(np.array([513]), np.array([512]), "")
    packed = PackedLengths.of(lengths, np.arange(1), Form(1, 1, 1024, False), "tpu")
    assert (packed.edge, packed.blocks) == (512, 3)


@pytest.mark.parametrize(
    ("steps", "every", "evaluations"),
    [(105, 10, 12), (100, 10, 11), (40, 100, 2), (40, 0, 0), (0, 10, 0)],
)
def test_a_run_is_evaluated_before_its_first_step_and_after_its_last(steps, every, evaluations):
    cfg = Config(eval=Eval(every=every))
    assert run_seconds(cfg, steps, 2.0, 30.0) == 2.0 * steps + 30.0 * evaluations
