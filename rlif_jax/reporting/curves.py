"""Draw metrics of one or more runs against the step, one small panel for each metric.

    python -m rlif_jax.reporting.curves runs/prob_disparity runs/tests_passed --out runs.png
    python -m rlif_jax.reporting.curves RUN_DIR --out runs.png --keys reward/mean exec/pass_rate

The faint line is the value of a step, the strong line its running mean. --out names a .png, .pdf or
.svg file.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.storage.folder import Folder, bucket_errors, folder_at, in_bucket

Series = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""Steps and values of each metric of a run, by its key in metrics.jsonl."""

DEFAULT_KEYS = (
    "reward/mean",
    "exec/pass_rate",
    "rollout/response_length",
    "stats/probability_disparity",
    "stats/token_entropy",
    "stats/self_certainty",
)
DEFAULT_WINDOW = 5

# Okabe and Ito's palette, told apart with every common colour blindness; yellow is left out as too
# pale on white. The dashes repeat the distinction for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
Dashes = Literal["-", "--", "-.", ":"]
DASHES: tuple[Dashes, ...] = ("-", "--", "-.", ":")


def read_series(run: Folder) -> Series:
    """Steps and values of every key in a run folder's metrics.jsonl.

    A half-written last line, as a run in progress may have, is left out.

    Raises:
        UserError: the folder has no metrics.
    """
    path = run / "metrics.jsonl"
    with bucket_errors(run):
        found = path.is_file()
    if not found:
        raise UserError(f"{path} does not exist. Name the folder of a run that has done a step.")
    series: dict[str, tuple[list[int], list[float]]] = {}
    for line in path.read_text("utf-8").split("\n")[:-1]:
        record = json.loads(line)
        step = record.pop("step")
        for key, value in record.items():
            steps, values = series.setdefault(key, ([], []))
            steps.append(step)
            values.append(value)
    return series


def read_runs(folders: Sequence[Folder]) -> dict[str, Series]:
    """`read_series` of each folder, by its name, or by its path where two have the same name."""
    names = [f.name if in_bucket(f) else f.resolve().name for f in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return {name: read_series(run) for name, run in zip(names, folders, strict=True)}


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and those up to window - 1 before it."""
    return [
        math.fsum(part) / len(part)
        for part in (values[max(end - window, 0) : end] for end in range(1, len(values) + 1))
    ]


def figure(
    runs: Mapping[str, Series], keys: Sequence[str] = (), window: int = DEFAULT_WINDOW
) -> Figure:
    """A panel for each key, in it two lines for each run that has the key: values, running mean.

    Without `keys` those of `DEFAULT_KEYS` that a run has. Evaluations (`eval/...`) come every few
    steps: their points are marked and their mean is not taken.

    Raises:
        UserError: a key that no run has; the message lists those that there are.
    """
    keys = drawn_keys(runs, keys)
    columns = min(len(keys), 3)
    rows = math.ceil(len(keys) / columns)
    drawn = Figure(figsize=(4.0 * columns, 2.7 * rows + 0.6), layout="constrained")
    panels: list[Axes] = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for panel, key in zip(panels, keys, strict=False):
        _draw_panel(panel, key, runs, window)
    for panel in panels[len(keys) :]:
        panel.set_visible(False)
    drawn.supxlabel(f"step (strong line: mean of the last {window} steps)", fontsize=10)
    handles = [
        Line2D([], [], color=colour, linestyle=dashes, linewidth=2)
        for colour, dashes in map(_style, range(len(runs)))
    ]
    drawn.legend(handles, list(runs), loc="outside upper center", ncols=min(len(runs), 4))
    return drawn


def drawn_keys(runs: Mapping[str, Series], keys: Sequence[str] = ()) -> list[str]:
    """The keys that `figure` draws.

    Raises:
        UserError: as in `figure`.
    """
    known = {key for series in runs.values() for key in series}
    chosen = list(keys) or [key for key in DEFAULT_KEYS if key in known]
    missing = [key for key in chosen if key not in known]
    if missing or not chosen:
        raise UserError(
            f"No run has {', '.join(missing or DEFAULT_KEYS)}. The metrics of these runs are: "
            f"{', '.join(sorted(known)) or 'none, they have done no step'}."
        )
    return chosen


def _draw_panel(panel: Axes, key: str, runs: Mapping[str, Series], window: int) -> None:
    for number, series in enumerate(runs.values()):
        if key not in series:
            continue
        steps, values = series[key]
        sparse = key.startswith("eval/")
        mean = values if sparse else running_mean(values, window)
        colour, dashes = _style(number)
        panel.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
        (strong,) = panel.plot(steps, mean, dashes, color=colour, linewidth=2)
        if sparse:
            strong.set_marker("o")
    panel.set_title(key, fontsize=11)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def _style(number: int) -> tuple[str, Dashes]:
    """Colour and dashes of a run."""
    return COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the runs and write the figure.

    Raises:
        UserError: a folder without metrics, a key that no run has, a file that cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m rlif_jax.reporting.curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=folder_at, metavar="RUN_DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--keys", nargs="+", default=(), metavar="KEY", help="metrics.jsonl keys")
    parser.add_argument(
        "--window", type=int, default=DEFAULT_WINDOW, help="steps of the running mean"
    )
    options = parser.parse_args(arguments)
    if options.window < 1:
        raise UserError(f"--window {options.window} must be at least 1 step.")
    runs = read_runs(options.runs)
    drawn = figure(runs, options.keys, options.window)
    try:
        drawn.savefig(options.out, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{options.out} cannot be written: {error}. Name another --out FILE.png."
        ) from error
    panels = len(drawn_keys(runs, options.keys))
    print(f"wrote {options.out}: {panels} panels, {len(runs)} runs")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
