"""The run folder: config.json, metrics.jsonl, rollouts/, provenance.jsonl, and its trackers.

Every record is written whole or not at all, so a run that is killed or fills the disk leaves files
from which it can resume. Checkpoints are written elsewhere (`checkpoint.py`).
"""

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from rlif_jax.console.notice import ignore
from rlif_jax.errors import UserError
from rlif_jax.grading.judged_row import judged_row
from rlif_jax.problem import Outcome, Problem
from rlif_jax.run.disk import disk_errors
from rlif_jax.run.provenance import git_revision, resolved, versions
from rlif_jax.run.token_record import TokenRecord, token_file
from rlif_jax.run.trackers.opened import Trackers
from rlif_jax.run.trackers.tracked import Step, TrackedRun, picked
from rlif_jax.storage.appended import appended
from rlif_jax.storage.folder import Folder, is_folder
from rlif_jax.storage.jsonl import json_line, whole_lines
from rlif_jax.storage.whole_file import write_whole

PROVENANCE = "provenance.jsonl"
"""One line a step: what it was computed from, and the digests of what it gave."""

REPORT = "report.html"
"""The page about a run, which trackers get when the run ends."""

_ROLLOUT_FILE = re.compile(r"step_(\d+)\.(?:jsonl|tokens\.npz)")


def rollout_file(folder: Folder, step: int) -> Folder:
    """Where the completions of a step are."""
    return folder / "rollouts" / f"step_{step:06d}.jsonl"


def rollout_steps(folder: Folder) -> list[int]:
    """The steps whose completions a run folder has, in order."""
    rollouts = folder / "rollouts"
    names = [file.name for file in rollouts.iterdir()] if is_folder(rollouts) else []
    found = (_ROLLOUT_FILE.fullmatch(name) for name in names if name.endswith(".jsonl"))
    return sorted(int(match[1]) for match in found if match)


def _write_whole(path: Folder, data: bytes) -> None:
    with disk_errors(path):
        write_whole(path, data)


def completion_records(
    problems: Sequence[Problem],
    prompts: Sequence[str],
    completions: Sequence[str],
    codes: Sequence[str | None],
    *,
    reward: ArrayLike,
    terms: Mapping[str, ArrayLike],
    advantage: ArrayLike,
    outcomes: Sequence[Outcome] | None,
    length: ArrayLike,
    truncated: ArrayLike,
    tokens: ArrayLike,
    keys: ArrayLike,
    policy: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One record per completion for rollouts/, in row order n * G + g.

    `problems` and `prompts` have N entries, all else B = N * G. `codes` holds the extracted program
    or None; `outcomes` is None when no program was run. `length` is in tokens with the
    end-of-sequence token; `tokens` [B, C] is cut to it. `keys` [B, 2] are the PRNG keys of the rows
    and `policy` says which parameters drew them all. `problem` is what older versions call the
    `id`: scripts read it.
    """
    group = len(completions) // max(len(problems), 1)
    known = [None] * len(completions) if outcomes is None else outcomes
    # Whole arrays at once: reading JAX arrays number by number asks the devices for each.
    rewards, advantages, lengths = (np.asarray(x).tolist() for x in (reward, advantage, length))
    values = {name: np.asarray(term).tolist() for name, term in terms.items()}
    cut_off = np.asarray(truncated, bool).tolist()
    rows_of_tokens, rows_of_keys = np.asarray(tokens).tolist(), np.asarray(keys).tolist()
    return [
        {
            "problem": problems[row // group].id,
            **judged_row(problems[row // group].id, codes[row], known[row]),
            "sample": row % group,
            "prompt": prompts[row // group],
            "completion": completion,
            "code": codes[row],
            "reward": rewards[row],
            "terms": {name: term[row] for name, term in values.items()},
            "advantage": advantages[row],
            "length": lengths[row],
            "truncated": cut_off[row],
            "tokens": rows_of_tokens[row][: lengths[row]],
            "key": rows_of_keys[row],
            "policy": dict(policy),
        }
        for row, completion in enumerate(completions)
    ]


def recorded_lines(path: Folder) -> list[tuple[int, bytes]]:
    """The steps and lines of metrics.jsonl, without a half-written last one; none without a file.

    Raises `UserError` for a line that is not a record with a step.
    """
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(whole_lines(path.read_bytes().splitlines(keepends=True)), 1):
        try:
            records.append((int(json.loads(line)["step"]), line))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"Line {number} of {path} is not a record of a step. Remove the line, or "
                "choose another folder with --run-dir."
            ) from error
    return records


def last_step(folder: Folder) -> int:
    """The last step in the folder's metrics.jsonl, -1 for none. Raises as `truncate_after`."""
    return max((step for step, _ in recorded_lines(folder / "metrics.jsonl")), default=-1)


def truncate_after(folder: Folder, step: int) -> None:
    """Drop what is recorded of steps after `step`, and a half-written last line.

    For a resume: what a killed run recorded after its checkpoint will be recorded again. -1 drops
    all steps. metrics.jsonl and provenance.jsonl are replaced atomically. Raises `UserError` for a
    line in their middle that is not a record with a step, and for a folder that cannot be written.
    """
    for path in (folder / "metrics.jsonl", folder / PROVENANCE):
        kept = b"".join(line for number, line in recorded_lines(path) if number <= step)
        if path.is_file() and kept != path.read_bytes():
            _write_whole(path, kept)
    rollouts = folder / "rollouts"
    for file in sorted(rollouts.iterdir()) if is_folder(rollouts) else ():
        match = _ROLLOUT_FILE.fullmatch(file.name)
        if file.name.endswith(".tmp") or (match and int(match[1]) > step):
            with disk_errors(file):
                file.unlink()


def tracked_run(folder: Folder, config: Any, last_kept: int) -> TrackedRun:
    """What the trackers of a run folder are told when they are opened.

    `last_kept` is the last step that is kept of an earlier process, -1 for none.
    """
    history = functools.partial(_history, folder)
    steps = frozenset(step for step, _ in recorded_lines(folder / "metrics.jsonl"))
    return TrackedRun(config.name, folder, resolved(config), last_kept, steps, history)


def _history(folder: Folder, after: int) -> Iterator[Step]:
    """The recorded steps after a step, in order; one may have metrics or completions alone."""
    metrics = {step: json.loads(line) for step, line in recorded_lines(folder / "metrics.jsonl")}
    sampled = set(rollout_steps(folder))
    for step in sorted(metrics.keys() | sampled):
        if step > after:
            path = rollout_file(folder, step)
            lines = path.read_bytes().splitlines() if step in sampled else []
            values = metrics.get(step, {})
            values.pop("step", None)
            yield step, values, [json.loads(line) for line in picked(lines)]


class NoLog:
    """The log of the processes beside the first: they have the same numbers and write nothing."""

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `RunLog`."""

    def rollouts(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """See `RunLog`."""

    def tokens(self, step: int, record: TokenRecord) -> None:
        """See `RunLog`."""

    def provenance(self, step: int, record: Mapping[str, Any]) -> None:
        """See `RunLog`."""


class RunLog:
    """Writes a run folder and tells the run's trackers, `config.log.to`; a context manager.

    Entering makes the folder, drops what lies after `resume_step` (the step of the restored
    checkpoint; None for a run that starts at its beginning, which drops every step recorded
    before), and writes config.json with `config` (a dataclass), the git revision, versions and
    `facts` (device kind, isolation of programs and the like; JSON values). Call `check_same_config`
    first. `note` is told where the trackers have the run, and of one that fails. Leaving sends them
    report.html of a local folder, if it is there. Raises `UserError` for a folder that cannot be
    written.
    """

    def __init__(
        self,
        folder: Folder,
        config: Any,
        facts: Mapping[str, Any] | None = None,
        *,
        resume_step: int | None = None,
        note: Callable[[str], None] = ignore,
    ):
        self.folder = folder
        self._config = config
        self._facts = dict(facts or {})
        self._last_kept = -1 if resume_step is None else resume_step
        self._metrics_path = self.folder / "metrics.jsonl"
        self._note = note

    def __enter__(self) -> Self:
        with disk_errors(self.folder):
            (self.folder / "rollouts").mkdir(parents=True, exist_ok=True)
            # One without it has been passed on, and is not begun again (see resume.py).
            (self.folder / "checkpoints").mkdir(exist_ok=True)
        truncate_after(self.folder, self._last_kept)
        record = {
            "config": resolved(self._config),
            "revision": git_revision(),
            "versions": versions(),
            **self._facts,
        }
        _write_whole(self.folder / "config.json", (json.dumps(record, indent=2) + "\n").encode())
        with disk_errors(self._metrics_path):
            self._metrics_file = appended(self._metrics_path)
        with disk_errors(self.folder / PROVENANCE):
            self._provenance_file = appended(self.folder / PROVENANCE)
        run = tracked_run(self.folder, self._config, self._last_kept)
        self._trackers = Trackers(self._config.log.to, run, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._metrics_file.close()
        self._provenance_file.close()
        report = self.folder / REPORT
        if isinstance(report, Path) and report.is_file():
            self._trackers.artifact(report)
        self._trackers.close()

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line `{"step": step, key: value, ...}` to metrics.jsonl; tell the trackers.

        One call a step, evaluation included. The line is on disk when this returns; a write that
        fails is undone. Raises `UserError` naming the keys whose values are not finite, or the
        path that cannot be written.
        """
        values = {key: float(value) for key, value in metrics.items()}
        try:
            with disk_errors(self._metrics_path):
                self._metrics_file.append(json_line({"step": int(step), **values}))
        except ValueError as error:
            wrong = [f"{key} = {v}" for key, v in values.items() if not math.isfinite(v)]
            raise UserError(
                f"Step {step} gave metrics that are not finite: {', '.join(wrong)}. The run has "
                "diverged: start another with a lower --optim.learning-rate and its own --run-dir."
            ) from error
        self._trackers.metrics(int(step), values)

    def rollouts(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Write rollouts/step_NNNNNN.jsonl, a line for each of `completion_records`, or nothing.

        The trackers show some of them.

        Raises `UserError` naming a record with a number that is not finite, or the path that
        cannot be written.
        """
        lines = []
        for row, record in enumerate(records):
            try:
                lines.append(json_line(record, ascii_only=False))
            except ValueError as error:
                raise UserError(
                    f"Row {row} of step {step} (problem {record.get('problem')}) holds a number "
                    f"that is not finite: reward {record.get('reward')}, terms "
                    f"{record.get('terms')}, "
                    f"advantage {record.get('advantage')}. Check the reward terms of this run."
                ) from error
        _write_whole(rollout_file(self.folder, step), b"".join(lines))
        self._trackers.completions(int(step), records)

    def tokens(self, step: int, record: TokenRecord) -> None:
        """Write rollouts/step_NNNNNN.tokens.npz, the certainty of each token, or nothing.

        Raises `UserError` naming the path that cannot be written.
        """
        _write_whole(token_file(self.folder, step), record.encoded())

    def provenance(self, step: int, record: Mapping[str, Any]) -> None:
        """Append one line `{"step": step, ...}` to provenance.jsonl.

        The line is on disk when this returns. Raises `UserError` naming the path that cannot be
        written.
        """
        with disk_errors(self.folder / PROVENANCE):
            self._provenance_file.append(json_line({"step": int(step), **record}))
