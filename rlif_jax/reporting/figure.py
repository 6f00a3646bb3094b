"""The panels of runs as a figure for a paper, and their numbers as CSV."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rlif_jax.errors import UserError
from rlif_jax.reporting.panels import WINDOW, Panel, curves, known_keys, panels_of
from rlif_jax.reporting.recorded_runs import Method, RecordedRun, methods_of

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
    panels = panels_of(runs, keys)
    if not panels:
        has = ", ".join(sorted(known_keys(runs))) or "none, they have done no step"
        raise UserError(f"no run has a metric of the ten panels; name some with --keys, of: {has}.")
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


def _draw(place: Axes, panel: Panel, methods: Sequence[Method], window: int) -> None:
    shade = min(0.15, 0.45 / len(methods))  # many bands over one another would hide the lines
    for curve in curves(methods, panel, window):
        colour, dashes = _style(curve.number)
        if curve.low:
            place.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=shade, lw=0)
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


def in_format(drawn: Figure, kind: str) -> bytes:
    """A figure as a file of this kind, such as "png". Raises ValueError for an unknown one."""
    file = io.BytesIO()
    drawn.savefig(file, format=kind, dpi=150)
    return file.getvalue()


def as_csv(runs: Sequence[RecordedRun]) -> str:
    """All metrics as lines of run, seed, step, metric and value, below their names."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("run", "seed", "step", "metric", "value"))
    for run in runs:
        for record in run.records:
            for key, value in record.items():
                if key != "step":
                    rows.writerow((run.name, run.seed, record["step"], key, value))
    return text.getvalue()
