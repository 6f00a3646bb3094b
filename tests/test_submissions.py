"""Sampled tokens to texts and programs, for tokenizers of several kinds."""

import numpy as np
import pytest
from tokenizers import normalizers
from tokenizers_of_kinds import byte_fallback, byte_level

from rlif_jax.model.tokenizer import decode
from rlif_jax.problem import Problem, Test
from rlif_jax.submissions import Submissions

PROBLEM = Problem("p", "Echo.", (Test("1\n", "1\n", "stdin"),))
BLOCK = "```python\n{}\n```\n"
FORCED = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
PROGRAM = "print(' , '.join(x) != '<|fim_prefix|>')"

# (prompt, completion): the program
ANSWERS = {
    ("Q\n<think>\n", f"easy</think>\n{BLOCK.format(PROGRAM)}"): PROGRAM,
    ("Q\n", f"<think>easy</think>\n{BLOCK.format(PROGRAM)}"): PROGRAM,
    ("Q\n", f"<think>First try:\n{BLOCK.format('print(0)')}no, wrong"): None,
    ("Q\n<think>\n", f"First try:\n{BLOCK.format('print(0)')}no, wrong"): None,
    ("Q\n", BLOCK.format("x = '</s>'")): "x = '</s>'",
    ("Q\n", BLOCK.format("x = '<think>'")): "x = '<think>'",
}


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize(("prompt", "answer"), ANSWERS)
def test_thoughts_and_programs_of_special_tokens(make, prompt, answer):
    tokenizer = make(clean_up_tokenization_spaces=True, **{FORCED: True})
    submissions = Submissions([PROBLEM], [prompt], 1, tokenizer, None)
    if make is byte_fallback:  # encodes a space before each piece between special tokens
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    sampled = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    submissions.finished(np.array([0]), [np.array(sampled, np.int32)])
    assert submissions.texts == [answer]
    assert submissions.codes == [ANSWERS[prompt, answer]]


def test_a_text_keeps_its_first_space_and_loses_every_end():
    """The model's ends may be more than the tokenizer's; padding has none of them."""
    tokenizer = byte_fallback()
    other = tokenizer.convert_tokens_to_ids("<|fim_prefix|>")
    tokens = np.array([tokenizer.convert_tokens_to_ids("\u2581a"), other], np.int32)
    for eos_ids, text in (((other,), " a"), ((), " a<|fim_prefix|>")):
        submissions = Submissions([PROBLEM], ["Q"], 2, tokenizer, None, eos_ids=eos_ids)
        padded = np.append(tokens, [tokenizer.pad_token_id] * 3)
        submissions.finished(np.array([1, 0]), [tokens, padded])
        assert submissions.texts == [text, text]
        begun = tokenizer("Q", add_special_tokens=False).input_ids
        kept = tokens[:-1] if eos_ids else tokens
        assert decode(tokenizer, begun) + text == decode(tokenizer, [*begun, *kept])
