"""The lines of JSONL files, and the refusal of files that are not right."""

import json
import subprocess
import sys

import pytest

from rlif_jax.data.formats.lines import read_rows
from rlif_jax.errors import UserError


def test_read_rows_names_file_and_line(tmp_path):
    file = tmp_path / "set.jsonl"
    # A line separator inside a string is legal JSON and must not split the row.
    file.write_text('{"a": "x\u2028y"}\n\n  \n{"b": "2"}', encoding="utf-8")
    assert list(read_rows(file)) == [
        (f"{file} line 1", {"a": "x\u2028y"}),
        (f"{file} line 4", {"b": "2"}),
    ]


@pytest.mark.parametrize("line", [b"{'a': 1}", b'{"a": "\xff"}', b"{", b"[" * 200_000])
def test_line_that_is_not_json(tmp_path, line):
    file = tmp_path / "set.jsonl"
    file.write_bytes(b"{}\n" + line)
    with pytest.raises(UserError, match=r"set\.jsonl line 2: not a JSON object in UTF-8"):
        list(read_rows(file))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["set.json", "it's a set.jsonl"])
@pytest.mark.parametrize("before", ["", "\n \t\n ", "\ufeff"])
def test_one_json_array_is_refused_with_a_command_that_splits_it(tmp_path, indent, name, before):
    rows = [{"id": "a", "text": "x\u2028y"}, {"id": "b", "half": "\ud800", "n": [1.5, None]}]
    file = tmp_path / name
    file.write_text(before + json.dumps(rows, indent=indent) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        list(read_rows(file))
    said, _, command = str(refusal.value).partition(": python -c ")
    assert said.startswith(f"{file} begins with '[': it is one JSON array") and len(said) < 400
    shell = f"alias python={sys.executable}\npython -c {command}"
    subprocess.run(["bash", "-O", "expand_aliases", "-c", shell], check=True)
    (written,) = set(tmp_path.iterdir()) - {file}
    assert [row for _, row in read_rows(written)] == rows


def test_only_what_comes_first_tells_an_array(tmp_path):
    file = tmp_path / "set.jsonl"
    file.write_text("{}\n[1]")
    assert [row for _, row in read_rows(file)] == [{}, [1]]


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        list(read_rows(tmp_path / "none.jsonl"))
