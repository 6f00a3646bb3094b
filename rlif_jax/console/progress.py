"""What a person sees of a run: a live bar on a terminal, plain lines in a pipe or in CI."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rlif_jax.console.screen import Screen, format_duration

ROWS_PER_HEADER = 20

RECENT_STEPS = 8
"""Steps whose mean duration gives the time left."""


class _Column(NamedTuple):
    title: str
    key: str
    decimals: int
    word: str
    width: int


_COLUMNS = (
    _Column("reward", "reward/mean", 3, "reward {}", 8),
    _Column("pass", "exec/pass_rate", 2, "pass {}", 6),
    _Column("length", "rollout/response_length", 0, "length {}", 7),
    _Column("disparity", "stats/probability_disparity", 3, "disparity {}", 10),
    _Column("tok/s", "throughput/sample_tokens_per_s", 0, "{} tok/s", 7),
    _Column("seconds", "time/step", 1, "{} s", 8),
)
_WIDE_COLUMNS = (
    _Column("entropy", "stats/token_entropy", 3, "", 8),
    _Column("cut off", "rollout/truncated_fraction", 2, "", 8),
    _Column("grad norm", "grad/norm", 3, "", 10),
)
_WIDE = 100  # terminal columns from which the wide columns are shown


def evaluation_lines(metrics: Mapping[str, float]) -> list[str]:
    """One line for each data set among the `eval/<dataset>/...` keys of a step.

    `eval starter: avg@4 0.412 (95% 0.310 to 0.512), pass@4 0.625, length 61.5`
    """
    datasets: dict[str, list[str]] = {}
    for key, value in metrics.items():
        section, _, rest = key.partition("/")
        dataset, _, name = rest.rpartition("/")
        if section != "eval" or name.endswith(("_low", "_high")):
            continue
        title = "length" if name == "response_length" else name
        text = f"{title} {value:.3f}" if "@" in name else f"{title} {value:.1f}"
        if f"{key}_low" in metrics and f"{key}_high" in metrics:
            text += f" (95% {metrics[f'{key}_low']:.3f} to {metrics[f'{key}_high']:.3f})"
        datasets.setdefault(dataset, []).append(text)
    return [f"eval {dataset}: {', '.join(texts)}" for dataset, texts in datasets.items()]


def _value(metrics: Mapping[str, float], column: _Column) -> str:
    value = metrics.get(column.key)
    if value is None:
        return "-"
    return f"{round(value, column.decimals) + 0.0:.{column.decimals}f}"  # + 0.0: never "-0.000"


class Progress:
    """Shows phases and steps of a run of `total_steps`, `start_step` of them done before.

    A context manager.

    On a terminal that a person watches: one table row a step that scrolls up, and below it a
    spinner with the phase and a bar with the step, the time elapsed and the time left. Otherwise
    plain lines: one a step, and one a phase until the first step is done, for that is when loading
    and compiling take long. `clock` gives seconds.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        screen: Screen | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total_steps = total_steps
        self._screen = screen or Screen()
        self._clock = clock
        self._done = start_step
        self._phase = ""
        self._phase_printed = ""
        self._started = self._last_step_at = clock()
        self._durations: list[float] = []
        self.time_left: float | None = None
        """Seconds for the remaining steps at the pace of the recent ones; None before a step."""
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        self._header_width = self._rows = 0

    def __enter__(self) -> Self:
        self._started = self._last_step_at = self._clock()
        if self._screen.watched:
            self._live = Live(
                console=self._screen.console,
                get_renderable=self._footer,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def phase(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show what happens now, as in phase("sampling", 37, 64); a `Notice`.

        Where nobody watches, counts are not shown.
        """
        self._phase = text if done is None else f"{text} {done}/{total}"
        starting = self.time_left is None
        if self._live is None and starting and text != self._phase_printed:
            self._phase_printed = text
            self._screen.note(text if text.endswith("...") else f"{text} ...")
        if self._live is not None and done is None:
            self._live.refresh()  # counts come often: they wait for the next regular drawing

    def note(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Print a line that stays, such as where the run is kept; a `Notice`."""
        self._screen.note(text, done, total)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the line of a finished step from its metrics.jsonl keys; an absent one is a "-".

        Evaluation keys among them are shown on lines of their own.
        """
        now = self._clock()
        elapsed = now - self._last_step_at
        if not self._durations:  # loading and a first evaluation are no part of the first step
            elapsed = metrics.get("time/step", elapsed)
        self._durations.append(elapsed)
        self._last_step_at = now
        self._done = step
        self.time_left = self._estimate()
        self._phase = ""
        if self._live is None:
            self._screen.note(self._plain_line(step, metrics))
        else:
            self._live.refresh()
            self._print_row(step, metrics)
        for line in evaluation_lines(metrics):
            self._screen.note(f"  {line}")

    def _estimate(self) -> float:
        # The first step compiles, so it counts only while there is no other.
        recent = self._durations[1:][-RECENT_STEPS:] or self._durations
        return (self.total_steps - self._done) * sum(recent) / len(recent)

    def _left(self) -> str:
        return "-" if self.time_left is None else format_duration(self.time_left)

    def _plain_line(self, step: int, metrics: Mapping[str, float]) -> str:
        parts = [f"step {step}/{self.total_steps}"]
        parts += [column.word.format(_value(metrics, column)) for column in _COLUMNS]
        return "  ".join([*parts, f"left {self._left()}"])

    def _print_row(self, step: int, metrics: Mapping[str, float]) -> None:
        width = self._screen.console.width
        columns = _COLUMNS + (_WIDE_COLUMNS if width >= _WIDE else ())
        label = f"{step}/{self.total_steps}"
        first = max(len(f"{self.total_steps}") * 2 + 1, len("step"))
        # At the start, when the window changes its size, and before the last one scrolls away.
        if width != self._header_width or self._rows % ROWS_PER_HEADER == 0:
            self._header_width = width
            titles = "".join(column.title.rjust(column.width) for column in columns)
            self._print_clipped(Text("step".rjust(first) + titles, style="bold"))
        self._rows += 1
        row = Text(label.rjust(first), style="cyan")
        for column in columns:
            row.append(_value(metrics, column).rjust(column.width), style="default")
        self._print_clipped(row)

    def _print_clipped(self, text: Text) -> None:
        self._screen.console.print(text, no_wrap=True, overflow="crop", crop=True)

    def _footer(self) -> RenderableType:
        elapsed = format_duration(self._clock() - self._started)
        phase = Table.grid(padding=(0, 1))
        phase.add_row(self._spinner, Text(self._phase or "working", no_wrap=True, overflow="crop"))
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(
            Text(f"step {self._done}/{self.total_steps}", style="cyan"),
            ProgressBar(total=max(self.total_steps, 1), completed=self._done),
            Text(f"{elapsed} elapsed, {self._left()} left"),
        )
        return Group(phase, bar)
