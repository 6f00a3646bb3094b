"""How the judge survives its own failures: processes killed, an interpreter or a folder missing."""

import os
import shutil
import signal
import sys

import pytest
from support.execution.host import at_rest, settles
from support.execution.judge_processes import (
    ECHO,
    ECHO_CODE,
    SLOW_ECHO,
    await_program,
    ends,
    first_process,
    judge_processes,
    loader,
)
from support.execution.judging import EXECUTION

from rlif_jax import config
from rlif_jax.execution.pool import Judge, SandboxError


def test_a_killed_zygote_is_replaced_and_the_test_repeated():
    """Killed while it is idle, then while a program runs; nothing is left of either."""
    before = judge_processes()
    with Judge(config.Execution(workers=1)) as judge:
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        first = judge._slots[0].worker.pid
        os.kill(first_process(judge), signal.SIGKILL)
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        second = judge._slots[0].worker.pid
        slow = judge.submit(ECHO, SLOW_ECHO)
        await_program(judge)
        running = judge_processes() - before
        os.kill(first_process(judge), signal.SIGKILL)
        assert slow.result().passed
        third = judge._slots[0].worker.pid
        assert len({first, second, third}) == 3
        at_rest(judge)
        workers = {third, first_process(judge)}
        assert judge_processes() - before == workers
        assert ends(running)
    assert judge_processes() <= before


def test_a_program_whose_loader_is_killed_is_judged_once_more():
    """A loader runs nothing of its program, so that its end is the machinery's own."""
    before = judge_processes()
    with Judge(config.Execution(workers=1)) as judge:
        slow = judge.submit(ECHO, SLOW_ECHO)
        await_program(judge)
        first, killed = judge._slots[0].worker.pid, loader(judge)
        os.kill(killed, signal.SIGKILL)
        assert slow.result(timeout=60).passed
        assert judge._slots[0].worker.pid != first
        at_rest(judge)
        workers = {judge._slots[0].worker.pid, first_process(judge)}
        assert judge_processes() - before == workers
        slow = judge.submit(ECHO, SLOW_ECHO)
        await_program(judge)
        worker = judge._slots[0].worker
        os.kill(loader(judge), signal.SIGKILL)
        assert settles(lambda: judge._slots[0].worker is not worker)
        assert settles(lambda: judge._slots[0].worker._isolation is not None)
        await_program(judge)
        os.kill(loader(judge), signal.SIGKILL)
        with pytest.raises(SandboxError, match="stdin: a loader process ended with -9"):
            slow.result(timeout=60)
        assert judge.submit(ECHO, ECHO_CODE).result(timeout=60).passed


@pytest.mark.parametrize("running", [False, True])
def test_a_killed_guard_takes_its_zygote_along(running):
    """The process that waits outside the namespaces: without it nobody would end those inside."""
    before = judge_processes()
    with Judge(config.Execution(workers=1)) as judge:
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        if running:
            slow = judge.submit(ECHO, SLOW_ECHO)
            await_program(judge)
        processes = judge_processes() - before
        os.kill(judge._slots[0].worker.pid, signal.SIGKILL)
        assert ends(processes)
        if running:
            assert slow.result(timeout=60).passed
        assert judge.submit(ECHO, ECHO_CODE).result(timeout=60).passed
        assert not (judge_processes() - before) & processes
    assert judge_processes() <= before


def test_broken_machinery_is_an_error_and_no_verdict(monkeypatch, tmp_path):
    """An interpreter that ends at once: tried twice, then raised; the judge recovers later."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no interpreter here >&2\nexit 3\n")
    broken.chmod(0o755)
    with Judge(config.Execution(workers=1)) as judge:
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        judge._slots[0].worker.disconnect()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(broken))
            with pytest.raises(
                SandboxError, match="stdin: the sandbox process ended: no interpreter here"
            ):
                judge.submit(ECHO, ECHO_CODE).result()
        assert judge.submit(ECHO, ECHO_CODE).result().passed


def test_an_interpreter_that_is_missing_is_an_error_at_once(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SandboxError, match="cannot start /nowhere/python"):
        Judge(EXECUTION)


def test_a_full_or_vanished_disk_is_an_error_and_no_verdict():
    with Judge(config.Execution(workers=1)) as judge:
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        shutil.rmtree(judge._scratch)
        judge._slots[0].worker.disconnect()  # a fresh one needs a folder
        with pytest.raises(SandboxError, match="No such file or directory"):
            judge.submit(ECHO, ECHO_CODE).result()
        judge._scratch.mkdir(0o711)
        assert judge.submit(ECHO, ECHO_CODE).result().passed
