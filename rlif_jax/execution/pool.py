"""The judge: programs in, outcomes out, with every comparison made on this side."""

import contextlib
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rlif_jax import config
from rlif_jax.errors import UserError
from rlif_jax.execution.compare import functional_equal, load_json, stdout_equal
from rlif_jax.execution.supervisor import Job, Run, SandboxError, Zygote, ZygoteLost
from rlif_jax.problem import Outcome, Problem, Test, Verdict

WALL_FACTOR = 5  # wall-clock bound of a test, in its CPU limits


class Judge:
    """A pool that runs candidate programs against tests while the caller does something else.

    `workers` programs run at the same time, each test in a fresh process of its own that never sees
    an expected output. Nothing of this process is forked: JAX may be running in it.
    """

    def __init__(self, execution: config.Execution, run_all_tests: bool | None = None):
        """Start the workers; `run_all_tests`, when given, overrides the configuration's.

        Raises UserError on a system other than Linux, SandboxError when no process can be started.
        """
        if not sys.platform.startswith("linux"):
            raise UserError(
                f"Candidate programs can be run on Linux only, and this is {sys.platform}: use a "
                "Linux machine or a container, or a reward that does not execute programs."
            )
        self._execution = execution
        self._all = execution.run_all_tests if run_all_tests is None else run_all_tests
        self._closed = False
        self._scratch = Path(tempfile.mkdtemp(prefix="rlif_judge_"))
        self._scratch.chmod(0o711)  # programs may run as another user, who must pass through
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._executor = ThreadPoolExecutor(execution.workers, thread_name_prefix="judge")
        try:
            for _ in range(execution.workers):
                self._workers.append(_Worker(self._scratch))
                self._idle.put(self._workers[-1])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, problem: Problem, code: str | None) -> Future[Outcome]:
        """Judge one program; the future holds its Outcome.

        A test passes when the program ends normally (status 0) with the expected answer. CPU time
        is limited to the smaller of the problem's and the configuration's limit, wall-clock time to
        five times that. No code, or blank code, is NO_CODE at once. The future raises SandboxError
        when the machinery failed twice. Raises UserError when the problem cannot be judged.
        """
        if self._closed:
            raise RuntimeError("the judge is closed")
        _check(problem)
        if code is None or not code.strip():
            done: Future[Outcome] = Future()
            done.set_result(Outcome(Verdict.NO_CODE, (), len(problem.tests), 0.0, "no code"))
            return done
        return self._executor.submit(self._judge, problem, code)

    def close(self) -> None:
        """Give up what is not finished and leave no process and no folder; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.zygote.hang_up()
        self._executor.shutdown(wait=True)
        for worker in self._workers:
            worker.zygote.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._scratch.exists():  # a program nested folders deeper than Python can follow
            with contextlib.suppress(OSError):
                subprocess.run(["rm", "-rf", str(self._scratch)], stderr=subprocess.DEVNULL)

    def _judge(self, problem: Problem, code: str) -> Outcome:
        start = time.monotonic()
        worker = self._idle.get()
        results: list[Verdict] = []
        first, detail = Verdict.PASSED, ""
        try:
            for number, test in enumerate(problem.tests, 1):
                verdict, why = self._run_test(worker, problem, test, code)
                results.append(verdict)
                if verdict is not Verdict.PASSED and first is Verdict.PASSED:
                    first, detail = verdict, f"test {number}: {why}"
                if verdict is Verdict.COMPILE_ERROR or (
                    first is not Verdict.PASSED and not self._all
                ):
                    break
        finally:
            self._idle.put(worker)
        seconds = time.monotonic() - start
        return Outcome(first, tuple(results), len(problem.tests), seconds, detail)

    def _run_test(
        self, worker: "_Worker", problem: Problem, test: Test, code: str
    ) -> tuple[Verdict, str]:
        """Run one test, once more on a fresh zygote when the failure looks like our own."""
        cpu_s = min(problem.time_limit_s, self._execution.time_limit_s)
        job = Job(
            kind=test.kind,
            code=code,
            input=test.input,
            entry_point=problem.entry_point,
            cpu_s=cpu_s,
            wall_s=WALL_FACTOR * cpu_s,
            memory_bytes=self._execution.memory_mb << 20,
            # a right answer must fit, however long it is
            output_bytes=max(self._execution.output_kb << 10, 2 * len(test.output.encode()) + 4096),
        )
        for last in (False, True):
            if self._closed:
                raise SandboxError("the judge was closed")
            try:
                run = worker.zygote.run(job)
                if not run.started:
                    tail = run.stderr.decode(errors="replace")
                    raise SandboxError(f"the child ended ({run.exit_code}) too early: {tail}")
            except (ZygoteLost, SandboxError) as error:
                if self._closed:
                    raise SandboxError("the judge was closed") from error
                worker.restart()
                if not last:
                    continue
                if isinstance(error, ZygoteLost) and error.started:
                    # Twice, and only while this program ran: it killed what watches over it.
                    return Verdict.RUNTIME_ERROR, "the program ended its supervisor"
                raise SandboxError(f"problem {problem.id}: {error}") from error
            if last or not _killed_by_a_stranger(run, cpu_s):
                return decide(test, run, cpu_s)
        raise AssertionError("the second attempt returns or raises")


class _Worker:
    """A place for one zygote, refilled when it breaks."""

    def __init__(self, scratch: Path):
        self._scratch = scratch
        self.zygote = Zygote(scratch)

    def restart(self) -> None:
        broken, self.zygote = self.zygote, Zygote(self._scratch)
        broken.close()


def _killed_by_a_stranger(run: Run, cpu_s: float) -> bool:
    """Tell whether SIGKILL came from neither of our limits: often the host short of memory."""
    return run.exit_code == -signal.SIGKILL and not run.limit and run.cpu_s < cpu_s


def decide(test: Test, run: Run, cpu_s: float) -> tuple[Verdict, str]:
    """Return the verdict on one test and the reason for it.

    How the process ended comes first: a right answer followed by a crash, a signal or a non-zero
    exit status is a runtime error, as it is for a contest's judge.
    """
    if run.output_limit:
        return Verdict.OUTPUT_LIMIT, "wrote more than the output limit"
    if run.limit == "wall":
        return Verdict.TIME_LIMIT, f"ran longer than {WALL_FACTOR * cpu_s:g} s by the clock"
    if run.limit == "cpu" or run.cpu_s >= cpu_s:
        return Verdict.TIME_LIMIT, f"used more than {cpu_s:g} s of CPU time"
    if run.limit == "processes":
        return Verdict.RUNTIME_ERROR, "started too many processes"
    if run.exit_code != 0:
        if (message := run.claim("syntax")) is not None:
            return Verdict.COMPILE_ERROR, message
        if run.claim("memory") is not None:
            return Verdict.MEMORY_LIMIT, "ran out of memory"
        return Verdict.RUNTIME_ERROR, _ending(run)
    if test.kind == "stdin":
        stdout = run.stdout.decode("utf-8", "surrogateescape")
        if stdout_equal(stdout, test.output):
            return Verdict.PASSED, ""
        return Verdict.WRONG_ANSWER, f"printed {_short(stdout)}, expected {_short(test.output)}"
    return _decide_functional(test, run)


def _decide_functional(test: Test, run: Run) -> tuple[Verdict, str]:
    if (reason := run.claim("unsupported")) is not None:
        return Verdict.WRONG_ANSWER, f"returned no JSON value: {reason}"
    answer = run.claim("result")
    if answer is None:
        return Verdict.RUNTIME_ERROR, "ended before the function returned"
    if len(run.claims) != 2 or run.foreign:
        return Verdict.RUNTIME_ERROR, "wrote to the judge's descriptor"
    try:
        value = load_json(answer)
    except ValueError as error:
        return Verdict.WRONG_ANSWER, f"returned a value that cannot be read: {error}"
    if functional_equal(value, load_json(test.output)):
        return Verdict.PASSED, ""
    return Verdict.WRONG_ANSWER, f"returned {_short(answer)}, expected {_short(test.output)}"


def _ending(run: Run) -> str:
    if run.exit_code < 0:
        return f"killed by {signal.Signals(-run.exit_code).name}"
    lines = run.stderr.decode(errors="replace").strip().splitlines()
    return f"exit status {run.exit_code}" + (f": {lines[-1][:300]}" if lines else "")


def _short(text: str) -> str:
    return repr(text) if len(text) <= 200 else f"{text[:100]!r}...{text[-100:]!r}"


def _check(problem: Problem) -> None:
    """Raise UserError when the problem has no tests or one that cannot be judged."""

    def refuse(what: str) -> UserError:
        return UserError(
            f"Problem {problem.id!r} cannot be judged: {what}. Correct the row or drop the problem."
        )

    if not problem.tests:
        raise refuse("it has no tests")
    for number, test in enumerate(problem.tests, 1):
        if test.kind not in ("stdin", "functional"):
            raise refuse(f"test {number} is of kind {test.kind!r}, not 'stdin' or 'functional'")
        if test.kind == "functional":
            if not problem.entry_point:
                raise refuse(f"test {number} is functional, and there is no entry_point")
            for text in (*filter(str.strip, test.input.split("\n")), test.output):
                try:
                    load_json(text)
                except ValueError:
                    raise refuse(f"test {number} has {_short(text)}, which is not JSON") from None
