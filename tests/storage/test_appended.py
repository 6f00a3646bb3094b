"""Files that grow: what an append leaves, and what happens when it fails or is not alone."""

import pytest

from rlif_jax.errors import UserError
from rlif_jax.storage.appended import appended
from rlif_jax.storage.folder import folder_at

RECORDS = (b"first\n", b"", b"\x00second\xff" * 1000, b"third\n")
OBJECT = "gs://runs/a/metrics.jsonl"


@pytest.fixture(params=["local", "bucket"])
def path(request, tmp_path, bucket):
    return folder_at(str(tmp_path / "grows") if request.param == "local" else OBJECT)


def test_what_is_appended_is_there_at_once(path):
    file, whole = appended(path), b""
    for record in RECORDS:
        file.append(record)
        whole += record
        assert path.read_bytes() == whole
    file.close()


def test_what_was_there_before_stays(path):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"before\n")
    file = appended(path)
    file.append(b"after\n")
    file.close()
    assert path.read_bytes() == b"before\nafter\n"


def test_an_object_is_replaced_by_one_upload_for_each_append(bucket):
    file = appended(folder_at(OBJECT))
    assert bucket.writes == []
    for record in RECORDS:
        file.append(record)
    assert bucket.writes == ["a/metrics.jsonl"] * len(RECORDS)


def test_a_refused_append_leaves_the_object_and_the_next_does_not_repeat_it(bucket):
    file = appended(folder_at(OBJECT))
    file.append(b"1\n")
    bucket.answers = [403]
    with pytest.raises(OSError, match="PERMISSION_DENIED: denied"):
        file.append(b"2\n")
    assert bucket.files["a/metrics.jsonl"] == b"1\n"
    file.append(b"3\n")
    assert bucket.files["a/metrics.jsonl"] == b"1\n3\n"


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_is_asked_again(bucket, status):
    file = appended(folder_at(OBJECT))
    file.append(b"1\n")
    bucket.answers = [status]
    file.append(b"2\n")
    assert bucket.files["a/metrics.jsonl"] == b"1\n2\n"


def test_an_append_whose_reply_was_lost_is_not_taken_for_another_process(bucket):
    file = appended(folder_at(OBJECT))
    bucket.lost = 1
    file.append(b"1\n")
    assert bucket.writes == ["a/metrics.jsonl"]
    file.append(b"2\n")
    assert bucket.files["a/metrics.jsonl"] == b"1\n2\n"


@pytest.mark.parametrize("before", [b"", b"0\n"])
def test_of_two_processes_the_second_to_append_is_refused(bucket, before):
    if before:
        bucket.files["a/metrics.jsonl"] = before
    one, two = appended(folder_at(OBJECT)), appended(folder_at(OBJECT))
    one.append(b"1\n")
    with pytest.raises(UserError, match="another run writes into the same folder"):
        two.append(b"2\n")
    assert bucket.files["a/metrics.jsonl"] == before + b"1\n"


def test_an_object_that_was_removed_is_not_written_anew(bucket):
    file = appended(folder_at(OBJECT))
    file.append(b"1\n")
    bucket.files.clear()
    with pytest.raises(UserError, match="is not as this process left it"):
        file.append(b"2\n")
    assert bucket.files == {}
