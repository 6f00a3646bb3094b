"""The certainty of each token of a step: what the file holds, and reading it."""

import numpy as np
import pytest

from rlif_jax.batch import TokenStats
from rlif_jax.config import Config
from rlif_jax.errors import UserError
from rlif_jax.run.log import RunLog
from rlif_jax.run.token_record import TokenRecord, read_token_record, recorded_at, token_file
from rlif_jax.storage.folder import folder_at

MASK_BC = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
STATS = TokenStats(
    logprob=np.array([[-0.5, 0.0, -1e4, 9], [9, 9, 9, 9], [-3e38, 9, 9, 9]], np.float32),
    entropy=np.array([[0.25, 11.75, 0.0, 9], [9, 9, 9, 9], [2.5, 9, 9, 9]], np.float32),
    self_certainty=np.array([[20.5, 99.0, 1e9, 9], [9, 9, 9, 9], [-1e9, 9, 9, 9]], np.float32),
    top1=np.array([[0.75, 0.5, 1.0, 9], [9, 9, 9, 9], [0.5, 9, 9, 9]], np.float32),
    top2=np.array([[0.25, 0.375, 0.0, 9], [9, 9, 9, 9], [0.5, 9, 9, 9]], np.float32),
)
ENDS = [np.array(ends, np.uint32) for ends in ([1, 1, 70_000], [], [0])]
EXPECTED = {
    "lengths": [3, 0, 1],
    "logprob": [-0.5, 0, -1e4, -65504],  # what float16 does not hold ends at its range
    "entropy": [0.25, 11.75, 0, 2.5],
    "self_certainty": [20.5, 99, 65504, -65504],
    "probability_disparity": [0.5, 0.125, 1, 0],
    "ends": [1, 1, 70_000, 0],
}


@pytest.mark.parametrize("place", ["here", "gs://runs/some/run"])
def test_the_file_has_the_tokens_of_all_rows_in_order(request, tmp_path, place):
    in_bucket = place.startswith("gs://")
    bucket = request.getfixturevalue("bucket") if in_bucket else None
    folder = folder_at(place if in_bucket else str(tmp_path / place))
    record = TokenRecord.of(STATS, MASK_BC, ENDS)
    with RunLog(folder, Config()) as log:
        log.tokens(20, record)
    if bucket is not None:
        assert "some/run/rollouts/step_000020.tokens.npz" in bucket.files
    with np.load(token_file(folder, 20).open("rb")) as arrays:
        assert {name: arrays[name].tolist() for name in arrays} == EXPECTED
        kinds = {name: arrays[name].dtype.name for name in arrays}
    assert kinds == dict.fromkeys(EXPECTED, "float16") | {"lengths": "uint32", "ends": "uint32"}
    read = read_token_record(folder, 20)
    assert read is not None
    assert {name: array.tolist() for name, array in vars(read).items()} == EXPECTED
    assert {name: array.dtype.name for name, array in vars(read).items()} == kinds
    assert read_token_record(folder, 10) is None
    assert read.encoded() == record.encoded()  # no time of day is in it


def test_a_row_is_a_record_of_its_own():
    record = TokenRecord.of(STATS, MASK_BC, ENDS)
    rows = [record.row(row) for row in range(3)]
    assert [row.lengths.tolist() for row in rows] == [[3], [0], [1]]
    assert [row.entropy.tolist() for row in rows] == [[0.25, 11.75, 0], [], [2.5]]
    assert [row.ends.tolist() for row in rows] == [[1, 1, 70_000], [], [0]]
    with pytest.raises(IndexError):
        record.row(3)


@pytest.mark.parametrize(
    ("every", "steps"), [(0, []), (1, [1, 2, 3, 4, 5, 6]), (3, [1, 3, 6]), (9, [1])]
)
def test_the_first_step_and_each_nth_are_recorded(every, steps):
    assert [step for step in range(1, 7) if recorded_at(every, step)] == steps


def test_a_damaged_file_is_named(tmp_path):
    path = token_file(tmp_path, 1)
    path.parent.mkdir()
    whole = TokenRecord.of(STATS, MASK_BC, ENDS).encoded()
    other = TokenRecord.of(STATS, MASK_BC, ENDS[:1]).encoded()
    for data in (b"", whole[:-30], whole.replace(b"entropy", b"Entropy"), other):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"step_000001.tokens.npz cannot be read: .*remove it"):
            read_token_record(tmp_path, 1)


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    with RunLog(tmp_path, Config()) as log:
        (tmp_path / "rollouts/step_000001.tokens.npz.tmp").mkdir()
        with pytest.raises(UserError, match=r"step_000001.tokens.npz could not be written"):
            log.tokens(1, TokenRecord.of(STATS, MASK_BC, ENDS))
    assert not token_file(tmp_path, 1).exists()
