"""The table of a study's runs, in Markdown: held-out accuracy, and whether a collapse was told.

    python -m benchmarks.study_rows [--runs benchmarks/laptop_study]

Accuracies are avg@K in percent with their 95% intervals over problems; lengths in tokens and
entropies in nats are those of the first and of the last training step. `collapse told` and `gain
lost` are the steps of `benchmarks.guard`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.guard import judged
from rlif_jax.reporting.held_out import Score
from rlif_jax.reporting.recorded_runs import RecordedRun, folders_of, read_runs
from rlif_jax.run.monitor import ENTROPY, LENGTH

COLUMNS = (
    *("run", "before", "best, at step", "at the end", "response length", "token entropy"),
    *("collapse told", "gain lost", "guard"),
)


def rows(folder: Path) -> Iterator[str]:
    """The head of the table, and a row for each run below a folder, by name."""
    yield _row(COLUMNS)
    yield "|" + "---|" * len(COLUMNS)
    for run in read_runs(folders_of([folder])):
        yield _row(_cells(run))


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(run: RecordedRun) -> tuple[str, ...]:
    best = max(run.scores, key=lambda score: score.value)
    guard = judged(run)
    return (
        f"`{run.name}`",
        _with_interval(run.scores[0]),
        f"{100 * best.value:.1f} at {best.step}",
        _with_interval(run.scores[-1]),
        _arrow(run, LENGTH, 0),
        _arrow(run, ENTROPY, 2),
        _step(guard.fired),
        _step(guard.lost),
        guard.outcome,
    )


def _with_interval(score: Score) -> str:
    assert score.low is not None and score.high is not None, "an evaluation of an older version"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _arrow(run: RecordedRun, key: str, digits: int) -> str:
    _, values = run.series(key)
    return f"{values[0]:.{digits}f} → {values[-1]:.{digits}f}"


def _step(step: int | None) -> str:
    return "-" if step is None else f"{step}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path(__file__).parent / "laptop_study")
    for row in rows(parser.parse_args().runs):
        print(row)


if __name__ == "__main__":
    main()
