"""The study's kind of problems, from rows of Eurus-2-RL-Data as its parquet files hold them."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from configs.paper.problems import main
from rlif_jax.data.sets.named import problem_source

REQUEST = (
    "\n\nWrite Python code to solve the problem. Present the code in \n"
    "```python\nYour code\n```\nat the end."
)


def row(index: int, source: str, statement: str, tests: dict | str) -> dict:
    return {
        "data_source": source,
        "prompt": [
            {"content": "You reason in steps.", "role": "system"},
            {"content": f"{statement}{REQUEST}", "role": "user"},
        ],
        "ability": "code",
        "reward_model": {
            "ground_truth": tests if isinstance(tests, str) else json.dumps(tests),
            "style": "rule",
        },
        "extra_info": {"index": index, "split": "train"},
    }


PROGRAM = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
ROWS = [
    row(0, "codecontests", "Add two numbers.", PROGRAM),
    row(1, "taco", "Of another source.", PROGRAM),
    row(2, "codeforces", "Double it.", {"inputs": ["2\n"], "outputs": ["4\n"]}),
    row(3, "codeforces", "A function.", {"inputs": [[1]], "outputs": [2], "fn_name": "f"}),
    row(4, "codecontests", "Double it.", PROGRAM),
    row(5, "codecontests", "Without tests.", {"inputs": [], "outputs": []}),
    row(6, "codecontests", "Broken.", "{"),
    row(7, "numina_olympiads", "A sum.", "4"),
    {
        **row(8, "codeforces", "Think.", PROGRAM),
        "prompt": [
            {
                "content": f"Think.{REQUEST}\nYou need to think first then write the Python code.",
                "role": "user",
            }
        ],
    },
]


@pytest.fixture
def files(tmp_path):
    """Two parquet files, with structs and lists as the published ones have them."""
    parts = [tmp_path / "train-0.parquet", tmp_path / "train-1.parquet"]
    for path, rows in zip(parts, (ROWS[:4], ROWS[4:]), strict=True):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return parts


def test_programs_of_both_sources_become_problems(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "paper_problems.jsonl"
    main([*map(str, files), f"--out={out}"])
    source = problem_source(f"jsonl:{out}")
    problems = [source[i] for i in range(len(source))]
    assert [(p.id, p.prompt, p.metadata["platform"]) for p in problems] == [
        ("eurus2/train/0", "Add two numbers.", "codecontests"),
        ("eurus2/train/2", "Double it.", "codeforces"),
        ("eurus2/train/8", "Think.", "codeforces"),
    ]
    assert [(t.input, t.output) for t in problems[0].tests] == [("1 2\n", "3\n"), ("3 4\n", "7\n")]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"3 problems in {out}"
    assert set(said[1:]) == {
        "left out: 2 that cannot be judged",
        "left out: 1 that ask for a function",
        "left out: 1 that repeat another",
    }


def test_another_file_is_refused_and_leaves_nothing(tmp_path, capsys):
    path, out = tmp_path / "other.parquet", tmp_path / "out.jsonl"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"question": "?"}]), path)
    for wrong in (path, tmp_path / "missing.parquet"):
        with pytest.raises(SystemExit) as end:
            main([str(wrong), f"--out={out}"])
        assert end.value.code == 2
        assert f"{wrong} is not a parquet file of Eurus-2-RL-Data" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [path]
