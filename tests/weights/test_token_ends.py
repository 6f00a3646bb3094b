"""Where each token ends in a text: as decoding every prefix says, for every kind of decoder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tokenizers_of_kinds import KINDS, wrapped
from tokenizers import Tokenizer, decoders, models

from rlif_jax.weights.token_ends import make_token_ends
from rlif_jax.weights.tokenizer import continuation, without_end


def words(**settings):
    """GPT-1's kind: a space after each word but the last, so that no piece has a fixed text."""
    pieces = ["a</w>", "b</w>", "a", "b", "ab"]
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    core.decoder = decoders.BPEDecoder(suffix="</w>")
    return wrapped(core, **settings)


MADE = {kind: make() for kind, make in KINDS.items()}
MADE["ends of words"] = words()
ENDS = {kind: make_token_ends(tokenizer, ()) for kind, tokenizer in MADE.items()}


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def text_of(tokenizer, before, tokens) -> str:
    """What a rollout records as the completion."""
    return continuation(tokenizer, before, without_end(tokenizer, tokens, ()))


def by_every_prefix(tokenizer, before, tokens) -> list[int]:
    """How far the text of the tokens so far has ever been that of all of them."""
    text, ends = text_of(tokenizer, before, tokens), [0]
    for count in range(1, len(without_end(tokenizer, tokens, ())) + 1):
        said = continuation(tokenizer, before, tokens[:count])
        agreed = [end for end in range(len(said) + 1) if text.startswith(said[:end])]
        ends.append(max(ends[-1], agreed[-1]))
    return ends[1:] + [len(text)] * (len(tokens) + 1 - len(ends))


def cut(text: str, ends) -> list[str]:
    return [text[first:end] for first, end in zip([0, *ends], ends, strict=False)]


def test_each_token_has_its_characters():
    """A character of three tokens is the last one's; the end adds nothing, thinking tags count."""
    tokenizer = MADE["byte level"]
    tokens = [*ids(tokenizer, "<think>a\u6f22</think>b"), tokenizer.eos_token_id]
    before = ids(tokenizer, "\n")
    ends = ENDS["byte level"](before, tokens, "<think>a\u6f22</think>b")
    assert ends.tolist() == [7, 8, 8, 8, 9, 17, 18, 18]
    assert ends.dtype == np.uint32
    words = ["<think>", "a", "", "", "\u6f22", "</think>", "b", ""]
    assert cut("<think>a\u6f22</think>b", ends.tolist()) == words


def test_an_end_of_sequence_token_in_the_middle_is_text():
    tokenizer = MADE["byte level"]
    end = tokenizer.eos_token_id
    before, tokens = ids(tokenizer, "x"), [end, *ids(tokenizer, "a"), end, end]
    assert ENDS["byte level"](before, tokens, "</s>a").tolist() == [4, 5, 5, 5]
    other = make_token_ends(tokenizer, ids(tokenizer, "a"))  # the model's own
    assert other(before, tokens, "").tolist() == [0, 0, 0, 0]


def test_what_stays_broken_belongs_to_the_token_that_broke_it():
    tokenizer = MADE["byte level"]
    a, han = ids(tokenizer, "a")[0], ids(tokenizer, "\u6f22")
    before, tokens = [a], [han[0], han[0], a, han[1], han[2]]
    text = text_of(tokenizer, before, tokens)
    assert text == "\ufffd\ufffda\ufffd\ufffd"
    assert ENDS["byte level"](before, tokens, text).tolist() == [1, 2, 3, 4, 5]


def test_one_wrong_byte_breaks_a_run_of_byte_tokens():
    tokenizer = MADE["byte fallback"]
    line, *han = (tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in b"\n\xe6\xbc\xa2")
    before, tokens = [*ids(tokenizer, "a"), line], [*han, han[0], *ids(tokenizer, "a")]
    text = text_of(tokenizer, before, tokens)
    assert text == "\ufffd" * 5 + " a"  # that of the prompt is taken back
    assert ENDS["byte fallback"](before, tokens, text).tolist() == [2, 3, 3, 5, 7]
    assert ENDS["byte fallback"](before, tokens[:3], "\u6f22").tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind", MADE)
@given(data=st.data())
def test_any_ids_end_where_every_prefix_says(kind, data):
    """Behind any prompt, also one that ends within a character, and behind none."""
    tokenizer = MADE[kind]
    whole = st.integers(0, len(tokenizer) - 1)
    broken = st.sampled_from([*ids(tokenizer, "\u6f22\U0001f600\u00e9"), 0])
    token = whole | broken
    before = data.draw(st.lists(token, max_size=12))
    tokens = data.draw(st.lists(token, max_size=30))
    text = text_of(tokenizer, before, tokens)
    ends = ENDS[kind](np.array(before, np.int64), np.array(tokens, np.int32), text)
    assert ends.tolist() == by_every_prefix(tokenizer, before, tokens)
