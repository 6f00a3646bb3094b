"""Token ids to text, for every kind of decoder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tokenizers_of_kinds import KINDS, byte_fallback, byte_level, metaspace

from rlif_jax.weights.tokenizer import continuation, decode, without_end

MADE = {kind: make() for kind, make in KINDS.items()}
PROGRAM = "' , '.join(x)\nif x != 'c' : do  n't ( ) ?"


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_a_program_is_not_cleaned_up(kind):
    """Some tokenizer files ask for it, as Llama 3's do, and it rewrites programs."""
    force = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    tokenizer = KINDS[kind](clean_up_tokenization_spaces=True, **{force: True})
    ids = tokenizer(PROGRAM, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) != PROGRAM  # or it would not show anything
    assert decode(tokenizer, ids) == PROGRAM


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_and_its_continuation_are_the_whole(kind):
    tokenizer = MADE[kind]
    ids = tokenizer("ab a\u00e9 in <think> a</think>\u6f22 b", add_special_tokens=False).input_ids
    whole = decode(tokenizer, ids)
    assert "<think>" in whole and "</think>" in whole
    for cut in range(len(ids) + 1):
        begun = decode(tokenizer, ids[:cut])
        text = continuation(tokenizer, ids[:cut], ids[cut:])
        assert text == whole[len(begun.rstrip("\ufffd")) :]
        if not begun.endswith("\ufffd"):
            assert begun + text == whole


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_ids_and_their_continuation_are_the_whole(kind, data):
    """Whatever is sampled, behind a prompt that ends with a character."""
    tokenizer = MADE[kind]
    token = st.integers(0, len(tokenizer) - 1)
    before = [*data.draw(st.lists(token, max_size=30)), tokenizer.convert_tokens_to_ids("a")]
    after = data.draw(st.lists(token, max_size=30))
    text = continuation(tokenizer, np.array(before), np.array(after, np.int32))
    assert decode(tokenizer, before) + text == decode(tokenizer, before + after)


def test_a_space_at_the_beginning_of_a_completion_stays():
    for make in (byte_fallback, metaspace):
        tokenizer = make()
        first = tokenizer.convert_tokens_to_ids("\u2581a")
        prompt = tokenizer("if", add_special_tokens=False).input_ids
        assert decode(tokenizer, [first]) == "a"
        assert continuation(tokenizer, prompt, [first]) == " a"
        assert continuation(tokenizer, [], [first]) == "a"


def test_a_character_that_the_prompt_begins_belongs_to_the_completion():
    for make in (byte_level, byte_fallback):
        tokenizer = make()
        ids = tokenizer("a\u6f22b", add_special_tokens=False).input_ids
        assert continuation(tokenizer, ids[:-2], ids[-2:]) == "\u6f22b"
        assert continuation(tokenizer, ids[:-1], ids[-1:]) == "b"


def test_a_long_run_of_byte_tokens_is_one():
    """Cut within a character, all of the run would be replacement characters."""
    tokenizer = byte_fallback()
    run = tokenizer("a" + "\u6f22" * 20, add_special_tokens=False).input_ids
    more = tokenizer("\u5b57", add_special_tokens=False).input_ids[-3:]
    for cut in (0, 1, 2):
        before = run[: len(run) - cut]
        assert continuation(tokenizer, before, run[len(before) :] + more).endswith("\u5b57")


def test_only_the_end_and_padding_at_the_end_are_dropped():
    tokenizer = byte_level()
    end = tokenizer.eos_token_id
    other = tokenizer.convert_tokens_to_ids("<|fim_prefix|>")
    tokens = np.array([65, end, other, 66, other, end, end], np.int32)
    assert without_end(tokenizer, tokens, ()).tolist() == [65, end, other, 66, other]
    assert without_end(tokenizer, tokens, (other,)).tolist() == [65, end, other, 66]
    assert len(without_end(tokenizer, tokens[-2:], ())) == 0
