"""LiveCodeBench by name: files of the official format, tags, windows, and the judge on them."""

import base64
import json
import os
import pickle
import re
import zlib
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from rlif_jax.config import Execution
from rlif_jax.data.errata import erratum_reason
from rlif_jax.data.formats.livecodebench import problem_from_row
from rlif_jax.data.sets.livecodebench import FILES, TAGS, is_livecodebench, parse_name
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge

ADDED = (400, 111, 101, 101, 167, 175)  # by each release


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for the tests of this file, which read the same sets under many names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLIF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_tags_are_those_of_the_official_script():
    """Written out as in code_generation_lite.py: releases, then versions and their ranges."""
    official = {
        "release_v1": "1",
        "release_v2": "12",
        "release_v3": "123",
        "release_v4": "1234",
        "release_v5": "12345",
        "release_v6": "123456",
        "release_latest": "123456",
    }
    for first in range(1, 7):
        official[f"v{first}"] = str(first)
        for last in range(first + 1, 7):
            official[f"v{first}_v{last}"] = "123456"[first - 1 : last]
    assert list(FILES) == ["test.jsonl", *(f"test{n}.jsonl" for n in (2, 3, 4, 5, 6))]
    assert set(TAGS) == set(official)
    for tag, numbers in official.items():
        expected = tuple(FILES[int(number) - 1] for number in numbers)
        assert parse_name(f"livecodebench:{tag}").files == expected
    assert len(official) == 7 + 6 + 15


def test_names():
    everything = parse_name("livecodebench")
    assert everything.files == FILES
    assert everything.window is None
    assert everything.location == "hf:livecodebench/code_generation_lite"
    paper = parse_name("livecodebench_v5@gs://bucket/lcb")
    assert paper.files == FILES[:5]
    assert paper.window == (date(2024, 8, 1), date(2025, 2, 1))
    assert paper.location == "gs://bucket/lcb"
    dated = parse_name("livecodebench:..2024-01-31@hf:me/copy@v2")
    assert (dated.files, dated.window) == (FILES, (None, date(2024, 1, 31)))
    assert dated.location == "hf:me/copy@v2"
    for name in ("livecodebench", "livecodebench_v5", "livecodebench_v9", "livecodebench@x"):
        assert is_livecodebench(name)
    for name in ("livecodebench.jsonl", "livecodebench/test.jsonl", "livecodebenches", "starter"):
        assert not is_livecodebench(name)


@pytest.mark.parametrize(
    "name",
    [
        "livecodebench_v6",
        "livecodebench:",
        "livecodebench:v7",
        "livecodebench:v3_v3",
        "livecodebench:v4_v2",
        "livecodebench:release_v0",
        "livecodebench_v5:v5",
        "livecodebench:latest@/data",
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(name):
    with pytest.raises(UserError, match=r"Unknown problem set .*livecodebench:v4_v6 \(a range"):
        problem_source(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("livecodebench:2024-13-01..", "'2024-13-01' in the window .* is not a day"),
        ("livecodebench:2025-01-01..2024-01-01", "ends before it begins"),
        ("livecodebench:..", "not a window of dates"),
        ("livecodebench:v1@", "ends in @ without a place; write livecodebench:v1@FOLDER"),
    ],
)
def test_windows_and_places_that_are_none(name, message):
    with pytest.raises(UserError, match=message):
        problem_source(name)


def packed(text: str) -> str:
    """Private tests as the official files have them."""
    return base64.b64encode(zlib.compress(pickle.dumps(text))).decode()


def write_release(folder: Path, number: int, rows: list[dict]) -> Path:
    """The file of one release, counted from 1."""
    path = folder / FILES[number - 1]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def contest_days() -> list[date]:
    """Days of 1,055 problems by release, chosen so that the paper's window has 279 of 880.

    The last 279 problems of the first five releases are in it, at both of its ends, too, and the
    day before it and the day after it have one each. Of the sixth release 44 are in it.
    """
    first, last = date(2024, 8, 1), date(2025, 2, 1)
    before = [first - timedelta(days=1 + number % 400) for number in range(600)]
    within = [first + timedelta(days=number % 185) for number in range(279)]
    assert {first, last} == {min(within), max(within)}
    after = [last - timedelta(days=number % 30) for number in range(44)]
    after += [last + timedelta(days=1 + number % 60) for number in range(131)]
    return [*before, last + timedelta(days=1), *within, *after]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A folder of six files with 1,055 dated rows, and the days."""
    folder, days = tmp_path_factory.mktemp("lcb"), contest_days()
    assert len(days) == 1055
    tests = json.dumps([{"input": "1", "output": "1", "testtype": "stdin"}])
    rows = [
        {
            "question_title": f"Problem {number}",
            "question_content": "Echo.",
            "platform": ("leetcode", "codeforces", "atcoder")[number % 3],
            "question_id": f"q{number}",
            "contest_id": "c",
            "contest_date": f"{day}T00:00:00" if number % 2 else f"{day}T23:30:00",
            "starter_code": "",
            "difficulty": ("easy", "medium", "hard")[number % 3],
            "public_test_cases": tests,
            "private_test_cases": packed(tests) if number % 2 else tests,
            "metadata": "{}",
        }
        for number, day in enumerate(days)
    ]
    for number, added in enumerate(ADDED, start=1):
        write_release(folder, number, [rows.pop(0) for _ in range(added)])
    return folder, days


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("livecodebench", 1055),
        ("livecodebench:release_latest", 1055),
        ("livecodebench:release_v1", 400),
        ("livecodebench:release_v2", 511),
        ("livecodebench:release_v3", 612),
        ("livecodebench:release_v4", 713),
        ("livecodebench:release_v5", 880),
        ("livecodebench:release_v6", 1055),
        ("livecodebench:v1", 400),
        ("livecodebench:v3", 101),
        ("livecodebench:v6", 175),
        ("livecodebench:v4_v6", 443),
        ("livecodebench:v1_v2", 511),
        ("livecodebench_v5", 279),
        ("livecodebench:2024-08-01..2025-02-01", 279 + 44),
        ("livecodebench:..2024-07-31", 600),
        ("livecodebench:2025-02-02..", 1 + 131),
    ],
)
def test_counts_of_a_synthetic_index(index, name, count):
    folder, _ = index
    for role in ("validation", "train"):
        source = problem_source(f"{name}@{folder}", role)
        assert len(source) == count
    assert len({source.entry(i).id for i in range(count)}) == count
    for i in (0, count - 1):
        assert source[i].id == source.entry(i).id
        assert source[i].metadata["contest_date"] == source.entry(i).contest_date


def test_a_window_has_its_days_in_order_and_both_ends(index):
    folder, days = index
    source = problem_source(f"livecodebench_v5@{folder}", "validation")
    expected = [
        f"q{number}"
        for number, day in enumerate(days[:880])
        if date(2024, 8, 1) <= day <= date(2025, 2, 1)
    ]
    assert [source.entry(i).id for i in range(len(source))] == expected
    dates = Counter(source.entry(i).contest_date[:10] for i in range(len(source)))
    assert dates["2024-08-01"] == dates["2024-08-02"] == 2
    assert dates["2025-02-01"] == 1


def test_releases_are_built_once_and_shared_by_all_names(index):
    folder, _ = index
    for name in ("livecodebench", "livecodebench_v5", "livecodebench:v2"):
        problem_source(f"{name}@{folder}")
    built = sorted(Path(os.environ["RLIF_CACHE"], "datasets").iterdir())
    stems = [path.name.rpartition("-")[0] for path in built]
    assert [stem for stem in stems if stem.startswith("test")] == [Path(f).stem for f in FILES]


def test_window_without_problems(index):
    folder, _ = index
    with pytest.raises(UserError, match=r"is empty: its 1055 problems are .*2023-06.* to 2025-04-"):
        problem_source(f"livecodebench:2020-01-01..2020-12-31@{folder}")


def test_missing_release_file_is_named(index, tmp_path):
    folder, _ = index
    for name in FILES[:3]:
        (tmp_path / name).symlink_to(folder / name)
    assert len(problem_source(f"livecodebench:v1_v3@{tmp_path}")) == 612
    with pytest.raises(UserError) as refusal:
        problem_source(f"livecodebench_v5@{tmp_path}")
    for text in (str(tmp_path), "has no file test4.jsonl", "livecodebench/code_generation_lite"):
        assert text in str(refusal.value)


@pytest.fixture
def official_rows(make_row):
    """Two rows for each release: programs and functions, private tests plain and packed."""

    def row(number: int, function: bool) -> dict:
        kind = "functional" if function else "stdin"
        cases = [(f"{a}\n{b}", str(a + b)) for a, b in ((3, 4), (-1, 1), (10**12, number))]
        tests = [{"input": i, "output": o, "testtype": kind} for i, o in cases]
        private = json.dumps(tests[1:])
        return make_row(
            f"{'f' if function else 's'}{number}",
            func_name="add" if function else None,
            platform="leetcode" if function else "atcoder",
            starter_code="class Solution:\n    def add(self, a: int, b: int) -> int:\n        "
            if function
            else "",
            public_test_cases=json.dumps(tests[:1]),
            private_test_cases=packed(private) if number % 2 else private,
        )

    return {number: [row(number, False), row(number, True)] for number in range(1, 7)}


SOLUTIONS = {
    False: "print(int(input()) + int(input()))",
    True: "class Solution:\n    def add(self, a, b):\n        return a + b\n",
}


def test_official_files_load_and_are_judged(official_rows, tmp_path):
    for number, rows in official_rows.items():
        write_release(tmp_path, number, rows)
    source = problem_source(f"livecodebench@{tmp_path}", "validation")
    problems = [source[i] for i in range(len(source))]
    assert problems == [problem_from_row(row) for rows in official_rows.values() for row in rows]
    assert [len(problem.tests) for problem in problems] == [3] * 12
    with Judge(Execution(workers=2, time_limit_s=6.0)) as judge:
        for right in (True, False):
            programs = [SOLUTIONS[problem.entry_point is not None] for problem in problems]
            if not right:
                programs = [program.replace("+", "-") for program in programs]
            futures = [judge.submit(p, code) for p, code in zip(problems, programs, strict=True)]
            assert [future.result().passed for future in futures] == [right] * 12


def test_errata_are_told_by_what_is_stored(official_rows, tmp_path):
    program, function = official_rows[1]
    program |= {"question_id": "abc337_e"}
    function |= {"question_id": "3194", "question_title": "find-words-containing-character"}
    write_release(tmp_path, 1, [program, function, official_rows[2][0]])
    source = problem_source(f"livecodebench:v1@{tmp_path}")
    reasons = [erratum_reason(source[i]) for i in range(3)]
    assert reasons[0] == "interactive"
    assert reasons[1].startswith("several answers")
    assert reasons[2] is None


class MakesFolder:
    """Creates a folder when its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_bad_rows_of_a_release(official_rows, tmp_path):
    rows = official_rows[2] + official_rows[3] + official_rows[4]
    pickled = base64.b64encode(zlib.compress(pickle.dumps(MakesFolder(tmp_path / "made")))).decode()
    not_json = json.dumps([{"input": "3, 4", "output": "7", "testtype": "functional"}])
    changes = {
        1: ({"private_test_cases": pickled}, "holds a pickle that is refused"),
        2: ({"contest_date": "2024-02-30T00:00:00"}, "contest_date is '2024-02-30T00:00:00', whi"),
        3: ({"contest_date": ""}, "contest_date is empty, by which windows are chosen"),
        4: ({"private_test_cases": packed("[{]")}, "private_test_cases is not JSON"),
        5: (
            {"private_test_cases": packed(not_json)},
            "test 2 .*'add' has '3, 4', which is not JSO",
        ),
    }
    for number, (change, message) in changes.items():
        path = write_release(tmp_path, 2, [*rows[:number], rows[number] | change])
        with pytest.raises(UserError, match=rf"test2\.jsonl line {number + 1} .*{message}"):
            problem_source(f"livecodebench:v2@{tmp_path}")
    for number, (change, _) in changes.items():
        rows[number] |= change
    path = write_release(tmp_path, 2, rows)
    told: list[str] = []
    source = problem_source(f"livecodebench:v2@{tmp_path}", skip_bad=True, notice=told.append)
    assert [source.entry(i).id for i in range(len(source))] == ["s2"]
    assert told[0].startswith("5 rows of ")
    assert [int(re.match(rf"{path} line (\d) ", m)[1]) for m in told[1:]] == [2, 3, 4, 5, 6]
    assert not (tmp_path / "made").exists()


def test_id_that_two_releases_have(official_rows, tmp_path):
    write_release(tmp_path, 1, official_rows[1])
    write_release(tmp_path, 2, [official_rows[2][0], official_rows[1][1]])
    pattern = r"test2\.jsonl line 2: the id 'f1' was already used at .*test\.jsonl line 2;"
    with pytest.raises(UserError, match=pattern):
        problem_source(f"livecodebench:release_v2@{tmp_path}")
    source = problem_source(f"livecodebench:release_v2@{tmp_path}", skip_bad=True)
    assert [source.entry(i).id for i in range(len(source))] == ["s1", "f1", "s2"]
    (message,) = source.skipped
    assert re.search(pattern, message)
