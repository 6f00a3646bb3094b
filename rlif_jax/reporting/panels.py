"""What is drawn of runs: the study's ten panels, further metrics, and their curves by method."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlif_jax.errors import UserError
from rlif_jax.reporting.recorded_runs import Method, RecordedRun

WINDOW = 5
"""Steps of the running mean."""


@dataclass(frozen=True)
class Panel:
    """A metric and what it is called; `evaluated` ones have a value every few steps."""

    key: str
    title: str
    unit: str = ""
    letter: str = ""

    @property
    def evaluated(self) -> bool:
        return self.key.startswith("eval/")


@dataclass(frozen=True)
class Curve:
    """A method in a panel; `number` is its place among the methods, by which it is coloured.

    `values` is the line: the mean of its runs or, of a single one, its running mean, with the
    values themselves in `faint`. `low` and `high` are the range of the runs or, of evaluations of a
    single one, the 95% interval over problems; both are empty where there is none.
    """

    name: str
    number: int
    steps: Sequence[int]
    values: Sequence[float]
    faint: Sequence[float] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()


# Panels (a) to (j) of the study's figure (arXiv 2606.20881); those of evaluations come with the
# names of their data sets.
_STUDY = (
    Panel("rollout/response_length", "response length", "tokens", "b"),
    Panel("rollout/action_reward", "action reward", "nats", "c"),
    Panel("rollout/reasoning_tokens", "reasoning tokens", "a response", "d"),
    Panel("rollout/repetition_ratio", "repetition ratio", "", "e"),
    Panel("stats/trajectory_entropy", "trajectory entropy", "nats a token", "f"),
    Panel("stats/token_entropy", "token entropy", "nats", "g"),
    Panel("stats/self_certainty", "self-certainty", "nats", "h"),
    Panel("stats/probability_disparity", "probability disparity", "", "i"),
)
_MORE = (
    Panel("reward/mean", "reward"),
    Panel("exec/pass_rate", "responses that pass all tests"),
    Panel("reward/group_std", "deviation of the reward in a group"),
    Panel("rollout/truncated_fraction", "responses cut off at the limit"),
    Panel("rollout/distinct_ratio", "distinct n-grams"),
    Panel("exec/unique_behaviours", "behaviours in a group"),
    Panel("exec/vote_entropy", "entropy of votes", "nats"),
    Panel("exec/label_accuracy", "pseudo-labels that are right"),
    Panel("exec/reward_accuracy", "rewards that are right"),
    Panel("loss/kl", "KL to the anchor", "nats"),
    Panel("loss/entropy", "entropy in the loss", "nats"),
    Panel("grad/norm", "norm of the gradient"),
    Panel("drift/sampler_logprob", "sampler from trainer", "nats"),
    Panel("collapse/score", "strongest sign of a collapse"),
    Panel("exec/reward_rank_biserial", "reward against correctness", "rank-biserial r"),
)


def study_panels(runs: Sequence[RecordedRun]) -> list[Panel]:
    """Those of the study's ten panels that some run has, (a) and (j) once for each data set."""
    known = known_keys(runs)
    accuracy = [key for key in known if re.fullmatch(r"eval/.+/avg@\d+", key)]
    lengths = [key for key in known if re.fullmatch(r"eval/.+/response_length", key)]
    return [
        *(Panel(key, f"{key[5:]}, held out", "", "a") for key in accuracy),
        *(panel for panel in _STUDY if panel.key in known),
        *(Panel(key, f"length, held out ({key.split('/')[1]})", "tokens", "j") for key in lengths),
    ]


def further_panels(runs: Sequence[RecordedRun]) -> list[Panel]:
    """Further metrics that some run has, reward terms and pass@k among them."""
    known = known_keys(runs)
    passes = [key for key in known if re.fullmatch(r"eval/.+/pass@\d+", key)]
    listed = {panel.key for panel in _MORE}
    terms = [
        key
        for key in known
        if key.startswith("reward/")
        and key not in listed | {"reward/std", "reward/zero_std_groups"}
    ]
    return [
        *(Panel(key, f"{key[5:]}, held out") for key in passes),
        *(panel for panel in _MORE if panel.key in known),
        *(Panel(key, f"term {key[7:]}") for key in terms),
    ]


def panels_of(runs: Sequence[RecordedRun], keys: Sequence[str]) -> list[Panel]:
    """The panels of these metrics, usual ones or not; without any the study's.

    Raises:
        UserError: no run has one of the metrics; it lists those that there are.
    """
    if not keys:
        return study_panels(runs)
    known = known_keys(runs)
    if missing := [key for key in keys if key not in known]:
        raise UserError(
            f"--keys {' '.join(missing)}: no run has it. The metrics of these runs are: "
            f"{', '.join(sorted(known)) or 'none, they have done no step'}."
        )
    usual = {panel.key: panel for panel in [*study_panels(runs), *further_panels(runs)]}
    return [usual.get(key, Panel(key, key)) for key in keys]


def curves(methods: Sequence[Method], panel: Panel, window: int = WINDOW) -> list[Curve]:
    """The curves of a panel: of each method that has its metric."""
    found = (_curve(method, number, panel, window) for number, method in enumerate(methods))
    return [curve for curve in found if curve is not None]


def _curve(method: Method, number: int, panel: Panel, window: int) -> Curve | None:
    steps, values = method.series(panel.key)
    if not steps:
        return None
    means = [math.fsum(of_step) / len(of_step) for of_step in values]
    if len(values[0]) > 1:
        low, high = [min(v) for v in values], [max(v) for v in values]
        return Curve(method.name, number, steps, means, low=low, high=high)
    if not panel.evaluated:
        return Curve(method.name, number, steps, running_mean(means, window), faint=means)
    of_low, low = method.series(f"{panel.key}_low")
    of_high, high = method.series(f"{panel.key}_high")
    if of_low != steps or of_high != steps:
        return Curve(method.name, number, steps, means)
    ends = ([v[0] for v in low], [v[0] for v in high])
    return Curve(method.name, number, steps, means, low=ends[0], high=ends[1])


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and those up to window - 1 before it."""
    return [
        math.fsum(part) / len(part)
        for part in (values[max(end - window, 0) : end] for end in range(1, len(values) + 1))
    ]


def in_words(curve: Curve, places: Sequence[str] = ()) -> str:
    """What a curve shows, for those who do not see it; with `places` steps are their numbers."""

    def at(index: int) -> str:
        step, value = curve.steps[index], curve.values[index]
        return f"{value:.3g} at {places[step] if places else f'step {step}'}"

    first, last = curve.values[0], curve.values[-1]
    text = f"{curve.name}: {at(0)}"
    for name, value in (("highest", max(curve.values)), ("lowest", min(curve.values))):
        if value not in (first, last):
            text += f", {name} {at(list(curve.values).index(value))}"
    return f"{text}, {at(-1)}" if len(curve.steps) > 1 else text


def known_keys(runs: Iterable[RecordedRun]) -> list[str]:
    """The metrics that some run has, in the order of their first steps."""
    found = dict.fromkeys(key for run in runs for record in run.records for key in record)
    return [key for key in found if key != "step"]
