"""Traces of a run's steps by JAX's profiler: https://docs.jax.dev/en/latest/profiling.html."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import jax

from rlif_jax.storage.folder import Folder, in_bucket
from rlif_jax.storage.user_cache import cache_folder

STEP = "train"
"""The name of a training step in a trace; its argument `step_num` is the step's number."""


class StepTrace:
    """Traces the steps `traced` of a run into `folder`. A context manager.

    JAX's profiler cannot write to a bucket: for such a folder the trace goes to a folder of the
    user's cache.

    Phases appear in the trace by run/clock.py, parts of the stages by `jax.named_scope`. `note` is
    told where the trace is and how to open it, or why it cannot be written: the run continues
    without it. A run that ends within the steps leaves the trace of those it finished.
    """

    def __init__(self, folder: Folder, traced: range, note: Callable[[str], None]):
        if in_bucket(folder):
            folder = cache_folder() / "traces" / str(folder).removeprefix("gs://")
        self._folder, self._traced, self._note = Path(folder), traced, note
        self._running = False

    def __enter__(self) -> Self:
        return self

    def steps(self, steps: range) -> Iterator[int]:
        """The same steps, each under its name for the profiler while it is the current one."""
        skipped = [step for step in self._traced if step not in steps]
        if skipped:
            self._note(
                f"profile.steps names step {skipped[0]}, which an earlier start of this run did: "
                f"the trace begins at step {steps.start} or later"
            )
        return self._annotated(steps)

    def _annotated(self, steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            if step in self._traced and not self._running:
                self._start()
            with jax.profiler.StepTraceAnnotation(STEP, step_num=step):
                yield step
            if self._traced and step >= self._traced[-1]:
                self._stop()

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # an event for each Python call would slow the step down
        try:
            self._folder.mkdir(parents=True, exist_ok=True)  # else known only at the end
            jax.profiler.start_trace(self._folder, profiler_options=options)
        except (OSError, RuntimeError) as error:
            self._failed(error)
            return
        self._running = True

    def _failed(self, error: Exception) -> None:
        self._traced = range(0)
        self._note(f"the trace of profile.steps cannot be written to {self._folder}: {error}")

    def _stop(self) -> None:
        if not self._running:
            return
        self._running = False
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError) as error:
            self._failed(error)
            return
        self._note(
            f"the trace of profile.steps is in {self._folder}. Open it with XProf (pip install "
            f"xprof; xprof --port 8791 {self._folder}), or open its .trace.json.gz at "
            "https://ui.perfetto.dev"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
