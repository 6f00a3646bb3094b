"""Filters of problems by what they are; all of them take one pass over a problem set.

Of a source that has `statement(index)`, as problem sets do, problems are read without their tests,
unless a filter asks for these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlif_jax.data.dates import in_window, parse_window
from rlif_jax.data.errata import is_erratum
from rlif_jax.data.formats.lines import parse_line, read_lines
from rlif_jax.data.pipeline import Source, Subset
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem

Removed = list[tuple[str, int]]
"""Why problems were left out, and how many for each reason."""


@dataclass(frozen=True)
class Filter:
    """A condition that problems meet or not.

    `reason` says of those that do not what they are, as in "5 with fewer than 3 tests". `keeps` is
    None for a problem of which it cannot be told; `unknown` says what that means, and its remedy.
    Each value of `wanted` must be that of the metadata `field` of some problem; `option` asks so.
    `reads_tests`: `keeps` looks at the tests.
    """

    reason: str
    keeps: Callable[[Problem], bool | None]
    unknown: str = ""
    field: str = ""
    wanted: tuple[str, ...] = ()
    option: str = ""
    reads_tests: bool = False


def value_filter(field: str, wanted: Sequence[str], option: str) -> Filter:
    """Keeps problems whose metadata `field` has one of these values."""
    return Filter(
        f"whose {field} is not among {option}={','.join(wanted)}",
        lambda problem: _value(problem, field) in wanted,
        field=field,
        wanted=tuple(wanted),
        option=option,
    )


def date_filter(dates: str, option: str = "data.dates") -> Filter:
    """Keeps problems of contests on the days FROM..TO; UserError for another text."""
    window = parse_window(dates)

    def keeps(problem: Problem) -> bool:
        try:
            return in_window(_value(problem, "contest_date"), window)
        except UserError as error:
            raise UserError(f"Problem {problem.id!r}: {error}") from error

    return Filter(f"without a contest date in {option}={dates!r}", keeps)


def least_tests_filter(least: int, option: str = "data.min_tests") -> Filter:
    """Keeps problems with at least `least` tests."""
    return Filter(
        f"with fewer tests than {option}={least}",
        lambda problem: len(problem.tests) >= least,
        reads_tests=True,
    )


def example_filter(inputs: str) -> Filter:
    """Keeps problems with a public test, as reward.vote_inputs=`inputs` needs one."""
    return Filter(
        f"without a public test, which reward.vote_inputs={inputs} votes on",
        lambda problem: any(not test.private for test in problem.tests),
        reads_tests=True,
    )


def errata_filter(option: str = "--data.keep-errata") -> Filter:
    """Keeps problems that are not in LiveCodeBench's errata."""
    return Filter(
        f"in LiveCodeBench's errata ({option} uses them)", lambda problem: not is_erratum(problem)
    )


def length_filter(
    encode: Callable[[Problem], Sequence[int]], most: int, option: str = "data.max_prompt_tokens"
) -> Filter:
    """Keeps problems whose prompt has at most `most` tokens."""
    return Filter(
        f"with a prompt of more than {option}={most} tokens",
        lambda problem: len(encode(problem)) <= most,
    )


def pass_rate_filter(path: Path, lowest: float, highest: float) -> Filter:
    """Keeps problems whose samples, as graded in a file, pass at a rate in [lowest, highest].

    Raises UserError as `read_pass_rates` does.
    """
    rates = read_pass_rates(path)

    def keeps(problem: Problem) -> bool | None:
        rate = rates.get(problem.id)
        return None if rate is None else lowest <= rate <= highest

    return Filter(
        f"with a pass rate outside data.pass_rates={lowest},{highest}",
        keeps,
        unknown=(
            f"have no graded sample in data.graded={path}, so their pass rate is not known; grade "
            "samples on them, too, finish the grading, or leave them out by another filter"
        ),
    )


def read_pass_rates(path: Path) -> dict[str, float]:
    """The share of passing samples by problem id, in a file that `rlif_jax.grade` wrote, or in the
    samples file of `rlif_jax.evaluate`, whose first line tells of the evaluation.

    Rows of skipped samples do not count, nor does a last row that an interruption cut short.

    Raises UserError when the file cannot be read, has another row, or no graded sample.
    """
    passed: dict[str, list[bool]] = {}
    for where, offset, line in read_lines(path, "grading"):
        try:
            row = parse_line(line, where)
        except UserError:
            if line.endswith(b"\n") or not _begins_row(line):
                raise
            break
        if offset == 0 and isinstance(row, dict) and "digest" in row and "passed" not in row:
            continue
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise UserError(_not_graded(where, row))
        if "skipped" in row:
            continue
        if not isinstance(row.get("passed"), bool):
            raise UserError(_not_graded(where, row))
        passed.setdefault(row["id"], []).append(row["passed"])
    if not passed:
        raise UserError(
            f"{path} has no graded sample, so no problem's pass rate is known; name a file that "
            "rlif_jax.grade or rlif_jax.evaluate wrote for samples on the problems."
        )
    return {name: sum(results) / len(results) for name, results in passed.items()}


def _begins_row(line: bytes) -> bool:
    """Whether a line that was cut short is the beginning of a row of either file."""
    starts = b'{"id": "', b'{"problem": '
    return any(line.startswith(start) or start.startswith(line) for start in starts)


def _not_graded(where: str, row: object) -> str:
    return (
        f"{where}: {shown(row)} is not the result of a sample; data.graded takes a file that "
        "rlif_jax.grade wrote, or NAME.samples.jsonl of rlif_jax.evaluate, with an id and passed "
        "(true or false) in each row."
    )


def select(
    source: Source, filters: Sequence[Filter], name: str = "the problem set"
) -> tuple[Subset, Removed]:
    """The problems of a source that all filters keep, in order, and how many each removed.

    A problem counts for the first filter that does not keep it; filters that removed none are not
    listed. The source is read once, each problem by itself.

    Raises UserError, with the source's `name`, when no problem is left, when a value that a filter
    wants is that of no problem, and when a filter cannot tell of a problem that those before it
    keep.
    """
    return select_each([(name, source)], filters)[0]


def select_each(
    sources: Sequence[tuple[str, Source]], filters: Sequence[Filter]
) -> list[tuple[Subset, Removed]]:
    """`select` for each of several named sources; a value that is wanted may be in any of them."""
    found: dict[str, set[str]] = {filter.field: set() for filter in filters if filter.field}
    unknown: list[list[str]] = [[] for _ in filters]
    selected = [_sifted(source, filters, found, unknown) for _, source in sources]
    for filter in filters:
        for value in filter.wanted:
            if value not in found[filter.field]:
                raise UserError(
                    f"No problem has the {filter.field} {value!r} that {filter.option} asks for; "
                    f"there are {', '.join(sorted(found[filter.field] - {''})) or 'none'}."
                )
    for filter, ids in zip(filters, unknown, strict=True):
        if ids:
            raise UserError(f"{len(ids)} problems, the first of them {ids[0]!r}, {filter.unknown}.")
    for (name, source), (kept, removed) in zip(sources, selected, strict=True):
        if not len(kept):
            raise UserError(
                f"No problem of {name} is left of {len(source)}: {listed(removed)}. Change one of "
                "these."
            )
    return selected


def listed(removed: Removed) -> str:
    """What was removed, as the end of a sentence."""
    return ", ".join(f"{count} {reason}" for reason, count in removed) or "it is empty"


def _sifted(
    source: Source,
    filters: Sequence[Filter],
    found: dict[str, set[str]],
    unknown: list[list[str]],
) -> tuple[Subset, Removed]:
    """One pass; adds to `found` values by field, and to `unknown` ids by filter."""
    kept, removed, read = [], [0] * len(filters), source.__getitem__
    if not any(filter.reads_tests for filter in filters):
        read = getattr(source, "statement", read)
    for index in range(len(source)):
        problem = read(index)
        for field, values in found.items():
            values.add(_value(problem, field))
        for number, filter in enumerate(filters):
            keeps = filter.keeps(problem)
            if keeps is None:
                unknown[number].append(problem.id)
            elif not keeps:
                removed[number] += 1
            if not keeps:
                break
        else:
            kept.append(index)
    counts = zip(filters, removed, strict=True)
    return Subset(source, kept), [(filter.reason, count) for filter, count in counts if count]


def _value(problem: Problem, field: str) -> str:
    return str(problem.metadata.get(field) or "")
