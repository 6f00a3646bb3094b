"""The restart loop, run for real with small commands in place of the trainer."""

import functools
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import ROOT

LOOP = ROOT / "launch" / "until_finished.sh"
WITHIN_S = 60


class Loop:
    """The loop in a folder, around bash code that appends a line to `starts` each time it runs."""

    def __init__(self, folder: Path):
        self.folder = folder

    def start(self, code: str, *flags: str) -> subprocess.Popen[str]:
        command = ["bash", str(LOOP), "--pause=0", *flags]
        command += ["--", "bash", "-c", f"echo >> starts; {code}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # A shell cannot trap what was ignored before it began, as in the background of another.
        heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, cwd=self.folder, preexec_fn=heard, **pipes)

    def run(self, code: str, *flags: str) -> tuple[int, str]:
        """Return the exit status and what was said."""
        process = self.start(code, *flags)
        said = process.communicate(timeout=WITHIN_S)[1]
        return process.returncode, said

    @property
    def starts(self) -> int:
        file = self.folder / "starts"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def wait_for(self, name: str) -> None:
        end = time.monotonic() + WITHIN_S
        while not (self.folder / name).exists():
            assert time.monotonic() < end, f"{name} does not appear"
            time.sleep(0.02)


@pytest.fixture
def loop(tmp_path):
    return Loop(tmp_path)


@pytest.mark.parametrize("status", [0, 2, 130])
def test_these_statuses_end_it_at_once(loop, status):
    code, said = loop.run(f"exit {status}")
    assert (code, loop.starts) == (status, 1)
    assert {0: "finished", 2: "bad", 130: "stopped"}[status] in said


@pytest.mark.parametrize("status", [1, 75, 134])
def test_any_other_status_starts_it_again(loop, status):
    code, said = loop.run(f"[ $(wc -l < starts) -gt 1 ] || exit {status}")
    assert (code, loop.starts) == (0, 2)
    assert f"exit status {status}" in said and "1 of 10 without progress" in said


def test_a_killed_command_starts_again(loop):
    code, said = loop.run("[ $(wc -l < starts) -gt 2 ] || kill -KILL $$")
    assert (code, loop.starts) == (0, 3)
    assert "exit status 137" in said


def test_it_gives_up_without_progress(loop):
    code, said = loop.run("exit 7", "--restarts=3")
    assert (code, loop.starts) == (7, 4)
    assert "gave up after 3 restarts without progress" in said


def test_progress_resets_the_bound(loop):
    """Each start gets one further; with a bound of 1 nothing but progress allows eight of them."""
    code, _ = loop.run("[ $(wc -l < starts) = 8 ]", "--restarts=1", "--progress=wc -l < starts")
    assert (code, loop.starts) == (0, 8)


LESS_AND_LESS = "touch starts; echo $((9 - $(wc -l < starts)))"


@pytest.mark.parametrize("progress", ["echo 5", LESS_AND_LESS, "echo x", "false"])
def test_no_progress(loop, progress):
    """The same number, smaller ones, no number, and a command that fails."""
    assert loop.run("exit 1", "--restarts=2", f"--progress={progress}")[0] == 1
    assert loop.starts == 3


def test_a_measurement_that_failed_in_between_is_no_progress(loop):
    progress = "--progress=[ $(wc -l < starts) = 2 ] || echo 50"
    assert loop.run("exit 1", "--restarts=3", progress)[0] == 1
    assert loop.starts == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_as_sigterm(loop, number):
    """The trainer takes a moment to save; the loop waits for it and does not start it again."""
    code = "trap 'sleep 0.5; touch saved; exit 130' TERM; touch ready; while :; do sleep 0.05; done"
    process = loop.start(code)
    loop.wait_for("ready")
    os.kill(process.pid, number)
    process.communicate(timeout=WITHIN_S)
    assert (process.returncode, loop.starts) == (130, 1)
    assert (loop.folder / "saved").exists()


def test_two_signals_are_one_stop(loop):
    code = "trap 'touch asked' TERM; touch ready; until [ -e go ]; do sleep 0.05; done; exit 130"
    process = loop.start(code)
    loop.wait_for("ready")
    process.terminate()
    loop.wait_for("asked")
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None, "it must wait for the trainer"
    (loop.folder / "go").touch()
    process.communicate(timeout=WITHIN_S)
    assert (process.returncode, loop.starts) == (130, 1)


def test_a_command_that_a_passed_signal_kills_is_not_started_again(loop):
    process = loop.start("touch ready; exec sleep 60")
    loop.wait_for("ready")
    process.terminate()
    process.communicate(timeout=WITHIN_S)
    assert (process.returncode, loop.starts) == (143, 1)


def test_a_finish_after_a_signal_is_a_finish(loop):
    process = loop.start("trap 'exit 0' TERM; touch ready; while :; do sleep 0.05; done")
    loop.wait_for("ready")
    process.terminate()
    process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0


def test_a_signal_ends_the_pause(loop):
    process = loop.start("touch ready; exit 1", "--pause=600", "--state=state")
    loop.wait_for("ready")
    time.sleep(0.5)
    process.terminate()
    process.communicate(timeout=WITHIN_S)
    assert (process.returncode, loop.starts) == (130, 1)


def test_the_state_folder(loop):
    """It has the process while the loop runs, the status afterwards; a second loop is refused."""
    state = loop.folder / "state"
    process = loop.start(
        "touch ready; until [ -e go ]; do sleep 0.05; done; exit 2", "--state=state"
    )
    loop.wait_for("ready")
    assert int((state / "pid").read_text()) == process.pid
    assert not (state / "ended").exists()
    code, said = loop.run("true", "--state=state")
    assert code == 2 and "another loop is running in --state=state" in said
    (loop.folder / "go").touch()
    process.communicate(timeout=WITHIN_S)
    assert (state / "ended").read_text() == "2\n"
    assert loop.run("true", "--state=state")[0] == 0
    assert (state / "ended").read_text() == "0\n"


def test_a_loop_that_is_killed_leaves_no_room_for_a_second(loop):
    """Its command may still have the chips; the folder is free when the command has ended."""
    process = loop.start("touch ready; until [ -e go ]; do sleep 0.05; done", "--state=state")
    loop.wait_for("ready")
    process.kill()
    process.wait(WITHIN_S)
    assert "another loop is running" in loop.run("true", "--state=state")[1]
    (loop.folder / "go").touch()
    end = time.monotonic() + WITHIN_S
    while loop.run("true", "--state=state")[0] != 0:
        assert time.monotonic() < end


def test_a_dry_run_prints_the_command(loop):
    process = loop.start("true", "--dry-run")
    printed = process.communicate(timeout=WITHIN_S)[0]
    assert loop.starts == 0
    assert subprocess.run(["bash", "-c", printed], cwd=loop.folder).returncode == 0
    assert loop.starts == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bad"], "--bad is not a flag"),
        (["--restarts=x", "--", "true"], "--restarts=x is not a whole number"),
        (["--pause=-1", "--", "true"], "--pause=-1 is not a whole number"),
        (["--"], "no command is given"),
        (["true"], "true is not a flag"),
    ],
)
def test_wrong_flags(words, message):
    ran = subprocess.run(["bash", str(LOOP), *words], capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ") and message in ran.stderr and "usage: " in ran.stderr
