"""The verdict on one input from how the program ended: pure functions of bytes."""

import contextlib
import signal
from dataclasses import dataclass

from rlif_jax.execution.asserted import ANSWERS, Asserted
from rlif_jax.execution.compare import answer_key, functional_equal, load_json, stdout_equal
from rlif_jax.execution.program import Run
from rlif_jax.execution.sandbox.protocol import OUT_OF_MEMORY
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
    """Return the verdict on one test, and the answer's key if `with_answer`.

    How the process ended comes first: a right answer followed by a crash, a signal or a non-zero
    status of os._exit is a runtime error.
    """
    if (bad := _abnormal_end(run, cpu_s)) is not None:
        return bad
    if test.kind == "stdin":
        return _compare_stdout(test, run, tolerance, with_answer)
    return _compare_value(test, run, tolerance, with_answer)


def decide_asserted(test: Test, asserted: Asserted, cpu_s: float) -> Decision:
    """Return the verdict on a test of kind "assert".

    A failure in the program's process comes first. Any abnormal end of the test's source is a
    failure of the program, as in plain Python.
    """
    run = asserted.program
    if run is not None:
        if (bad := _abnormal_end(run, cpu_s)) is not None:
            return bad
        if run.claim is None:
            return Decision(Verdict.RUNTIME_ERROR, "ended before the function returned")
        kind, payload = run.claim
        if kind not in ANSWERS:
            why = f"returned a value that is not plain data: {_printable(payload[:300])}"
            return Decision(Verdict.WRONG_ANSWER, why)
    if (bad := _abnormal_end(asserted.source, cpu_s)) is not None:
        blamed = bad.verdict in (Verdict.RUNTIME_ERROR, Verdict.COMPILE_ERROR)
        verdict = Verdict.WRONG_ANSWER if blamed else bad.verdict
        return Decision(verdict, f"the test's source: {bad.why}")
    verdict, why, answered = _end_of_source(test, asserted.source)
    if verdict is Verdict.PASSED and run is None:
        return Decision(Verdict.WRONG_ANSWER, "the test's source never called the function")
    return Decision(verdict, why, asserted.answer if answered else None)


def _end_of_source(test: Test, run: Run) -> tuple[Verdict, str, bool]:
    """Return verdict and reason as a test's source reports them, and whether all calls ran."""
    if run.claim is None:
        return Verdict.WRONG_ANSWER, "the test's source ended early", False
    kind, payload = run.claim
    try:
        what = load_json(payload)
        if kind == "passed":
            return Verdict.PASSED, "", True
        if kind == "raised":
            name, message = what
            why = _printable(f"the function raised {name}: {message}")
            return Verdict.RUNTIME_ERROR, why, False
        if kind == "refused":
            return Verdict.WRONG_ANSWER, _printable(str(what)[:300]), False
        line, name, message, *more = what
        text = (["", *test.input.splitlines()][line : line + 1] or [""])[0].strip()
    except (TypeError, ValueError):
        return Verdict.WRONG_ANSWER, "the test's source wrote to the judge's file descriptor", False
    how = "failed" if kind == "failed" else f"raised {name}"
    said = f": {message}" if message else ""
    why = _printable(f"line {line} of the test, {shorten(text)}, {how}{said}")
    return Verdict.WRONG_ANSWER, why, True not in more


def _abnormal_end(run: Run, cpu_s: float) -> Decision | None:
    """Return the decision on a process that hit a limit or ended abnormally; else None."""
    if run.output_limit:
        return Decision(
            Verdict.OUTPUT_LIMIT,
            f"wrote or returned more than the output limit of {run.output_limit / 1024:g} KiB "
            "(--execution.output-kb)",
        )
    if run.limit == "wall":
        return Decision(
            Verdict.TIME_LIMIT, f"ran longer than {WALL_FACTOR * cpu_s:g} s of wall-clock time"
        )
    if run.limit == "cpu" or run.cpu_s >= cpu_s:
        return Decision(Verdict.TIME_LIMIT, f"used more than {cpu_s:g} s of CPU time")
    if run.limit == "processes":
        return Decision(Verdict.RUNTIME_ERROR, "started too many processes")
    if run.limit == "memory" or run.exit_code == OUT_OF_MEMORY:
        return Decision(Verdict.MEMORY_LIMIT, "ran out of memory")
    if run.syntax_error is not None:
        return Decision(Verdict.COMPILE_ERROR, _printable(run.syntax_error))
    if run.foreign:
        return Decision(Verdict.RUNTIME_ERROR, "wrote to the judge's file descriptor")
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
        why = f"returned a value that is not JSON: {_printable(payload[:300])}"
        return Decision(Verdict.WRONG_ANSWER, why)
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
    return f"exit status {run.exit_code}" + (f": {_printable(lines[-1][:300])}" if lines else "")


def _printable(text: str) -> str:
    """Return `text` with control characters written as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str) -> str:
    """Return `text` quoted, without its middle when it is long."""
    return repr(text) if len(text) <= 200 else f"{text[:100]!r}...{text[-100:]!r}"
