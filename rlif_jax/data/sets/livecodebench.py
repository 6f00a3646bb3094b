"""LiveCodeBench by name: which release files, which contest days, and where the files are.

The files and tags are those of the script `code_generation_lite.py` of the data set
livecodebench/code_generation_lite on the Hugging Face Hub. Each of test.jsonl, test2.jsonl, ...
holds only the problems that its release added: 400, 111, 101, 101, 167 and 175, in all 1,055. So
`release_v3` stands for the first three files, `release_latest` for all, `v3` for test3.jsonl alone
and `v2_v4` for the second to the fourth. Windows are those of `--start_date` and `--end_date` of
`lcb_runner`, applied to contest_date, with both days.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlif_jax.data.dates import Window, check_contest_date, parse_window
from rlif_jax.data.formats.livecodebench import only_public_tests, problem_from_row
from rlif_jax.errors import UserError
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Problem

FILES = ("test.jsonl", *(f"test{number}.jsonl" for number in range(2, 7)))
DEFAULT_LOCATION = "hf:livecodebench/code_generation_lite"

_NUMBERS = range(1, len(FILES) + 1)
TAGS: Mapping[str, tuple[int, int]] = {
    **{f"release_v{last}": (1, last) for last in _NUMBERS},
    "release_latest": (1, len(FILES)),
    **{f"v{number}": (number, number) for number in _NUMBERS},
    **{f"v{a}_v{b}": (a, b) for a in _NUMBERS for b in _NUMBERS if a < b},
}
"""The first and the last release file of each of upstream's version tags, counted from 1."""

PAPER_WINDOW = "2024-08-01..2025-02-01"
"""The window of `livecodebench_v5` (release_v5), in which there are 279 problems."""


@dataclass(frozen=True)
class Selection:
    """The problems that a name asks for: of these files, in this window if there is one."""

    files: tuple[str, ...]
    window: Window | None
    location: str

    @property
    def remedy(self) -> str:
        """What to do when one of the files is missing."""
        return (
            f"put {', '.join(self.files)} of {DEFAULT_LOCATION.removeprefix('hf:')} (Hugging Face "
            "Hub, data sets) there, or ask for releases that are, such as "
            f"livecodebench:release_v1@{self.location} for {FILES[0]} alone."
        )


def is_livecodebench(name: str) -> bool:
    """Whether a problem set's name means LiveCodeBench, be it right or misspelt."""
    return re.match(r"livecodebench(_\w*)?($|[:@])", name) is not None


def parse_name(name: str) -> Selection:
    """The selection of `livecodebench`, `livecodebench_v5` or `livecodebench:TAG_OR_DATES`.

    Each may end in `@LOCATION` (`release_files.release_files`). Raises UserError for other names.
    """
    text, at, location = name.partition("@")
    if at and not location:
        raise UserError(
            f"{name!r} ends in @ without a place; write {text}@FOLDER, or {text} alone for "
            f"{DEFAULT_LOCATION}."
        )
    family, colon, asked = text.partition(":")
    window = None
    if text == "livecodebench_v5":
        (first, last), window = TAGS["release_v5"], parse_window(PAPER_WINDOW)
    elif family == "livecodebench" and ".." in asked:
        (first, last), window = TAGS["release_latest"], parse_window(asked)
    elif family == "livecodebench" and (not colon or asked in TAGS):
        first, last = TAGS[asked or "release_latest"]
    else:
        raise UserError(
            f"Unknown problem set {text!r}. There are livecodebench (all), livecodebench_v5 (the "
            f"window {PAPER_WINDOW} of release_v5), livecodebench:release_v1 to :release_v"
            f"{len(FILES)} (cumulative), livecodebench:v1 to :v{len(FILES)} (what a release "
            "added), livecodebench:v4_v6 (a range of them) and livecodebench:FROM..TO (contest "
            "days)."
        )
    return Selection(FILES[first - 1 : last], window, location or DEFAULT_LOCATION)


def read_release_row(row: Any, where: str) -> tuple[Problem, None, str]:
    """The problem of a row of a release file, its split (None: such files have none), its warning.

    Raises UserError for an invalid row, for tests that cannot be judged, and without a date.
    """
    problem = problem_from_row(row, where)
    place = f"{where} (question_id {problem.id!r})"
    check_judgeable(problem, place)
    check_contest_date(problem, place)
    if "contest_date" not in problem.metadata:
        raise UserError(
            f"{place}: field contest_date is empty, by which windows are chosen; write the day of "
            "the contest, as 2024-08-01T00:00:00."
        )
    return problem, None, only_public_tests(row)
