"""The page of a report: one file of HTML that asks for nothing and shows it all."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
from markupsafe import Markup

from rlif_jax.reporting import compared, sections
from rlif_jax.reporting.evaluations import Evaluation
from rlif_jax.reporting.panels import (
    WINDOW,
    Curve,
    Panel,
    curves,
    further_panels,
    panels_of,
    study_panels,
)
from rlif_jax.reporting.recorded_runs import Method, RecordedRun, methods_of
from rlif_jax.reporting.shown_rollouts import (
    ByCorrectness,
    ShownStep,
    pooled,
    shown_rollouts,
    shown_samples,
)
from rlif_jax.reporting.svg import line_chart, script_json

TEMPLATES = Path(__file__).parent / "templates"
ROLLOUT_BYTES = 1_800_000
"""Of the page for completions; the rest of it is some hundred kB for ten runs."""


@dataclass(frozen=True)
class Options:
    """What a page shows and how; `refresh_s` has the browser load it again, 0: never."""

    title: str = ""
    keys: Sequence[str] = ()
    control: str = "random"
    margin: float = 0.02
    window: int = WINDOW
    refresh_s: int = 0


@dataclass(frozen=True)
class Chart:
    """A panel as the page holds it, with a legend of its own for the curves in `named`."""

    panel: Panel
    svg: Markup
    named: Sequence[Curve] = ()


def render(runs: Sequence[RecordedRun], evaluations: Sequence[Evaluation], options: Options) -> str:
    """The page of these runs and results.

    Raises:
        UserError: a file of rollouts cannot be read, or no run has one of `options.keys`.
    """
    methods = methods_of(runs)
    shown, rewards = shown_rollouts(runs, ROLLOUT_BYTES)
    browsed = [(run.name, steps) for run, steps in zip(runs, shown, strict=True) if steps]
    browsed += [(one.name, steps) for one in evaluations if (steps := shown_samples(one))]
    now = datetime.datetime.now(datetime.UTC)
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=options.title or _title(runs, evaluations),
            made=f"{now:%d %B %Y, %H:%M} UTC",
            refresh_s=options.refresh_s,
            window=options.window,
            style=Markup((TEMPLATES / "report.css").read_text("utf-8")),
            script=Markup((TEMPLATES / "report.js").read_text("utf-8")),
            methods=methods,
            runs=runs,
            going_on=any(run.in_use and not run.ended for run in runs),
            summary=sections.summary(methods, options.control, options.margin),
            panels=_charts(methods, panels_of(runs, options.keys), options.window, "panel"),
            more=[]
            if options.keys
            else _charts(methods, further_panels(runs), options.window, "more"),
            sweeps=[
                (one, _sweep_chart(one, f"sweep{n}"))
                for n, one in enumerate(compared.sweeps(methods))
            ],
            bootstraps=_bootstraps(methods),
            rewards=_rewards(methods, dict(zip(map(id, runs), rewards, strict=True))),
            makers=compared.makers(runs),
            rewarded=compared.rewarded(methods),
            timeline=sections.timeline(runs),
            times=sections.times(methods),
            differences=compared.differences(methods) if methods else None,
            evaluations=evaluations,
            browsed=browsed,
            index=Markup(script_json(_index(browsed))),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = lambda name: Markup("_<wbr>").join(name.split("_"))
    return environment


def _title(runs: Sequence[RecordedRun], evaluations: Sequence[Evaluation]) -> str:
    names = [run.name for run in runs] + [one.name for one in evaluations]
    if len(names) <= 3:
        return ", ".join(names)
    parts = [f"{len(runs)} runs"] if runs else []
    return ", ".join([*parts, *([f"{len(evaluations)} evaluations"] if evaluations else [])])


def _charts(
    methods: Sequence[Method], panels: Sequence[Panel], window: int, ident: str
) -> list[Chart]:
    charts = []
    for number, panel in enumerate(panels):
        drawn = curves(methods, panel, window)
        if drawn:
            svg = line_chart(drawn, panel.title, f"{ident}{number}", panel.evaluated)
            charts.append(Chart(panel, Markup(svg)))
    return charts


def _sweep_chart(swept: compared.SweptField, ident: str) -> Markup:
    places = list(range(len(swept.values)))
    drawn = [Curve("best", 0, places, swept.best), Curve("end", 1, places, swept.end)]
    title = f"held-out accuracy by {swept.field}"
    return Markup(line_chart(drawn, title, ident, marked=True, places=swept.values))


def _rewards(
    methods: Sequence[Method], found: Mapping[int, Sequence[ByCorrectness]]
) -> list[tuple[str, Sequence[ByCorrectness], Markup]]:
    """Of each method with verdicts the rewards by correctness, and their chart.

    `found` has them by the identity of the run.
    """
    shown = []
    for number, method in enumerate(methods):
        steps = pooled([one for run in method.runs for one in found[id(run)]])
        drawn = []
        for place, name in enumerate(("correct", "incorrect")):
            pairs = [(one.step, mean) for one in steps if (mean := getattr(one, name)) is not None]
            if pairs:
                drawn.append(Curve(name, place, *map(list, zip(*pairs, strict=True))))
        if drawn:
            title = f"reward by correctness, {method.name}"
            svg = line_chart(drawn, title, f"reward{number}", marked=True)
            shown.append((method.name, steps, Markup(svg)))
    return shown


def _bootstraps(methods: Sequence[Method]) -> list[Chart]:
    """Accuracy of the runs that start from others, beside these, over the steps of both."""
    runs = [run for method in methods for run in method.runs]
    by_folder = {_end(run.config.get("run_dir") or run.folder): run for run in runs}
    starts: dict[str, tuple[str, int]] = {}
    for method in methods:
        source, _, step = str(method.runs[0].config.get("init_from") or "").rpartition("@")
        if source and step.isdecimal():
            starts[method.name] = (_end(source), int(step))
    if not starts:
        return []
    parents = {id(by_folder[source]) for source, _ in starts.values() if source in by_folder}
    accuracy = [panel for panel in study_panels(runs) if panel.letter == "a"]
    charts = []
    for number, panel in enumerate(accuracy):
        drawn = [
            replace(curve, steps=[step + starts[curve.name][1] for step in curve.steps])
            if curve.name in starts
            else curve
            for curve in curves(methods, panel)
            if curve.name in starts or any(id(r) in parents for r in methods[curve.number].runs)
        ]
        if drawn:
            svg = line_chart(drawn, f"{panel.title}, after a start", f"boot{number}", True)
            charts.append(Chart(panel, Markup(svg), drawn))
    return charts


def _end(folder: object) -> str:
    return str(folder).rstrip("/").rpartition("/")[2]


def _index(browsed: Sequence[tuple[str, Sequence[ShownStep]]]) -> list[dict[str, object]]:
    """Which completions the page holds, for its script: by run, their steps and element's ids."""
    return [
        {
            "name": name,
            "steps": [
                {"step": one.step, "rows": one.rows, "of": one.of, "id": f"r{number}-{one.step}"}
                for one in steps
            ],
        }
        for number, (name, steps) in enumerate(browsed)
    ]
