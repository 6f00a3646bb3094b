"""Stop strings, whatever tokens they begin and end in."""

import numpy as np
import pytest
from support.tokenizers_of_kinds import KINDS, byte_fallback, metaspace

from rlif_jax.sampler.stop import cut, make_stop
from rlif_jax.weights.tokenizer import continuation

TEXT = "def add(a):\n    return\n# héllo 漢字 in it"


def ids(tokenizer, text: str) -> np.ndarray:
    return np.asarray(tokenizer(text, add_special_tokens=False).input_ids, np.int32)


def shortest(tokenizer, tokens, stops, prompt=()) -> int | None:
    """The fewest tokens whose text has one of the strings."""
    for n in range(len(tokens) + 1):
        text = continuation(tokenizer, prompt, tokens[:n])
        if any(word in text for word in stops):
            return n
    return None


def asked(stop, tokens, step: int, prompt=()) -> int | None:
    """The answer of a stop that is asked every `step` tokens."""
    for seen in range(0, len(tokens), step):
        if (keep := stop(prompt, tokens[: seen + step], seen)) is not None:
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


@pytest.mark.parametrize("step", [1, 3, 32])
def test_special_tokens_are_searched_as_they_are_written(tiny, step):
    a, b = ids(tiny[2], "ab")
    tokens = np.array([a, 0, 1, b, 1, 2, 0, b, a], np.int32)
    assert asked(make_stop(tiny[2], ("<|im_end|>",)), tokens, step) == 6
    assert asked(make_stop(tiny[2], ("b<|im_start|>",)), tokens, step) == 5
    assert asked(make_stop(tiny[2], ("end|><|end",)), tokens, step) == 7
    assert asked(make_stop(tiny[2], ("ab", "never<|im_end|>")), tokens, step) is None


@pytest.mark.parametrize("step", [1, 3, 32, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_every_decoder_stops_at_the_fewest_tokens(kind, step):
    """Among 150 random tokens, broken characters and special tokens among them."""
    tokenizer, rng = KINDS[kind](), np.random.default_rng(0)
    prompt = ids(tokenizer, "if").tolist()
    tokens = rng.integers(0, len(tokenizer), 150).astype(np.int32)
    tokens[70:90] = ids(tokenizer, "a in " * 20)[:20]
    text, places = continuation(tokenizer, prompt, tokens), rng.integers(0, 200, 40)
    for stops in ({text[at : at + size]} for at in places for size in (1, 2, 3, 9)):
        if all(stops):
            want = shortest(tokenizer, tokens, stops, prompt)
            assert asked(make_stop(tokenizer, tuple(stops)), tokens, step, prompt) == want


@pytest.mark.parametrize("make", [byte_fallback, metaspace])
def test_the_first_token_is_searched_as_it_follows_the_prompt(make):
    """Its space is there, which it would lose at the beginning of a text."""
    tokenizer = make()
    prompt = ids(tokenizer, "if").tolist()
    tokens = np.array([tokenizer.convert_tokens_to_ids("\u2581a")], np.int32)
    assert make_stop(tokenizer, (" a",))(prompt, tokens, 0) == 1
    assert make_stop(tokenizer, (" a",))([], tokens, 0) is None


def test_the_text_ends_before_the_first_stop_string():
    assert cut("a b c b", ("b",)) == "a "
    assert cut("a b c b", ("c", "b c")) == "a "
    assert cut("a b c b", ("d",)) == "a b c b"
    assert cut("b", ("b",)) == ""
