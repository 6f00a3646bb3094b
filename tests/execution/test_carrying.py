"""No test learns from a program that an earlier test of it has run: generated attacks.

`carrying` draws programs that try to move one bit from a test to a later one. Under the judge all
tests of such a program answer alike. Under `carrying_control`, which lets everything through, every
part of the generator moves its bit, or it would prove nothing here.
"""

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, assume, given, settings
from support import TESTS
from support.execution.carrying import (
    INSIDE,
    PROBLEM,
    SORTS,
    Parts,
    answered,
    drawn,
    moved,
    plainest,
    programs,
    ran,
)
from support.execution.carrying_holders import attributes
from support.execution.carrying_ways import AT_ONCE, ELSEWHERE, ENCODINGS, LATER, STEPS, WAYS
from support.execution.judging import stdin_problem

from rlif_jax import config
from rlif_jax.execution.pool import Judge

EXECUTION = config.Execution(workers=2, time_limit_s=6.0, memory_mb=512)
CONTROL = TESTS / "support" / "execution" / "carrying_control.py"
# What a kernel or its settings may lack; where they do, the control says that it was refused.
MAY_BE_LACKING = {
    *("attribute of the folder", "flags of the folder", "hint of the folder", "group in /proc"),
    *("attribute of input", "hint of input", "named messages", "score in /proc", "locale"),
    *("mode of errors", "last number"),
}
PLAIN = {
    "module": "math",
    "class": "collections.Counter",
    "function": "collections.namedtuple",
    "dict": "copyreg.dispatch_table",
    "list": "opcode.opname",
    "set": "tokenize.single_quoted",
}


@pytest.fixture(scope="module")
def thorough():
    with Judge(EXECUTION, run_all_tests=True) as judge:
        yield judge


def promised(judge: Judge) -> set[str]:
    """The sorts of programs that cannot move a bit on this machine, by the judge's own report."""
    if judge.isolation.get("process_ids", "").startswith("restart"):
        return {"object", *SORTS}
    return {"object", "setting"}


@settings(
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(parts=programs())
def test_no_bit_moves(thorough, parts):
    assume(parts.sort in promised(thorough))
    answers = answered(thorough.submit(PROBLEM, parts.code).result(timeout=120))
    assert not moved(parts, answers), f"{parts}\n{answers}\n{parts.code}"


def test_no_bit_moves_in_any_holder(thorough):
    sorts = promised(thorough) & set(SORTS)
    every = [Parts(sort, holder) for sort in sorted(sorts) for holder in SORTS[sort]]
    waiting = [thorough.submit(PROBLEM, parts.code) for parts in every]
    answers = [answered(future.result(timeout=120)) for future in waiting]
    assert [p.holder for p, a in zip(every, answers, strict=True) if moved(p, a)] == []
    # An attack that fails before it begins tells nothing of the judge.
    assert sum(ran(p, a) for p, a in zip(every, answers, strict=True)) > 0.6 * len(every)


def control(requests: list[tuple[Parts, str]]) -> list[list[str]]:
    """Run programs under the control, each as its request says."""
    text = json.dumps([[parts.code, how] for parts, how in requests])
    command = [sys.executable, str(CONTROL)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def unmoved(requests: list[tuple[Parts, str]], times: int = 3) -> dict[Parts, list[str]]:
    """The programs whose bit never moves: whose later tests do not answer otherwise.

    They get several chances, since a loaded machine may hold up what another process does.
    """
    left: dict[Parts, list[str]] = {}
    for _ in range(times):
        left = {
            parts: answers
            for (parts, _), answers in zip(requests, control(requests), strict=True)
            if len(set(answers)) == 1 or not (parts.sort == "observed" or answers[0] == "0")
        }
        requests = [(parts, how) for parts, how in requests if parts in left]
    return left


def lasting(left: dict[Parts, list[str]]) -> dict[Parts, list[str]]:
    """What is left without what this machine's kernel refuses to anyone."""
    lacking = {p for p, a in left.items() if p.holder in MAY_BE_LACKING and "Error" in a[0]}
    return {parts: answers for parts, answers in left.items() if parts not in lacking}


def test_every_holder_of_a_process_is_real():
    left = unmoved([(Parts("setting", name), "interpreter") for name in INSIDE])
    assert lasting(left) == {}


@pytest.mark.parametrize("sort", ["outside", "observed"])
@pytest.mark.slow
def test_every_holder_beyond_a_process_is_real(sort):
    every = [Parts(sort, name) for name in SORTS[sort]]
    left = unmoved([(parts, "processes") for parts in every], times=1)
    left = unmoved([(parts, "interpreter") for parts in left])  # one process keeps its number
    assert lasting(left) == {}


@pytest.mark.slow
def test_every_way_step_and_encoding_is_real():
    plain = ("object", PLAIN["module"], "module/attribute")
    every = [Parts(*plain, way=way) for way in WAYS]
    every += [Parts("object", PLAIN["class"], "class/attribute", step=step) for step in STEPS]
    every += [
        Parts("object", PLAIN[kind], f"{kind}/{name}")
        for kind, encodings in ENCODINGS.items()
        for name in encodings
    ]
    assert unmoved([(parts, "interpreter") for parts in every]) == {}


def test_every_place_is_real():
    plain = ("object", PLAIN["module"], "module/setattr")
    every = [Parts(*plain, look_at=place) for place in AT_ONCE]
    every += [Parts(*plain, leave_at=place) for place in (*AT_ONCE, *LATER)]
    every += [Parts(*plain, around=place) for place in (*AT_ONCE, *LATER)]
    requests = [(parts, "interpreter") for parts in every]
    requests += [
        (Parts("outside", "file in the folder", **{which: place}), "processes")
        for place in ELSEWHERE
        for which in ("look_at", "leave_at", "around")
    ]
    assert unmoved(requests) == {}


@pytest.mark.slow
def test_most_drawn_programs_are_real():
    every = [parts for parts, _ in zip(drawn(0), range(200), strict=False)]
    hows = ["processes" if parts.outlives else "interpreter" for parts in every]
    assert len(unmoved(list(zip(every, hows, strict=True)), times=1)) < 0.4 * len(every)


def test_programs_are_drawn_alike_and_differ():
    every = [[parts for parts, _ in zip(drawn(7), range(300), strict=False)] for _ in range(2)]
    assert every[0] == every[1]
    assert len({parts.code for parts in every[0]}) > 290
    assert set(PLAIN) == set(ENCODINGS)
    assert all(
        tuple(holder.split(".")[1:]) in attributes(holder.split(".")[0])[kind]
        for kind, holder in PLAIN.items()
    )


def test_what_moves_is_seen_and_made_plainer():
    parts = Parts("setting", "umask", way="pickle", around="thread", leave_at="atexit")
    assert moved(parts, ("0", "1", "1")) and moved(parts, ("1", "1", "1"))
    assert moved(parts, ("0", "0", "runtime_error")) and not moved(parts, ("0", "0", "0"))
    assert plainest(parts, lambda p: p.leave_at == "atexit") == Parts(
        "setting", "umask", leave_at="atexit"
    )


# What remains, and is kept out of the generator: counters and caches of the whole machine. They
# tell that tests run one after another. Every program of the machine moves them; one that has a
# quiet machine to itself can move them by as much as it likes, and so leaves a bit at times.


def seen(judge: Judge, look: str) -> tuple[str, ...]:
    outcome = judge.submit(stdin_problem(*[("", "0")] * 3), look).result(timeout=120)
    return answered(outcome)


@pytest.mark.parametrize("what", ["os.pipe()[0]", "0", "1"])
def test_numbers_of_inodes_tell_the_order(thorough, what):
    """One counter numbers all pipes and sockets of a machine, another all files in memory."""
    found = seen(thorough, f"import os\nprint(os.fstat({what}).st_ino)")
    assert len(set(found)) == 3


def test_addresses_tell_odd_tests_from_even_ones(thorough):
    """Two places of a loader's memory may take turns; nothing that a test does changes that."""
    found = seen(thorough, "print([id(x) for x in (object(), [], {}, {1}, bytearray(99))])")
    assert found[0] == found[2]


def test_clocks_tell_the_order(thorough):
    found = seen(thorough, "import time\nprint(time.clock_gettime_ns(time.CLOCK_MONOTONIC))")
    assert len(set(found)) == 3


def test_the_page_cache_tells_what_has_been_read(thorough):
    """A file of the library, once read, is in memory; other programs may have read it, too."""
    found = seen(
        thorough,
        "import os\nf = os.open(os.path.dirname(os.__file__) + '/this.py', 0)\nn = 1\n"
        "try: os.preadv(f, [bytearray(1)], 0, os.RWF_NOWAIT)\nexcept OSError: n = 0\n"
        "os.pread(f, 1, 0)\nprint(n, end='')",
    )
    assert list(found) == sorted(found)
