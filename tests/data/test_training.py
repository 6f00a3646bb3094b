"""A configuration's problems: sets opened, mixed and filtered, and none that is held out."""

import itertools
import json
import math
from collections import Counter
from dataclasses import replace

import pytest

from rlif_jax.config import Data
from rlif_jax.data.pipeline import problem_batches
from rlif_jax.data.sets.named import ProblemSource, problem_source
from rlif_jax.data.training import (
    position_of,
    refuse_overlap,
    restore_position,
    training_filters,
    training_problems,
)
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem

# Two statements that share 13 words in a row, and nothing else.
RUN = "count the ways to tile a board of n rows with dominoes of two colours"
LONG, LONGER = f"In this task you {RUN} today.", f"Given n, {RUN.upper()}; print the answer."


def encode(problem: Problem) -> list[int]:
    """A token a byte."""
    return list(problem.prompt.encode())


def posed(name: str, prompt: str) -> Problem:
    return Problem(name, prompt, ())


@pytest.fixture
def write_set(make_row, tmp_path, monkeypatch):
    """A maker of problem sets: a file with a row for the training split by id and fields."""
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))

    def write(name: str, **rows: dict) -> str:
        path = tmp_path / f"{name}.jsonl"
        with path.open("w") as file:
            for question_id, fields in rows.items():
                file.write(json.dumps(make_row(question_id, **{"split": "train"} | fields)) + "\n")
        return str(path)

    return write


def ids(source) -> list[str]:
    return [source[i].id for i in range(len(source))]


def chosen(data: Data, held_out=()) -> tuple[list[tuple[str, float, list[str]]], list[str]]:
    """Name, weight and ids of each share, and what was noted."""
    notes = []
    mixture = training_problems(data, encode, held_out, notes.append)
    return [(s.name, s.weight, ids(s.source)) for s in mixture.shares], notes


def test_the_starter_set_trains_without_its_own_validation_problems():
    held_out = problem_source("starter", "validation")
    problems = [held_out[i] for i in range(len(held_out))]
    [(name, weight, kept)], notes = chosen(Data(max_prompt_tokens=10_000), problems)
    assert (name, weight, len(kept), notes) == ("starter", 1.0, 108, [])
    assert not set(kept) & {problem.id for problem in problems}


def test_all_filters_of_a_configuration(write_set, tmp_path):
    fitting = {
        "platform": "atcoder",
        "difficulty": "hard",
        "contest_date": "2024-08-01T00:00:00",
        "question_content": "Add.",
    }
    name = write_set(
        "own",
        kept=fitting,
        platform=fitting | {"platform": "leetcode"},
        difficulty=fitting | {"difficulty": "easy"},
        date=fitting | {"contest_date": "2024-07-31T00:00:00"},
        tests=fitting | {"private_test_cases": "[]"},
        abc337_e=fitting,
        length=fitting | {"question_content": "Add. " * 9},
        rate=fitting,
        held_out=fitting | {"split": "validation"},
    )
    graded = tmp_path / "graded.jsonl"
    rows = [("kept", True), ("kept", False), ("rate", False), ("rate", False)]
    graded.write_text("".join(json.dumps({"id": i, "passed": p}) + "\n" for i, p in rows))
    data = Data(
        name=name,
        platforms=("atcoder",),
        difficulties=("hard",),
        dates="2024-08-01..",
        min_tests=2,
        graded=str(graded),
        pass_rates=(0.5, 1.0),
        max_prompt_tokens=40,
    )
    shares, notes = chosen(data)
    assert shares == [(name, 1.0, ["kept"])]
    assert notes == [
        f"1 of 8 problems of {name} are trained on; left out: "
        "1 whose platform is not among data.platforms=atcoder, "
        "1 whose difficulty is not among data.difficulties=hard, "
        "1 without a contest date in data.dates='2024-08-01..', "
        "1 with fewer tests than data.min_tests=2, "
        "1 in LiveCodeBench's errata (--data.keep-errata uses them), "
        "1 with a prompt of more than data.max_prompt_tokens=40 tokens, "
        "1 with a pass rate outside data.pass_rates=0.5,1.0"
    ]


def test_no_filter_but_errata_and_length_by_default():
    reasons = [filter.reason for filter in training_filters(Data(), encode)]
    assert reasons == [
        "in LiveCodeBench's errata (--data.keep-errata uses them)",
        "with a prompt of more than data.max_prompt_tokens=384 tokens",
    ]
    assert len(training_filters(Data(keep_errata=True), encode)) == 1


def test_a_mixture_of_sets(write_set):
    """Filters hold for all sets; a platform that they ask for may be in one of them only."""
    one = write_set("one", a1={"platform": "p"}, a2={"platform": "q"}, a3={"platform": "r"})
    two = write_set("two", b1={"platform": "p"}, b2={"platform": "p"})
    data = Data(name="unknown", mix=((one, 3), (two, 1.0)), platforms=("p", "q"))
    shares, notes = chosen(data)
    assert shares == [(one, 3, ["a1", "a2"]), (two, 1.0, ["b1", "b2"])]
    assert notes == [
        f"2 of 3 problems of {one} are trained on; left out: "
        "1 whose platform is not among data.platforms=p,q"
    ]
    mixture = training_problems(data, encode, [], notes.append)
    batches = itertools.islice(problem_batches(mixture, 8, seed=0), 3)
    for batch in batches:
        assert Counter(problem.id[0] for problem in batch) == {"a": 6, "b": 2}


def test_the_longest_prompt_is_of_a_problem_that_is_trained_on(write_set):
    """Not of one too long, of another platform, or in a set read later."""
    text = {n: {"platform": "p", "question_content": "x" * n} for n in (3, 20, 9, 50)}
    one = write_set("one", a=text[9], b=text[50], c=text[20] | {"platform": "q"})
    two = write_set("two", d=text[3], e=text[3])
    most = len(encode(problem_source(one, "train", skip_bad=False, notice=print)[0]))
    for mix in (((one, 1.0), (two, 1.0)), ((two, 1.0), (one, 1.0))):
        data = Data(mix=mix, platforms=("p",), max_prompt_tokens=most + 20)
        assert training_problems(data, encode, [], print).longest_prompt == most


@pytest.mark.parametrize(
    ("weights", "message"),
    [((1.0, 0.0), "weight 0.0 for"), ((math.inf, 1.0), "weight inf for")],
)
def test_bad_weights(write_set, weights, message):
    sets = [write_set("one", a={}), write_set("two", b={})]
    with pytest.raises(UserError, match=message):
        chosen(Data(mix=tuple(zip(sets, weights, strict=True))))


def test_a_set_that_comes_twice(write_set):
    name = write_set("one", a={})
    with pytest.raises(UserError, match=r"one\.jsonl' more than once"):
        chosen(Data(mix=((name, 1.0), (name, 2.0))))


def test_a_set_that_is_left_empty_is_named(write_set):
    one, two = write_set("one", a={"difficulty": "hard"}), write_set("two", b={})
    with pytest.raises(UserError, match=r"No problem of .*two\.jsonl is left of 1: 1 whose diff"):
        chosen(Data(mix=((one, 1.0), (two, 1.0)), difficulties=("hard",)))


def test_rows_that_cannot_be_used(write_set):
    name = write_set("own", bad={"metadata": "{"}, good={})
    with pytest.raises(UserError, match=r"line 1 .*'bad'.*metadata is not JSON"):
        chosen(Data(name=name))
    shares, notes = chosen(Data(name=name, skip_bad=True))
    assert shares == [(name, 1.0, ["good"])]
    assert sum("line 1 " in note and "metadata is not JSON" in note for note in notes) == 1


TRAIN = {
    "same_id": {"question_content": "Print one."},
    "a": {"question_content": "Print the sum of two."},
    "b": {"question_content": LONG, "difficulty": "hard"},
    "c": {"question_content": "Print the product of two."},
}
HELD_OUT = [
    posed("other", "Reverse a text."),
    posed("same_id", "Print two."),
    posed("x", "  print the SUM of two!"),
    posed("y", LONGER),
    posed("z", "Print: the product of two"),
]


def test_an_overlap_is_refused(write_set):
    name = write_set("own", **TRAIN)
    with pytest.raises(UserError) as refused:
        chosen(Data(name=name), HELD_OUT)
    assert str(refused.value) == (
        "4 problems to train on are, or are like, problems held out for evaluation, "
        "so evaluation would be meaningless: 'same_id' and 'same_id' have the same id; "
        "'a' and 'x' have the same text; "
        "'b' and 'y' share the words 'count the ways to tile a board of n rows with dominoes of'; "
        "and 1 more. Evaluate on another set with eval.data, leave these problems out (with "
        "data.dates, for example), or pass --data.allow-overlap to use them anyway."
    )


def test_an_overlap_that_is_allowed_is_noted(write_set):
    name = write_set("own", **TRAIN)
    shares, notes = chosen(Data(name=name, allow_overlap=True), HELD_OUT)
    assert shares == [(name, 1.0, list(TRAIN))]
    assert notes == [
        "4 problems to train on are, or are like, problems held out for evaluation; they are used, "
        "as data.allow_overlap asks"
    ]


def test_a_filter_removes_an_overlap(write_set):
    """What is not trained on cannot overlap."""
    name = write_set("own", **TRAIN)
    with pytest.raises(UserError, match=r"^1 problems .*'b' and 'y' share"):
        chosen(Data(name=name), HELD_OUT[3:4])
    shares, notes = chosen(Data(name=name, difficulties=("easy",)), HELD_OUT[3:4])
    assert shares == [(name, 1.0, ["same_id", "a", "c"])]
    assert notes[1:] == []


def test_overlaps_are_looked_for_in_all_sets(write_set):
    one, two = write_set("one", p={}), write_set("two", q={"question_content": LONG})
    with pytest.raises(UserError, match=r"^1 problems .*'q' and 'y' share"):
        chosen(Data(mix=((one, 0.9), (two, 0.1))), HELD_OUT)


def test_no_overlap_is_not_mentioned():
    notes = []
    refuse_overlap([posed("a", "Print one.")], HELD_OUT, False, notes.append)
    refuse_overlap([posed("same_id", "Print one.")], [], False, notes.append)
    assert notes == []


@pytest.mark.parametrize(
    ("train", "held_out", "count"),
    [
        (["Print one."], ["Print one!", "PRINT one"], 1),
        (["Print one.", "print one", "Print two."], ["Print One"], 2),
    ],
)
def test_problems_to_train_on_are_counted_not_pairs(train, held_out, count):
    notes = []
    refuse_overlap(
        [posed(f"train {n}", prompt) for n, prompt in enumerate(train)],
        [posed(f"held out {n}", prompt) for n, prompt in enumerate(held_out)],
        True,
        notes.append,
    )
    assert [int(note.partition(" ")[0]) for note in notes] == [count]


def test_a_place_is_gone_on_from_in_the_same_problems_only(write_set):
    """Two batches are taken, and then the next ones again; an added row is another stream."""
    rows = {f"p{i}": {} for i in range(5)}
    data = Data(name=write_set("mine", **rows), max_prompt_tokens=10_000)

    def begun():
        mixture = training_problems(data, encode, [], print)
        return problem_batches(mixture, 2, seed=3), mixture

    batches, mixture = begun()
    for _ in range(2):
        next(batches)
    position = json.loads(json.dumps(position_of(batches, mixture)))
    wanted = [[p.id for p in next(batches)] for _ in range(4)]
    again, mixture = begun()
    restore_position(again, mixture, position)
    assert [[p.id for p in next(again)] for _ in range(4)] == wanted
    write_set("mine", **rows, more={})
    with pytest.raises(UserError, match="not those that the run began with"):
        restore_position(*begun(), position)


def test_problems_are_chosen_without_reading_their_tests(write_set, monkeypatch):
    """They may be gigabytes; only data.min_tests asks for them."""
    name = write_set("set", a={}, b={"platform": "x"}, c={"difficulty": "hard"})

    def refuse(self, index):
        raise AssertionError("a problem was read with its tests")

    data = Data(name=name, difficulties=("easy",), dates="2020-01-01..2030-01-01")
    with monkeypatch.context() as patch:
        patch.setattr(ProblemSource, "__getitem__", refuse)
        mixture = training_problems(data, encode, [posed("held out", LONG)], print)
        with pytest.raises(AssertionError, match="with its tests"):
            training_problems(replace(data, min_tests=1), encode, [], print)
    (share,) = training_problems(data, encode, [], print).shares
    assert share.source.indices == mixture.shares[0].source.indices == (0, 1)
    assert [share.source[i].id for i in range(2)] == ["a", "b"]
    assert all(share.source[i].tests for i in range(2))
