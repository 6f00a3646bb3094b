"""The judge on machines that allow more or less of a sandbox, and what a program can reach."""

import os
from pathlib import Path

import pytest
from support.execution.confinement import LEVELS, ROOT, run_at, workplace
from support.execution.judging import stdin_problem
from support.execution.official import read_rows, row
from support.execution.probes import PROBES

from rlif_jax import config
from rlif_jax.execution.pool import Judge, weaknesses
from rlif_jax.execution.sandbox import seccomp
from rlif_jax.execution.sandbox.paths import package_folders, readable_paths

ATTACKS = {
    name: row
    for name, row in read_rows("attacks.jsonl").items()
    if row["category"] in ("reward_hack", "escape", "process", "host")
}
# They only ask whether something is possible, print the right answer and harm nobody.
HARMLESS = {"posix_fork_children", "kill_parent_probe", "plant_module", "thread_survivor"}


ASKED = [
    ["stdin", row("stdin", ["3", "5"], ["6", "10"]), "print(2 * int(input()))", False],
    [
        "numpy",
        row("stdin", ["3"], ["6"]),
        "import numpy\nprint(numpy.full(2, input(), int).sum())",
        False,
    ],
    ["function", row("f", ["3", "[1]"], ["6", "[1, 1]"], "f"), "def f(x): return 2 * x", False],
]
FORKS = "import os, time\nfor n in range(3):\n    if os.fork() == 0: {}"
BURNS = FORKS.format("\n        while True: pass")
HOLDS = FORKS.format("kept = bytearray(b'x') * (250 << 20); time.sleep(60)")
INDENTED = BURNS.replace("\n", "\n    ")
EXCESS = {  # of children, in CPU time or memory, while the program itself does nothing
    "cpu": [row("cpu", ["7"], ["7"]), f"{BURNS}\ntime.sleep(60)", "time_limit"],
    "cpu of a function": [
        row("cpu of a function", ["7"], ["7"], "f"),
        f"def f(x):\n    {INDENTED}\n    time.sleep(60)\n    return x",
        "time_limit",
    ],
    "memory": [row("memory", ["7"], ["7"]), f"{HOLDS}\ntime.sleep(60)", "memory_limit"],
}
EXCEEDING = [  # a slow machine takes seconds to fill the memory
    [name, {**asked, "time_limit_s": 10 if name == "memory" else 1}, code, False]
    for name, (asked, code, _) in EXCESS.items()
]
PROBED = [[name, row(name, [""], ["end"]), code, True] for name, code in PROBES.items()]
ATTACKED = [[name, attack, attack["code"], False] for name, attack in ATTACKS.items()]


@pytest.fixture(scope="module")
def session():
    """A function that judges all programs at a level, once, and returns what was seen."""
    seen: dict[str, dict] = {}

    def judged(level: str) -> dict:
        if level not in seen:
            with workplace(0o755) as folder:
                programs = [*ASKED, *PROBED, *EXCEEDING, *ATTACKED]
                seen[level] = run_at(level, folder, {"allow": True, "programs": programs})
        assert "error" not in seen[level], seen[level]["error"]
        return seen[level]

    return judged


WITH_NAMESPACES = {
    "process_ids": "restart for each test",
    "namespaces": "user, pid, network, mount, IPC, UTS",
    "files": "a read-only root with one folder in memory",
    "system_calls": "filtered",
    "network": "none",
}
WITHOUT = {
    "namespaces": "none ([Errno 1] unshare(0x10000000): Operation not permitted)",
    "files": "Landlock",
    "system_calls": "filtered",
    "network": "none",
}


@pytest.mark.parametrize(
    "level, isolation",
    [
        ("as it is", WITH_NAMESPACES | {"user": "separate" if ROOT else "own namespace"}),
        ("one user", WITH_NAMESPACES | {"user": "own namespace"}),
        ("a user", WITH_NAMESPACES | {"user": "own namespace"}),
        ("no namespaces", WITHOUT | {"user": "separate" if ROOT else "the judge's"}),
        ("a user, no namespaces", WITHOUT | {"user": "the judge's"}),
    ],
)
@pytest.mark.slow
def test_the_level_is_reported(session, level, isolation):
    assert session(level)["isolation"] == isolation
    shared = isolation["user"] == "the judge's"
    why = ["they would run as the user of this process"]
    assert session(level)["weaknesses"] == (why if shared else [])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", [name for name, *_ in ASKED])
def test_right_programs_pass_at_every_level(session, level, name):
    seen = session(level)["programs"][name]
    assert (seen["verdict"], seen["changed"]) == ("passed", {}), seen


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", PROBES)
def test_nothing_is_in_reach_at_any_level(session, level, name):
    seen = session(level)["programs"][name]
    assert seen["verdict"] == "passed", seen["detail"]
    assert seen["changed"] == {}
    assert seen["companion"] == [True]
    assert seen["after"] == [True, False] * 2


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", EXCESS)
def test_children_are_counted_at_every_level(session, level, name):
    seen = session(level)["programs"][name]
    assert (seen["verdict"], seen["changed"]) == (EXCESS[name][2], {}), seen


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_succeeds_at_any_level(session, level, name):
    seen = session(level)["programs"][name]
    assert seen["verdict"] != "passed" or name in HARMLESS, seen
    assert seen["changed"] == {}
    assert seen["after"] == [True, False] * 2


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_left_at_any_level(session, level):
    assert session(level)["left"] == {"processes": [], "files": [], "descriptors": 0}


def test_too_little_is_refused():
    """An ordinary user without namespaces: programs could signal the judge."""
    with workplace(0o755) as folder:
        seen = run_at("a user, no namespaces", folder, {"allow": False, "programs": ASKED})
    assert seen["refused"].startswith(
        "This machine cannot sandbox candidate programs: they would run as the user of this "
        "process ("
    )
    assert "namespaces: none ([Errno 1] unshare(0x10000000): Operation not perm" in seen["refused"]
    assert "files: Landlock" in seen["refused"]
    assert "--execution.allow-weak-isolation" in seen["refused"]
    assert seen["left"] == {"processes": [], "files": [], "descriptors": 0}


@pytest.mark.parametrize("level", LEVELS[:4] if ROOT else LEVELS[:3])
def test_enough_is_not_refused(level):
    with workplace(0o755) as folder:
        seen = run_at(level, folder, {"allow": False, "programs": ASKED})
    assert "programs" in seen, seen
    assert [seen["programs"][name]["verdict"] for name, *_ in ASKED] == ["passed"] * 3


@pytest.mark.parametrize("level", LEVELS)
def test_a_private_temporary_folder_opens_no_files(level):
    """Another user may not enter it: programs are sandboxed all the same, or refused."""
    with workplace(0o700) as folder:
        seen = run_at(level, folder, {"allow": False, "programs": [*ASKED, *PROBED]})
    assert "error" not in seen, seen["error"]
    if "refused" not in seen:
        assert {n: p["verdict"] for n, p in seen["programs"].items() if p["detail"]} == {}
    else:
        assert "no namespaces" in level
    assert seen["left"] == {"processes": [], "files": [], "descriptors": 0}


GOOD = WITH_NAMESPACES | {"user": "own namespace"}


@pytest.mark.parametrize(
    "found, why",
    [
        ({}, []),
        ({"namespaces": "none (x)", "user": "separate", "files": "Landlock"}, []),
        ({"user": "the judge's"}, ["user of this process"]),
        ({"system_calls": "unfiltered (x)"}, ["system calls would be unfiltered (x)"]),
        ({"network": "open"}, ["network"]),
        ({"files": "open (x)"}, ["files"]),
        ({"user": "the judge's", "network": "open"}, ["user of this process", "network"]),
    ],
)
def test_what_is_weak(found, why):
    lacking = weaknesses(GOOD | found)
    assert len(lacking) == len(why)
    assert all(part in text for part, text in zip(why, lacking, strict=True))


def test_the_root_shows_little_and_only_one_folder_can_be_written():
    package = Path(seccomp.__file__).parents[1]
    hidden = ["/home", "/etc/passwd", "/etc/shadow", "/sys", "/var", "/dev/pts", "/dev/mem"]
    hidden += [str(package), str(package.parent), str(Path(__file__)), os.getcwd()]
    shown = {"proc", "outer", "dev", "tmp", "python", "box"}
    shown |= {Path(place).parts[1] for place in readable_paths()}
    packages = package_folders(readable_paths())
    assert packages
    code = (
        "import os\n"
        f"for path in {hidden!r}:\n"
        "    if os.path.lexists(path): print('shown', path)\n"
        f"for name in set(os.listdir('/')) - {shown!r}: print('unexpected', name)\n"
        "print(sorted(os.listdir('/proc')), os.listdir('/outer'))\n"
        f"for path in {packages!r}:\n"
        "    if os.path.lexists(path) and os.listdir(path): print('packages', path)\n"
        "for base, folders, files in os.walk('/'):\n"
        "    if base == '/': folders.remove('proc')\n"
        "    if os.access(base, os.W_OK): print('own' if base == os.getcwd() else base)\n"
        "    for file in files:\n"
        "        path = base + '/' + file\n"
        "        if os.path.islink(path) or path.startswith('/dev/'): continue\n"
        "        if os.access(path, os.W_OK): print(path)\n"
    )
    expected = "['2', 'self', 'thread-self'] []\nown"
    with Judge(config.Execution(workers=1, time_limit_s=30.0)) as judge:
        assert judge.isolation["files"] == WITH_NAMESPACES["files"]
        outcome = judge.submit(stdin_problem(("", expected)), code).result(timeout=200)
    assert outcome.passed, outcome.detail
