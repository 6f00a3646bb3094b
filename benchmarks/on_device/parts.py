"""Running the parts one after the other, within a time, whatever becomes of each."""

import contextlib
import gc
import resource
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from benchmarks.on_device.results import (
    Ceilings,
    Check,
    Ending,
    Figure,
    Found,
    Refusal,
    Status,
)
from rlif_jax.console.notice import Notice
from rlif_jax.errors import UserError

_COMPILE = "/jax/core/compile/backend_compile_duration"
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")


class CompileMeter:
    """Seconds that XLA has spent compiling and the number of its compilations, while it is open."""

    def __init__(self) -> None:
        self.seconds, self.count = 0.0, 0

    def __enter__(self) -> "CompileMeter":
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILE:
            self.seconds += duration_secs
            self.count += 1


class Parts:
    """The parts that have run, and what they have found, within `minutes` from now.

    `notice` is called with a line for each part; `now` gives the time in seconds.
    """

    def __init__(
        self,
        minutes: float,
        meter: CompileMeter,
        notice: Notice,
        now: Callable[[], float] = time.monotonic,
    ):
        self._meter, self._notice, self._now = meter, notice, now
        self._end = now() + 60 * minutes
        self._taken: list[tuple[float, float]] = []
        self.checks: list[Check] = []
        self.figures: list[Figure] = []
        self.refusals: list[Refusal] = []
        self.endings: list[Ending] = []
        self.ceilings: Ceilings | None = None

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return self._end - self._now()

    @property
    def _slower(self) -> float:
        """How many times the seconds that they need the parts so far have taken, at least 1."""
        needed, taken = (sum(column) for column in zip((0.0, 0.0), *self._taken, strict=True))
        return max(1.0, taken / needed) if needed else 1.0

    @property
    def passed(self) -> bool:
        """Whether every check that ran has passed and no part has ended in an error."""
        return all(check.passed for check in self.checks) and not any(
            ending.status == "error" for ending in self.endings
        )

    def run(self, name: str, needs: float, work: Callable[[], Iterable[Found]]) -> None:
        """Run a part that takes about `needs` seconds, unless less is left; keep what it yields.

        Where parts have taken longer than they need, this one is expected to as well. What it found
        before it failed is kept. Nothing but a signal ends the benchmark.
        """
        start, compiled = self._now(), self._meter.seconds
        expected = needs * self._slower
        status, reason = "skipped", f"takes about {expected:.0f} s and {self.left:.0f} s are left"
        if self.left >= expected:
            self._notice(f"{name} ...")
            status, reason = self._outcome(work)
            gc.collect()  # what a failure has left on the device
            self._taken.append((needs, self._now() - start))
        ending = Ending(
            part=name,
            status=status,
            reason=reason,
            seconds=self._now() - start,
            compile_seconds=self._meter.seconds - compiled,
            peak_bytes=peak_bytes(),
        )
        self.endings.append(ending)
        if status != "done":
            self._notice(f"{name}: {status}; {reason}")

    def _outcome(self, work: Callable[[], Iterable[Found]]) -> tuple[Status, str]:
        try:
            for found in work():
                self._keep(found)
        except UserError as error:
            return "cannot run here", str(error)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            if isinstance(error, MemoryError) or any(mark in text for mark in _OUT_OF_MEMORY):
                return "out of memory", text
            traceback.print_exc()
            return "error", f"{type(error).__name__}: {text}"
        return "done", ""

    def _keep(self, found: Found) -> None:
        match found:
            case Check():
                self.checks.append(found)
            case Figure():
                self.figures.append(found)
            case Refusal() if found not in self.refusals:
                self.refusals.append(found)
            case Ceilings():
                self.ceilings = self.ceilings.or_better(found) if self.ceilings else found


def peak_bytes() -> int:
    """The most memory in use so far: the device's, or this process's where it does not count."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def nothing_compiles() -> Iterator[None]:
    """Raise RuntimeError at the end if anything was compiled meanwhile: that is not to be timed."""
    with CompileMeter() as meter:
        yield
    if meter.count:
        raise RuntimeError(f"{meter.count} stages were compiled while they were timed")


def timed(run: Callable[[], Any], repeats: int) -> tuple[float, ...]:
    """Seconds of each of `repeats` calls, until what they return is there; one untimed before."""
    jax.block_until_ready(run())
    seconds = []
    with nothing_compiles():
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds.append(time.perf_counter() - start)
    return tuple(seconds)
