"""The parts of the page about runs: what became of each method, when it collapsed, what it cost."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rlif_jax.reporting.recorded_runs import Method, RecordedRun
from rlif_jax.reporting.seeds import SeedMean, seed_mean
from rlif_jax.reporting.study_summary import RunOutcome, summarise
from rlif_jax.run.monitor import SAID, SUSPICIOUS

PHASES = ("sample", "score", "execute", "reward", "update", "evaluate", "save", "sync", "record")
"""Parts of a step's time that are shown by name; the rest counts as other."""


@dataclass(frozen=True)
class Row:
    """A method in the summary, in words; `story` says what became of it."""

    name: str
    number: int
    runs: int
    state: str
    before: str
    best: str
    end: str
    length: str
    entropy: str
    collapse: str
    verdict: str
    story: str


def summary(methods: Sequence[Method], control: str, margin: float) -> list[Row]:
    """A row for each method; verdicts as `study_summary.summarise` gives them."""
    outcomes = {method.name: _outcomes(method) for method in methods}
    evaluated = {name: runs for name, runs in outcomes.items() if runs}
    found = {one.name: one for one in summarise(evaluated, control, margin)} if evaluated else {}
    # Of runs that have not ended nothing can be said yet: the steps of others are not theirs.
    ended = {method.name: _outcomes(method, ended=True) for method in methods}
    ended = {name: runs for name, runs in ended.items() if runs}
    said = {one.name: one.verdict for one in summarise(ended, control, margin)} if ended else {}
    rows = []
    for number, method in enumerate(methods):
        one = found.get(method.name)
        runs = list(outcomes[method.name].values())
        interval = _over_problems(method)
        rows.append(
            Row(
                name=method.name,
                number=number,
                runs=len(method.runs),
                state=_states(method),
                before=_accuracy(one.before, interval.get("before")) if one else "not evaluated",
                best=_best(runs),
                end=_accuracy(one.final, interval.get("end")) if one else "not evaluated",
                length=_from_to(method, "rollout/response_length", "{:.0f}"),
                entropy=_from_to(method, "stats/token_entropy", "{:.2f}"),
                collapse=_told(method),
                verdict=said.get(method.name, "not finished") if one else "",
                story=_story(method, runs),
            )
        )
    return rows


def _outcomes(method: Method, ended: bool = False) -> dict[int, RunOutcome]:
    """The outcomes of a method's runs by seed, or of those alone that have ended."""
    runs = [run for run in method.runs if run.ended or not ended]
    return {run.seed: run.outcome for run in runs if run.outcome is not None}


def _states(method: Method) -> str:
    states = [run.state for run in method.runs]
    return "; ".join(
        state if states.count(state) == 1 else f"{states.count(state)} {state}"
        for state in dict.fromkeys(states)
    )


def _accuracy(mean: SeedMean, over_problems: tuple[float, float] | None) -> str:
    """In percent, with the interval over seeds or, of one run, over problems."""
    if mean.n > 1 or over_problems is None:
        return mean.text(100)
    low, high = over_problems
    return f"{100 * mean.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _over_problems(method: Method) -> dict[str, tuple[float, float]]:
    """The intervals over problems before training and at the end, of a method with one run."""
    if len(method.runs) > 1:
        return {}
    scores = [s for s in method.runs[0].scores if s.dataset == method.runs[0].scores[0].dataset]
    ends = [(s.low, s.high) for s in scores if s.low is not None and s.high is not None]
    return {"before": ends[0], "end": ends[-1]} if ends else {}


def _best(runs: Sequence[RunOutcome]) -> str:
    if not runs:
        return "not evaluated"
    steps = [min(s for s, value in run.accuracy.items() if value == run.peak) for run in runs]
    where = ", ".join(str(step) for step in dict.fromkeys(steps))
    return f"{seed_mean([run.peak for run in runs]).text(100)} at {where}"


def _from_to(method: Method, key: str, form: str) -> str:
    _, values = method.series(key)
    if not values:
        return "not recorded"
    return " → ".join(form.format(statistics.fmean(of_step)) for of_step in (values[0], values[-1]))


def _told(method: Method) -> str:
    told = [run.collapse for run in method.runs]
    if not any(told):
        return "none told"
    steps = ", ".join(str(one[0]) if one else "none" for one in told)
    return f"step{'s' if len(told) > 1 else ''} {steps}"


def _story(method: Method, runs: Sequence[RunOutcome]) -> str:
    """What became of a method, in a sentence or two."""
    return f"{method.name}: {_learned(method, runs)} {_collapsed(method)}"


def _learned(method: Method, runs: Sequence[RunOutcome]) -> str:
    if runs:
        before, peak, end = (
            100 * statistics.fmean(values)
            for values in zip(*((r.before, r.peak, r.final) for r in runs), strict=True)
        )
        best = f", {peak:.1f} at best" if peak - max(before, end) > 0.05 else ""
        return (
            f"held-out accuracy was {before:.1f} percent at first{best} and {end:.1f} at the end."
        )
    _, values = method.series("exec/pass_rate")
    if len(values) < 2:
        return "nothing says yet whether it learns."
    few = max(min(5, len(values) // 2), 1)
    ends = [
        100 * statistics.fmean(v for of_step in part for v in of_step)
        for part in (values[:few], values[-few:])
    ]
    return (
        f"of the responses in training {ends[0]:.1f} percent passed in the first {few} steps and "
        f"{ends[1]:.1f} in the last."
    )


def _collapsed(method: Method) -> str:
    told = [run.collapse for run in method.runs if run.collapse]
    if not told:
        return "There were no signs of a collapse."
    signs = " or ".join(dict.fromkeys(SAID[reading.sign] for _, reading in told))
    steps = " and ".join(map(str, sorted({step for step, _ in told})))
    among = f" in {len(told)} of {len(method.runs)} runs" if len(method.runs) > 1 else ""
    return f"Signs of a collapse{among}, told at step {steps}: {signs}."


@dataclass(frozen=True)
class Strip:
    """The time of a run as parts of its length, each with its state, and what happened when."""

    name: str
    parts: Sequence[tuple[str, float]]
    events: str


def timeline(runs: Sequence[RecordedRun]) -> list[Strip]:
    """When each run showed signs of a collapse; parts are shares of the longest run's steps."""
    longest = max((run.last_step for run in runs), default=0) or 1
    return [_strip(run, longest) for run in runs if run.last_step]


def _strip(run: RecordedRun, longest: int) -> Strip:
    end = run.last_step
    told, since = end + 1, end + 1
    events = []
    if run.collapse:
        told, reading = run.collapse
        since = reading.since or told
        events.append(f"{SAID[reading.sign]}: signs since step {since}, told at step {told}")
    else:
        brief = [s for s, v in zip(*run.series("collapse/state"), strict=True) if v == SUSPICIOUS]
        if brief:
            events.append(f"passing signs at step {', '.join(map(str, brief))}")
    steps, returned = run.series("collapse/returned_to")
    events += [
        f"at step {step} back to checkpoint {to:.0f}"
        for step, to in zip(steps, returned, strict=True)
    ]
    if (wrong := run.model_collapse_step) is not None:
        events.append(f"fewer than 1% of the rewards are right at step {wrong}")
    bounds = {"healthy": (0, since - 1), "suspicious": (since - 1, told - 1)}
    bounds["told"] = (told - 1, end)
    parts = [(state, 100 * (b - a) / longest) for state, (a, b) in bounds.items() if b > a]
    return Strip(run.name, parts, "; ".join(events) or "no signs")


@dataclass(frozen=True)
class StepTime:
    """Where the time of a method's steps goes: seconds of a step, and the share of each phase."""

    name: str
    seconds: float
    shares: Sequence[tuple[str, float]]


def times(methods: Sequence[Method]) -> list[StepTime]:
    """The mean over steps but for each run's first, which compiles; evaluations are included."""
    found = []
    for method in methods:
        records = [
            record
            for run in method.runs
            for record in run.records
            if record["step"] > 1 and record.get("time/step")
        ]
        if not records:
            continue
        total = math.fsum(record["time/step"] for record in records)
        shares = [
            (phase, math.fsum(record.get(f"time/{phase}", 0.0) for record in records) / total)
            for phase in PHASES
        ]
        shares.append(("other", max(1 - math.fsum(share for _, share in shares), 0.0)))
        found.append(StepTime(method.name, total / len(records), shares))
    return found
