"""Packing: every token once, in order, with what it may see; hardly a column empty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.packing import Form, form_of, pack


def packed(prompts, completions, form, group_size):
    as_arrays = [[np.asarray(x, np.int32) for x in xs] for xs in (prompts, completions)]
    return pack(*as_arrays, group_size, form)


def test_a_row_by_hand():
    """Two prompts with two completions each, whose prompts stand with each of them."""
    prompts, completions = [[1, 2, 3], [4]], [[11], [12, 13], [14, 15], [16]]
    mini = packed(prompts, completions, Form(1, 1, 12, shared=False), 2)
    p = mini.packed
    assert p.tokens.tolist() == [[[1, 2, 3, 1, 2, 3, 12, 4, 14, 4, 0, 0]]]
    assert p.position.tolist() == [[[0, 1, 2, 0, 1, 2, 3, 0, 1, 0, 0, 0]]]
    assert p.segment.tolist() == [[[1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 0, 0]]]
    assert p.prefix.tolist() == p.segment.tolist()
    assert p.target.tolist() == [[[-1, -1, 11, -1, -1, 12, 13, 14, 15, 16, -1, -1]]]
    assert p.count == 1 and mini.filled == 10 and mini.columns == 12
    assert mini.spread(np.array([1.0, 2, 3, 4])).tolist() == [
        [[0, 0, 1, 0, 0, 2, 2, 3, 3, 4, 0, 0]]
    ]
    assert mini.collect(p.target, 3).tolist() == [[11, 0, 0], [12, 13, 0], [14, 15, 0], [16, 0, 0]]


def test_a_row_of_shared_prompts_by_hand():
    prompts, completions = [[1, 2, 3], [4]], [[11], [12, 13], [14, 15], [16]]
    p = packed(prompts, completions, Form(1, 1, 9, shared=True), 2).packed
    assert p.tokens.tolist() == [[[1, 2, 3, 3, 12, 4, 14, 4, 0]]]
    assert p.position.tolist() == [[[0, 1, 2, 2, 3, 0, 1, 0, 0]]]
    assert p.segment.tolist() == [[[1, 1, 2, 3, 3, 4, 4, 5, 0]]]
    assert p.prefix.tolist() == [[[1, 1, 1, 1, 1, 4, 4, 5, 0]]]
    assert p.target.tolist() == [[[-1, -1, 11, 12, 13, 14, 15, 16, -1]]]


def seen_by(packed, place):
    """Tokens and positions that a column sees, by the rule that attention follows."""
    m, r, t = place
    segment, prefix = packed.segment[m, r], packed.prefix[m, r]
    columns = [j for j in range(t + 1) if segment[j] in (segment[t], prefix[t])]
    return packed.tokens[m, r, columns].tolist(), packed.position[m, r, columns].tolist()


@st.composite
def mini_batches(draw):
    group_size = draw(st.integers(1, 4))
    tokens = st.integers(1, 99)
    prompts = draw(st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=5))
    completions = [
        draw(st.lists(tokens, min_size=1, max_size=12)) for _ in range(len(prompts) * group_size)
    ]
    form = form_of(
        completions=len(completions),
        longest=draw(st.integers(20, 40)),
        tokens=draw(st.integers(1, 100)),
        rows=draw(st.integers(1, 4)),
        shared=draw(st.booleans()),
        multiple=draw(st.integers(1, 2)),
    )
    return prompts, completions, group_size, form


@settings(max_examples=200)
@given(mini_batches())
def test_each_target_sees_its_prompt_and_what_was_drawn_before_it(drawn):
    prompts, completions, group_size, form = drawn
    mini = packed(prompts, completions, form, group_size)
    p = mini.packed
    assert p.tokens.shape == form.shape
    assert (p.target >= 0).sum() == sum(map(len, completions))
    for i, completion in enumerate(completions):
        prompt = prompts[i // group_size]
        for t, token in enumerate(completion):
            place = np.unravel_index(mini.start_B[i] + t, form.shape)
            before = prompt + completion[:t]
            assert p.target[place] == token
            assert seen_by(p, place) == (before, list(range(len(before))))
    # Segments never fall, each holds one completion's targets, and empty columns are at the end.
    fields = (x.reshape(-1, form.columns) for x in (p.segment, p.target, p.prefix))
    for segment, target, prefix in zip(*fields, strict=True):
        filled = segment[segment > 0]
        assert (segment[: len(filled)] > 0).all() and (np.diff(filled) >= 0).all()
        assert segment.max(initial=0) <= form.columns
        assert (prefix <= segment).all() and (target[segment == 0] == -1).all()
    used = (p.segment > 0).any(axis=(1, 2))
    assert used.tolist() == [m < p.count for m in range(form.pieces)]


@settings(max_examples=50)
@given(mini_batches(), st.integers(12, 14))
def test_collect_is_the_inverse_of_spread(drawn, width):
    prompts, completions, group_size, form = drawn
    mini = packed(prompts, completions, form, group_size)
    rng = np.random.default_rng(0)
    x_BC = rng.normal(size=(len(completions), width)).astype(np.float32)
    x_BC[np.arange(width) >= mini.length_B[:, None]] = 0
    np.testing.assert_array_equal(mini.collect(mini.spread(x_BC), width), x_BC)
    for fill in (0.0, -1.0):
        assert (mini.spread(x_BC, fill)[mini.packed.target < 0] == fill).all()


def test_the_longest_sequences_fit():
    """As many as there may be, of the full length each: the bound is not exceeded, nor too high."""
    for tokens, rows, want in ((10, 1, 30), (20, 2, 8), (39, 4, 4)):
        form = form_of(completions=30, longest=10, tokens=tokens, rows=rows, shared=False)
        prompts, completions = [[1] * 6], [[2] * 5] * 30
        mini = packed(prompts, completions, form, 30)
        assert mini.packed.count == form.pieces <= want


def paper_lengths(rng, count: int) -> np.ndarray:
    """Response lengths of a reasoning model at 8k: a broad middle, and a share that is cut."""
    return np.clip(rng.lognormal(8.0, 0.8, count), 150, 8192).astype(int)


@pytest.mark.parametrize("rows", [1, 16, 64], ids="{} row shards".format)
def test_under_a_tenth_of_the_columns_is_empty_at_the_papers_lengths(rows):
    """32 prompts of 150 to 2,048 tokens with 16 responses of 150 to 8,192 each."""
    rng = np.random.default_rng(rows)
    prompts = [np.ones(n, np.int32) for n in rng.integers(150, 2049, 32)]
    completions = [np.ones(n, np.int32) for n in paper_lengths(rng, 512)]
    form = form_of(completions=512, longest=2048 + 8192 - 1, tokens=0, rows=rows, shared=False)
    assert form.columns == 10240
    mini = pack(prompts, completions, 16, form)
    assert mini.filled / mini.columns > 0.9
    # The rows of a micro-batch wait for the one that attends to most. Only the last is not full.
    attended = (mini.packed.position + 1).sum(axis=2, where=mini.packed.segment > 0)
    full = attended[: mini.packed.count - 1]
    assert full.mean() / full.max(axis=1).mean() > 0.85


def test_a_shared_prompt_is_computed_once_in_a_row():
    prompts = [np.arange(1, 41, dtype=np.int32)] * 3
    completions = [np.full(n, 7, np.int32) for n in range(5, 29)]
    forms = {
        shared: form_of(completions=24, longest=70, tokens=256, rows=1, shared=shared)
        for shared in (True, False)
    }
    filled = {shared: pack(prompts, completions, 8, form).filled for shared, form in forms.items()}
    total = sum(map(len, completions))
    assert filled[False] == total + 24 * 39
    assert filled[True] <= total + 5 * 39  # one of three groups or two go on in another row
