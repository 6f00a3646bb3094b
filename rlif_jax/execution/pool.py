"""The judge: programs in, outcomes out, with every comparison made on this side."""

import contextlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rlif_jax import config
from rlif_jax.errors import UserError
from rlif_jax.execution.asserted import run_asserted
from rlif_jax.execution.decide import WALL_FACTOR, Decision, decide, decide_asserted
from rlif_jax.execution.loader import Job
from rlif_jax.execution.process import TimeLeft
from rlif_jax.execution.program import Program, Run
from rlif_jax.execution.slot import Slot
from rlif_jax.execution.source import preamble, whole_program
from rlif_jax.execution.worker import SandboxError, Worker, ZygoteLost
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Outcome, Problem, Test, Verdict

__all__ = ["Judge", "SandboxError", "described"]

# Only a program whose text matches may fork, or has its objects deleted at its end: both cost
# time. Safety does not depend on this: a program that hides the words can do less.
FORK_HINT = re.compile("fork|multiprocessing|ProcessPool")
CLEANUP_HINT = re.compile("open|IO|Buff|[Ff]ile|__del__|yield|await|weakref|atexit|exec|eval")


class Judge:
    """A pool that runs candidate programs against tests while the caller does something else.

    `workers` programs run at the same time, in processes of their own that never see an expected
    output. Nothing of this process is forked: JAX may be running in it.
    """

    def __init__(self, execution: config.Execution, run_all_tests: bool | None = None):
        """Start the workers; `run_all_tests`, when given, overrides the configuration's.

        Raises UserError on a system other than Linux, and on a machine that cannot sandbox programs
        unless `execution.allow_weak_isolation`; SandboxError when no process can be started.
        """
        if not sys.platform.startswith("linux"):
            raise UserError(
                f"Candidate programs run on Linux only, and this machine runs {sys.platform}. Use "
                "a Linux machine or container, or a reward that does not run programs."
            )
        self._execution = execution
        self._all = execution.run_all_tests if run_all_tests is None else run_all_tests
        self._closed = False
        self._checked = weakref.WeakValueDictionary[int, Problem]()
        self._scratch = Path(tempfile.mkdtemp(prefix="rlif_judge_"))
        self._scratch.chmod(0o711)  # programs may run as another user, who must pass through
        memory_bytes = execution.memory_mb << 20
        self._slots: list[Slot] = []
        self._idle: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._executor = ThreadPoolExecutor(execution.workers, thread_name_prefix="judge")
        try:
            for _ in range(execution.workers):
                self._slots.append(Slot(self._scratch, memory_bytes))
                self._idle.put(self._slots[-1])
            self.isolation: Mapping[str, str] = self._slots[0].isolation()
            """How programs are sandboxed, in words, as the first worker reports."""
            if not execution.allow_weak_isolation:
                _refuse_weak(self.isolation)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check(self, problem: Problem) -> None:
        """Raise UserError when the problem cannot be judged; each problem is checked once.

        Parsing its tests takes time, which a caller may spend before it has programs to submit.
        """
        if self._checked.get(id(problem)) is not problem:
            check_judgeable(problem, f"Problem {problem.id!r} cannot be judged", parse=False)
            self._checked[id(problem)] = problem

    def submit(self, problem: Problem, code: str | None) -> Future[Outcome]:
        """Judge one program; the future holds its Outcome.

        A program that reads standard input is compiled once and run once a test, each time in a
        process of its own that finds no trace of another; it passes a test when it ends normally
        with the expected output. One that defines a function is loaded once and called with one
        test after another; the source of an assert test runs in a process of its own, from which
        the calls come as plain data (`sandbox.plain_data`), so that arguments and results are
        copies, and a result that is neither that nor a match of `re` fails. CPU time a test, of all
        processes together, is limited to the smaller of the problem's and the configuration's
        limit, wall-clock time to five times that.
        No code, or blank code, is NO_CODE at once. The future raises SandboxError when the
        machinery failed twice. Raises UserError when the problem cannot be judged.
        """
        if self._closed:
            raise RuntimeError("the judge is closed")
        self.check(problem)
        if code is None or not code.strip():
            done: Future[Outcome] = Future()
            done.set_result(Outcome(Verdict.NO_CODE, (), len(problem.tests), 0.0, "no code"))
            return done
        return self._executor.submit(self._judge, problem, whole_program(problem, code))

    def close(self) -> None:
        """Cancel what is not finished and leave no process and no folder; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for slot in self._slots:
            slot.disconnect()
        self._executor.shutdown(wait=True)
        for slot in self._slots:
            slot.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._scratch.exists():  # a program nested folders deeper than Python can follow
            with contextlib.suppress(OSError):
                subprocess.run(["rm", "-rf", str(self._scratch)], stderr=subprocess.DEVNULL)

    def _judge(self, problem: Problem, code: str) -> Outcome:
        """Judge on the next idle worker; once more, on a fresh one, when the machinery fails."""
        start = time.monotonic()
        slot = self._idle.get()
        try:
            for last in (False, True):
                if self._closed:
                    raise SandboxError("the judge was closed")
                try:
                    decisions = self._run_tests(slot, problem, code, retried=last)
                    break
                except (ZygoteLost, SandboxError) as error:
                    if self._closed:
                        raise SandboxError("the judge was closed") from error
                    killed = isinstance(error, ZygoteLost) and error.running
                    weak = killed and slot.shares_pid_namespace
                    slot.restart()
                    if last and weak:
                        # Twice, and only while this program ran, with no namespace to stop it.
                        why = "the program killed the process that supervises it"
                        decisions = [Decision(Verdict.RUNTIME_ERROR, why)]
                    elif last:
                        raise SandboxError(f"problem {problem.id}: {error}") from error
        finally:
            self._idle.put(slot)
        failures = [(n, d) for n, d in enumerate(decisions, 1) if d.verdict is not Verdict.PASSED]
        first = failures[0][1].verdict if failures else Verdict.PASSED
        detail = f"test {failures[0][0]}: {failures[0][1].why}" if failures else ""
        return Outcome(
            first,
            tuple(d.verdict for d in decisions),
            len(problem.tests),
            time.monotonic() - start,
            detail,
            tuple(d.answer for d in decisions) if self._all else (),
        )

    def _run_tests(self, slot: Slot, problem: Problem, code: str, retried: bool) -> list[Decision]:
        """Return a decision for each test, to the first failure or for all.

        Raises ZygoteLost or SandboxError when the machinery fails.
        """
        cpu_s = min(problem.time_limit_s, self._execution.time_limit_s)
        if slot.ended:
            slot.restart()
        with self._program(slot.worker, problem, code, cpu_s) as program:
            decisions: list[Decision] = []
            for decision in self._decisions(slot, program, problem, cpu_s, retried):
                decisions.append(decision)
                if decision.verdict is Verdict.COMPILE_ERROR or (
                    decision.verdict is not Verdict.PASSED and not self._all
                ):
                    break
            return decisions

    def _decisions(
        self, slot: Slot, program: Program, problem: Problem, cpu_s: float, retried: bool
    ) -> Iterator[Decision]:
        """Yield the decision on one test after another."""
        tests = problem.tests
        if tests[0].kind == "assert":
            for test in tests:
                yield self._decide_asserted(slot, program, problem, test, cpu_s, retried)
            return
        limits = map(self._output_bytes, tests)
        inputs = zip((test.input for test in tests), limits, strict=True)
        for test, run in zip(tests, program.runs(inputs), strict=True):
            decision = decide(test, run, cpu_s, self._execution.numeric_tolerance, self._all)
            yield _unless_killed(decision, run, cpu_s, retried)

    def _decide_asserted(
        self,
        slot: Slot,
        program: Program,
        problem: Problem,
        test: Test,
        cpu_s: float,
        retried: bool,
    ) -> Decision:
        """Run the source of one assert test against the program; return its decision."""
        left = TimeLeft(cpu_s, WALL_FACTOR * cpu_s)
        worker = slot.source_worker
        with self._program(worker, problem, test.input, cpu_s, kind="test") as source:
            asserted = run_asserted(program, source, left, self._output_bytes(test), self._all)
        decision = decide_asserted(test, asserted, cpu_s)
        for run in filter(None, (asserted.program, asserted.source)):
            _unless_killed(decision, run, cpu_s, retried)
        return decision

    def _program(
        self, worker: Worker, problem: Problem, code: str, cpu_s: float, kind: str | None = None
    ) -> Program:
        """Load a program, or with kind "test" the source of an assert test."""
        if worker.isolation != self.isolation:  # what was checked and recorded must hold
            raise SandboxError(
                f"a new worker is sandboxed differently ({described(worker.isolation)}) from the "
                f"first one ({described(self.isolation)})"
            )
        kind = kind or problem.tests[0].kind
        job = Job(
            kind=kind,
            code=code,
            entry_point=problem.entry_point,
            cpu_s=cpu_s,
            wall_s=WALL_FACTOR * cpu_s,
            memory_bytes=self._execution.memory_mb << 20,
            calls=1 if kind == "test" else len(problem.tests),
            own_proc="/dev/" in code or "/proc" in code,
            threads="thread" in code.lower(),
            cleanup=CLEANUP_HINT.search(code) is not None,
            single_process=kind != "stdin" and not FORK_HINT.search(code),
            preamble=preamble(problem),
            all_assertions=self._all,
        )
        return Program(worker, job)

    def _output_bytes(self, test: Test) -> int:
        """Return the bytes that a program may write: a right answer of any length fits.

        It may be longer than the expected one: False equals 0, and the channel writes é in ASCII.
        """
        longest = max(len(output.encode()) for output in test.outputs)
        return max(self._execution.output_kb << 10, 4 * longest + (64 << 10))


def _unless_killed(decision: Decision, run: Run, cpu_s: float, retried: bool) -> Decision:
    """Return the decision; raise SandboxError when something else killed the program."""
    if not retried and run.killed_from_outside and run.cpu_s < cpu_s:
        raise SandboxError(
            "something other than the judge killed the program: the machine may be out of memory"
        )
    return decision


def weaknesses(isolation: Mapping[str, str]) -> list[str]:
    """Return the parts of the required minimum that `isolation` lacks; empty when it is enough."""
    lacking = []
    if isolation["user"].startswith("the judge's"):
        lacking.append("they would run as the user of this process")
    if isolation["system_calls"] != "filtered":
        lacking.append(f"their system calls would be {isolation['system_calls']}")
    if isolation["files"].startswith("open"):
        lacking.append("they could read the files of this machine, including the tests")
    if isolation["network"] != "none":
        lacking.append("they could open network connections")
    return lacking


def described(isolation: Mapping[str, str]) -> str:
    """Return one line for people, such as "user: separate; network: none"."""
    return "; ".join(f"{name.replace('_', ' ')}: {how}" for name, how in isolation.items())


def _refuse_weak(isolation: Mapping[str, str]) -> None:
    """Raise UserError when the sandbox lacks a required part."""
    if lacking := weaknesses(isolation):
        raise UserError(
            f"This machine cannot sandbox candidate programs: {'; '.join(lacking)} "
            f"({described(isolation)}). Allow user namespaces (for a container: --security-opt "
            "seccomp=unconfined, apparmor=unconfined and systempaths=unconfined, or a privileged "
            "pod; launch/README.md has more), or run as root, so that programs run as a user of "
            "their own. If nothing on this machine needs protection, "
            "pass --execution.allow-weak-isolation."
        )
