"""Stop strings, whatever tokens they begin and end in."""

import numpy as np
import pytest

from rlif_jax.sampler.stop import cut, make_stop

TEXT = "def add(a):\n    return\n# héllo 漢字 in it"


def ids(tokenizer, text: str) -> np.ndarray:
    return np.asarray(tokenizer(text, add_special_tokens=False).input_ids, np.int32)


def shortest(tokenizer, tokens, stops) -> int | None:
    """The fewest tokens whose text has one of the strings."""
    for n in range(len(tokens) + 1):
        text = tokenizer.decode(tokens[:n], skip_special_tokens=True)
        if any(word in text for word in stops):
            return n
    return None


def asked(stop, tokens, step: int) -> int | None:
    """The answer of a stop that is asked every `step` tokens."""
    for seen in range(0, len(tokens), step):
        if (keep := stop(tokens[: seen + step], seen)) is not None:
            return keep
    return None


@pytest.mark.parametrize("step", [1, 3, 32, 100])
@pytest.mark.parametrize(
    "stops",
    [
        ("\n",),
        ("add(a):\n    return",),  # over many tokens, longer than a chunk
        ("i",),  # inside the token "in", after "n i" of which the i stands alone nowhere
        ("héllo",),
        ("漢",),  # three tokens
        ("字 i", "漢"),  # the first of the two is complete later
        ("never", "return", "ret"),
        (TEXT[-4:],),  # with the very last token
        (TEXT,),
        ("not there",),
    ],
    ids=str,
)
def test_the_fewest_tokens_with_the_string_are_kept(tiny, stops, step):
    tokenizer = tiny[2]
    tokens = ids(tokenizer, TEXT)
    want = shortest(tokenizer, tokens, stops)
    assert (want is None) == (stops == ("not there",))
    assert asked(make_stop(tokenizer, stops), tokens, step) == want


def test_the_text_really_has_tokens_of_several_letters_and_letters_of_several_tokens(tiny):
    pieces = [tiny[2].decode([token]) for token in ids(tiny[2], TEXT)]
    assert "in" in pieces and "  " in pieces
    assert len(ids(tiny[2], "漢")) == 3


def test_what_stands_between_its_letters_without_a_text_is_no_part_of_it(tiny):
    """Special tokens, an ignored end of sequence among them, have no text to be searched."""
    tokenizer = tiny[2]
    a, b = ids(tokenizer, "ab")
    tokens = np.array([a, 0, 1, 2, 0, 1, 2, 0, b, a], np.int32)
    assert asked(make_stop(tokenizer, ("ab",)), tokens, 32) == 9
    assert asked(make_stop(tokenizer, ("ab",)), tokens, 1) == 9


@pytest.mark.parametrize("step", [1, 3, 32])
def test_a_special_token_can_be_a_stop_string(tiny, step):
    a, b = ids(tiny[2], "ab")
    tokens = np.array([a, 0, 1, b, 1, 2, 0, b, a], np.int32)
    assert asked(make_stop(tiny[2], ("<|im_end|>",)), tokens, step) == 6
    assert asked(make_stop(tiny[2], ("b<|im_start|>",)), tokens, step) == 5
    assert asked(make_stop(tiny[2], ("bb", "never<|im_end|>")), tokens, step) == 8


def test_the_text_ends_before_the_first_stop_string():
    assert cut("a b c b", ("b",)) == "a "
    assert cut("a b c b", ("c", "b c")) == "a "
    assert cut("a b c b", ("d",)) == "a b c b"
    assert cut("b", ("b",)) == ""
