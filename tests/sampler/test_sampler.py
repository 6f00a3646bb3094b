"""The sampler as a library: `Sampler.generate` of the very small model."""

import dataclasses
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.queues import PAGE, PROMPTS, STATS, recompiled
from support.tokenizers_of_kinds import KINDS

from rlif_jax.errors import UserError
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sampler import Sampler
from rlif_jax.weights.tokenizer import continuation, decode

SLOTS = 8
BATCHING = Batching(slots=SLOTS, page=PAGE, narrow_for=0)


def model_of(tiny):
    return nnx.merge(tiny[0], jax.tree.map(jnp.copy, tiny[1]))


@pytest.fixture(scope="module")
def sampler(tiny):
    return Sampler(model_of(tiny), tiny[2], BATCHING)


@pytest.fixture(scope="module")
def endless(sampler):
    """Sixteen samples that no end of sequence ends, by (prompt, index)."""
    return drawn(sampler, ["ab", "c"], 8, max_new_tokens=48, ignore_eos=True)


def drawn(sampler, prompts, n=1, **settings):
    """All samples, each of which must come once."""
    samples = list(sampler.generate(prompts, n, **settings))
    out = {(one.prompt, one.index): one for one in samples}
    assert len(out) == len(samples)
    assert out.keys() == set(itertools.product(range(len(prompts)), range(n)))
    return out


def lists(samples) -> dict:
    return {which: one.tokens.tolist() for which, one in samples.items()}


def certain(tiny, prompt: list[int], token: int):
    """A model that goes on from this prompt with this token, of logit 60, and nothing else."""
    model = model_of(tiny)
    x_D = model(jnp.asarray([prompt]))[0, -1]
    assert token not in prompt
    model.embed[...] = model.embed[...].at[token].set(60 * x_D / (x_D @ x_D))
    return model


def test_text_ids_and_chats_are_prompts_and_greedy_takes_the_likeliest(tiny, sampler):
    tokenizer = tiny[2]
    text = "def f"
    chat = [{"role": "user", "content": "hi"}]
    written = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = list(tokenizer(text).input_ids)
    prompts = [text, ids, np.array(ids), chat, written]
    greedy = drawn(sampler, prompts, temperature=0, max_new_tokens=12)
    tokens = [greedy[n, 0].tokens.tolist() for n in range(5)]
    assert tokens[0] == tokens[1] == tokens[2] != tokens[3] == tokens[4]
    assert text + greedy[0, 0].text == decode(tokenizer, ids + tokens[0])
    for n, prompt in ((0, ids), (3, list(tokenizer(written).input_ids))):
        logits_TV = model_of(tiny).logits(jnp.asarray([[*prompt, *tokens[n]]]))[0]
        assert tokens[n] == logits_TV[len(prompt) - 1 : -1].argmax(-1).tolist()
    likeliest = drawn(sampler, prompts, top_k=1, max_new_tokens=12)
    assert lists(likeliest) == lists(greedy)
    for which, one in greedy.items():  # statistics are of the distribution before the filters
        for name in STATS:
            got = getattr(likeliest[which].stats, name)
            np.testing.assert_array_equal(got, getattr(one.stats, name))
        assert (one.stats.entropy > 0.01).any()
    with pytest.raises(UserError, match="temperature=0 is greedy"):
        sampler.generate(prompts, 2, temperature=0)


@pytest.fixture(scope="module")
def few(sampler):
    return drawn(sampler, PROMPTS, 8, max_new_tokens=20, seed=3)


def test_the_first_samples_of_many_are_those_of_few(sampler, few):
    """8 and 16 of each of five prompts, in 8 slots: 0 flips."""
    many = drawn(sampler, PROMPTS, 16, max_new_tokens=20, seed=3)
    assert sampler.usage.prefills == len(PROMPTS)
    flips = sum(few[which].tokens.tolist() != many[which].tokens.tolist() for which in few)
    assert flips == 0
    assert len({tuple(one.tokens) for one in many.values()}) == len(many)
    key = jax.random.key(3)
    assert lists(drawn(sampler, PROMPTS, 8, max_new_tokens=20, seed=key)) == lists(few)
    other = drawn(sampler, PROMPTS, 8, max_new_tokens=20, seed=4)
    assert not any(few[which].tokens.tolist() == other[which].tokens.tolist() for which in few)


def test_samples_come_as_they_finish(sampler, endless):
    """The first is there before the longest can be done, and the usage says what it took."""
    limits = {"max_new_tokens": [48, 5], "ignore_eos": True}
    samples = sampler.generate(["ab", "c"], 8, **limits)
    first, begun = next(samples), sampler.usage.steps
    rest = list(samples)
    assert len(rest) == 15 and sampler.usage.steps > begun
    assert (rest[-1].prompt, len(rest[-1].tokens)) == (1, 5)
    assert sampler.usage.useful == 8 * 48 + 8 * 5 and sampler.usage.prefills == 2
    for one in (first, *rest):
        want = endless[one.prompt, one.index].tokens[: limits["max_new_tokens"][one.prompt]]
        assert one.tokens.tolist() == want.tolist() and one.finish == "length"


def test_an_end_of_sequence_at_once(tiny):
    """Every sample is that one token, which is in its tokens and not in its text."""
    prompt = [70, 71, 72]
    sampler = Sampler(certain(tiny, prompt, 2), tiny[2], BATCHING)
    got = drawn(sampler, [prompt], 20, max_new_tokens=10)
    for one in got.values():
        assert one.tokens.tolist() == [2] and one.text == "" and one.finish == "eos"
        assert one.stats.logprob.shape == (1,) and abs(one.stats.logprob[0]) < 1e-6
    assert sampler.usage.slot_steps < 20 * 2


def test_without_an_end_of_sequence_all_go_to_their_limit(tiny):
    model = model_of(tiny)
    model.cfg = dataclasses.replace(model.cfg, eos_ids=())
    got = drawn(Sampler(model, tiny[2], BATCHING), PROMPTS[:2], 4, max_new_tokens=[17, 3])
    for (prompt, _), one in got.items():
        assert len(one.tokens) == (17, 3)[prompt] and one.finish == "length"


def test_one_token_each(tiny, sampler):
    """The distribution of the first token, of 1000 samples of one prompt of one token."""
    got = drawn(sampler, [[101]], 1000, max_new_tokens=1)
    assert sampler.usage.prefills == 1 and sampler.usage.useful == 1000
    assert sampler.usage.slot_steps == 1000
    p_V = jax.nn.softmax(model_of(tiny).logits(jnp.asarray([[101]]))[0, -1])
    tokens = np.array([one.tokens.item() for one in got.values()])
    assert {one.finish for one in got.values()} <= {"length", "eos"}
    likely = np.argsort(p_V)[-8:]
    for token in likely:
        expected = 1000 * float(p_V[token])
        assert abs((tokens == token).sum() - expected) < 5 * np.sqrt(expected) + 1
    logprob = np.array([one.stats.logprob.item() for one in got.values()])
    np.testing.assert_allclose(logprob, np.log(p_V)[tokens], atol=1e-4)


def said_by(endless, size: int, wanted) -> str:
    """A piece of `size` letters that as many samples as possible say, though not at the start."""
    said = Counter(
        piece
        for one in endless.values()
        for piece in {one.text[at : at + size] for at in range(4, len(one.text) - size)}
        if "\ufffd" not in piece and wanted(piece)
    )
    return said.most_common(1)[0][0]


@pytest.mark.parametrize("chunk", [1, 3, 32])
def test_stop_strings_end_a_sample_at_the_token_that_completes_them(tiny, sampler, endless, chunk):
    """Over token borders, in several bytes, in the middle of a chunk: as without, but cut."""
    stops = (
        said_by(endless, 2, str.isascii),
        said_by(endless, 1, lambda piece: len(piece.encode()) > 1),
    )
    batching = dataclasses.replace(BATCHING, chunk=chunk)
    settings = {"max_new_tokens": 48, "ignore_eos": True}
    by_chunk = sampler if chunk == 32 else Sampler(model_of(tiny), tiny[2], batching)
    got = drawn(by_chunk, ["ab", "c"], 8, stop=stops, **settings)
    stopped, prompts = 0, [tiny[2](text).input_ids for text in ("ab", "c")]
    for which, whole in endless.items():
        texts = (
            continuation(tiny[2], prompts[which[0]], whole.tokens[: n + 1])
            for n in range(len(whole.tokens))
        )
        ends = [n + 1 for n, text in enumerate(texts) if any(word in text for word in stops)]
        n = ends[0] if ends else 48
        one = got[which]
        assert one.tokens.tolist() == whole.tokens[:n].tolist()
        assert one.finish == ("stop" if ends else "length")
        for name in STATS:
            np.testing.assert_array_equal(getattr(one.stats, name), getattr(whole.stats, name)[:n])
        before = min((whole.text.index(word) for word in stops if word in whole.text), default=None)
        assert one.text == whole.text[:before]
        stopped += bool(ends)
    assert 2 <= stopped < len(endless)
    assert any(np.isin(one.tokens[:-1], (0, 2)).any() for one in endless.values())  # ignored


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_text_are_the_decoding_of_all_tokens(sampler, monkeypatch, kind):
    """For a text and for token ids, for every kind of decoder, with and without a stop string."""
    tokenizer = KINDS[kind]()
    monkeypatch.setattr(sampler, "_tokenizer", tokenizer)
    text = "<think> a b"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    begun, settings = decode(tokenizer, ids), {"max_new_tokens": 40, "ignore_eos": True}
    got = drawn(sampler, [text, ids], 4, **settings)
    for one in got.values():
        assert begun + one.text == decode(tokenizer, [*ids, *one.tokens])
    word = got[1, 0].text[10:12]
    stopped = drawn(sampler, [text, ids], 4, stop=word, **settings)[1, 0]
    assert stopped.finish == "stop"
    assert stopped.text == got[1, 0].text[: got[1, 0].text.index(word)]


def test_a_chat_is_the_same_on_every_day(tiny, sampler, monkeypatch):
    chat, template = [{"role": "user", "content": "hi"}], "{{ strftime_now('%d %b %Y') }}"
    monkeypatch.setattr(tiny[2], "chat_template", template)
    got = drawn(sampler, [chat, "26 Jul 2024"], temperature=0, max_new_tokens=5)
    assert got[0, 0].tokens.tolist() == got[1, 0].tokens.tolist()


def test_no_prompts_give_no_samples(sampler):
    assert list(sampler.generate([])) == []
    assert list(sampler.generate([], 5, max_new_tokens=[])) == []


def test_a_second_call_compiles_nothing(sampler, few, caplog):
    """Of other prompts, lengths, numbers and seeds, where sizes round to the same shapes."""
    other = [list(range(40, 40 + n)) for n in (23, 3, 17, 6)]
    with jax.log_compiles():
        drawn(sampler, other, 9, max_new_tokens=[20, 3, 18, 7], seed=2)
    assert recompiled(caplog.records) == []


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[70], []], {}, "prompt 1 is empty"),
        ([""], {}, "prompt 0 is empty"),
        ([[70]], {"max_new_tokens": 0}, "max_new_tokens=0 of prompt 0 must be at least 1"),
        ([[70]], {"max_new_tokens": [3, 4]}, "max_new_tokens has 2 entries for 1 prompts"),
        ([[70]], {"n": 0}, "n=0 must be at least 1"),
        ([[70]], {"temperature": -1.0}, "temperature=-1.0 must be at least 0"),
        ([[70]], {"temperature": float("nan")}, "temperature=nan must be at least 0"),
        ([[70]], {"top_p": 0.0}, "top_p=0.0 must be in"),
        ([[70]], {"top_k": -3}, "top_k=-3 must be at least 0"),
        ([[70]], {"min_p": 2.0}, "min_p=2.0 must be in"),
        ([[70, 261]], {}, "prompt 0 has the token 261; the model's tokens are 0 to 260"),
        ([[-1]], {}, "prompt 0 has the token -1"),
        ([[70]], {"stop": ["a", ""]}, "a stop string is empty"),
        ([[70] * 1000], {"max_new_tokens": 25}, "prompt 0 has 1000 tokens and may get 25 more"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_input_is_refused_at_the_call(sampler, prompts, settings, message):
    with pytest.raises(UserError, match=message):
        sampler.generate(prompts, **settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"slots": 0}, "slots=0 must be at least 1"),
        ({"page": 0}, "page=0 must be at least 1"),
        ({"chunk": -1}, "chunk=-1 must be at least 1"),
        ({"cache_gib": -0.5}, "cache_gib=-0.5 must be at least 0"),
        (
            {"cache_dtype": "int8"},
            "cache_dtype='int8' is invalid; choose one of '', float32, bfloat16",
        ),
    ],
    ids=str,
)
def test_batching_that_cannot_be_is_refused(changed, message):
    with pytest.raises(UserError, match=message):
        Batching(**changed)


def test_numbers_may_be_numpys(sampler, few):
    numbers = {"max_new_tokens": np.int64(20), "seed": np.int64(3)}
    assert lists(drawn(sampler, PROMPTS, 8, **numbers)) == lists(few)


@pytest.mark.parametrize("prompt", ["def f", [70, 71], [{"role": "user", "content": "hi"}]])
def test_one_prompt_is_no_list_of_prompts(sampler, prompt):
    with pytest.raises(UserError, match="single prompt; put it into a list"):
        sampler.generate(prompt)


def test_a_prompt_longer_than_the_cache_is_refused_at_the_call(tiny):
    """A page of the very small model has 2 KiB: 16 KiB hold the null page and 7 others."""
    kib = 2 * 2 * 2 * PAGE * 8 * 4 / 1024
    assert kib == 2
    small = dataclasses.replace(BATCHING, cache_gib=16 / 2**20)
    sampler = Sampler(model_of(tiny), tiny[2], small)
    assert len(drawn(sampler, [[70] * 30], 3, max_new_tokens=10, ignore_eos=True)) == 3
    with pytest.raises(UserError, match=r"70 tokens .* lower max_new_tokens, raise cache_gib"):
        sampler.generate([[70] * 60], 3, max_new_tokens=10)
