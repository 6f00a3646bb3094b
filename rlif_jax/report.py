"""Make a page of runs, studies and evaluations: did it learn, did it collapse, what did it write.

python -m rlif_jax.report runs/prob_disparity runs/tests_passed --out report.html
python -m rlif_jax.report runs/* --out report.html --watch
python -m rlif_jax.report RUN result.json --out report.html --figure ten.pdf --csv metrics.csv

RUN is a run folder, finished, going on or killed; a folder of them, as a study leaves; or a result
of rlif_jax.evaluate. The page is one file: it holds all that it shows and asks for nothing.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rlif_jax.console.screen import Screen
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.reporting.evaluations import Evaluation, read_evaluation
from rlif_jax.reporting.figure import as_csv, figure, in_format
from rlif_jax.reporting.page import Options, render
from rlif_jax.reporting.panels import WINDOW
from rlif_jax.reporting.recorded_runs import RecordedRun, folders_of, read_runs
from rlif_jax.run.artifact import send_artifact
from rlif_jax.storage.folder import folder_at
from rlif_jax.storage.whole_file import write_whole

WATCH_S = 30


def report(arguments: argparse.Namespace, screen: Screen) -> bool:
    """Write what is asked for once; whether a run is going on, so that there will be more.

    Raises:
        UserError: there is no such run or result, or a file cannot be read or written.
    """
    runs, evaluations = _read(arguments.runs)
    options = Options(
        title=arguments.title,
        keys=arguments.keys,
        control=arguments.control,
        margin=arguments.margin,
        window=arguments.window,
        refresh_s=WATCH_S if arguments.watch and any(run.going_on for run in runs) else 0,
    )
    if arguments.out:
        page = _encoded(render(runs, evaluations, options))
        _write(arguments.out, page, "--out FILE.html")
        screen.note(
            f"wrote {arguments.out}, {len(page) / 1e6:.2f} MB: {_counted(runs, evaluations)}"
        )
    if arguments.send:
        for run in runs:
            send_artifact(run.folder, arguments.out, screen.note)
    if arguments.figure:
        panels = _write_figure(arguments, runs)
        screen.note(f"wrote {arguments.figure}: {panels} panels, {len(runs)} runs")
    if arguments.csv:
        lines = as_csv(runs)
        _write(arguments.csv, _encoded(lines), "--csv FILE.csv")
        screen.note(f"wrote {arguments.csv}: {lines.count(chr(10)) - 1} values")
    return any(run.going_on for run in runs)


def _read(locations: Sequence[str]) -> tuple[list[RecordedRun], list[Evaluation]]:
    results = [location for location in locations if location.endswith(".json")]
    folders = [folder_at(location) for location in locations if location not in results]
    return read_runs(folders_of(folders)), [read_evaluation(Path(name)) for name in results]


def _counted(runs: Sequence[RecordedRun], evaluations: Sequence[Evaluation]) -> str:
    counts = [(len(runs), "run"), (len(evaluations), "evaluation")]
    return ", ".join(f"{n} {name}{'s' if n > 1 else ''}" for n, name in counts if n)


def _write_figure(arguments: argparse.Namespace, runs: Sequence[RecordedRun]) -> int:
    """Write the figure as its file's name says; the number of its panels."""
    path, other = arguments.figure, "--figure FILE.png, .pdf or .svg"
    drawn = figure(runs, arguments.keys, arguments.window)
    try:
        data = in_format(drawn, path.suffix.removeprefix("."))
    except ValueError as error:
        raise UserError(f"{path} cannot be written: {error}. Name another {other}.") from error
    _write(path, data, other)
    return sum(place.get_visible() for place in drawn.axes)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _write(path: Path, data: bytes, option: str) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Name another {option}."
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m rlif_jax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders, folders of them, results (FILE.json)")
    add("--out", type=Path, metavar="FILE.html", help="the page")
    add("--send", action="store_true", help="send the page to the trackers of each run, log.to")
    add("--figure", type=Path, metavar="FILE", help="the panels as .png, .pdf or .svg")
    add("--csv", type=Path, metavar="FILE.csv", help="all metrics of all runs, a line for each")
    add("--keys", nargs="+", default=[], metavar="KEY", help="metrics to draw, in place of ten")
    add("--title", default="", help="title of the page")
    add("--window", type=int, default=WINDOW, help="steps of the running mean")
    add("--control", default="random", help="method that others are held against")
    add("--margin", type=float, default=0.02, help="accuracies so close are equal")
    add("--watch", action="store_true", help=f"write again every {WATCH_S} s while a run goes on")
    arguments = parser.parse_args(argv)
    with exit_on_user_error():
        if arguments.window < 1:
            raise UserError(f"--window {arguments.window} must be at least 1 step.")
        if not (arguments.out or arguments.figure or arguments.csv):
            raise UserError("nothing is asked for: give --out FILE.html, --figure or --csv.")
        if arguments.keys and not (arguments.out or arguments.figure):
            raise UserError("--keys chooses what is drawn: give --out or --figure.")
        if arguments.send and (arguments.watch or not arguments.out):
            raise UserError("--send sends a page that is written once: give --out, no --watch.")
        try:
            while report(arguments, Screen()) and arguments.watch:
                time.sleep(WATCH_S)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
