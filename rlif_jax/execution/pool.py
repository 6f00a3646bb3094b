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

from rlif_jax.config import schema as config
from rlif_jax.errors import UserError
from rlif_jax.execution.asserted import run_asserted
from rlif_jax.execution.decide import WALL_FACTOR, Decision, decide, decide_asserted
from rlif_jax.execution.loader import Job
from rlif_jax.execution.process import Left
from rlif_jax.execution.program import Program, Run
from rlif_jax.execution.slot import Slot
from rlif_jax.execution.source import preamble, whole_program
from rlif_jax.execution.worker import SandboxError, Worker, ZygoteLost
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Outcome, Problem, Test, Verdict

__all__ = ["Judge", "SandboxError", "described"]

# What a text has to say somewhere, for what takes time or counting. It is no matter of safety: a
# program that hides it has less.
FORKING = re.compile("fork|multiprocessing|ProcessPool")
TIDYING = re.compile("open|IO|Buff|[Ff]ile|__del__|yield|await|weakref|atexit|exec|eval")


class Judge:
    """A pool that runs candidate programs against tests while the caller does something else.

    `workers` programs run at the same time, in processes of their own that never see an expected
    output. Nothing of this process is forked: JAX may be running in it.
    """

    def __init__(self, execution: config.Execution, run_all_tests: bool | None = None):
        """Start the workers; `run_all_tests`, when given, overrides the configuration's.

        Raises UserError on a system other than Linux, and where programs cannot be shut in unless
        `execution.allow_weak_isolation`; SandboxError when no process can be started.
        """
        if not sys.platform.startswith("linux"):
            raise UserError(
                f"Candidate programs can be run on Linux only, and this is {sys.platform}: use a "
                "Linux machine or a container, or a reward that does not execute programs."
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
            """How far programs are shut in, in words, by the first worker's own report."""
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
        """Raise UserError when the problem cannot be judged; it is looked at once, not each time.

        To parse its tests takes time, which a caller may spend before it has programs to submit.
        """
        if self._checked.get(id(problem)) is not problem:
            check_judgeable(problem, f"Problem {problem.id!r} cannot be judged", parse=False)
            self._checked[id(problem)] = problem

    def submit(self, problem: Problem, code: str | None) -> Future[Outcome]:
        """Judge one program; the future holds its Outcome.

        A program that reads standard input is compiled once and run once a test, each time in a
        process of its own that finds nothing of another; it passes a test when it ends normally
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
        """Give up what is not finished and leave no process and no folder; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for slot in self._slots:
            slot.hang_up()
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
                    weak = isinstance(error, ZygoteLost) and error.running and slot.reachable
                    slot.restart()
                    if last and weak:
                        # Twice, and only while this program ran, with nothing to keep it from it.
                        why = "the program ended its supervisor"
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
        if slot.spent:
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
            yield _believed(decision, run, cpu_s, retried)

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
        left = Left(cpu_s, WALL_FACTOR * cpu_s)
        worker = slot.source_worker
        with self._program(worker, problem, test.input, cpu_s, kind="test") as source:
            asserted = run_asserted(program, source, left, self._output_bytes(test), self._all)
        decision = decide_asserted(test, asserted, cpu_s)
        for run in filter(None, (asserted.program, asserted.source)):
            _believed(decision, run, cpu_s, retried)
        return decision

    def _program(
        self, worker: Worker, problem: Problem, code: str, cpu_s: float, kind: str | None = None
    ) -> Program:
        """Have a program loaded, or with kind "test" the source of an assert test."""
        if worker.isolation != self.isolation:  # what was checked and recorded must hold
            raise SandboxError(
                f"a worker came up otherwise isolated: {described(worker.isolation)}"
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
            own_files="/dev/" in code or "/proc" in code,
            threads="thread" in code.lower(),
            tidy=TIDYING.search(code) is not None,
            lone=kind != "stdin" and not FORKING.search(code),
            preamble=preamble(problem),
            all_assertions=self._all,
        )
        return Program(worker, job)

    def _output_bytes(self, test: Test) -> int:
        """How much a program may write: a right answer must fit, however long it is."""
        longest = max(len(output.encode()) for output in test.outputs)
        return max(self._execution.output_kb << 10, 2 * longest + 4096)


def _believed(decision: Decision, run: Run, cpu_s: float, retried: bool) -> Decision:
    """Return the decision; raise SandboxError when the machinery may have failed."""
    if not retried and run.killed_by_a_stranger and run.cpu_s < cpu_s:
        raise SandboxError("the program was killed from outside")
    return decision


def weaknesses(isolation: Mapping[str, str]) -> list[str]:
    """Return what `isolation` lacks of the least that is asked for; nothing when it is enough."""
    lacking = []
    if isolation["user"].startswith("the judge's"):
        lacking.append("they run as the user of this process")
    if isolation["system_calls"] != "filtered":
        lacking.append(f"their system calls are {isolation['system_calls']}")
    if isolation["files"].startswith("open"):
        lacking.append("they can read the files of this machine, tests among them")
    if isolation["network"] != "none":
        lacking.append("they can open network connections")
    return lacking


def described(isolation: Mapping[str, str]) -> str:
    """Return one line for people, as "user: another; network: none"."""
    return "; ".join(f"{name.replace('_', ' ')}: {how}" for name, how in isolation.items())


def _refuse_weak(isolation: Mapping[str, str]) -> None:
    """Raise UserError when programs are not shut in well enough."""
    if lacking := weaknesses(isolation):
        raise UserError(
            f"Candidate programs cannot be shut in on this machine: {'; '.join(lacking)} "
            f"({described(isolation)}). Allow user "
            "namespaces (for a container: --security-opt seccomp=unconfined, or a pod with "
            "seccompProfile Unconfined), or run as root, so that programs can be given a user of "
            "their own; or, where nothing here is worth protecting, pass "
            "--execution.allow-weak-isolation."
        )
