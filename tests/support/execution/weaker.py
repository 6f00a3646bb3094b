"""Judge programs in a process that has made itself weaker; a program of its own, see confinement.

In, as JSON: {"level", "allow", "programs": [[id, problem, code, accompanied], ...]}, each problem a
row for `official.problem_of`. Beside an accompanied program another runs on the other worker.
Out, as JSON: {"refused": why} when the judge does not start, else its isolation and for each
program what became of it, of the programs around it, and of the processes that it might have
reached.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from rlif_jax.execution.sandbox.seccomp import NUMBERS
from support import CASES
from support.execution.confinement import become
from support.execution.host import at_rest, below

PR_SET_CHILD_SUBREAPER = 36
SLOW_ECHO = "import time\ntime.sleep(0.3)\nprint(input())"
SLOW_ANSWER = "import time\ndef f(x):\n    time.sleep(1)\n    return x"


def main() -> None:
    request = json.load(sys.stdin)
    become(request["level"])
    # What outlives its parents becomes a child of this process, where it is seen.
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    print(json.dumps(Session(request).run()))


class Session:
    """The programs of one request, judged one after another."""

    def __init__(self, request: dict):
        from rlif_jax import config
        from rlif_jax.execution import pool
        from support.execution.judging import (  # only now: an import may start threads
            assert_problem,
            stdin_problem,
        )
        from support.execution.official import problem_of

        self.request, self.pool, self.problem_of = request, pool, problem_of
        self.echo = stdin_problem(("7", "7"))
        self.asserted = assert_problem("f", "assert f(7) == 7")
        self.execution = config.Execution(
            workers=2,
            time_limit_s=6.0,
            memory_mb=512,
            allow_weak_isolation=request["allow"],
        )

    def run(self) -> dict:
        from rlif_jax.errors import UserError

        descriptors = len(os.listdir("/proc/self/fd"))
        answer: dict = {}
        try:
            with self.pool.Judge(self.execution) as self.judge:
                self.warm_up()
                answer["isolation"] = dict(self.judge.isolation)
                answer["weaknesses"] = self.pool.weaknesses(self.judge.isolation)
                answer["programs"] = {
                    name: self.judge_one(self.problem_of(row), code, accompanied)
                    for name, row, code, accompanied in self.request["programs"]
                }
        except UserError as error:
            answer["refused"] = str(error)
        answer["left"] = {
            "processes": sorted(below(os.getpid())),
            "files": os.listdir(tempfile.gettempdir()),
            "descriptors": len(os.listdir("/proc/self/fd")) - descriptors,
        }
        return answer

    def warm_up(self) -> None:
        pairs = [(self.echo, SLOW_ECHO)] * 2
        if any(row.get("kind") == "assert" for _, row, _, _ in self.request["programs"]):
            pairs = [(self.asserted, SLOW_ANSWER)] * 2 + pairs  # also the workers for sources
        for future in [self.judge.submit(*pair) for pair in pairs]:
            assert future.result(timeout=120).passed

    def judge_one(self, problem, code: str, accompanied: bool) -> dict:
        """Judge one program and look around."""
        at_rest(self.judge)
        before = self.around()
        companions = []
        if accompanied:
            companions = [self.judge.submit(self.echo, SLOW_ECHO)]
            self.await_companion(len(before["processes"]))
        facts = self.facts()
        outcome = self.judge.submit(problem, f"FACTS = {facts!r}\n{code}").result(timeout=120)
        companion = [future.result(timeout=120).passed for future in companions]
        pairs = [(self.echo, "print(input())"), (self.echo, "print(8)")] * 2
        after = [self.judge.submit(*pair) for pair in pairs]
        after_passed = [future.result(timeout=120).passed for future in after]
        at_rest(self.judge)
        changed = {}
        for _ in range(500):
            after_state = self.around()
            changed = {
                name: [before.get(name), after_state.get(name)]
                for name in before | after_state
                if before.get(name) != after_state.get(name)
            }
            if not changed:
                break
            time.sleep(0.01)  # the dead are collected with a delay
        return {
            "verdict": outcome.verdict.value,
            "detail": outcome.detail,
            "companion": companion,
            "after": after_passed,
            "changed": changed,
        }

    def await_companion(self, processes: int) -> None:
        """Wait until a program runs: as many processes below this one as there were with it."""
        deadline = time.monotonic() + 60
        while len(below(os.getpid())) < processes:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def facts(self) -> dict:
        """What a program is told, so that it need not guess."""
        package = Path(importlib.util.find_spec("rlif_jax").origin).parent
        return {
            "judge": os.getpid(),
            "namespaces": not self.judge.isolation["namespaces"].startswith("none"),
            "processes": sorted(below(os.getpid())),
            "here": os.getcwd(),
            "scratch": str(self.judge._scratch),
            "problems": str(package / "data" / "starter" / "problems.jsonl"),
            "calls": dict(NUMBERS[platform.machine()]),
            "cases": str(CASES / "attacks.jsonl"),
        }

    def around(self) -> dict:
        """What no program may change: processes and their properties, files, the environment."""
        here = Path(os.getcwd())
        processes = sorted(below(os.getpid()) | {os.getpid()})
        seen = {"processes": processes, "environment": dict(os.environ)}
        seen["temporary"] = sorted(os.listdir(tempfile.gettempdir()))
        for path in (here, *here.rglob("*")):
            about = path.stat()
            content = path.read_text() if path.is_file() else ""
            seen[str(path)] = [about.st_mode, about.st_uid, about.st_mtime_ns, content]
        for pid in processes:
            seen |= {f"{name} of {pid}": value for name, value in state_of(pid).items()}
        return seen


def state_of(pid: int) -> dict:
    """What one process may set of another: scheduling, limits and the like."""
    seen: dict = {}
    with contextlib.suppress(OSError):  # it ended meanwhile
        seen["priority"] = os.getpriority(os.PRIO_PROCESS, pid)
        seen["scheduler"] = os.sched_getscheduler(pid)
        seen["processors"] = sorted(os.sched_getaffinity(pid))
        for name in ("limits", "oom_score_adj", "comm"):
            seen[name] = Path(f"/proc/{pid}/{name}").read_text()
    return seen


if __name__ == "__main__":
    main()
