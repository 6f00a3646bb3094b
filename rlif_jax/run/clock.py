"""Where the seconds of a run went, step by step, in metrics.jsonl and in a profiler's trace."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import jax

PHASES = (
    *("data", "sync", "sample", "score", "execute", "reward", "update", "record"),
    *("evaluate", "save", "other"),
)


class Clock:
    """Wall-clock seconds by phase. Every second belongs to one phase, and "other" has the rest.

    `data` reads problems and builds prompts; `sync` lays parameters out for sampling; `execute`
    waits for tests that are still running when sampling and scoring are over; `reward` combines the
    terms into advantages; `record` copies a step's arrays to the host, reduces them to metrics and
    writes the rollouts. A step's lap begins where the last one's ended, so that `save` and what
    writes metrics.jsonl count towards the step that follows.

    Each phase is an event of its name in a trace of JAX's profiler. `recorded` is a record of an
    interrupted lap, which this one continues; `now` gives the time in seconds.
    """

    def __init__(
        self, recorded: Mapping[str, float] = {}, now: Callable[[], float] = time.perf_counter
    ):
        self._seconds = {phase: recorded.get(f"time/{phase}", 0.0) for phase in PHASES}
        self._now, self._phase, self._since = now, "other", now()

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside towards `phase`, and not towards the phase around it."""
        outer = self._enter(phase)
        try:
            with jax.profiler.TraceAnnotation(phase):
                yield
        finally:
            self._enter(outer)

    def _enter(self, phase: str) -> str:
        now, before = self._now(), self._phase
        self._seconds[before] += now - self._since
        self._since, self._phase = now, phase
        return before

    def throughput(self, sampled_tokens: int, trained_tokens: int) -> dict[str, float]:
        """`throughput/*` of this lap in tokens per second, once it has sampled and updated.

        `sampled_tokens` counts completion tokens, `trained_tokens` those of prompts as well.
        """
        return {
            "throughput/sample_tokens_per_s": sampled_tokens / self._seconds["sample"],
            "throughput/train_tokens_per_s": trained_tokens / self._seconds["update"],
        }

    def lap(self) -> dict[str, float]:
        """`time/*` in seconds since the last call, and their sum as `time/step`; start again."""
        self._enter(self._phase)
        seconds, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return {
            **{f"time/{phase}": seconds[phase] for phase in PHASES},
            "time/step": sum(seconds.values()),
        }
