"""The panels of runs as a figure for a paper, and their numbers as CSV."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rlif_jax.errors import UserError
from rlif_jax.reporting.panels import WINDOW, Panel, curves, known_keys, panels_of
from rlif_jax.reporting.recorded_runs import Method, RecordedRun, methods_of
from rlif_jax.storage.whole_file import write_whole

# Okabe and Ito's palette, told apart with every common colour blindness; yellow is left out as too
# pale on white. The dashes repeat the distinction for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
Dashes = Literal["-", "--", "-.", ":"]
DASHES: tuple[Dashes, ...] = ("-", "--", "-.", ":")


def figure(runs: Sequence[RecordedRun], keys: Sequence[str] = (), window: int = WINDOW) -> Figure:
    """A panel for each of `keys`, by default the study's ten, with a line for each method.

    Lines and bands are those of `panels.curves`.

    Raises:
        UserError: no run has one of the keys, or any of the ten.
    """
    panels = drawn_panels(runs, keys)
    methods = methods_of(runs)
    columns = min(len(panels), 5 if len(panels) > 6 else 3)
    rows = math.ceil(len(panels) / columns)
    drawn = Figure(figsize=(3.4 * columns, 2.5 * rows + 0.6), layout="constrained")
    places: list[Axes] = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for place, panel in zip(places, panels, strict=False):
        _draw(place, panel, methods, window)
    for place in places[len(panels) :]:
        place.set_visible(False)
    drawn.supxlabel(f"step (line of a single run: mean of its last {window} steps)", fontsize=10)
    handles = [
        Line2D([], [], color=colour, linestyle=dashes, linewidth=2)
        for colour, dashes in map(_style, range(len(methods)))
    ]
    names = [method.name for method in methods]
    drawn.legend(handles, names, loc="outside upper center", ncols=min(len(names), 5))
    return drawn


def drawn_panels(runs: Sequence[RecordedRun], keys: Sequence[str] = ()) -> list[Panel]:
    """The panels that `figure` draws.

    Raises:
        UserError: as in `figure`.
    """
    known = known_keys(runs)
    missing = [key for key in keys if key not in known]
    panels = panels_of(runs, keys)
    if missing or not panels:
        raise UserError(
            f"No run has {', '.join(missing) or 'what is drawn by default'}. The metrics of these "
            f"runs are: {', '.join(sorted(known)) or 'none, they have done no step'}."
        )
    return panels


def _draw(place: Axes, panel: Panel, methods: Sequence[Method], window: int) -> None:
    for curve in curves(methods, panel, window):
        colour, dashes = _style(curve.number)
        if curve.low:
            place.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        if curve.faint:
            place.plot(curve.steps, curve.faint, color=colour, alpha=0.25, linewidth=1)
        (line,) = place.plot(curve.steps, curve.values, dashes, color=colour, linewidth=2)
        if panel.evaluated or len(curve.steps) == 1:
            line.set_marker("o")
    letter = f"({panel.letter}) " if panel.letter else ""
    unit = f" [{panel.unit}]" if panel.unit else ""
    place.set_title(f"{letter}{panel.title}{unit}", fontsize=10)
    place.xaxis.set_major_locator(MaxNLocator(integer=True))
    place.grid(alpha=0.3)
    place.spines[["top", "right"]].set_visible(False)


def _style(number: int) -> tuple[str, Dashes]:
    """Colour and dashes of a method."""
    return COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]


def write_figure(
    runs: Sequence[RecordedRun], keys: Sequence[str], out: Path, window: int = WINDOW
) -> int:
    """Write the figure as its file's name says; the number of its panels.

    Raises:
        UserError: as in `figure`, and for a file that cannot be written.
    """
    drawn = figure(runs, keys, window)
    try:
        drawn.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{out} cannot be written: {error}. Name another --figure FILE.png, .pdf or .svg."
        ) from error
    return sum(place.get_visible() for place in drawn.axes)


def write_csv(runs: Sequence[RecordedRun], out: Path) -> int:
    """Write all metrics as lines of run, seed, step, metric and value; the number of lines.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("run", "seed", "step", "metric", "value"))
    lines = 0
    for run in runs:
        for record in run.records:
            for key, value in record.items():
                if key != "step":
                    rows.writerow((run.name, run.seed, record["step"], key, value))
                    lines += 1
    try:
        write_whole(out, text.getvalue().encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(
            f"{out} cannot be written: {error}. Name another --csv FILE.csv."
        ) from error
    return lines
