"""Pass rates of graded and of evaluated samples, and the filter that selects problems by them."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.selections import ids, problem

from rlif_jax.data.selection import least_tests_filter, pass_rate_filter, read_pass_rates, select
from rlif_jax.errors import UserError
from rlif_jax.evaluation.sample_file import SampleFile
from rlif_jax.grading.graded_file import GradedFile, graded_row, skipped_row
from rlif_jax.grading.inputs import Completion
from rlif_jax.problem import Outcome, Verdict


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
