"""Which recorded completions a page holds, and in what form: compressed, within a number of bytes.

A step's completions are one gzip stream in base64, which the page unpacks when they are looked at
or searched. Texts are cut at `LONGEST` characters, and of a step at most `MOST_ROWS` are held.
"""

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlif_jax.errors import UserError
from rlif_jax.grading.judged_row import in_common_names
from rlif_jax.reporting.evaluations import Evaluation
from rlif_jax.reporting.recorded_runs import RecordedRun
from rlif_jax.reporting.shown_tests import ProblemTests, ShownTests
from rlif_jax.run.log import rollout_file, rollout_steps
from rlif_jax.run.retention import quality
from rlif_jax.run.token_record import TokenRecord, read_token_record
from rlif_jax.storage.folder import Folder
from rlif_jax.storage.jsonl import whole_lines

Judged = tuple[bool | None, float | None]
"""Whether a completion has passed, and its reward; None where it is not known."""

MOST_ROWS = 64
LONGEST = 20_000
MOST_ENTROPY = 8.0
"""Nats that the largest byte stands for."""


@dataclass(frozen=True)
class ShownStep:
    """A step's completions as the page holds them; `rows` counts those, `of` all recorded ones."""

    step: int
    rows: int
    of: int
    packed: str


@dataclass(frozen=True)
class ByCorrectness:
    """Mean rewards of the responses of a step that pass all tests and of the others, and how many.

    A mean is None where there are none.
    """

    step: int
    correct: float | None
    incorrect: float | None
    passed: int
    of: int


def shown_rollouts(
    runs: Sequence[RecordedRun], budget: int
) -> tuple[list[list[ShownStep]], list[list[ByCorrectness]]]:
    """Of each run the steps that the page holds, in order, and what their rewards say.

    Steps are taken in turn from each run, in the order of `worth_showing`, until `budget` bytes of
    the page are used; each run has at least one where it has recorded any, of which fewer rows are
    held where all would take more than its share.

    Raises:
        UserError: a file of rollouts cannot be read.
    """
    left = budget
    tests = ProblemTests()
    queues = [worth_showing(run) for run in runs]
    steps: list[list[ShownStep]] = [[] for _ in runs]
    rewards: list[list[ByCorrectness]] = [[] for _ in runs]
    for turn in range(max(map(len, queues), default=0)):
        for number, (run, queue) in enumerate(zip(runs, queues, strict=True)):
            if turn >= len(queue) or (turn and left <= 0):
                continue
            rows, judged = _read(rollout_file(run.folder, queue[turn]))
            if not rows:
                continue
            stats = read_token_record(run.folder, queue[turn])
            known = tests.of(_sets_of(run), {row["id"] for row in rows})
            of = len(judged)
            one = _shown(queue[turn], rows, of, stats, known)
            while not turn and len(one.packed) > budget / len(runs) and one.rows > 1:
                one = _shown(queue[turn], rows[: one.rows // 2], of, stats, known)
            if turn and len(one.packed) > left:
                left = 0  # others are of like size: reading on would be for nothing
                continue
            left -= len(one.packed)
            steps[number].append(one)
            if any(passed is not None for passed, _ in judged):
                rewards[number].append(_by_correctness(queue[turn], judged))
    for shown, found in zip(steps, rewards, strict=True):
        shown.sort(key=lambda one: one.step)
        found.sort(key=lambda one: one.step)
    return steps, rewards


def shown_samples(evaluation: Evaluation) -> list[ShownStep]:
    """The first samples of an evaluation, as a step 0; none without its samples file."""
    if not evaluation.samples_file.is_file():
        return []
    rows, judged = _read(evaluation.samples_file, skip=1)  # it says what they were drawn with
    tests = ProblemTests().of([evaluation.data_source], {row["id"] for row in rows})
    return [_shown(0, rows, len(judged), None, tests)] if rows else []


def pooled(found: Sequence[ByCorrectness]) -> list[ByCorrectness]:
    """Those of several runs together, step by step, as if their responses were one run's."""
    steps: dict[int, list[ByCorrectness]] = {}
    for one in found:
        steps.setdefault(one.step, []).append(one)
    return [_pooled(steps[step]) for step in sorted(steps)]


def _pooled(ones: Sequence[ByCorrectness]) -> ByCorrectness:
    passed, of = sum(one.passed for one in ones), sum(one.of for one in ones)
    correct = sum(one.passed * (one.correct or 0) for one in ones) / passed if passed else None
    failed = sum((one.of - one.passed) * (one.incorrect or 0) for one in ones)
    incorrect = failed / (of - passed) if of > passed else None
    return ByCorrectness(ones[0].step, correct, incorrect, passed, of)


def worth_showing(run: RecordedRun) -> list[int]:
    """The steps with rollouts, those first that say most of the run, then evenly between.

    These are the last and the first one, that of the best evaluation, and the step with which a
    collapse was told.
    """
    recorded = rollout_steps(run.folder)
    if not recorded:
        return []
    best = max(
        ((value, -int(r["step"])) for r in run.records if (value := quality(r)) is not None),
        default=(0.0, -recorded[0]),
    )
    told = [run.collapse[0]] if run.collapse else []
    first = [recorded[-1], recorded[0], -best[1], *told]
    chosen = dict.fromkeys(step for step in first if step in recorded)
    return list(dict.fromkeys([*chosen, *(recorded[i] for i in _halving(len(recorded)))]))


def _halving(count: int) -> Iterator[int]:
    """0 to count - 1, so that the first few of them lie evenly."""
    stride = 1 << max(count - 1, 1).bit_length()
    seen = set()
    while stride:
        for index in range(0, count, stride):
            if index not in seen:
                seen.add(index)
                yield index
        stride //= 2


def _read(path: Folder, skip: int = 0) -> tuple[list[dict[str, Any]], list[Judged]]:
    """The first rows of a file behind `skip` lines, and what became of all of them.

    A half-written last line is left out.
    """
    rows: list[dict[str, Any]] = []
    judged: list[Judged] = []
    with path.open("rb") as file:
        for number, line in enumerate(whole_lines(file), 1):
            if number <= skip:
                continue
            try:
                row = in_common_names(json.loads(line))
                if len(rows) < MOST_ROWS:
                    rows.append(row | {"id": str(row["id"])})
                judged.append((row.get("passed"), row.get("reward")))
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise UserError(
                    f"Line {number} of {path} is not a record of a completion ({error}). Remove "
                    "the file to see the run without it."
                ) from error
    return rows, judged


def _sets_of(run: RecordedRun) -> list[str]:
    """The problem sets that a run trains on."""
    mixed = [name for name, _ in run.config.get("data.mix") or ()]
    return mixed or [str(run.config.get("data.name", ""))]


def _shown(
    step: int,
    rows: Sequence[Mapping[str, Any]],
    of: int,
    stats: TokenRecord | None,
    tests: Mapping[str, ShownTests],
) -> ShownStep:
    prompts = list(dict.fromkeys((row["id"], row.get("prompt", "")) for row in rows))
    number = {prompt: n for n, prompt in enumerate(prompts)}
    held = {
        "prompts": [
            {"id": name, **_cut("t", text), "tests": tests.get(name, ())} for name, text in prompts
        ],
        "rows": [
            _row(row, number[row["id"], row.get("prompt", "")], r, stats)
            for r, row in enumerate(rows)
        ],
    }
    # ASCII alone: a lone surrogate, which a completion may hold, has no UTF-8.
    text = json.dumps(held, separators=(",", ":"), allow_nan=False).encode("ascii")
    packed = base64.b64encode(gzip.compress(text, 9, mtime=0)).decode("ascii")
    return ShownStep(step, len(rows), of, packed)


def _row(
    row: Mapping[str, Any], prompt: int, place: int, stats: TokenRecord | None
) -> dict[str, Any]:
    text = row.get("completion", "")
    shown = {
        "p": prompt,
        "s": row.get("sample"),
        **_cut("t", text),
        "v": row.get("verdict"),
        "tests": row.get("tests"),
        "of": row.get("tests_total"),
        "why": str(row.get("detail") or "")[:500],
        "r": row.get("reward"),
        "terms": row.get("terms", row.get("rewards")),
        "a": row.get("advantage"),
        "n": row.get("length"),
        "x": row.get("truncated"),
    }
    if code := row.get("code"):
        start = text.find(code)
        inside = 0 <= start <= LONGEST - len(code)
        shown["code"] = _utf16(text, (start, start + len(code))) if inside else code[:LONGEST]
    if stats is not None:
        shown |= _shades(stats, place, text)
    return {name: value for name, value in shown.items() if value is not None}


def _cut(name: str, text: str) -> dict[str, Any]:
    """A text, and how many of its characters are left out."""
    if len(text) <= LONGEST:
        return {name: text}
    return {name: text[:LONGEST], "more": len(text) - LONGEST}


def _shades(stats: TokenRecord, row: int, text: str) -> dict[str, Any]:
    """Where the tokens of a row end, and a byte for each token and statistic, in base64."""
    one = stats.row(row)
    shown = int(np.searchsorted(one.ends, min(len(text), LONGEST), side="right"))
    parts = (
        np.exp(one.logprob.astype(np.float32)),
        one.entropy.astype(np.float32) / MOST_ENTROPY,
        one.probability_disparity.astype(np.float32),
    )
    levels = [np.rint(255 * np.clip(part[:shown], 0, 1)).astype(np.uint8) for part in parts]
    ends = _utf16(text, one.ends[:shown].tolist())
    return {
        "ends": np.diff(ends, prepend=0).tolist(),
        "shades": base64.b64encode(b"".join(level.tobytes() for level in levels)).decode("ascii"),
    }


def _utf16(text: str, places: Sequence[int]) -> list[int]:
    """Where these places of a text are for JavaScript, which counts UTF-16's units."""
    if text.isascii():
        return list(places)
    units = np.cumsum([0, *(1 + (ord(c) > 0xFFFF) for c in text)])
    return units[list(places)].tolist()


def _by_correctness(step: int, judged: Sequence[Judged]) -> ByCorrectness:
    def mean(wanted: bool) -> float | None:
        found = [reward for passed, reward in judged if passed is wanted and reward is not None]
        return sum(found) / len(found) if found else None

    return ByCorrectness(
        step, mean(True), mean(False), sum(passed is True for passed, _ in judged), len(judged)
    )
