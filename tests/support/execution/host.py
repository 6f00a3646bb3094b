"""What runs on this machine because of a test."""

import contextlib
import os
import re
import time
from collections import Counter
from pathlib import Path


def below(root: int) -> set[int]:
    """The processes below this one, those not counted that only wait to be collected."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    found, new = set(), {root}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def at_rest(judge) -> None:
    """Wait until all workers are up and have nothing left of the programs that they judged.

    For a judge that judges none now. It does not wait by itself: the end of a program's loader is
    heard when the next program comes.
    """
    for slot in judge._slots:
        for worker in slot._workers():
            assert worker.isolation
            while worker.pending_ends:
                worker._handle_reply(worker._next(time.monotonic() + 60, running=False))


def descriptors() -> Counter[str]:
    """What this process has open, without the numbers that differ from one file to the next.

    Compare two of them with `after <= before`: a collection may close what other tests left open
    in the meantime, and nothing but the code under test opens anything.
    """
    found = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            found[re.sub(r"\d+", "", os.readlink(entry))] += 1
    return found


def settles(condition, seconds: float = 20.0) -> bool:
    """Whether the condition holds, now or soon: the dead are collected with a delay."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
