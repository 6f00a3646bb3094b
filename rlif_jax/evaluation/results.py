"""What an evaluation leaves: a result, a figure, LiveCodeBench's form; and two results compared."""

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlif_jax.batch import TokenStats
from rlif_jax.errors import UserError
from rlif_jax.evaluation import certainty, scores
from rlif_jax.evaluation.drawing import HeldOut
from rlif_jax.evaluation.lcb_output import official_output
from rlif_jax.evaluation.sample_file import Place, disk_errors, replace_file

FIELDS = ("id", "completion", "code", "passed", "verdict", "length", "truncated", "rewards")
"""What every row of the samples file has beside its place, and more."""

Rows = Mapping[Place, Mapping[str, Any]]
"""The samples of an evaluation by their places, as the samples file has them."""


def samples_path(out: str) -> Path:
    """The samples file beside a result."""
    return Path(f"{out.removesuffix('.json')}.samples.jsonl")


def figure_path(out: str) -> Path:
    """The figure of the certainty analysis beside a result."""
    return Path(f"{out.removesuffix('.json')}.certainty.png")


def rewards(stats: TokenStats, columns: int) -> dict[str, float]:
    """The certainty rewards of a sample, padded to `columns` tokens so that one shape compiles.

    Raises UserError for one that is not a finite number.
    """
    tokens = len(stats.logprob)
    wider = jax.tree.map(lambda x: np.pad(x, (0, columns - tokens))[None], stats)
    mask = np.arange(columns)[None] < tokens
    values = {name: float(x[0]) for name, x in certainty.rewards_of(wider, mask).items()}
    if bad := [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]:
        raise UserError(
            f"the model produced NaN or infinity: {', '.join(bad)}. Its parameters or its "
            "activations overflow; try --dtype float32, or check the checkpoint."
        )
    return values


def _table(rows: Rows, problems: int, n: int, value: Callable[[Mapping[str, Any]], Any]):
    """One number of every row as an array [problems, n]."""
    values = [value(rows[p, s]) for p in range(problems) for s in range(n)]
    return np.asarray(values).reshape(problems, n)


@dataclass(frozen=True)
class Tables:
    """What the rows say, [problems, n] each."""

    passed: np.ndarray
    length: np.ndarray
    truncated: np.ndarray

    @classmethod
    def of(cls, rows: Rows, problems: int, n: int) -> "Tables":
        """The rows of `problems` with `n` samples each; UserError when some are missing."""
        missing = [(p, s) for p in range(problems) for s in range(n) if (p, s) not in rows]
        if missing:
            first = missing[0][0]
            raise UserError(
                f"{len(missing)} samples are missing, the first of problem {first}; run the same "
                "command again to draw them"
            )
        names = ("passed", "length", "truncated")
        return cls(*(_table(rows, problems, n, operator.itemgetter(name)) for name in names))


def metrics_of(held_out: HeldOut, rows: Rows, n: int, k: int) -> dict[str, float]:
    """The `eval/` metrics of samples: avg@n with its interval, pass@k and the mean length."""
    tables = Tables.of(rows, len(held_out.statements), n)
    return scores.eval_metrics(held_out.title, _scores(held_out, tables, (k,)))


@dataclass(frozen=True)
class Result:
    """What an evaluation with these arguments has found; `model` is its source and revision."""

    arguments: Mapping[str, Any]
    model: Mapping[str, Any]
    held_out: HeldOut
    rows: Rows
    tables: Tables
    scores: scores.Scores
    certainty: certainty.Analysis

    @classmethod
    def of(
        cls, arguments: Mapping[str, Any], model: Mapping[str, Any], held_out: HeldOut, rows: Rows
    ) -> "Result":
        """Score and analyse the samples."""
        n, k, problems = arguments["n"], arguments["k"], len(held_out.statements)
        ks = (*scores.default_ks(n), k)
        tables = Tables.of(rows, problems, n)
        rewards = {
            name: _table(rows, problems, n, lambda row, name=name: row["rewards"][name])
            for name in rows[0, 0]["rewards"]
        }
        analysis = certainty.analyse(rewards, tables.passed)
        return cls(
            arguments, model, held_out, rows, tables, _scores(held_out, tables, ks), analysis
        )

    def json(self) -> dict[str, Any]:
        """The result as its file has it."""
        problems, found = self.held_out.statements, self.tables
        groups = _groups(self.held_out)
        each = [
            {
                "id": problem.id,
                **{name: values[p] for name, values in groups.items()},
                "correct": found.passed[p].tolist(),
                "length": found.length[p].tolist(),
                "truncated": found.truncated[p].tolist(),
            }
            for p, problem in enumerate(problems)
        ]
        return {
            "arguments": dict(self.arguments),
            "model": dict(self.model),
            "data": {
                "name": self.held_out.name,
                "problems": len(problems),
                "digest": self.held_out.digest,
            },
            "metrics": scores.eval_metrics(self.held_out.title, self.scores),
            "scores": asdict(self.scores),
            "certainty": asdict(self.certainty),
            "problems": each,
        }

    def write(self) -> None:
        """The files that the arguments ask for: result and figure, the form of LiveCodeBench."""
        out, lcb_out = self.arguments["out"], self.arguments["lcb_out"]
        if out:
            replace_file(Path(out), _json(self.json()))
            with disk_errors(figure_path(out)):
                certainty.figure(self.certainty, figure_path(out))
        if lcb_out:
            problems, samples = self.held_out.statements, range(self.arguments["n"])
            rows_of = [[self.rows[p, s] for s in samples] for p in range(len(problems))]
            replace_file(Path(lcb_out), _json(official_output(problems, rows_of)))

    def lines(self) -> list[str]:
        """What a person reads of it."""
        lines, out = [*self.scores.lines(), "", *self.certainty.lines()], self.arguments["out"]
        if out:
            lines.append(f"wrote {out}, {samples_path(out)} and {figure_path(out)}")
        return lines


def _groups(held_out: HeldOut) -> dict[str, list[str]]:
    return {
        name: [problem.metadata.get(name) or "" for problem in held_out.statements]
        for name in ("platform", "difficulty")
    }


def _scores(held_out: HeldOut, tables: Tables, ks: Sequence[int]) -> scores.Scores:
    return scores.summarise(tables.passed, tables.length, tables.truncated, _groups(held_out), ks)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"


def compare_files(names: Sequence[str], common: bool) -> list[str]:
    """The difference of the second result from the first, in lines.

    `common` compares the problems that both have. Raises UserError.
    """
    if len(names) != 2:
        raise UserError(f"--compare takes two results, not {len(names)}.")
    first, second = map(_read_result, names)
    return scores.compare(first, second, names=(names[0], names[1]), common=common).lines()


def _read_result(name: str) -> Any:
    try:
        return json.loads(Path(name).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"--compare {name} cannot be read as a result: {error}. Give a file that `python -m "
            "rlif_jax.evaluate --out` wrote."
        ) from error
