"""Where the seconds of a step went."""

import contextlib
import time
from collections.abc import Iterator

PHASES = ("data", "sync", "sample", "score", "execute", "update")


class Watch:
    """Wall-clock seconds of one step, by phase.

    `data` is the waiting for problems and prompts, `execute` that for tests which nothing hid.
    """

    def __init__(self):
        self._start = time.perf_counter()
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        start = time.perf_counter()
        yield
        self._seconds[phase] += time.perf_counter() - start

    def metrics(self, sampled_tokens: int, trained_tokens: int) -> dict[str, float]:
        """`time/*` in seconds and `throughput/*` in tokens per second, up to now.

        `sampled_tokens` counts completion tokens, `trained_tokens` those of prompts as well.
        """
        seconds = self._seconds
        return {
            **{f"time/{phase}": seconds[phase] for phase in PHASES},
            "time/step": time.perf_counter() - self._start,
            "throughput/sample_tokens_per_s": sampled_tokens / seconds["sample"],
            "throughput/train_tokens_per_s": trained_tokens / seconds["update"],
        }
