"""A test of kind "assert": its source in one process, the program in another, the judge between.

The source asks for one call after another, each as plain data, and gets the program's answers. The
two processes belong to two zygotes and cannot reach each other; what passes between them passes
here, unread but for the key of the answers.
"""

import time
from dataclasses import dataclass, replace

from rlif_jax.execution.compare import AnswersKey
from rlif_jax.execution.process import Left
from rlif_jax.execution.program import Program, Run

ANSWERS = ("result", "raised")  # of a program's, those that its test's source can be given
CALL_BYTES = 16 << 20
"""What may pass in one call each way, if output_bytes is less: what is right cannot be told ahead
here, and EvalPlus has right results of several megabytes."""


@dataclass(frozen=True)
class Asserted:
    """What became of a program and of the source of its test."""

    program: Run | None
    """As of its last call, with the CPU time of all; None when there was none."""
    source: Run
    answer: str | None = None
    """The key of what the program returned in all calls, if it was asked for and can be read."""


def run_asserted(
    program: Program, source: Program, left: Left, output_bytes: int, with_answer: bool
) -> Asserted:
    """Run a test's source to its end, with the program at its service.

    Each of the two may use the time `left` once in all; the arguments of one call, and its result,
    may have `output_bytes` or `CALL_BYTES`, the larger. Raises ZygoteLost or SandboxError when the
    machinery fails.
    """
    program.prepare()  # so that both are made at the same time
    limit = max(output_bytes, CALL_BYTES)
    asking, answering = _Side(source, left, limit), _Side(program, left, limit)
    key = AnswersKey() if with_answer else None
    question, answer = asking.ask(""), None
    while question.claim is not None and question.claim[0] == "call":
        answer = answering.ask(question.claim[1])
        if answer.claim is None or answer.claim[0] not in ANSWERS:
            break
        if key is not None:
            key.add(*answer.claim)
        question = asking.ask(" ".join(answer.claim))
    return Asserted(answer, question, key.digest() if key and answer else None)


class _Side:
    """One of the two processes, and the time that it has used."""

    def __init__(self, program: Program, left: Left, limit: int):
        self._program, self._left, self._limit, self._cpu_s = program, left, limit, 0.0

    def ask(self, text: str) -> Run:
        """Say something and hear the answer, which counts all CPU time so far."""
        start = time.monotonic()
        run = self._program.ask(text, self._limit, self._left)
        waited_s = time.monotonic() - start
        self._left = Left(self._left.cpu_s - run.cpu_s, self._left.wall_s - waited_s)
        self._cpu_s += run.cpu_s
        return replace(run, cpu_s=self._cpu_s)
