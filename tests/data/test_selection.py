"""Each filter keeps what it should, all in one pass, and says what it removed."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_jax.data.selection import (
    Filter,
    date_filter,
    errata_filter,
    least_tests_filter,
    length_filter,
    pass_rate_filter,
    read_pass_rates,
    select,
    select_each,
    value_filter,
)
from rlif_jax.errors import UserError
from rlif_jax.evaluation.sample_file import SampleFile
from rlif_jax.grading.graded_file import GradedFile, graded_row, skipped_row
from rlif_jax.grading.inputs import Completion
from rlif_jax.problem import Outcome, Problem, Test, Verdict


def problem(name: str, tests: int = 1, prompt: str = "", **metadata: str) -> Problem:
    return Problem(name, prompt, (Test("1", "1", "stdin"),) * tests, metadata=metadata)


def ids(source) -> list[str]:
    return [source[i].id for i in range(len(source))]


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


def grading(path, results):
    """A file as grading writes it: by problem, the results of its samples; None: skipped."""
    with GradedFile(path) as file:
        file.resume([], {}, lambda row: None)
        for name, samples in results:
            for number, passed in enumerate(samples):
                completion = Completion(name, f"answer({number})", is_code=True)
                verdict = Verdict.PASSED if passed else Verdict.WRONG_ANSWER
                outcome = Outcome(verdict, (verdict,), 1, 0.1)
                skip = skipped_row(completion, "in the errata")
                file.write(skip if passed is None else graded_row(completion, outcome))
    return path


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=10), min_size=1, max_size=8),
    st.tuples(st.integers(0, 10), st.integers(0, 10)).map(sorted),
)
def test_pass_rates_of_graded_samples(tmp_path_factory, samples, bounds):
    """Samples of a problem need not stand together; both bounds are included."""
    path = tmp_path_factory.mktemp("graded") / "graded.jsonl"
    lowest, highest = bounds[0] / 10, bounds[1] / 10
    turns = itertools.zip_longest(*samples)
    rows = [
        (f"p{n}", [passed]) for turn in turns for n, passed in enumerate(turn) if passed is not None
    ]
    rates = {f"p{n}": sum(results) / len(results) for n, results in enumerate(samples)}
    assert read_pass_rates(grading(path, rows)) == rates
    filter = pass_rate_filter(path, lowest, highest)
    assert {name: filter.keeps(problem(name)) for name in rates} == {
        name: lowest <= rate <= highest for name, rate in rates.items()
    }


def test_bounds_are_compared_as_written(tmp_path):
    """3 of 10 is within (0.3, 0.3)."""
    path = grading(tmp_path / "graded.jsonl", [("p", [True] * 3 + [False] * 7)])
    assert ids(select([problem("p")], [pass_rate_filter(path, 0.3, 0.3)])[0]) == ["p"]


def test_a_difficulty_filter_from_a_grading(tmp_path):
    path = grading(
        tmp_path / "graded.jsonl",
        [
            ("never", [False, False]),
            ("half", [True, False]),
            ("always", [True, True]),
            ("skipped", [None, None]),
            ("other", [True]),
        ],
    )
    source = [problem("never"), problem("half"), problem("always")]
    chosen, removed = select(source, [pass_rate_filter(path, 0.1, 0.9)])
    assert ids(chosen) == ["half"]
    assert removed == [("with a pass rate outside data.pass_rates=0.1,0.9", 2)]


def test_problems_that_the_grading_does_not_know(tmp_path):
    """Skipped samples say nothing of a problem; one removed before need not be known."""
    path = grading(tmp_path / "graded.jsonl", [("known", [True]), ("skipped", [None])])
    source = [problem("short", 0), problem("known"), problem("skipped"), problem("new")]
    filters = [least_tests_filter(1), pass_rate_filter(path, 0, 1)]
    with pytest.raises(
        UserError, match=r"^2 problems, the first of them 'skipped', have no graded.*graded\.jsonl"
    ):
        select(source, filters)
    assert ids(select(source[:2], filters)[0]) == ["known"]


def test_a_row_that_was_cut_short_does_not_count(tmp_path):
    whole = grading(tmp_path / "graded.jsonl", [("p", [True, False])]).read_bytes()
    first = whole.index(b"\n") + 1
    path = tmp_path / "torn.jsonl"
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        complete = end == len(whole) - 1  # only the line break is missing
        assert read_pass_rates(path) == {"p": 0.5 if complete else 1.0}


def evaluated(path, results):
    """A samples file as an evaluation writes it, of problems and of how each sample went."""
    with SampleFile(path, {"model": "m", "digest": "0123"}, len(results), 9) as file:
        for number, (name, samples) in enumerate(results):
            for sample, passed in enumerate(samples):
                place = {"problem": number, "sample": sample}
                file.write(place | {"id": name, "completion": "", "passed": passed})
    return path


def test_pass_rates_of_an_evaluations_samples(tmp_path):
    path = evaluated(tmp_path / "base.samples.jsonl", [("p", [True, False]), ("q", [True])])
    assert read_pass_rates(path) == {"p": 0.5, "q": 1.0}
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert read_pass_rates(path) == {"p": 0.5}


def test_an_evaluation_that_has_just_begun(tmp_path):
    with pytest.raises(UserError, match="has no graded sample"):
        read_pass_rates(evaluated(tmp_path / "base.samples.jsonl", []))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "p", "passed": true}\n{"digest": "0"}\n', "line 2: .* is not the result"),
        ("", "has no graded sample"),
        (json.dumps({"id": "p", "skipped": "errata"}), "has no graded sample"),
        ('{"id": "p", "passed": tr\n', "line 1: not a JSON object"),
        ('{"id": "p", "passed": true}\nnonsense', "line 2: not a JSON object"),
        (
            '{"id": "p", "completion": "print(1)"}\n',
            "line 1: .*'p'.* is not the result of a sample",
        ),
        ('{"id": "p", "passed": 1}\n', "is not the result of a sample"),
        ('{"passed": true}\n', "is not the result of a sample"),
        ("7\n", "line 1: 7 is not the result"),
        ('{"id": "p", "passed": true}\n[]\n', r"line 2: \[\] is not the result"),
        ("[]\n", "begins with '\\[': it is one JSON array"),
    ],
)
def test_files_that_are_no_grading(tmp_path, text, message):
    path = tmp_path / "graded.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_pass_rates(path)


def test_a_missing_grading(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read the grading in .*none\.jsonl"):
        pass_rate_filter(tmp_path / "none.jsonl", 0, 1)


def test_a_filter_of_ones_own():
    chosen, removed = select(DATED, [Filter("of an odd length", lambda p: len(p.id) % 2 == 0)])
    assert ids(chosen) == ["before", "last"]
    assert removed == [("of an odd length", 3)]
