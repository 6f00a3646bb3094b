"""Messages, tokens and padding, to the character."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.data.prompts import PromptOptions, encode_prompt, pad_prompts, prompt_messages
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test

STDIN = Problem("p", "Double the number.", (Test("2", "4", "stdin"),))
FUNCTION = Problem(
    "f",
    "Double n.\n",
    (Test("2", "4", "functional"),),
    starter_code="def double(n: int) -> int:\n    ",
    entry_point="double",
)
BRIEF = PromptOptions(system_prompt="Be brief.")
STDIN_TEXT = (
    "Double the number.\n\nWrite a Python program that reads standard input and prints the answer, "
    "in one ```python block."
)
FUNCTION_TEXT = (
    "Double n.\n\nComplete this function and put it in one ```python block:\n"
    "```python\ndef double(n: int) -> int:\n```"
)


def test_messages():
    assert prompt_messages(STDIN) == [{"role": "user", "content": STDIN_TEXT}]
    assert prompt_messages(FUNCTION, BRIEF) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": FUNCTION_TEXT},
    ]


def test_a_confidence_is_asked_for_at_the_end(tokenizer):
    request = (
        "\n\nEnd your answer with the probability that the program is correct, a number from 0 to "
        "1, between <confidence> and </confidence>."
    )
    asking = PromptOptions(ask_confidence=True)
    for problem, text in ((STDIN, STDIN_TEXT), (FUNCTION, FUNCTION_TEXT)):
        assert prompt_messages(problem, asking)[0]["content"] == text + request
    asked = tokenizer.decode(encode_prompt(tokenizer, STDIN, asking))
    assert asked == f"<bos><|user|>{STDIN_TEXT}{request}<|end|><|assistant|>"
    for style in ("livecodebench", "livecodebench_qwen"):
        with pytest.raises(UserError, match=f"published text of prompt_style={style}; choose"):
            encode_prompt(tokenizer, STDIN, PromptOptions(style, ask_confidence=True))


def test_function_without_starter_code_is_named():
    problem = Problem("f", "Double n.", FUNCTION.tests, entry_point="double")
    assert prompt_messages(problem)[0]["content"] == (
        "Double n.\n\nWrite the Python function double, in one ```python block."
    )


@pytest.mark.parametrize(
    ("problem", "system_prompt", "text"),
    [
        (STDIN, "", f"<bos><|user|>{STDIN_TEXT}<|end|><|assistant|>"),
        (FUNCTION, "Hé.", f"<bos><|system|>Hé.<|end|><|user|>{FUNCTION_TEXT}<|end|><|assistant|>"),
    ],
)
def test_encoding_follows_the_chat_template(tokenizer, problem, system_prompt, text):
    ids = encode_prompt(tokenizer, problem, PromptOptions(system_prompt=system_prompt))
    assert all(type(i) is int for i in ids)
    assert tokenizer.decode(ids) == text
    # The tokenizer itself prepends <bos>, as the template does: there must be one, not two.
    assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    # Markers are single tokens and the answer starts right after the last one.
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")


def test_tokenizer_without_chat_template(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(UserError, match="no chat template"):
        encode_prompt(tokenizer, STDIN)


def test_template_that_takes_no_system_message(tokenizer, monkeypatch):
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ messages[0].content }}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    assert tokenizer.decode(encode_prompt(tokenizer, STDIN)) == STDIN_TEXT
    with pytest.raises(UserError, match=r"refused the prompt: no system role.*data\.system_prompt"):
        encode_prompt(tokenizer, STDIN, BRIEF)


@pytest.mark.parametrize("template", ["{{ messages[0].content", "{% endfor %}"])
def test_a_damaged_template_is_named(tokenizer, monkeypatch, template):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(UserError, match=r"chat template of .* refused the prompt"):
        encode_prompt(tokenizer, STDIN)


def test_a_template_without_the_first_token_gets_none(tokenizer, monkeypatch):
    """As transformers has it: the template alone says what a prompt begins with."""
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages[0].content }}<|assistant|>")
    ids = encode_prompt(tokenizer, STDIN)
    assert tokenizer.decode(ids) == f"{STDIN_TEXT}<|assistant|>"
    assert tokenizer.bos_token_id not in ids


def test_padding_is_on_the_left():
    prompts = pad_prompts([[1, 2, 3], [0], [4, 5, 6, 7, 8]], pad_id=0)
    np.testing.assert_array_equal(
        prompts.tokens,
        [[0, 0, 1, 2, 3], [0, 0, 0, 0, 0], [4, 5, 6, 7, 8]],
    )
    # The second prompt is one token that equals the padding; the mask still counts it.
    np.testing.assert_array_equal(
        prompts.mask,
        [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]],
    )


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=20), min_size=1, max_size=6),
    st.integers(0, 100),
)
def test_padding_keeps_every_token(prompts, pad_id):
    padded = pad_prompts(prompts, pad_id)
    assert padded.tokens.dtype == np.int32
    assert padded.mask.dtype == np.bool_
    longest = max(1, *map(len, prompts))
    assert padded.tokens.shape == padded.mask.shape == (len(prompts), longest)
    for tokens, mask, prompt in zip(padded.tokens, padded.mask, prompts, strict=True):
        assert tokens[mask].tolist() == prompt
        assert (tokens[~mask] == pad_id).all()
        assert (np.diff(mask.astype(int)) >= 0).all()
