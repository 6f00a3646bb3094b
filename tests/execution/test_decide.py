"""From the end of a process to a verdict: what comes first, and what the answer's key is."""

import signal
from dataclasses import replace

import pytest

from rlif_jax.execution.compare import answer_key
from rlif_jax.execution.decide import WALL_FACTOR, Decision, decide, shorten
from rlif_jax.execution.program import Run
from rlif_jax.execution.sandbox.child import OUT_OF_MEMORY
from rlif_jax.problem import Test, Verdict

CPU_S = 2.0
STDIN = Test("", "7\n0.5\n", "stdin")
CALL = Test("1", "[7, 0.5]", "functional")
PRINTED = Run(cpu_s=0.5, exit_code=0, stdout=b"7\n0.5\n")
RETURNED = Run(cpu_s=0.5, claim=("result", "[7, 0.5]"))

# What may be wrong with a run that gave the right answer, what comes before all below it first.
WRONGS = {
    "too much output": ({"output_limit": 1 << 20}, Verdict.OUTPUT_LIMIT),
    "wall": ({"limit": "wall"}, Verdict.TIME_LIMIT),
    "CPU": ({"cpu_s": 2.5}, Verdict.TIME_LIMIT),
    "processes": ({"limit": "processes"}, Verdict.RUNTIME_ERROR),
    "memory": ({"exit_code": OUT_OF_MEMORY}, Verdict.MEMORY_LIMIT),
    "syntax": ({"syntax_error": "invalid syntax"}, Verdict.COMPILE_ERROR),
    "foreign": ({"foreign": True}, Verdict.RUNTIME_ERROR),
    "status": ({"exit_code": 3}, Verdict.RUNTIME_ERROR),
    "answer": ({"stdout": b"8", "claim": ("result", "8")}, Verdict.WRONG_ANSWER),
}
NAMES = list(WRONGS)
FIRST_AND_SECOND = [(first, second) for n, first in enumerate(NAMES) for second in NAMES[n + 1 :]]


def verdict(test: Test, run: Run, **options) -> Verdict:
    return decide(test, run, CPU_S, **options).verdict


@pytest.mark.parametrize(("test", "run"), [(STDIN, PRINTED), (CALL, RETURNED)])
def test_the_right_answer_passes_with_its_key(test, run):
    text = run.stdout.decode() or run.claim[1]
    assert decide(test, run, CPU_S) == Decision(Verdict.PASSED, answer=answer_key(test.kind, text))
    assert decide(test, run, CPU_S, with_answer=False) == Decision(Verdict.PASSED)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("test", "run"), [(STDIN, PRINTED), (CALL, RETURNED)])
def test_one_wrong(test, run, name):
    change, expected = WRONGS[name]
    decision = decide(test, replace(run, **change), CPU_S)
    assert decision.verdict is expected
    assert decision.why
    assert (decision.answer is None) == (expected is not Verdict.WRONG_ANSWER)


@pytest.mark.parametrize(("first", "second"), FIRST_AND_SECOND)
@pytest.mark.parametrize(("test", "run"), [(STDIN, PRINTED), (CALL, RETURNED)])
def test_of_two_wrongs_the_first_counts(test, run, first, second):
    both = WRONGS[second][0] | WRONGS[first][0]
    decision = decide(test, replace(run, **both), CPU_S)
    assert (decision.verdict, decision.answer) == (WRONGS[first][1], None)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (
            replace(PRINTED, output_limit=65536),
            "more than the output limit of 64 KiB (--execution.output-kb)",
        ),
        (
            replace(PRINTED, limit="wall"),
            f"longer than {WALL_FACTOR * CPU_S:g} s of wall-clock time",
        ),
        (replace(PRINTED, limit="cpu"), "more than 2 s of CPU time"),
        (replace(PRINTED, limit="processes"), "too many processes"),
        (replace(PRINTED, limit="memory"), "out of memory"),
        (replace(PRINTED, syntax_error="line 3"), "line 3"),
        (replace(PRINTED, foreign=True), "the judge's file descriptor"),
        (replace(PRINTED, exit_code=-signal.SIGSEGV), "killed by SIGSEGV"),
        (replace(PRINTED, exit_code=-signal.SIGKILL), "killed by SIGKILL"),
        (replace(PRINTED, exit_code=3), "exit status 3"),
        (replace(PRINTED, exit_code=1, stderr=b"a\nValueError: \xff\n\n"), "1: ValueError: \ufffd"),
        (replace(PRINTED, stdout=b"7"), "printed '7', expected '7\\n0.5\\n'"),
    ],
)
def test_the_reason_is_told(run, why):
    assert decide(STDIN, run, CPU_S).why.endswith(why)


def test_every_signal_has_a_name():
    """Those for the program's own use, too: they have numbers, and one of them a name."""
    for number in range(1, signal.SIGRTMAX + 1):
        decision = decide(STDIN, replace(PRINTED, exit_code=-number), CPU_S)
        assert decision.verdict is Verdict.RUNTIME_ERROR
        assert decision.why.startswith("killed by ")


@pytest.mark.parametrize(
    ("cpu_s", "expected"), [(1.999, Verdict.PASSED), (2.0, Verdict.TIME_LIMIT)]
)
def test_the_zygotes_final_count_of_cpu_time_decides(cpu_s, expected):
    assert verdict(STDIN, replace(PRINTED, cpu_s=cpu_s)) is expected


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (("result", "[7, 0.5]"), Verdict.PASSED),
        (("result", "[7.0, 5e-1]"), Verdict.PASSED),
        (("result", "[8, 0.5]"), Verdict.WRONG_ANSWER),
        (("result", "[7, 0.5"), Verdict.WRONG_ANSWER),
        (("result", ""), Verdict.WRONG_ANSWER),
        (("result", "[" * 100_000), Verdict.WRONG_ANSWER),
        (("unsupported", '"set: TypeError"'), Verdict.WRONG_ANSWER),
        (("again", "[7, 0.5]"), Verdict.WRONG_ANSWER),
        (("passed", "[7, 0.5]"), Verdict.WRONG_ANSWER),
        (None, Verdict.RUNTIME_ERROR),
    ],
)
def test_claims(claim, expected):
    run = Run(cpu_s=0.1, exit_code=0 if claim is None else None, claim=claim)
    assert verdict(CALL, run) is expected


def test_a_wrong_answer_has_a_key_and_no_answer_has_none():
    wrong = decide(STDIN, replace(PRINTED, stdout=b"8\n"), CPU_S)
    assert wrong.answer == answer_key("stdin", "8")
    assert decide(STDIN, replace(PRINTED, stdout=b"8.0"), CPU_S).answer == wrong.answer
    returned = decide(CALL, replace(RETURNED, claim=("result", "8")), CPU_S)
    assert returned.answer == answer_key("functional", "8.0")
    assert decide(CALL, replace(RETURNED, claim=("result", "8")), CPU_S, 0.0, False).answer is None
    for claim in (("unsupported", '"set"'), ("result", "8,")):
        assert decide(CALL, replace(RETURNED, claim=claim), CPU_S).answer is None


def test_tolerance():
    near = replace(PRINTED, stdout=b"7.0001 \n0.5001")
    assert verdict(STDIN, near) is Verdict.WRONG_ANSWER
    assert verdict(STDIN, near, tolerance=1e-3) is Verdict.PASSED
    assert verdict(STDIN, near, tolerance=1e-5) is Verdict.WRONG_ANSWER
    returned = replace(RETURNED, claim=("result", "[7.0001, 0.5001]"))
    assert verdict(CALL, returned) is Verdict.WRONG_ANSWER
    assert verdict(CALL, returned, tolerance=1e-3) is Verdict.PASSED


def test_output_that_is_no_text_is_wrong_and_can_be_told():
    decision = decide(STDIN, replace(PRINTED, stdout=b"7\n0.5\n\xff\xed\xa0\x80\x00"), CPU_S)
    assert decision.verdict is Verdict.WRONG_ANSWER
    assert decision.why.encode("utf-8").startswith(rb"printed '7\n0.5\n\udcff")
    assert len(decision.answer) == 32


def test_long_texts_are_shortened_in_the_middle():
    assert shorten("x" * 200) == repr("x" * 200)
    assert shorten("a" * 150 + "b" * 150) == f"{'a' * 100!r}...{'b' * 100!r}"
    why = decide(STDIN, replace(PRINTED, stdout=b"y" * 10**6), CPU_S).why
    assert len(why) < 300
