"""The samples of an evaluation on disk: written as they come, gone on from, in order at the end."""

import json

import pytest

from rlif_jax.errors import UserError
from rlif_jax.evaluation.sample_file import SampleFile

ABOUT = {"model": "m", "n": 2, "limit": None}
ROWS = [{"problem": p, "sample": s, "passed": p == s} for p in range(3) for s in range(2)]


def opened(path, about=ABOUT):
    return SampleFile(path, about, problems=3, samples=2, needed=("passed",))


def written(path, rows):
    with opened(path) as file:
        for row in rows:
            file.write(row)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_written_stays_and_is_put_in_order_at_the_end(tmp_path):
    path = tmp_path / "s.jsonl"
    shuffled = [ROWS[i] for i in (4, 0, 5, 2, 1, 3)]
    written(path, shuffled[:2])
    assert lines(path) == [ABOUT, *shuffled[:2]]
    with opened(path) as file:
        assert file.rows == {(2, 0): ROWS[4], (0, 0): ROWS[0]}
        for row in shuffled[2:]:
            file.write(row)
        file.finish()
    assert lines(path) == [ABOUT, *ROWS]
    with opened(path) as file:
        assert list(file.rows) == [(p, s) for p in range(3) for s in range(2)]


def test_every_place_in_which_a_file_may_be_cut_short(tmp_path):
    path = tmp_path / "s.jsonl"
    written(path, ROWS[:2])
    whole = path.read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(whole) if byte == ord("\n"))]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = sum(start <= cut for start in starts[2:])
        with opened(path) as file:
            assert len(file.rows) == kept, cut
            for row in ROWS[kept:2]:
                file.write(row)
        assert path.read_bytes() == whole, cut


def test_one_without_samples_takes_other_arguments(tmp_path):
    path = tmp_path / "s.jsonl"
    written(path, [])
    with opened(path, ABOUT | {"n": 3}) as file:
        assert file.rows == {}
    assert lines(path) == [ABOUT | {"n": 3}]


def test_what_an_older_version_did_not_say_counts_as_the_default(tmp_path):
    path = tmp_path / "s.jsonl"
    older = ABOUT | {"limits": {"a": 1}}
    now = ABOUT | {"limits": {"a": 1, "b": 2}, "new": 3}
    path.write_text("\n".join(map(json.dumps, (older, ROWS[0]))) + "\n")
    before = path.read_bytes()
    for defaults, message in (
        ({"limits": {"a": 0, "b": 2}, "new": 0}, "new is 3 and was 0"),
        ({"limits": {"a": 0, "b": 0}, "new": 3}, "'b': 2} and was {'a': 1, 'b': 0}"),
        ({}, "new is 3 and was None"),
    ):
        with pytest.raises(UserError, match=message):
            SampleFile(path, now, 3, 2, defaults=defaults)
        assert path.read_bytes() == before
    with SampleFile(path, now, 3, 2, defaults={"limits": {"a": 0, "b": 2}, "new": 3}) as file:
        assert file.rows == {(0, 0): ROWS[0]}
        file.finish()
    assert lines(path) == [now, ROWS[0]]


def test_a_lone_surrogate_comes_back(tmp_path):
    written(tmp_path / "s.jsonl", [ROWS[0] | {"completion": "a\ud800é"}])
    with opened(tmp_path / "s.jsonl") as file:
        assert file.rows[0, 0]["completion"] == "a\ud800é"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(ABOUT | {"n": 3}) + "\n" + json.dumps(ROWS[0]) + "\n", "n is 2 and was 3"),
        (json.dumps(ABOUT | {"more": 1}) + "\n", "more is None and was 1"),
        ("[]\n", "line 1 is not a JSON object"),
        ("no json\n", "line 1 is not a JSON object"),
        ("something without an end", "not a file of samples"),
        (
            json.dumps(ABOUT) + '\n{"problem": 3, "sample": 0, "passed": true}\n',
            "line 2 is not one of its samples",
        ),
        (json.dumps(ABOUT) + '\n{"problem": 0, "sample": 0}\n', "line 2 is not one of its samples"),
        (
            json.dumps(ABOUT) + '\n{"problem": 0, "sample": true, "passed": true}\n',
            "line 2 is not one of",
        ),
        ("\n".join(map(json.dumps, (ABOUT, ROWS[0], ROWS[0]))) + "\n", "line 3 is not one of"),
    ],
)
def test_a_file_of_others_is_refused_and_left(tmp_path, text, message):
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        opened(path)
    assert path.read_text() == text


def test_two_at_once_and_places_that_cannot_be_written(tmp_path):
    path = tmp_path / "s.jsonl"
    with opened(path), pytest.raises(UserError, match="in use by another evaluation"):
        opened(path)
    with pytest.raises(UserError, match=r"no/s\.jsonl cannot be written"):
        opened(tmp_path / "no" / "s.jsonl")
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        opened(tmp_path)
