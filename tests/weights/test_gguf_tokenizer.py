"""The tokenizer built from a GGUF file: against transformers' for SmolLM2, by hand for the rest."""

import json

import pytest
from support import GOLDENS
from support.tiny_gguf import TINY, TOKENS, gguf_tensors, write_gguf

from rlif_jax.errors import UserError
from rlif_jax.weights.gguf_header import open_gguf
from rlif_jax.weights.gguf_tokenizer import read_gguf_tokenizer
from rlif_jax.weights.tokenizer import decode

GOLDEN = json.loads((GOLDENS / "smollm2_tokens.json").read_text("utf-8"))


@pytest.fixture
def write(tmp_path, tiny):
    """Write a tiny GGUF with changed tokenizer metadata and read the tokenizer back."""

    def read(**changed):
        path = write_gguf(tmp_path / "tiny.gguf", gguf_tensors(tiny), **changed)
        return read_gguf_tokenizer(open_gguf(path), path)

    return read


@pytest.mark.parametrize("text", GOLDEN["strings"])
def test_smollm2_ids_equal_transformers(smollm2, text):
    _, tokenizer = smollm2
    assert tokenizer(text).input_ids == GOLDEN["strings"][text]
    assert tokenizer.decode(GOLDEN["strings"][text]) == GOLDEN["decoded"][text] == text


@pytest.mark.parametrize("chat", GOLDEN["chats"], ids=["default-system", "four-turns"])
def test_smollm2_chat_template(smollm2, chat):
    _, tokenizer = smollm2
    text = tokenizer.apply_chat_template(
        chat["messages"], tokenize=False, add_generation_prompt=True
    )
    assert text == chat["text"]
    assert tokenizer(text).input_ids == chat["ids"]


def test_smollm2_special_tokens(smollm2):
    _, tokenizer = smollm2
    for name, token in GOLDEN["special"].items():
        assert getattr(tokenizer, name) == token
    ids = tokenizer("<|im_start|>user\nhi<|im_end|>").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\nhi"


def test_digits_are_cut_one_by_one_before_blanks_join_them(smollm2):
    # "a  1": the two blanks stay one piece because the digit was cut off first.
    _, tokenizer = smollm2
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  12").input_ids) == ["a", "ĠĠ", "1", "2"]


def test_merges_and_special_tokens_of_a_tiny_file(write):
    tokenizer = write()
    pieces = [TOKENS[i] for i in tokenizer("ab a<|im_end|><tool>").input_ids]
    assert pieces == ["ab", "Ġ", "a", "<|im_end|>", "<tool>"]
    both = tokenizer("<tool><|im_end|>").input_ids
    # To transformers user-defined tokens are text, and control tokens are not.
    assert tokenizer.decode(both, skip_special_tokens=True) == "<tool>"
    assert decode(tokenizer, both) == "<tool><|im_end|>"
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template is None


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "x 1234", ["x", " ", "1", "2", "3", "4"]),
        ("gpt-2", "x 1234", ["x", " 1234"]),
        ("default", "x 1234", ["x", " 1234"]),
        ("qwen2", "x 1234", ["x", " ", "1", "2", "3", "4"]),
        ("llama-bpe", "x 1234", ["x", " ", "123", "4"]),
        ("qwen2", "a.b\n\nI'M", ["a", ".b", "\n\n", "I", "'M"]),
        ("deepseek-r1-qwen", "a  b", ["a", " ", " b"]),
        ("gpt-2", "a.b\n\nI'M", ["a", ".", "b", "\n", "\n", "I", "'", "M"]),
    ],
)
def test_pre_tokenizers_cut_as_published(write, pre, text, pieces):
    tokenizer = write(pre=pre)
    spans = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [text[a:b] for _, (a, b) in spans] == pieces


def test_qwen2_normalises_to_nfc(write):
    normalizer = write(pre="qwen2").backend_tokenizer.normalizer
    assert normalizer.normalize_str("a\u0301") == "\u00e1"


def test_bos_is_prepended_when_the_file_says_so(write):
    assert write(add_bos=True)("ab").input_ids == [0, TOKENS.index("ab")]
    assert write(add_bos=False)("ab").input_ids == [TOKENS.index("ab")]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"pre": "klingon"}, "klingon"),
        ({"tokenizer": "llama"}, "'llama'"),
        ({"merges": ["a zz"]}, "merges"),
        ({"eos": 99}, "99"),
        ({"tokens": [*TOKENS, "ab"]}, "'ab' twice"),
    ],
)
def test_refused_tokenizers_are_named(write, changed, named):
    with pytest.raises(UserError, match=named):
        write(**changed)


def test_vocabulary_is_whole(write):
    assert len(write()) == TINY.vocab_size
