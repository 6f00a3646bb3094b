"""The tests of problems as the page shows them, from sets that are on this machine."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rlif_jax.data.sets.named import DATASETS, problem_source
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem
from rlif_jax.storage.user_cache import cache_folder

MOST_TESTS = 20
LONGEST = 300
"""Characters of an input or an output."""

ShownTests = Sequence[tuple[str, str]]
"""Input and expected output of a problem's first tests."""


def shown_tests(sets: Collection[str], ids: Collection[str]) -> dict[str, ShownTests]:
    """By id the tests of those of these problems that the sets have.

    Nothing is fetched: of a set that is not a part of the package or a file here, or that cannot be
    read by now, no tests are shown.
    """
    found: dict[str, ShownTests] = {}
    for name in sets:
        for role in ("train", "validation"):
            found |= _of_set(name, role, ids)
    return found


def _of_set(name: str, role: str, ids: Collection[str]) -> Mapping[str, ShownTests]:
    if not _is_here(name):
        return {}
    try:
        source = problem_source(name, role)
        places = [i for i in range(len(source)) if source.entry(i).id in ids]
        problems = [source[i] for i in places]
    except UserError:
        return {}
    return {problem.id: _shown(problem) for problem in problems}


def _is_here(name: str) -> bool:
    if name == "humaneval":
        return (cache_folder() / "HumanEval.jsonl.gz").is_file()
    file = name.removeprefix("jsonl:")
    return name in DATASETS or (file.endswith((".jsonl", ".jsonl.gz")) and Path(file).is_file())


def _shown(problem: Problem) -> ShownTests:
    tests = problem.tests[:MOST_TESTS]
    return [(_cut(test.input), _cut(test.output)) for test in tests]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … {len(text) - LONGEST} more"
