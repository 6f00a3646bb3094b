"""A stream of programs through the judge, with results in the stream's order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from rlif_jax.console.interrupt import Interrupted
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Problem

UNFINISHED_PER_WORKER = 4
"""Programs handed to the judge and not yet judged; only these keep their problems in memory."""
AHEAD_PER_WORKER = 64
"""Results that wait for an earlier one: a program that hangs does not stop the other workers."""
STOP_CHECK_S = 0.2

Item = TypeVar("Item")


def judged_in_order(
    judge: Judge,
    workers: int,
    entries: Iterable[tuple[Item, Problem | None, str | None]],
    check_stop: Callable[[], Any] = lambda: None,
) -> Iterator[tuple[Item, Outcome | None]]:
    """Yield the item and the outcome of each entry (item, problem, program), in their order.

    An entry without a problem is not judged and has no outcome. Entries are read as the `workers`
    of the judge take them. `check_stop` is called now and then; where it raises `Interrupted`, what
    is finished is yielded first.

    Raises SandboxError when the judge fails, after the outcomes before; UserError for a problem
    that cannot be judged.
    """
    free = threading.Semaphore(UNFINISHED_PER_WORKER * workers)
    waiting: deque[tuple[Item, Future[Outcome] | None]] = deque()

    def finished() -> Iterator[tuple[Item, Outcome | None]]:
        while waiting and ((future := waiting[0][1]) is None or future.done()):
            yield waiting.popleft()[0], None if future is None else future.result()

    def finished_to(length: int) -> Iterator[tuple[Item, Outcome | None]]:
        yield from finished()
        while len(waiting) > length:
            check_stop()
            wait(filter(None, [waiting[0][1]]), STOP_CHECK_S)
            yield from finished()

    try:
        for item, problem, program in entries:
            check_stop()
            yield from finished_to(AHEAD_PER_WORKER * workers)
            future = None
            if problem is not None:
                while not free.acquire(timeout=STOP_CHECK_S):
                    check_stop()
                    yield from finished()
                future = judge.submit(problem, program)
                future.add_done_callback(lambda _: free.release())
            waiting.append((item, future))
        yield from finished_to(0)
    except Interrupted:
        yield from finished()
        raise
