"""From how a program ended on one input to its verdict: pure functions of bytes."""

import contextlib
import signal
from dataclasses import dataclass

from rlif_jax.execution.compare import answer_key, functional_equal, load_json, stdout_equal
from rlif_jax.execution.program import Run
from rlif_jax.execution.sandbox.terms import OUT_OF_MEMORY
from rlif_jax.problem import Test, Verdict

WALL_FACTOR = 5  # wall-clock bound of a test, in its CPU limits


@dataclass(frozen=True)
class Decision:
    """The verdict on one test, the reason, and the key of the program's answer if it gave one."""

    verdict: Verdict
    why: str = ""
    answer: str | None = None


def decide(
    test: Test, run: Run, cpu_s: float, tolerance: float = 0.0, with_answer: bool = True
) -> Decision:
    """Return the verdict on one test, and the answer's key unless that is spared.

    How the process ended comes first: a right answer followed by a crash, a signal or a non-zero
    status of os._exit is a runtime error. SANDBOX_ERROR says that the program was never reached.
    """
    if not run.started:
        tail = run.stderr.decode(errors="replace")
        return Decision(
            Verdict.SANDBOX_ERROR, f"the child ended ({run.exit_code}) too early: {_plain(tail)}"
        )
    if run.output_limit:
        return Decision(Verdict.OUTPUT_LIMIT, "wrote more than the output limit")
    if run.limit == "wall":
        return Decision(
            Verdict.TIME_LIMIT, f"ran longer than {WALL_FACTOR * cpu_s:g} s by the clock"
        )
    if run.limit == "cpu" or run.cpu_s >= cpu_s:
        return Decision(Verdict.TIME_LIMIT, f"used more than {cpu_s:g} s of CPU time")
    if run.limit == "processes":
        return Decision(Verdict.RUNTIME_ERROR, "started too many processes")
    if run.limit == "memory" or run.exit_code == OUT_OF_MEMORY:
        return Decision(Verdict.MEMORY_LIMIT, "ran out of memory")
    if run.syntax_error is not None:
        return Decision(Verdict.COMPILE_ERROR, _plain(run.syntax_error))
    if run.foreign:
        return Decision(Verdict.RUNTIME_ERROR, "wrote to the judge's descriptor")
    if run.exit_code:
        return Decision(Verdict.RUNTIME_ERROR, _status(run))
    if test.kind == "stdin":
        return _compare_stdout(test, run, tolerance, with_answer)
    return _compare_value(test, run, tolerance, with_answer)


def _compare_stdout(test: Test, run: Run, tolerance: float, with_answer: bool) -> Decision:
    stdout = run.stdout.decode("utf-8", "surrogateescape")
    key = answer_key("stdin", stdout) if with_answer else None
    if stdout_equal(stdout, test.output, tolerance):
        return Decision(Verdict.PASSED, answer=key)
    why = f"printed {shorten(stdout)}, expected {shorten(test.output)}"
    return Decision(Verdict.WRONG_ANSWER, why, key)


def _compare_value(test: Test, run: Run, tolerance: float, with_answer: bool) -> Decision:
    if run.claim is None:
        return Decision(Verdict.RUNTIME_ERROR, "ended before the function returned")
    kind, payload = run.claim
    if kind != "result":
        return Decision(Verdict.WRONG_ANSWER, f"returned no JSON value: {_plain(payload[:300])}")
    try:
        value = load_json(payload)
        key = answer_key("functional", payload) if with_answer else None
    except ValueError as error:
        return Decision(Verdict.WRONG_ANSWER, f"returned a value that cannot be read: {error}")
    if functional_equal(value, load_json(test.output), tolerance):
        return Decision(Verdict.PASSED, answer=key)
    why = f"returned {shorten(payload)}, expected {shorten(test.output)}"
    return Decision(Verdict.WRONG_ANSWER, why, key)


def _status(run: Run) -> str:
    if run.exit_code is not None and run.exit_code < 0:
        with contextlib.suppress(ValueError):  # a real-time signal has no name
            return f"killed by {signal.Signals(-run.exit_code).name}"
        return f"killed by signal {-run.exit_code}"
    lines = run.stderr.decode(errors="replace").strip().splitlines()
    return f"exit status {run.exit_code}" + (f": {_plain(lines[-1][:300])}" if lines else "")


def _plain(text: str) -> str:
    """Return `text` with what a terminal would obey written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str) -> str:
    """Return `text` quoted, the middle left out when it is long."""
    return repr(text) if len(text) <= 200 else f"{text[:100]!r}...{text[-100:]!r}"
