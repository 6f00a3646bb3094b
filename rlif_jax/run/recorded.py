"""Steps as a run folder has them, and the first difference between two of one step."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlif_jax.errors import UserError, shown
from rlif_jax.run.log import PROVENANCE, recorded_lines, rollout_file
from rlif_jax.storage.folder import Folder
from rlif_jax.storage.jsonl import json_line, whole_lines

NEEDED = ("tokens", "key", "policy")
"""What a record of a completion needs to be compared; older versions did not write it."""

_LONG = 60
"""Characters of a text that a sentence quotes; of a longer one, those where it differs."""


@dataclass(frozen=True)
class RecordedStep:
    """A step's line of provenance.jsonl, and the lines of its rollouts in row order."""

    provenance: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, provenance: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> "RecordedStep":
        """What would be read back after these were written."""
        return cls(_as_read(provenance), [_as_read(row) for row in rows])

    @property
    def complete(self) -> bool:
        """Whether all is there that `first_difference` reads."""
        return bool(self.rows) and all(name in row for row in self.rows for name in NEEDED)


@dataclass(frozen=True)
class Difference:
    """The first difference between a step as it was recorded and as it was repeated.

    `what` is one of "key", "problem", "prompt", "policy", "token", "completion", "program",
    "verdict", "term", "reward", "count", "advantage" and "parameter": the order in which they are
    compared, that in which a step makes them.
    """

    step: int
    what: str
    sentence: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.sentence}"


def recorded_steps(folder: Folder, first: int, last: int) -> dict[int, RecordedStep]:
    """Those of steps `first` to `last`, both included, that a run folder has; by their number.

    Raises:
        UserError: a file is damaged.
    """
    lines = dict(recorded_lines(folder / PROVENANCE))
    steps = [step for step in range(first, last + 1) if step in lines]
    return {step: RecordedStep(json.loads(lines[step]), _rows(folder, step)) for step in steps}


def check_recorded(
    folder: Folder, steps: Mapping[int, RecordedStep], first: int, last: int
) -> None:
    """Refuse steps `first` to `last` where one of them was not recorded. Raises UserError."""
    for step in range(first, last + 1):
        if step not in steps or not steps[step].complete:
            known = [number for number, _ in recorded_lines(folder / PROVENANCE)]
            there = f"steps {min(known)} to {max(known)}" if known else "no step"
            lacking = "" if step not in steps else ", and its completions are not all there"
            raise UserError(
                f"{folder} has no complete record of step {step}: {PROVENANCE} has {there}"
                f"{lacking}. Choose a recorded step; older versions of rlif_jax did not record "
                "what a replay needs."
            )


def _rows(folder: Folder, step: int) -> list[dict[str, Any]]:
    path = rollout_file(folder, step)
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in whole_lines(lines)]
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read: {error}. Restore the file, or choose another step."
        ) from error


def _as_read(record: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json_line(record, ascii_only=False))


def first_difference(step: int, was: RecordedStep, now: RecordedStep) -> Difference | None:
    """The first difference between a step as recorded and as repeated; None: there is none.

    Numbers are compared bit by bit. What a program printed or raised is not compared, its verdicts
    are.
    """
    for what, sentence in _differences(was, now):
        return Difference(step, what, sentence)
    return None


def _differences(was: RecordedStep, now: RecordedStep) -> Iterator[tuple[str, str]]:
    """What differs, and a sentence on it, in the order in which a step makes it."""
    if was.provenance["key"] != now.provenance["key"]:
        yield "key", _changed("the random key of the run", was.provenance, now.provenance, "key")
    pairs = list(zip(was.rows, now.rows, strict=False))
    for what, name, title in (
        ("key", "key", "the random key"),
        ("problem", "problem", "the problem"),
        ("prompt", "prompt", "the prompt"),
    ):
        for row, (a, b) in enumerate(pairs):
            if a[name] != b[name]:
                yield what, _changed(f"{title} of {_place(row, a)}", a, b, name)
    if was.provenance["policy"] != now.provenance["policy"]:
        yield "policy", _policy(was.provenance["policy"], now.provenance["policy"])
    for row, (a, b) in enumerate(pairs):
        if a["tokens"] != b["tokens"]:
            yield "token", _token(row, a, b)
    yield from _judged(pairs)
    for row, (a, b) in enumerate(pairs):
        if a["reward"] != b["reward"]:
            yield "reward", _changed(f"the reward of {_place(row, a)}", a, b, "reward")
    if len(was.rows) != len(now.rows):  # what was drawn before decides on further rounds
        yield "count", f"{len(was.rows)} completions were drawn and are now {len(now.rows)}"
    for row, (a, b) in enumerate(pairs):
        if a["advantage"] != b["advantage"]:
            yield "advantage", _changed(f"the advantage of {_place(row, a)}", a, b, "advantage")
    before, after = was.provenance["parameters"], now.provenance["parameters"]
    for name in [*before, *(after.keys() - before.keys())]:
        if before.get(name) != after.get(name):
            title = f"the digest of parameter {name} after the step"
            yield "parameter", _changed(title, before, after, name)


def _judged(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Iterator[tuple]:
    """Differences of what was read in the completions, of verdicts, and of what they are worth."""
    for what, names in (
        ("completion", ("completion",)),
        ("program", ("code",)),
        ("verdict", ("verdict", "tests")),
    ):
        for row, (a, b) in enumerate(pairs):
            for name in names:
                if a.get(name) != b.get(name):
                    title = "the result of each test" if name == "tests" else f"the {what}"
                    yield what, _changed(f"{title} of {_place(row, a)}", a, b, name)
    for row, (a, b) in enumerate(pairs):
        for name in [*a["terms"], *(b["terms"].keys() - a["terms"].keys())]:
            if a["terms"].get(name) != b["terms"].get(name):
                title = f"the reward term {name} of {_place(row, a)}"
                yield "term", _changed(title, a["terms"], b["terms"], name)


def _place(row: int, record: Mapping[str, Any]) -> str:
    return f"row {row} (sample {record['sample']} of {record['problem']})"


def _changed(title: str, was: Mapping[str, Any], now: Mapping[str, Any], name: str) -> str:
    a, b = was.get(name), now.get(name)
    if isinstance(a, str) and isinstance(b, str) and max(len(a), len(b)) > _LONG:
        at = _apart_at(a, b)
        title += f", from character {at} on,"
        a, b = (text[at : at + _LONG] for text in (a, b))
    return f"{title} was {shown(a)} and is now {shown(b)}"


def _policy(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return (
        f"the parameters that drew it were those of step {was['step']} with digest {was['digest']}"
        f" and are now those of step {now['step']} with digest {now['digest']}"
    )


def _token(row: int, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first token in which two completions differ; one may end before the other."""
    a, b = was["tokens"], now["tokens"]
    at = _apart_at(a, b)
    old, new = (str(x[at]) if at < len(x) else "missing" for x in (a, b))
    return f"token {at} of {_place(row, was)} was {old} and is now {new}"


def _apart_at(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The first index at which two sequences differ, the length of the shorter if none before."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
