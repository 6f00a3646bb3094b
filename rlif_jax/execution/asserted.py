"""A test of kind "assert": its source in one process, the program in another, the judge between.

The source requests one call after another, each as plain data, and receives the program's answers.
The two processes belong to two zygotes and cannot reach each other. All messages between them pass
through here; the judge reads them only to compute the key of the answers.
"""

import time
from dataclasses import dataclass, replace

from rlif_jax.execution.compare import AnswersKey
from rlif_jax.execution.process import TimeLeft
from rlif_jax.execution.program import Program, Run

ANSWERS = ("result", "raised")  # the program's answers that the test's source can receive
CALL_BYTES = 16 << 20
"""Most bytes of one call each way, if output_bytes is less: the size of a right answer is not known
in advance here, and EvalPlus has right results of several megabytes."""


@dataclass(frozen=True)
class Asserted:
    """The outcome of a program and of the source of its test."""

    program: Run | None
    """Its last call, with the CPU time of all calls; None when it was never called."""
    source: Run
    answer: str | None = None
    """The key of what the program returned in all calls, if requested and readable."""


def run_asserted(
    program: Program, source: Program, left: TimeLeft, output_bytes: int, with_answer: bool
) -> Asserted:
    """Run a test's source to its end; the program answers its calls.

    Each of the two may use the time `left` in total. The arguments of one call, and its result,
    may have `output_bytes` or `CALL_BYTES`, whichever is larger. Raises ZygoteLost or SandboxError
    when the machinery fails.
    """
    program.prepare()  # so that both processes start at the same time
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
    """One of the two processes, and the time that it has left."""

    def __init__(self, program: Program, left: TimeLeft, limit: int):
        self._program, self._left, self._limit, self._cpu_s = program, left, limit, 0.0

    def ask(self, text: str) -> Run:
        """Send a message and return the answer, with the CPU time of all messages so far."""
        start = time.monotonic()
        run = self._program.ask(text, self._limit, self._left)
        waited_s = time.monotonic() - start
        self._left = TimeLeft(self._left.cpu_s - run.cpu_s, self._left.wall_s - waited_s)
        self._cpu_s += run.cpu_s
        return replace(run, cpu_s=self._cpu_s)
