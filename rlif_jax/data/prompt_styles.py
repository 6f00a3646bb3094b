"""LiveCodeBench's published prompt forms, to the character.

The wording is that of `lcb_runner/prompts/code_generation.py` in LiveCodeBench/LiveCodeBench, which
names a form for each model by its `LMStyle`:

    livecodebench              LLaMa3 and OpenAIChat: two messages for the model's chat template
    livecodebench_qwen         CodeQwenInstruct: Qwen2, Qwen2.5 and Qwen2.5-Coder
    livecodebench_qwq          QwQ: Qwen's reasoning models
    livecodebench_deepseek_r1  DeepSeekR1: the R1 distills

The last three write the whole text themselves, special tokens included, and use no chat template.
LiveCodeBench chooses by `starter_code` between its two sentences on the format; the statement goes
in unchanged.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rlif_jax.errors import UserError
from rlif_jax.problem import Problem

_TASK = (
    "You will be given a question (problem specification) and will generate a correct Python "
    "program that matches the specification and passes all tests."
)
_PROGRAM_ONLY = " You will NOT return anything except for the program."
SYSTEM_MESSAGE = f"You are an expert Python programmer. {_TASK}"
_WITH_STARTER_CODE = (
    "You will use the following starter code to write the solution to the problem and enclose your "
    "code within delimiters."
)
_WITHOUT_STARTER_CODE = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly "
    "test on the sample inputs). Enclose your code within delimiters as follows. Ensure that when "
    "the python program runs, it reads the inputs, runs the algorithm and writes output to STDOUT."
)
_DEEPSEEK_R1_SYSTEM = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer. The reasoning process and answer are enclosed within <think> </think> "
    "and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>."
)
# DeepSeek's special tokens are written with full-width bars, U+FF5C.
_BAR = "\uff5c"
_CHATML_TURN = "<|im_end|>\n<|im_start|>"


@dataclass(frozen=True)
class WholeText:
    """A form that needs no chat template: `opening` + system message + `request` + ... + `closing`.

    `system` is the form's own system message, which a user's replaces.
    """

    opening: str
    system: str
    request: str
    closing: str

    @property
    def special_tokens(self) -> list[str]:
        """The special tokens that the form writes out, each once."""
        written = re.findall(
            rf"<[|{_BAR}][^<>]+[|{_BAR}]>", self.opening + self.request + self.closing
        )
        return list(dict.fromkeys(written))

    def text(self, problem: Problem, system_prompt: str) -> str:
        """The prompt; an empty `system_prompt` keeps the form's own system message."""
        return (
            f"{self.opening}{system_prompt or self.system}{self.request}\n\n"
            f"Question: {problem.prompt}\n\n{_format(problem)}{self.closing}"
        )


WHOLE_TEXTS: Mapping[str, WholeText] = {
    "livecodebench_qwen": WholeText(
        opening="<|im_start|>system\n",
        system="You are a helpful assistant.",
        request=f"{_CHATML_TURN}user\n\n{_TASK}{_PROGRAM_ONLY}",
        closing=f"{_CHATML_TURN}assistant\n",
    ),
    "livecodebench_qwq": WholeText(
        opening="<|im_start|>system\n",
        system=(
            "You are a helpful and harmless assistant. You are Qwen developed by Alibaba. "
            "You should think step-by-step."
        ),
        request=f"{_CHATML_TURN}user\n\n{_TASK}",
        closing=f"{_CHATML_TURN}assistant\n",
    ),
    "livecodebench_deepseek_r1": WholeText(
        opening=f"<{_BAR}begin▁of▁sentence{_BAR}>",
        system=_DEEPSEEK_R1_SYSTEM,
        request=f"<{_BAR}User{_BAR}>{_TASK}",
        closing=f"<{_BAR}Assistant{_BAR}>",
    ),
}


def livecodebench_messages(problem: Problem, system_prompt: str) -> list[dict[str, str]]:
    """The two messages of the generic form; an empty `system_prompt` keeps the form's own.

    Raises UserError for a function without starter code, for which the form has no words.
    """
    request = (
        f"### Question:\n{problem.prompt}\n\n### Format: {_format(problem)}"
        "### Answer: (use the provided format with backticks)\n\n"
    )
    return [
        {"role": "system", "content": system_prompt or SYSTEM_MESSAGE},
        {"role": "user", "content": request},
    ]


def _format(problem: Problem) -> str:
    """The sentence on the format and the block to fill in, with the blank line after it."""
    if problem.starter_code:
        return f"{_WITH_STARTER_CODE}\n```python\n{problem.starter_code}\n```\n\n"
    if problem.entry_point is not None:
        raise UserError(
            f"Problem {problem.id!r} asks for the function {problem.entry_point} and has no "
            "starter_code, so LiveCodeBench's prompt would ask for a program that reads standard "
            "input; add the starter code to the problem, or choose prompt_style=chat."
        )
    return f"{_WITHOUT_STARTER_CODE}\n```python\n# YOUR CODE HERE\n```\n\n"
