"""Release files in a folder, in a bucket and on the Hub, the latter two on local servers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.servers import BucketServer, HubServer

from rlif_jax.data.sets.release_files import release_files
from rlif_jax.errors import UserError

REPO = "livecodebench/code_generation_lite"
FILES = {"test.jsonl": b"one\n" * 1000, "test2.jsonl": b"two\n"}
NAMES = tuple(FILES)


def contents(paths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in map(Path, paths)}


def test_folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    assert contents(release_files(str(tmp_path), NAMES, "")) == FILES
    with pytest.raises(UserError, match=rf"{tmp_path.name} has no file test3\.jsonl; fetch it"):
        release_files(str(tmp_path), (*NAMES, "test3.jsonl"), "fetch it")
    (tmp_path / "test3.jsonl.gz").touch()
    paths = release_files(str(tmp_path), (*NAMES, "test3.jsonl"), "fetch it")
    assert [path.name for path in paths] == [*NAMES, "test3.jsonl.gz"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("absent", "absent does not exist; name the folder that holds test.jsonl"),
        ("file", "file is a file, not a folder"),
        ("s3://bucket/x", "s3://bucket/x is neither a local folder nor gs://BUCKET/FOLDER nor hf:"),
        ("hf:", "'hf:' is not of the form hf:ORG/NAME"),
        ("hf:a/b@", "'hf:a/b@' is not of the form"),
        ("hf:a/b/c", "'hf:a/b/c' is not of the form hf:ORG/NAME"),
        ("gs://", "'gs://' is not a place in a bucket .*; write gs://BUCKET/PATH"),
        ("gs://Bad_Bucket!/x", "'gs://Bad_Bucket!/x' is not a place in a bucket"),
    ],
)
def test_places_that_are_none(tmp_path, monkeypatch, location, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        release_files(location, NAMES, "")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    objects = {f"sets/lcb/{name}": content for name, content in FILES.items()}
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", os.devnull)
    with BucketServer("some-bucket", objects) as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        yield server


LOCATION = "gs://some-bucket/sets/lcb"


def test_bucket_is_copied_once_and_again_when_written_anew(bucket, tmp_path):
    assert contents(release_files(LOCATION, NAMES, "")) == FILES
    whole = [(f"sets/lcb/{name}", 0, len(content)) for name, content in FILES.items()]
    assert bucket.reads == whole
    bucket.reads.clear()
    assert contents(release_files(f"{LOCATION}/", NAMES, "")) == FILES
    assert bucket.reads == []
    bucket.files["sets/lcb/test2.jsonl"] = b"new\n"
    paths = release_files(LOCATION, NAMES, "")
    assert contents(paths) == FILES | {"test2.jsonl": b"new\n"}
    assert all(path.is_relative_to(tmp_path / "cache") for path in paths)
    assert bucket.reads == [("sets/lcb/test2.jsonl", 0, 4)]
    assert not [path for path in (tmp_path / "cache").rglob(".download-*")]


def test_bucket_without_the_file_or_without_permission(bucket):
    with pytest.raises(UserError, match=r"lcb has no file test3\.jsonl; fetch it"):
        release_files(LOCATION, ("test3.jsonl",), "fetch it")
    bucket.status = 403
    with pytest.raises(
        UserError, match=r"cannot read test\.jsonl in gs:.*PERMISSION_DENIED.*gclou"
    ):
        release_files(LOCATION, NAMES, "")


def test_bucket_and_a_cache_that_cannot_be_written(bucket, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot store test\.jsonl of gs:.*RLIF_CACHE"):
        release_files(LOCATION, NAMES, "")


class _DataSets(HubServer.handler):
    """The pages of data sets, which are those of models under other paths; main is the commit."""

    def do_GET(self):
        path = self.path.replace("/api/datasets/", "/api/models/", 1)
        path = path.replace(f"/datasets/{self.owner.repo}/", f"/{self.owner.repo}/", 1)
        self.path = path.replace("/resolve/main/", f"/resolve/{self.owner.commit}/", 1)
        super().do_GET()


class Hub(HubServer):
    """One repository of data."""

    handler = _DataSets


PROGRAM = """
import json, sys
from rlif_jax.data.sets.release_files import release_files
from rlif_jax.errors import UserError
try:
    print(json.dumps([str(p) for p in release_files(sys.argv[1], sys.argv[2:], "fetch it")]))
except UserError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def hub():
    with Hub(REPO, FILES) as server:
        yield server


@pytest.fixture
def fetch(hub, tmp_path):
    """release_files in a new process, since the client reads its environment once."""

    def run(location=f"hf:{REPO}", names=NAMES, **variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hub"),
            "PYTHONPATH": ROOT,
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, location, *names],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def about(hub) -> list[str]:
    """The requests about the repository; the client has others of its own."""
    return [f"{how} {path}" for how, path, _ in hub.requests if REPO in path]


def test_hub_is_asked_for_each_file_once(hub, fetch):
    paths = fetch()
    assert contents(paths) == FILES
    assert hub.commit in paths[0]
    hub.requests.clear()
    assert fetch() == paths
    assert about(hub) == [f"GET /api/models/{REPO}/revision/main"]
    hub.requests.clear()
    assert fetch(HF_HUB_OFFLINE="1") == paths
    assert fetch(HF_ENDPOINT="http://127.0.0.1:9") == paths
    assert about(hub) == []


def test_hub_refusals(hub, fetch):
    message = fetch(names=("test.jsonl", "test7.jsonl"))
    assert message == f"hf:{REPO} has no file test7.jsonl; fetch it"
    message = fetch(f"hf:{REPO}@v9")
    assert message.startswith(f"{REPO} has no revision 'v9'")
    message = fetch("hf:nobody/nothing")
    assert message.startswith("the Hub has no data set nobody/nothing, or it is private")
    message = fetch(names=("test2.jsonl",), HF_HUB_OFFLINE="1")
    assert message.startswith(f"cannot get hf:{REPO} from the Hub")
    assert f"hf download {REPO} test2.jsonl " in message and "fetch it" in message
    hub.refused["test2.jsonl"] = (503, None)
    message = fetch()
    assert message.startswith(f"the Hub refused hf:{REPO} with HTTP status 503")
    assert "test2.jsonl" in message and "fetch it" in message
    hub.refused["api"] = (403, "GatedRepo")
    assert fetch().startswith(f"hf:{REPO} is gated: accept its terms on {hub.url}/datasets/{REPO}")
