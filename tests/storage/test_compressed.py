"""Files of rows that are compressed, whatever they are called, and files of other forms."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
from support.own_rows import own

from rlif_jax.data.findings import check_rows, usable_problems
from rlif_jax.data.formats.detect import problem_from_any
from rlif_jax.data.formats.lines import read_lines, read_rows
from rlif_jax.data.selection import read_pass_rates
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError
from rlif_jax.grading.inputs import ProblemFile, read_completions

ROWS = [own(f"p{n}", prompt=f"{n} " + "long " * 500) for n in range(40)]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("name", ["set.jsonl.gz", "set.jsonl", "set"])
@pytest.mark.parametrize("form", COMPRESS)
def test_rows_are_read_whatever_the_name(tmp_path, form, name):
    path, plain = tmp_path / name, tmp_path / "plain"
    path.write_bytes(COMPRESS[form](LINES))
    plain.write_bytes(LINES)
    assert [row for _, row in read_rows(path)] == ROWS
    found = [(offset, line) for _, offset, line in read_lines(path, "problems")]
    assert found == [(offset, line) for _, offset, line in read_lines(plain, "problems")]


def test_a_file_in_several_parts_and_without_a_last_newline(tmp_path):
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(LINES) + gzip.compress(b'\n{"id": "last"}'))
    assert [row for _, row in read_rows(path)] == [*ROWS, {"id": "last"}]


def test_problem_sets_and_the_check_read_them(tmp_path, monkeypatch):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(LINES))
    problems = list(map(problem_from_any, ROWS))
    for name in (str(path), f"jsonl:{path}"):
        source = problem_source(name)
        assert [source[i] for i in range(len(source))] == problems
    assert check_rows(path)[0] == []
    assert list(usable_problems(path, {3, 30})) == [(3, problems[2]), (30, problems[29])]


@pytest.mark.parametrize("form", COMPRESS)
def test_grading_looks_problems_up_in_any_order(tmp_path, form):
    path = tmp_path / "problems"
    lines = LINES.splitlines(keepends=True)
    blank = b"".join(line + b"\n  \n" * (n % 3) for n, line in enumerate(lines))
    path.write_bytes(COMPRESS[form](blank.rstrip()))
    file = ProblemFile(path)
    for n in [39, 0, 20, 5, 38, 19, 1, 39, *range(40), *reversed(range(40))]:
        assert file[f"p{n}"] == problem_from_any(ROWS[n])
    completions = tmp_path / "completions"
    completions.write_bytes(
        COMPRESS[form](b'{"id": "p7", "code": "x"}\n{"id": "p0", "code": null}')
    )
    assert [c.id for c in read_completions(completions, file)] == ["p7", "p0"]


def test_gradings_are_read(tmp_path):
    path = tmp_path / "graded"
    path.write_bytes(gzip.compress(b'{"id": "a", "passed": true}\n{"id": "a", "passed": false}\n'))
    assert read_pass_rates(path) == {"a": 0.5}


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_data_is_one_sentence(tmp_path, form, damage):
    path = tmp_path / "set.jsonl.gz"
    data = bytearray(COMPRESS[form](os.urandom(20_000).hex().encode()))
    if damage == "cut":
        del data[-100:]
    else:
        data[5000:5200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"set\.jsonl\.gz is compressed, and its data is damaged"):
        list(read_lines(path, "problems"))


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("set.jsonl"), io.BytesIO(b""))
    return data.getvalue()


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("set.jsonl", LINES)
    return data.getvalue()


OTHERS = {
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "is compressed with Zstandard.*: zstd -d "),
    "parquet": (b"PAR1\x15\x04", "is a Parquet file"),
    "zip": (zipped(), "is a zip archive.*unpack it: unzip "),
    "tar": (tar(), "is a tar archive.*unpack it: tar xf "),
    "tar.gz": (gzip.compress(tar()), "is a tar archive"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
}


@pytest.mark.parametrize("form", OTHERS)
def test_other_forms_are_named_in_one_sentence(tmp_path, monkeypatch, form):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    data, message = OTHERS[form]
    path = tmp_path / "a set.jsonl"
    path.write_bytes(data)
    for read in (check_rows, ProblemFile, lambda p: problem_source(str(p), skip_bad=True)):
        with pytest.raises(UserError, match=message) as refusal:
            read(path)
        assert str(refusal.value).count(str(path)) <= 2 and "\n" not in str(refusal.value)


def test_one_compressed_array_is_refused_with_a_command_that_splits_it(tmp_path):
    path = tmp_path / "set.json.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    with pytest.raises(UserError, match="it is one JSON array") as refusal:
        list(read_rows(path))
    _, _, command = str(refusal.value).partition("new file: ")
    shell = f"alias python={sys.executable}\n{command}"
    subprocess.run(["bash", "-O", "expand_aliases", "-c", shell], check=True)
    assert [row for _, row in read_rows(tmp_path / "set_rows.jsonl")] == ROWS
