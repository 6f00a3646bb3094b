"""Files that are appended to: whole lines whatever happens, one writer, in order when replaced."""

import json
import os
import resource

import pytest

from rlif_jax.storage.jsonl import JsonlFile, json_line, whole_lines

ROWS = [{"n": n, "text": "é\ud800" * n} for n in range(3)]


def rows(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_rows_are_appended_to_what_is_there(tmp_path):
    path = tmp_path / "a.jsonl"
    for row in ROWS:
        with JsonlFile(path, lock=True) as file:
            file.append(row)
            assert file.size == path.stat().st_size
            assert list(file.lines()) == path.read_bytes().splitlines(keepends=True)
    assert rows(path) == ROWS
    with JsonlFile(path) as file:
        file.replace(ROWS[::-1])
    assert rows(path) == ROWS[::-1]
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_a_last_line_that_was_cut_short_is_told_apart(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = b"".join(map(json_line, ROWS))
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with JsonlFile(path) as file:
            kept = list(whole_lines(file.lines()))
            assert len(kept) == whole[:cut].count(b"\n")
            file.truncate(sum(map(len, kept)))
            for row in ROWS[len(kept) :]:
                file.append(row)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("room", [1, 7, 11])
def test_a_write_that_fails_is_undone(tmp_path, room):
    """The limit on file sizes stands for the disk: it takes a part of a row."""
    path = tmp_path / "a.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with JsonlFile(path) as file:
        file.append(ROWS[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.size + room, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                file.append(ROWS[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert rows(path) == ROWS[:1]
        file.append(ROWS[1])
    assert rows(path) == ROWS[:2]


def test_a_number_that_is_not_finite_is_refused_and_nothing_written(tmp_path):
    with JsonlFile(tmp_path / "a.jsonl") as file:
        with pytest.raises(ValueError, match="not JSON compliant"):
            file.append({"n": float("nan")})
        assert file.size == 0


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonlFile(path, lock=True), pytest.raises(BlockingIOError):
        JsonlFile(path, lock=True)
    with JsonlFile(path, lock=True), JsonlFile(path) as unlocked:
        assert unlocked.size == 0


def test_lines_in_ascii_or_in_characters():
    row = {"text": "é\ud800"}
    assert json_line(row) == b'{"text": "\\u00e9\\ud800"}\n'
    assert json_line(row, ascii_only=False) == '{"text": "é\\ud800"}\n'.encode()
    assert json.loads(json_line(row, ascii_only=False)) == row
