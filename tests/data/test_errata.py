"""The problems that LiveCodeBench's maintainers call unsound are found, and only those."""

import functools
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from rlif_jax.config import Config, Data, Eval, ProblemOptions
from rlif_jax.console.progress import Progress
from rlif_jax.console.screen import Screen
from rlif_jax.data.errata import ERRATA, erratum_reason, is_erratum
from rlif_jax.data.formats.livecodebench import problem_from_row
from rlif_jax.data.pipeline import problem_batches
from rlif_jax.data.prompts import encode_prompt
from rlif_jax.data.selection import errata_filter, select
from rlif_jax.data.training import training_problems
from rlif_jax.evaluation.drawing import held_out
from rlif_jax.evaluation.during_training import held_out_problems


def official(make_row, question_id, title="Sum", platform="atcoder", **fields):
    row = make_row(question_id, platform=platform, question_title=title, **fields)
    return problem_from_row(row)


@pytest.mark.parametrize(
    ("question_id", "title", "platform", "reason"),
    [
        ("abc311_c", "Find it!", "atcoder", "several answers"),
        ("abc343_a", "Wrong Answer", "atcoder", "several answers"),
        ("arc185_c", "Sum of Three Integers", "atcoder", "several answers"),
        ("abc337_e", "Bad Juice", "atcoder", "interactive"),
        ("abc355_e", "Guess the Sum", "atcoder", "interactive"),
        ("abc350_c", "Sort", "atcoder", "wrong tests"),
        ("arc189_a", "Reversi 2", "atcoder", "wrong tests"),
        ("3194", "find-words-containing-character", "leetcode", "several answers"),
        ("3275", "Find Words Containing Character", "leetcode", "several answers"),
        ("most-frequent-ids", "Most Frequent IDs", "leetcode", "wrong tests"),
        ("3389", "apply-operations-to-make-string-empty", "leetcode", "wrong tests"),
    ],
)
def test_listed_problems(make_row, question_id, title, platform, reason):
    problem = official(make_row, question_id, title, platform)
    assert is_erratum(problem)
    assert erratum_reason(problem).startswith(reason)


@pytest.mark.parametrize(
    ("question_id", "title", "platform"),
    [
        ("abc311_d", "Grid Ice Floor", "atcoder"),  # a neighbour of a listed one
        ("abc311_c", "Find it!", "example"),  # somebody's own problem with the same id
        ("abc311_c", "Find it!", ""),
        ("7", "find-the-peaks", "atcoder"),  # titles count on LeetCode only
        ("find_peaks", "find-the-peaks", "leetcode"),  # and for numbered ids only
        ("3194", "find-the-peaks-ii", "leetcode"),
        ("1873_A", "Short Sort", "codeforces"),
    ],
)
def test_other_problems(make_row, question_id, title, platform):
    problem = official(make_row, question_id, title, platform)
    assert not is_erratum(problem)
    assert erratum_reason(problem) is None


def test_the_list_has_all_three_groups():
    assert sorted(map(list(ERRATA.values()).count, set(ERRATA.values()))) == [2, 4, 11]


def test_a_source_without_them_keeps_order(make_row):
    ids = ["abc1_a", "abc337_e", "abc1_b", "abc350_c", "abc311_c", "abc1_c"]
    source = [official(make_row, name) for name in ids]
    kept, removed = select(source, [errata_filter()])
    assert [kept[i].id for i in range(len(kept))] == ["abc1_a", "abc1_b", "abc1_c"]
    assert [count for _, count in removed] == [3]


def problem_set(make_row, path):
    """A file of the official format: one sound and one unsound problem in each split."""
    with path.open("w") as file:
        for split, ids in (
            ("train", ("abc1_a", "abc337_e")),
            ("validation", ("abc1_b", "arc189_a")),
        ):
            for name in ids:
                row = make_row(name, platform="atcoder", split=split)
                file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def official_set(make_row, tmp_path, monkeypatch):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    return str(problem_set(make_row, tmp_path / "official.jsonl"))


def test_held_out_problems_are_sound_unless_asked_otherwise(official_set, tokenizer):
    def ids(**options):
        asked = ProblemOptions(max_prompt_tokens=10_000, **options)
        found = held_out(official_set, tokenizer, asked)
        assert [replace(problem, tests=()) for problem in found.problems] == found.statements
        return [statement.id for statement in found.statements]

    assert ids() == ["abc1_b"]
    assert ids(keep_errata=True) == ["abc1_b", "arc189_a"]


@pytest.mark.parametrize("keep", [False, True])
def test_training_leaves_them_out_and_says_so(official_set, tiny, keep):
    encode = functools.partial(encode_prompt, tiny[2])
    data = Data(name=official_set, keep_errata=keep, max_prompt_tokens=10_000)
    notes = []
    batches = problem_batches(training_problems(data, encode, [], notes.append), 2, seed=0)
    seen = {problem.id for _ in range(3) for problem in next(batches)}
    assert seen == ({"abc1_a", "abc337_e"} if keep else {"abc1_a"})
    assert any("left out: 1 in LiveCodeBench's errata" in note for note in notes) is not keep


def test_evaluation_while_training_uses_the_same_choice(official_set, tiny):
    chosen = {}
    for keep in (False, True):
        data = Data(name=official_set, max_prompt_tokens=10_000, keep_errata=keep)
        cfg = replace(Config(), data=data, eval=Eval(samples_per_problem=1, pass_at=1))
        shown = io.StringIO()
        progress = Progress(1, screen=Screen(Console(file=shown, width=200)))
        unseen = held_out_problems(cfg, tiny[2], progress.note)
        chosen[keep] = [problem.id for problem in unseen.problems]
        assert ("left out of" in shown.getvalue()) is not keep
    assert chosen == {False: ["abc1_b"], True: ["abc1_b", "arc189_a"]}
