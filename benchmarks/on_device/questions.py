"""Questions and answers for a model of random weights, which writes no programs.

A token stands for a whole program: the text of a completion is the programs of its tokens one after
the other, and the judge runs the last of them, as it does with every model's answer.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np

from benchmarks.on_device.sizes import StepSize
from rlif_jax.data.prompts import EncodedPrompt
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.execution.pool import Judge
from rlif_jax.experience import Questions
from rlif_jax.problem import Problem, Test
from rlif_jax.submissions import Submissions

_PROGRAMS = (
    "def total(numbers):\n    return sum(numbers)\n",
    "def total(numbers):\n    return max(numbers)\n",
    "def total(numbers):\n    return numbers[0] / 0\n",
)
"""One that passes, one that is wrong at its second test, one that raises."""

_TESTS = (("[3]", "3"), ("[1, 2, 3]", "6"), ("[5, -5]", "0"))


class ProgramTokens:
    """The part of a tokenizer that completions are read with: an id is a program in a fence."""

    eos_token_id = -1
    pad_token_id = -1

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str:
        """The programs of these ids, one after the other."""
        return "".join(f"```python\n{_PROGRAMS[i % len(_PROGRAMS)]}```\n" for i in ids)

    def convert_ids_to_tokens(self, i: int, /) -> str | None:
        """A name of this id."""
        return f"program{i}"


def made_questions(
    size: StepSize, vocab: int, judge: Judge | None, seed: int = 0, shortest: int | None = None
) -> Questions:
    """N problems with random prompts, of `size.prompt` tokens down to `shortest` (half as many)."""
    rng = np.random.default_rng(seed)
    shortest = max(1, size.prompt // 2) if shortest is None else shortest
    lengths = np.linspace(size.prompt, shortest, size.prompts).astype(int)
    tests = tuple(Test(given, wanted, "functional") for given, wanted in _TESTS)
    problems = [
        Problem(f"total{n}", "Add the numbers of a list.", tests, entry_point="total")
        for n in range(size.prompts)
    ]
    prompts = [EncodedPrompt("", rng.integers(0, vocab, n).tolist()) for n in lengths]
    tokenizer = cast(Tokenizer, ProgramTokens())
    return Questions(
        problems, prompts, Submissions(problems, prompts, size.samples, tokenizer, judge)
    )
