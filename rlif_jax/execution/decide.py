"""From how a program ended on one input to its verdict: pure functions of bytes."""

import contextlib
import signal
from dataclasses import dataclass

from rlif_jax.execution.asserted import ANSWERS, Asserted
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
    status of os._exit is a runtime error.
    """
    if (bad := _bad_end(run, cpu_s)) is not None:
        return bad
    if test.kind == "stdin":
        return _compare_stdout(test, run, tolerance, with_answer)
    return _compare_value(test, run, tolerance, with_answer)


def decide_asserted(test: Test, asserted: Asserted, cpu_s: float) -> Decision:
    """Return the verdict on a test of kind "assert".

    What went wrong in the program's process comes first. Whatever makes the test's source end
    otherwise than normally is a failure of the program, as in plain Python.
    """
    run = asserted.program
    if run is not None:
        if (bad := _bad_end(run, cpu_s)) is not None:
            return bad
        if run.claim is None:
            return Decision(Verdict.RUNTIME_ERROR, "ended before the function returned")
        kind, payload = run.claim
        if kind not in ANSWERS:
            why = f"returned no plain data: {_plain(payload[:300])}"
            return Decision(Verdict.WRONG_ANSWER, why)
    if (bad := _bad_end(asserted.source, cpu_s)) is not None:
        blamed = bad.verdict in (Verdict.RUNTIME_ERROR, Verdict.COMPILE_ERROR)
        verdict = Verdict.WRONG_ANSWER if blamed else bad.verdict
        return Decision(verdict, f"the test's source: {bad.why}")
    verdict, why, answered = _end_of_source(test, asserted.source)
    if verdict is Verdict.PASSED and run is None:
        return Decision(Verdict.WRONG_ANSWER, "the test's source never called the function")
    return Decision(verdict, why, asserted.answer if answered else None)


def _end_of_source(test: Test, run: Run) -> tuple[Verdict, str, bool]:
    """Return verdict and reason as a test's source tells them, and whether all was answered."""
    if run.claim is None:
        return Verdict.WRONG_ANSWER, "the test's source ended early", False
    kind, payload = run.claim
    try:
        what = load_json(payload)
        if kind == "passed":
            return Verdict.PASSED, "", True
        if kind == "raised":
            name, message = what
            return Verdict.RUNTIME_ERROR, _plain(f"the function raised {name}: {message}"), False
        if kind == "refused":
            return Verdict.WRONG_ANSWER, _plain(str(what)[:300]), False
        line, name, message, *more = what
        text = (["", *test.input.splitlines()][line : line + 1] or [""])[0].strip()
    except (TypeError, ValueError):
        return Verdict.WRONG_ANSWER, "the test's source wrote to the judge's descriptor", False
    how = "failed" if kind == "failed" else f"raised {name}"
    said = f": {message}" if message else ""
    why = _plain(f"line {line} of the test, {shorten(text)}, {how}{said}")
    return Verdict.WRONG_ANSWER, why, True not in more


def _bad_end(run: Run, cpu_s: float) -> Decision | None:
    """Return the decision on a process that ran into a limit or ended badly, None for no such."""
    if run.output_limit:
        return Decision(
            Verdict.OUTPUT_LIMIT,
            f"wrote or returned more than the output limit of {run.output_limit / 1024:g} KiB "
            "(--execution.output-kb)",
        )
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
    return None


def _compare_stdout(test: Test, run: Run, tolerance: float, with_answer: bool) -> Decision:
    stdout = run.stdout.decode("utf-8", "surrogateescape")
    key = answer_key("stdin", stdout) if with_answer else None
    if any(stdout_equal(stdout, output, tolerance) for output in test.outputs):
        return Decision(Verdict.PASSED, answer=key)
    why = f"printed {shorten(stdout)}, expected {_expected(test)}"
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
    if any(functional_equal(value, load_json(output), tolerance) for output in test.outputs):
        return Decision(Verdict.PASSED, answer=key)
    why = f"returned {shorten(payload)}, expected {_expected(test)}"
    return Decision(Verdict.WRONG_ANSWER, why, key)


def _expected(test: Test) -> str:
    return " or ".join(map(shorten, test.outputs))


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
