"""Problems to chat messages, to text, to tokens, to a padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlif_jax.batch import Prompts
from rlif_jax.config import PromptOptions, Thinking
from rlif_jax.data.chat_template import render_chat
from rlif_jax.data.extract import THINK, THINK_END
from rlif_jax.data.prompt_styles import WHOLE_TEXTS, livecodebench_messages
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem

# Short on purpose: every token of a prompt is computed G times over.
_STDIN_REQUEST = (
    "Write a Python program that reads standard input and prints the answer, "
    "in one ```python block."
)
_FUNCTION_REQUEST = "Complete this function and put it in one ```python block:"
_CONFIDENCE_REQUEST = (
    "End your answer with the probability that the program is correct, a number from 0 to 1, "
    "between <confidence> and </confidence>."
)


DEFAULT_OPTIONS = PromptOptions()


def prompt_messages(
    problem: Problem, options: PromptOptions = DEFAULT_OPTIONS
) -> list[dict[str, str]]:
    """Chat messages that pose the problem: the statement, then what to write and in which form.

    Tests never appear, public ones included: examples that a statement needs are part of its text.
    In the style "chat" an empty system prompt sends no system message, which leaves the chat
    template its own.

    Raises UserError for a style that has no messages.
    """
    if options.prompt_style == "livecodebench":
        return livecodebench_messages(problem, options.system_prompt)
    if options.prompt_style != "chat":
        raise UserError(
            f"prompt_style={options.prompt_style} is not made of chat messages; use chat."
        )
    if problem.entry_point is None:
        request = _STDIN_REQUEST
    elif problem.starter_code.strip():
        request = f"{_FUNCTION_REQUEST}\n```python\n{problem.starter_code.rstrip()}\n```"
    else:
        request = f"Write the Python function {problem.entry_point}, in one ```python block."
    if options.ask_confidence:
        request = f"{request}\n\n{_CONFIDENCE_REQUEST}"
    messages = [{"role": "user", "content": f"{problem.prompt.rstrip()}\n\n{request}"}]
    if options.system_prompt:
        messages.insert(0, {"role": "system", "content": options.system_prompt})
    return messages


def _check_asked(options: PromptOptions) -> None:
    """Refuse to add a sentence to a published text. Raises UserError."""
    if options.ask_confidence and options.prompt_style != "chat":
        raise UserError(
            f"ask_confidence=True would change the published text of prompt_style="
            f"{options.prompt_style}; choose prompt_style=chat."
        )


def render_prompt(
    tokenizer: Tokenizer, problem: Problem, options: PromptOptions = DEFAULT_OPTIONS
) -> str:
    """The text that poses the problem, special tokens included, up to where the answer starts.

    Raises UserError when the tokenizer has no chat template and the style needs one, when its
    template refuses the messages, when it lacks a special token that the style writes out, when
    thinking cannot be switched, and when another style than "chat" is to ask for a confidence.
    """
    _check_asked(options)
    if whole := WHOLE_TEXTS.get(options.prompt_style):
        lacking = [token for token in whole.special_tokens if not _has_token(tokenizer, token)]
        if lacking:
            raise UserError(
                f"prompt_style={options.prompt_style} writes {', '.join(lacking)}, which the "
                f"tokenizer {tokenizer.name_or_path!r} does not have; choose "
                "prompt_style=livecodebench, which uses the model's own chat template."
            )
        text = whole.text(problem, options.system_prompt)
        thinks = options.thinking
        return text if thinks == "template" else _with_thinking(tokenizer, text, thinks)
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template, so problems cannot be "
            "posed to this model; use an instruction-tuned model, add a chat_template to its "
            f"tokenizer files, or choose a prompt_style without one: {', '.join(WHOLE_TEXTS)}."
        )
    return render_messages(tokenizer, prompt_messages(problem, options), options)


def render_messages(
    tokenizer: Tokenizer, messages: list[dict[str, str]], options: PromptOptions
) -> str:
    """Messages under the tokenizer's chat template, up to where the answer starts.

    Raises UserError when the template refuses them, and when thinking cannot be switched.
    """
    thinking = None if options.thinking == "template" else options.thinking == "on"
    text, switched = render_chat(tokenizer, messages, thinking)
    if options.thinking == "template" or switched:
        return text
    return _with_thinking(tokenizer, text, options.thinking)


@dataclass(frozen=True)
class EncodedPrompt:
    """A problem as it is put to a model: the text, and its token ids."""

    text: str
    tokens: list[int]


def pose(
    tokenizer: Tokenizer, problem: Problem, options: PromptOptions = DEFAULT_OPTIONS
) -> EncodedPrompt:
    """`render_prompt`, which writes all special tokens, with its ids: the tokenizer adds none.

    So there is one beginning-of-sequence token where the text begins with it, and none elsewhere.
    Raises as `render_prompt` does.
    """
    text = render_prompt(tokenizer, problem, options)
    return EncodedPrompt(text, encode_text(tokenizer, text))


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """The token ids of a prompt's whole text."""
    return [int(i) for i in tokenizer(text, add_special_tokens=False).input_ids]


def encode_prompt(
    tokenizer: Tokenizer, problem: Problem, options: PromptOptions = DEFAULT_OPTIONS
) -> list[int]:
    """The token ids of `pose` alone."""
    return pose(tokenizer, problem, options).tokens


def opens_thinking(prompt: str) -> bool:
    """Whether a rendered prompt ends inside the thinking, which the completion then continues.

    Only its end counts: an instruction may speak of the tags, and a statement may hold anything.
    """
    return prompt.rstrip().endswith(THINK)


def _has_token(tokenizer: Tokenizer, token: str) -> bool:
    return tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id)


def _with_thinking(tokenizer: Tokenizer, text: str, thinking: Thinking) -> str:
    """`text` ending in an open `<think>` (on) or in an empty thought (off), whatever it ended in.

    An empty thought is Qwen3's own way not to think.
    """
    if not (_has_token(tokenizer, THINK) and _has_token(tokenizer, THINK_END)):
        raise UserError(
            f"thinking={thinking} needs a chat template that reads enable_thinking or the tokens "
            f"{THINK} and {THINK_END}, and {tokenizer.name_or_path!r} has neither; choose "
            "thinking=template."
        )
    bare = text.rstrip()
    if bare.endswith(THINK_END) and bare.removesuffix(THINK_END).rstrip().endswith(THINK):
        bare = bare.removesuffix(THINK_END).rstrip()
    if bare.endswith(THINK):
        text = bare.removesuffix(THINK)
    return f"{text}{THINK}\n" if thinking == "on" else f"{text}{THINK}\n\n{THINK_END}\n\n"


def pad_prompts(prompts: Sequence[Sequence[int]], pad_id: int, least: int = 1) -> Prompts:
    """Stack N token lists, padded on the left to the longest, or to `least` columns if more.

    `tokens` int32 and `mask` bool are [N, P] NumPy arrays; the mask is true on real tokens,
    whatever their id.
    """
    width = max(least, *map(len, prompts))
    tokens_NP = np.full((len(prompts), width), pad_id, np.int32)
    mask_NP = np.zeros((len(prompts), width), bool)
    for n, prompt in enumerate(prompts):
        tokens_NP[n, width - len(prompt) :] = prompt
        mask_NP[n, width - len(prompt) :] = True
    return Prompts(tokens=tokens_NP, mask=mask_NP)
