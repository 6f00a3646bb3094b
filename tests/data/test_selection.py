"""Each filter keeps what it should, all in one pass, and says what it removed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.selections import ids, problem

from rlif_jax.data.selection import (
    Filter,
    date_filter,
    errata_filter,
    example_filter,
    least_tests_filter,
    length_filter,
    select,
    select_each,
    value_filter,
)
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem


def encode(one: Problem) -> list[int]:
    """A token a byte."""
    return list(one.prompt.encode())


PLATFORMS = [
    problem("a", platform="atcoder", difficulty="easy"),
    problem("b", platform="leetcode", difficulty="hard"),
    problem("c", platform="atcoder", difficulty="hard"),
    problem("d"),
]
DATED = [
    problem("before", contest_date="2024-07-31T23:59:59"),
    problem("first", contest_date="2024-08-01T00:00:00"),
    problem("last", contest_date="2025-02-01T07:30:00"),
    problem("after", contest_date="2025-02-02"),
    problem("never"),
]


@pytest.mark.parametrize(
    ("source", "filter", "kept", "reason"),
    [
        (
            PLATFORMS,
            value_filter("platform", ("atcoder",), "data.platforms"),
            ["a", "c"],
            "whose platform is not among data.platforms=atcoder",
        ),
        (
            PLATFORMS,
            value_filter("difficulty", ("hard", "easy"), "data.difficulties"),
            ["a", "b", "c"],
            "whose difficulty is not among data.difficulties=hard,easy",
        ),
        (
            DATED,
            date_filter("2024-08-01..2025-02-01"),
            ["first", "last"],
            "without a contest date in data.dates='2024-08-01..2025-02-01'",
        ),
        (
            DATED,
            date_filter("2025-02-01.."),
            ["last", "after"],
            "without a contest date in data.dates='2025-02-01..'",
        ),
        (
            DATED,
            date_filter("..2024-08-01"),
            ["before", "first"],
            "without a contest date in data.dates='..2024-08-01'",
        ),
        (
            [problem(str(n), tests=n) for n in (4, 2, 5, 3)],
            least_tests_filter(4),
            ["4", "5"],
            "with fewer tests than data.min_tests=4",
        ),
        (
            [problem("a", private=True), problem("b")],
            example_filter("fuzz"),
            ["b"],
            "without a public test, which reward.vote_inputs=fuzz votes on",
        ),
        (
            [problem(str(n), prompt="x" * n) for n in (4, 2, 5, 3)],
            length_filter(encode, 3),
            ["2", "3"],
            "with a prompt of more than data.max_prompt_tokens=3 tokens",
        ),
        (
            [problem("abc337_e", platform="atcoder"), problem("abc337_e"), problem("x")],
            errata_filter(),
            ["abc337_e", "x"],
            "in LiveCodeBench's errata (--data.keep-errata uses them)",
        ),
    ],
)
def test_each_filter(source, filter, kept, reason):
    chosen, removed = select(source, [filter])
    assert ids(chosen) == kept
    assert removed == [(reason, len(source) - len(kept))]
    assert all(any(chosen[i] is one for one in source) for i in range(len(chosen)))


def test_without_filters_all_problems_stay():
    chosen, removed = select(PLATFORMS, [])
    assert ids(chosen) == ["a", "b", "c", "d"]
    assert removed == []


kinds = st.sampled_from(["p", "q", "r"])


@given(st.lists(st.tuples(kinds, kinds, st.integers(0, 4)), min_size=1), st.integers(0, 4))
def test_a_problem_counts_for_the_first_filter_that_removes_it(rows, least):
    source = [
        problem(str(n), tests=tests, platform=platform, difficulty=difficulty)
        for n, (platform, difficulty, tests) in enumerate(rows)
    ]
    sentinel = problem("sentinel", tests=4, platform="p", difficulty="p")
    filters = [
        value_filter("platform", ("p",), "x"),
        value_filter("difficulty", ("p",), "y"),
        least_tests_filter(least),
    ]
    chosen, removed = select([*source, sentinel], filters)
    wrong_platform = [row for row in rows if row[0] != "p"]
    wrong_difficulty = [row for row in rows if row[0] == "p" != row[1]]
    too_few = [row for row in rows if row[:2] == ("p", "p") and row[2] < least]
    counts = [len(wrong_platform), len(wrong_difficulty), len(too_few)]
    expected = [(f.reason, count) for f, count in zip(filters, counts, strict=True) if count]
    assert removed == expected
    kept = [str(n) for n, row in enumerate(rows) if row[:2] == ("p", "p") and row[2] >= least]
    assert ids(chosen) == [*kept, "sentinel"]


class Counting(list):
    """Problems that count how often each is decoded."""

    def __init__(self, problems):
        super().__init__(problems)
        self.reads = [0] * len(self)

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


def test_each_problem_is_decoded_once_and_encoded_only_if_all_else_keeps_it():
    source, encoded = Counting(DATED), []
    select(
        source,
        [
            date_filter("2024-08-01..2025-02-01"),
            least_tests_filter(1),
            errata_filter(),
            length_filter(lambda one: encoded.append(one.id) or [], 1),
        ],
    )
    assert source.reads == [1] * 5
    assert encoded == ["first", "last"]


@pytest.mark.parametrize(
    ("field", "wanted", "message"),
    [
        ("platform", ("atcoder", "codeforces"), r"platform 'codeforces' .*atcoder, leetcode\.$"),
        ("difficulty", ("Easy",), r"difficulty 'Easy' that data\.x asks for; there are easy, hard"),
        ("contest", ("x",), "the contest 'x' .* there are none"),
    ],
)
def test_a_value_of_no_problem(field, wanted, message):
    with pytest.raises(UserError, match=message):
        select(PLATFORMS, [value_filter(field, wanted, "data.x")])


def test_a_value_is_looked_for_in_problems_that_other_filters_remove():
    """There is a hard problem of LeetCode: that a filter before removes it does not hide it."""
    filters = [
        value_filter("platform", ("atcoder",), "data.platforms"),
        value_filter("difficulty", ("easy", "hard"), "data.difficulties"),
    ]
    assert ids(select([PLATFORMS[0], PLATFORMS[1]], filters)[0]) == ["a"]


def test_a_value_may_be_in_any_of_several_sources():
    filters = [value_filter("platform", ("atcoder", "leetcode"), "data.platforms")]
    sources = [("one", PLATFORMS[:1]), ("two", PLATFORMS[1:2])]
    assert [ids(kept) for kept, _ in select_each(sources, filters)] == [["a"], ["b"]]
    with pytest.raises(UserError, match=r"'leetcode'.* there are atcoder"):
        select_each(sources[:1], filters)


def test_filters_that_leave_nothing():
    filters = [value_filter("platform", ("atcoder",), "data.platforms"), least_tests_filter(2)]
    with pytest.raises(
        UserError,
        match=r"No problem of mine is left of 4: 2 whose platform is not among "
        r"data\.platforms=atcoder, 2 with fewer tests than data\.min_tests=2\. Change one",
    ):
        select_each(
            [("other", [problem("x", 2, platform="atcoder")]), ("mine", PLATFORMS)], filters
        )


def test_a_date_that_is_none_names_the_problem():
    source = [*DATED, problem("odd", contest_date="spring")]
    with pytest.raises(UserError, match=r"Problem 'odd': contest_date is 'spring'"):
        select(source, [date_filter("2024-08-01..")])


@pytest.mark.parametrize(
    "dates", ["2024-08-01", "..", "", "2024-13-01..", "2025-02-01..2024-08-01"]
)
def test_dates_that_are_no_window(dates):
    with pytest.raises(UserError, match="window of dates"):
        date_filter(dates)


def test_a_filter_of_ones_own():
    chosen, removed = select(DATED, [Filter("of an odd length", lambda p: len(p.id) % 2 == 0)])
    assert ids(chosen) == ["before", "last"]
    assert removed == [("of an odd length", 3)]
