"""Problems to chat messages, to tokens, to a padded batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jinja2 import TemplateError

from rlif_jax.batch import Prompts
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem

# Short on purpose: every token of a prompt is computed G times over.
_STDIN_REQUEST = (
    "Write a Python program that reads standard input and prints the answer, "
    "in one ```python block."
)
_FUNCTION_REQUEST = "Complete this function and put it in one ```python block:"


def prompt_messages(problem: Problem, system_prompt: str = "") -> list[dict[str, str]]:
    """Chat messages that pose the problem: the statement, then what to write and in which form.

    Tests never appear, public ones included: examples that a statement needs are part of its text.
    An empty `system_prompt` sends no system message, which leaves the chat template its own.
    """
    if problem.entry_point is None:
        request = _STDIN_REQUEST
    elif problem.starter_code.strip():
        request = f"{_FUNCTION_REQUEST}\n```python\n{problem.starter_code.rstrip()}\n```"
    else:
        request = f"Write the Python function {problem.entry_point}, in one ```python block."
    messages = [{"role": "user", "content": f"{problem.prompt.rstrip()}\n\n{request}"}]
    if system_prompt:
        messages.insert(0, {"role": "system", "content": system_prompt})
    return messages


def encode_prompt(tokenizer: Any, problem: Problem, system_prompt: str = "") -> list[int]:
    """Token ids of the problem under the tokenizer's chat template, up to where the answer starts.

    The template writes all special tokens, and the tokenizer adds none of its own. Raises UserError
    when the tokenizer has no chat template or its template refuses the messages.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template, so problems cannot be "
            "put to this model; use an instruction-tuned model, or add a chat_template to its "
            "tokenizer files."
        )
    try:
        ids = tokenizer.apply_chat_template(
            prompt_messages(problem, system_prompt),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,  # transformers 5 wraps the ids in a BatchEncoding otherwise
        )
    except TemplateError as error:
        raise UserError(
            f"The chat template of {tokenizer.name_or_path!r} refused the prompt: {error}. If it "
            "takes no system message, leave data.system_prompt empty."
        ) from error
    return [int(i) for i in ids]


def pad_prompts(prompts: Sequence[Sequence[int]], pad_id: int, bucket: int) -> Prompts:
    """Stack N token lists, padded on the left to a multiple of `bucket` tokens (at least one).

    `tokens` int32 and `mask` bool are [N, P] NumPy arrays; the mask is true on real tokens,
    whatever their id.
    """
    longest = max(map(len, prompts), default=0)
    width = bucket * max(1, -(-longest // bucket))
    tokens_NP = np.full((len(prompts), width), pad_id, np.int32)
    mask_NP = np.zeros((len(prompts), width), bool)
    for n, prompt in enumerate(prompts):
        tokens_NP[n, width - len(prompt) :] = prompt
        mask_NP[n, width - len(prompt) :] = True
    return Prompts(tokens=tokens_NP, mask=mask_NP)
