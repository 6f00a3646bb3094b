"""LiveCodeBench's forms, and what each model family's chat template makes of them, to the id."""

import json
import re
from typing import get_args

import numpy as np
import pytest
from support import GOLDENS

from rlif_jax.config import Data, PromptStyle
from rlif_jax.data.prompt_styles import WHOLE_TEXTS
from rlif_jax.data.prompts import (
    PromptOptions,
    encode_prompt,
    opens_thinking,
    pose,
    prompt_messages,
    render_prompt,
)
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test
from rlif_jax.submissions import Submissions

OFFICIAL = json.loads((GOLDENS / "livecodebench_prompts.json").read_text())
FAMILIES = json.loads((GOLDENS / "chat_templates.json").read_text())["families"]
R1 = "deepseek_r1_distill_qwen"

STDIN = Problem("p", "Double the number.", (Test("2", "4", "stdin"),))
ASKED = (
    "Double the number.\n\nWrite a Python program that reads standard input and prints the answer, "
    "in one ```python block."
)
NO_THOUGHT = "<think>\n\n</think>\n\n"

LLAMA_SYSTEM = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
)
LLAMA_USER = (
    f"<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{ASKED}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
CHATML_USER = f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n"
R1_USER = f"<｜User｜>{ASKED}<｜Assistant｜>"  # noqa: RUF001
R1_BOS = "<｜begin▁of▁sentence｜>"  # noqa: RUF001

# (family, system prompt, thinking): the prompt in the style "chat"
CHATS = {
    ("llama3", "", "template"): f"{LLAMA_SYSTEM}{LLAMA_USER}",
    ("llama3", "Be brief.", "template"): f"{LLAMA_SYSTEM}Be brief.{LLAMA_USER}",
    ("qwen2.5", "", "template"): (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        f"<|im_end|>\n{CHATML_USER}"
    ),
    ("qwen2.5", "Be brief.", "template"): (
        f"<|im_start|>system\nBe brief.<|im_end|>\n{CHATML_USER}"
    ),
    ("qwen3", "", "template"): CHATML_USER,
    ("qwen3", "", "on"): CHATML_USER,
    ("qwen3", "", "off"): f"{CHATML_USER}{NO_THOUGHT}",
    ("qwen3", "Be brief.", "off"): (
        f"<|im_start|>system\nBe brief.<|im_end|>\n{CHATML_USER}{NO_THOUGHT}"
    ),
    (R1, "", "template"): f"{R1_BOS}{R1_USER}<think>\n",
    (R1, "", "on"): f"{R1_BOS}{R1_USER}<think>\n",
    (R1, "", "off"): f"{R1_BOS}{R1_USER}{NO_THOUGHT}",
    (R1, "Be brief.", "on"): f"{R1_BOS}Be brief.{R1_USER}<think>\n",
}


def exact_ids(family: str, text: str) -> list[int]:
    """Bytes are their own ids, and the family's tokens are numbered from 256 on."""
    tokens = FAMILIES[family]["special_tokens"] + FAMILIES[family]["plain_tokens"]
    pieces = re.split(f"({'|'.join(map(re.escape, tokens))})", text)
    return [
        i
        for piece in pieces
        for i in ([256 + tokens.index(piece)] if piece in tokens else piece.encode())
    ]


def official_problem(name: str) -> Problem:
    fields = OFFICIAL["problems"][name]
    entry_point = "double" if fields["starter_code"] else None
    return Problem(
        name, fields["question_content"], STDIN.tests, fields["starter_code"], entry_point
    )


@pytest.mark.parametrize("name", ["stdin", "function"])
def test_official_texts(name):
    problem = official_problem(name)
    messages = prompt_messages(problem, PromptOptions("livecodebench"))
    assert messages == OFFICIAL["prompts"]["livecodebench"][name]
    for style, form in WHOLE_TEXTS.items():
        assert form.text(problem, "") == OFFICIAL["prompts"][style][name], style


def test_every_style_is_described_and_has_its_official_text():
    assert set(get_args(PromptStyle)) == {"chat", *OFFICIAL["prompts"]}
    assert {"livecodebench", *WHOLE_TEXTS} == set(OFFICIAL["prompts"])


@pytest.mark.parametrize(("family", "system_prompt", "thinking"), CHATS)
def test_text_and_ids_of_each_family(family_tokenizers, family, system_prompt, thinking):
    tokenizer, text = family_tokenizers[family], CHATS[family, system_prompt, thinking]
    options = PromptOptions("chat", system_prompt, thinking)
    assert render_prompt(tokenizer, STDIN, options) == text
    ids = encode_prompt(tokenizer, STDIN, options)
    assert ids == exact_ids(family, text)
    assert all(type(i) is int for i in ids)
    assert tokenizer.decode(ids) == text


def test_ids_by_hand(family_tokenizers):
    assert encode_prompt(family_tokenizers["qwen3"], STDIN, PromptOptions(thinking="off")) == [
        *(257, *b"user\n", *ASKED.encode(), 258, *b"\n", 257, *b"assistant\n"),
        *(259, *b"\n\n", 260, *b"\n\n"),
    ]
    ids = encode_prompt(family_tokenizers[R1], STDIN)
    assert ids == [256, 258, *ASKED.encode(), 259, 260, *b"\n"]


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_makes_the_same_ids(family_tokenizers, family):
    tokenizer = family_tokenizers[family]
    for system_prompt in ("", "Be brief."):
        options = PromptOptions("livecodebench", system_prompt)
        expected = tokenizer.apply_chat_template(
            prompt_messages(STDIN, options),
            add_generation_prompt=True,
            return_dict=False,
            date_string="26 Jul 2024",
        )
        assert encode_prompt(tokenizer, STDIN, options) == expected


@pytest.mark.parametrize(
    ("family", "style"),
    [
        *((family, style) for family in FAMILIES for style in ("chat", "livecodebench")),
        *(("qwen2.5", style) for style in ("livecodebench_qwen", "livecodebench_qwq")),
        (R1, "livecodebench_deepseek_r1"),
    ],
)
def test_one_first_token_or_none(family_tokenizers, family, style):
    """The tokenizers of Llama and R1 put it before every text, as their prompts do."""
    tokenizer = family_tokenizers[family]
    ids = encode_prompt(tokenizer, official_problem("stdin"), PromptOptions(style))
    if FAMILIES[family]["tokenizer_adds_bos"]:
        assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id == ids[0]
        assert ids.count(tokenizer.bos_token_id) == 1
    else:
        assert tokenizer.bos_token_id is None
        assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_whole_texts_are_tokenised_with_their_special_tokens(family_tokenizers):
    for family, style in (("qwen3", "livecodebench_qwq"), (R1, "livecodebench_deepseek_r1")):
        text = OFFICIAL["prompts"][style]["function"]
        ids = encode_prompt(
            family_tokenizers[family], official_problem("function"), PromptOptions(style)
        )
        assert ids == exact_ids(family, text)


@pytest.mark.parametrize("style", ["livecodebench", *WHOLE_TEXTS])
def test_the_users_system_message_takes_the_place_of_the_styles(family_tokenizers, style):
    tokenizer = family_tokenizers[R1 if style == "livecodebench_deepseek_r1" else "qwen3"]
    official = OFFICIAL["prompts"][style]["stdin"]
    own = official[0]["content"] if style == "livecodebench" else WHOLE_TEXTS[style].system
    plain = render_prompt(tokenizer, official_problem("stdin"), PromptOptions(style))
    assert plain.count(own) == 1
    mine = render_prompt(tokenizer, official_problem("stdin"), PromptOptions(style, "Be brief."))
    assert mine == plain.replace(own, "Be brief.")


@pytest.mark.parametrize("style", ["livecodebench_qwen", "livecodebench_qwq"])
@pytest.mark.parametrize(("thinking", "end"), [("on", "<think>\n"), ("off", NO_THOUGHT)])
def test_thinking_follows_a_whole_text(family_tokenizers, style, thinking, end):
    options = PromptOptions(style, thinking=thinking)
    text = render_prompt(family_tokenizers["qwen3"], official_problem("stdin"), options)
    assert text == OFFICIAL["prompts"][style]["stdin"] + end


@pytest.mark.parametrize(
    "written", ["", "<think>", "<think>\n", "<think>\n\n</think>\n\n", "<think></think>"]
)
def test_thinking_does_not_depend_on_what_the_template_ends_in(
    family_tokenizers, monkeypatch, written
):
    """Templates of the R1 distills are about that open the thinking and that do not."""
    tokenizer = family_tokenizers[R1]
    template = tokenizer.chat_template.replace("<think>\\n", written.replace("\n", "\\n"))
    monkeypatch.setattr(tokenizer, "chat_template", template)
    start = f"{R1_BOS}{R1_USER}"
    assert render_prompt(tokenizer, STDIN) == start + written
    assert render_prompt(tokenizer, STDIN, PromptOptions(thinking="on")) == f"{start}<think>\n"
    assert render_prompt(tokenizer, STDIN, PromptOptions(thinking="off")) == start + NO_THOUGHT


@pytest.mark.parametrize("thinking", ["on", "off"])
@pytest.mark.parametrize(
    ("family", "style"),
    [("llama3", "chat"), ("qwen2.5", "livecodebench"), ("qwen2.5", "livecodebench_qwen")],
)
def test_a_model_that_cannot_think_is_refused(family_tokenizers, family, style, thinking):
    with pytest.raises(UserError, match=f"thinking={thinking} needs .*choose thinking=template"):
        render_prompt(family_tokenizers[family], STDIN, PromptOptions(style, "", thinking))


def test_a_template_that_only_speaks_of_enable_thinking_does_not_read_it(
    family_tokenizers, monkeypatch
):
    tokenizer = family_tokenizers["qwen2.5"]
    template = f"{{# enable_thinking #}}{{{{ 'enable_thinking' }}}}{tokenizer.chat_template}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(UserError, match="thinking=off needs"):
        render_prompt(tokenizer, STDIN, PromptOptions(thinking="off"))


@pytest.mark.parametrize(
    ("family", "style", "lacking"),
    [
        ("llama3", "livecodebench_qwen", "<|im_start|>, <|im_end|>"),
        ("qwen3", "livecodebench_deepseek_r1", R1_BOS),
    ],
)
def test_a_whole_text_of_another_family_is_refused(family_tokenizers, family, style, lacking):
    with pytest.raises(UserError) as error:
        render_prompt(family_tokenizers[family], STDIN, PromptOptions(style))
    assert f"prompt_style={style} writes {lacking}" in str(error.value)
    assert "choose prompt_style=livecodebench," in str(error.value)


def test_a_whole_text_needs_no_chat_template(family_tokenizers, monkeypatch):
    tokenizer = family_tokenizers["qwen2.5"]
    monkeypatch.setattr(tokenizer, "chat_template", None)
    text = render_prompt(tokenizer, official_problem("stdin"), PromptOptions("livecodebench_qwen"))
    assert text == OFFICIAL["prompts"]["livecodebench_qwen"]["stdin"]
    with pytest.raises(UserError, match="prompt_style without one: livecodebench_qwen, "):
        render_prompt(tokenizer, STDIN, PromptOptions("livecodebench"))


@pytest.mark.parametrize("style", ["livecodebench", *WHOLE_TEXTS])
def test_a_function_without_starter_code_is_refused(family_tokenizers, style):
    problem = Problem("f7", "Double n.", STDIN.tests, entry_point="double")
    tokenizer = family_tokenizers[R1 if style == "livecodebench_deepseek_r1" else "qwen3"]
    with pytest.raises(UserError, match=r"'f7' asks for the function double .*prompt_style=chat"):
        render_prompt(tokenizer, problem, PromptOptions(style))


def test_only_the_end_of_a_prompt_opens_the_thinking(family_tokenizers):
    tokenizer = family_tokenizers[R1]
    speaking = OFFICIAL["prompts"]["livecodebench_deepseek_r1"]["stdin"]
    assert "<think>" in speaking
    assert not opens_thinking(speaking)
    asked = Problem("q", "What does <think> mean?", STDIN.tests)
    assert not opens_thinking(render_prompt(tokenizer, asked, PromptOptions(thinking="off")))
    assert opens_thinking(render_prompt(tokenizer, asked))
    assert opens_thinking("<think>")


TRIED = "Try\n```python\nx = 1\n```\n"
ANSWERED = f"{TRIED}</think>\n```python\nx = 2\n```"


@pytest.mark.parametrize(
    ("thinking", "codes"),
    [("template", [None, "x = 2"]), ("on", [None, "x = 2"]), ("off", ["x = 1", "x = 2"])],
)
def test_a_block_in_an_unfinished_thought_is_no_answer(family_tokenizers, thinking, codes):
    """The prompt holds the <think>, so the completion alone does not show that it is a thought."""
    tokenizer = family_tokenizers[R1]
    options = PromptOptions.of(Data(thinking=thinking))
    prompt = pose(tokenizer, STDIN, options)
    submissions = Submissions([STDIN], [prompt], 2, tokenizer, None)
    tokens = [
        np.array([*exact_ids(R1, text), tokenizer.eos_token_id]) for text in (ANSWERED, TRIED)
    ]
    submissions.finished(np.array([1, 0]), tokens)
    assert submissions.codes == codes
    assert submissions.texts == [TRIED, ANSWERED]  # as sampled: no <think> put before them
