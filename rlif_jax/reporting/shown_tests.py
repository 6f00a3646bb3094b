"""The tests of problems as the page shows them, from sets that are on this machine."""

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

from rlif_jax.data.sets.named import DATASETS, ProblemSource, problem_source
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem
from rlif_jax.storage.user_cache import cache_folder

MOST_TESTS = 20
LONGEST = 300
"""Characters of an input or an output."""

ShownTests = Sequence[tuple[str, str]]
"""Input and expected output of a problem's first tests."""


class ProblemTests:
    """The tests of problems by id; each set is opened once, when it is first asked for.

    Nothing is fetched: of a set that is not a part of the package or a file here, or that cannot be
    read by now, no tests are shown.
    """

    def __init__(self) -> None:
        self._sources: dict[str, list[ProblemSource]] = {}

    def of(self, sets: Collection[str], ids: Collection[str]) -> dict[str, ShownTests]:
        """The tests of those of these problems that the sets have."""
        found: dict[str, ShownTests] = {}
        for source in (source for name in sets for source in self._opened(name)):
            with contextlib.suppress(UserError):
                places = [i for i in range(len(source)) if source.entry(i).id in ids]
                found |= {
                    problem.id: _shown(problem) for problem in map(source.__getitem__, places)
                }
        return found

    def _opened(self, name: str) -> list[ProblemSource]:
        """A set's problems to train on and those held out; none where it cannot be read."""
        if name not in self._sources:
            try:
                roles = ("train", "validation") if _is_here(name) else ()
                self._sources[name] = [problem_source(name, role) for role in roles]
            except UserError:
                self._sources[name] = []
        return self._sources[name]


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
