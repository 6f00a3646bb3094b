"""Paths of local folders and of buckets, and what is said when a bucket refuses."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.buckets import pointed_at

from rlif_jax.config import Config
from rlif_jax.errors import Outage, UserError
from rlif_jax.storage.folder import bucket_errors, folder_at, from_bucket, is_folder
from rlif_jax.storage.whole_file import write_whole

RUN = "gs://runs/some/run"


def test_a_configuration_names_a_folder_of_either_kind():
    assert Config(name="mine").folder == Path("runs/mine")
    assert Config(run_dir="/data/mine").folder == Path("/data/mine")
    remote = Config(run_dir=RUN).folder
    assert str(remote / "metrics.jsonl") == f"{RUN}/metrics.jsonl"


def test_without_gcsfs_the_package_to_install_is_named(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gcsfs" else there(name)
    )
    with pytest.raises(UserError, match=rf"{RUN} is in a bucket.*pip install 'rlif_jax\[gcs\]'"):
        folder_at(RUN)
    assert folder_at("runs/mine") == Path("runs/mine")


def test_whole_files_of_any_size_and_their_folders(bucket):
    run = folder_at(RUN)
    assert not is_folder(run)
    large = bytes(range(256)) * 50_000  # more than one request
    for name, data in {"config.json": b"{}\n", "empty": b"", "rollouts/step_1": large}.items():
        write_whole(run / name, data)
        assert bucket.files[f"some/run/{name}"] == (run / name).read_bytes() == data
    assert is_folder(run) and is_folder(run / "rollouts") and not is_folder(run / "checkpoints")
    names = [path.name for path in run.iterdir()]
    assert sorted(names) == ["config.json", "empty", "rollouts"]


def test_what_others_write_or_remove_is_seen_at_once(bucket):
    run = folder_at(RUN)
    write_whole(run / "one", b"1")
    assert [path.name for path in run.iterdir()] == ["one"]
    bucket.files["some/run/two"] = b"2"
    assert (run / "two").read_bytes() == b"2"
    del bucket.files["some/run/one"]
    assert [path.name for path in run.iterdir()] == ["two"]
    assert not (run / "one").exists()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            401,
            r"the bucket refuses access \(denied, 401\)\. Log in with `gcloud",
        ),
        (
            403,
            r"the bucket refuses access \(Forbidden: .*denied\)\. .*Storage Legacy Bucket Reader on gs://r",
        ),
        (409, r"a request failed \(refused, 409\)\. Check the network"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_remedy(bucket, status, said):
    bucket.status = status
    with (
        pytest.raises(UserError, match=rf"^{RUN} cannot be used: {said}") as refusal,
        bucket_errors(RUN),
    ):
        is_folder(folder_at(RUN))
    assert isinstance(refusal.value, Outage) == (status == 409)


def test_a_server_that_cannot_be_reached(monkeypatch, caplog):
    import gcsfs.retry

    async def at_once(seconds: float) -> None:
        pass

    monkeypatch.setattr(gcsfs.retry, "asyncio", SimpleNamespace(sleep=at_once))
    pointed_at(monkeypatch, "http://127.0.0.1:9")
    with (
        pytest.raises(Outage, match=r"a request failed \(Cannot connect to host .* network"),
        bucket_errors(RUN),
    ):
        is_folder(folder_at(RUN))
    assert caplog.records == []  # no traceback beside the sentence


def test_faults_that_are_not_the_buckets_pass():
    for error in (ValueError("x"), FileNotFoundError("x"), OSError("x"), KeyError("x")):
        assert not from_bucket(error)
        with pytest.raises(type(error)), bucket_errors(RUN):
            raise error
    with pytest.raises(OSError, match="Forbidden"), bucket_errors("runs/mine"):
        raise OSError("Forbidden: of a local folder")
    assert "tensorflow" not in sys.modules  # with which etils would use another client
