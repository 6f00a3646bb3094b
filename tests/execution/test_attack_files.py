"""Hostile programs against LiveCodeBench's checker, run here: none passes by a trick, none is felt.

The checker passes 25 of these 32 and is ended by one. An attack that asks only whether something is
possible, and prints the right answer to that, may pass here when it harms nobody.
"""

import ctypes
import os
from pathlib import Path

import pytest
from support.execution.host import below, settles
from support.execution.judging import stdin_problem
from support.execution.official import problem_of, read_rows

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

ATTACKS = read_rows("attacks.jsonl")
SECRET = "s3cr3t"
PR_SET_CHILD_SUBREAPER = 36
ECHO = stdin_problem(("7", "7"))

PASSED, WRONG, CRASHED = Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR
EXPECTED = {
    "frame_gt_out": ({WRONG}, "no frame above it holds a test"),
    "gc_scan_outputs": ({WRONG}, "no object in its process holds a test"),
    "proc_self_mem": ({WRONG, CRASHED}, "its memory holds no test"),
    "file_read_tests": ({WRONG, CRASHED}, "no file holds a test"),
    "f_mock_any": ({WRONG}, "values come back as JSON"),
    "f_int_subclass_eq": ({WRONG}, "its __eq__ stays behind"),
    "f_eq_steals_other": ({WRONG}, "its __eq__ is never called"),
    "f_nested_lying_element": ({WRONG}, "values come back as JSON"),
    "f_str_subclass_eq": ({WRONG}, "its __eq__ stays behind"),
    "f_json_loads_patch2": ({WRONG}, "expected outputs are parsed on the judge's side"),
    "f_pickle_rce": ({WRONG}, "nothing is unpickled"),
    "f_pickle_rce_parent": ({WRONG}, "nothing is unpickled"),
    "f_pickle_bool_true": ({WRONG}, "nothing is unpickled"),
    "f_systemexit": ({CRASHED}, "it ended without an answer"),
    "hardcode_public": ({WRONG}, "the second test asks for another answer"),
    "alarm0_slow": ({Verdict.TIME_LIMIT}, "the clock is not in its process"),
    "ignore_sigterm": ({Verdict.TIME_LIMIT}, "it is ended by SIGKILL"),
    "posix_fork_children": ({PASSED, CRASHED}, "a few processes are allowed, and end with it"),
    "posix_spawn_exec": ({WRONG, CRASHED}, "no other program can be started"),
    "fork_exec_private": ({WRONG, CRASHED}, "no other program can be started"),
    "kill_parent_probe": (
        {PASSED, CRASHED},
        "its parent does nothing but fork it",
    ),
    "kill_parent_real": ({WRONG, CRASHED}, "it prints nothing"),
    "ptrace_parent": ({WRONG, CRASHED}, "it cannot trace its parent"),
    "thread_survivor": ({PASSED}, "it answers, and sleeps within its limit"),
    "mem_bomb_1g": ({Verdict.MEMORY_LIMIT}, "its memory is limited to half of that"),
    "stdout_many_lines": ({Verdict.OUTPUT_LIMIT}, "its output is limited to a sixth of that"),
    "raw_fd_flood": ({PASSED}, "standard error goes nowhere, and the answer is right"),
    "many_fds": ({PASSED}, "200 descriptors are allowed, and the answer is right"),
    "net_socket": ({WRONG, CRASHED}, "there is no network, not even a local one"),
    "env_secret": ({WRONG}, "its environment is its own"),
    "proc_parent_environ": ({WRONG, CRASHED}, "the judge's environment cannot be read"),
    "plant_module": ({PASSED}, "the file is in a folder that goes with it"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in with a file that must not change, and one for temporary files."""
    place = tmp_path_factory.mktemp("attacks")
    (place / "work").mkdir()
    (place / "work" / "canary").write_text(SECRET)
    (place / "tmp").mkdir()
    place.chmod(0o711)
    return place


@pytest.fixture(scope="module")
def judge(place):
    """A judge of one worker in that place, in a process whose environment holds a secret."""
    prctl = ctypes.CDLL(None).prctl
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANARY_TOKEN", SECRET)
        patch.setattr("tempfile.tempdir", str(place / "tmp"))
        patch.chdir(place / "work")
        # Whatever outlives its parents becomes a child of this process, where it is counted.
        assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        before = below(os.getpid())
        execution = config.Execution(workers=1, time_limit_s=6.0, memory_mb=512)
        with Judge(execution) as judge:
            assert judge.submit(ECHO, "print(input())").result(timeout=120).passed
            yield judge
        assert settles(lambda: below(os.getpid()) == before), below(os.getpid()) - before
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        assert list((place / "tmp").iterdir()) == []


def outside(place: Path) -> dict[str, object]:
    """What an attack may not change: this process's environment and the files around it."""
    files = {str(p): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    return {"environment": dict(os.environ), "files": files, "here": os.getcwd()}


def test_every_attack_has_an_expectation():
    assert set(EXPECTED) == set(ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(judge, place, name):
    attack = ATTACKS[name]
    before, processes = outside(place), len(below(os.getpid()))
    outcome = judge.submit(problem_of(attack), attack["code"]).result(timeout=120)
    verdicts, reason = EXPECTED[name]
    assert outcome.verdict in verdicts, f"{attack['what']}: {outcome}, though {reason}"
    assert not (attack["category"] == "reward_hack" and outcome.passed)
    assert judge.submit(ECHO, "print(input())").result(timeout=120).passed
    assert judge.submit(ECHO, "print(int(input()) + 1)").result(timeout=120).verdict is WRONG
    assert settles(lambda: len(below(os.getpid())) == processes), below(os.getpid())
    assert outside(place) == before


@pytest.mark.parametrize(
    "reach",
    [
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "__import__('subprocess').run(['/bin/true'])",
        "__import__('socket').socket()",
        "open(f'/proc/{os.getppid()}/mem', 'rb')",
        "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
        f"open('/proc/{os.getpid()}/environ', 'rb').read()",
        f"os.kill({os.getpid()}, 0)",
    ],
)
def test_out_of_reach(judge, reach):
    code = f"import os\ntry:\n    {reach}\nexcept OSError:\n    print('refused')"
    outcome = judge.submit(stdin_problem(("", "refused")), code).result(timeout=120)
    assert outcome.passed, outcome.detail
