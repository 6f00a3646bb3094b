"""Models from the Hub: the real client, in a process of its own, against a local server."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.servers import HubServer

from rlif_jax.errors import UserError
from rlif_jax.weights.hub_model import fetch_model

REPO = "org/tiny-model"
INDEX = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
WANTED = {
    "config.json": b'{"model_type": "qwen2"}',
    "generation_config.json": b"{}",
    "model-1-of-2.safetensors": bytes(range(256)) * 400,
    "model-2-of-2.safetensors": bytes(range(255)) * 4000,
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"a": 1}',
    "special_tokens_map.json": b'{"b": 2}',
    "vocab.json": b'{"c": 3}',
    "merges.txt": b"a b",
    "tokenizer.model": b"sentencepiece",
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/tools.jinja": b"{{ tools }}",
    "LICENSE": b"terms",
    "NOTICE.txt": b"whose work it is",
}
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"the weights again",
    "consolidated.00.pth": b"and again",
    "original/consolidated.safetensors": b"and again",
    "original/tokenizer.model": b"again",
    "original/LICENSE": b"again",
    "onnx/model.onnx": b"graph",
    "onnx/config.json": b"{}",
    "README.md": b"card",
    ".gitattributes": b"lfs",
}
PROGRAM = """
import json, sys
from rlif_jax.errors import UserError
from rlif_jax.storage import hub
from rlif_jax.weights.hub_model import fetch_model
hub.SECONDS_BETWEEN_LINES = 0.05
try:
    folder = fetch_model(sys.argv[1])
    print(json.dumps({"path": str(folder.path), "revision": folder.revision}))
except UserError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def hub():
    with HubServer(REPO, WANTED | UNWANTED) as server:
        yield server


@pytest.fixture
def fetch(hub, tmp_path):
    """fetch_model in a new process, since the client reads its environment once."""

    def run(source=f"hf:{REPO}", stderr=subprocess.PIPE, first="", **variables) -> dict:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSF"))}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), **variables}
        program = [sys.executable, "-c", first + PROGRAM, source]
        done = subprocess.run(program, env=environment, stdout=subprocess.PIPE, stderr=stderr)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) | {"stderr": (done.stderr or b"").decode()}

    return run


def files_in(path: str) -> dict[str, bytes]:
    names = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    return {os.path.relpath(name, path): open(name, "rb").read() for name in names}


def test_only_what_a_model_needs_is_fetched_and_the_commit_is_told(hub, fetch):
    result = fetch()
    assert result["revision"] == hub.commit
    assert files_in(result["path"]) == WANTED
    assert sorted(hub.fetched()) == sorted(WANTED)
    assert fetch(f"hf:{REPO}@{hub.commit}")["path"] == result["path"]
    assert len(hub.fetched()) == len(WANTED)


def test_what_the_cache_holds_is_enough_without_the_hub(hub, fetch):
    first = fetch(f"hf:{REPO}@main")
    asked = len(hub.requests)
    offline = fetch(HF_HUB_OFFLINE="1")
    assert (offline["path"], offline["revision"]) == (first["path"], hub.commit)
    assert len(hub.requests) == asked
    unreachable = fetch(HF_ENDPOINT="http://127.0.0.1:9")
    assert (unreachable["path"], unreachable["revision"]) == (first["path"], hub.commit)
    assert "using the copy in" in unreachable["stderr"]
    hub.refused["api"] = (503, None)
    assert fetch()["path"] == first["path"]


@pytest.mark.parametrize("how", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_the_hub_and_the_cache_the_remedies_are_named(fetch, how):
    error = fetch(**how)["error"]
    for word in (f"hf:{REPO}", "cannot get", "--model.source /path/to/folder", "hf download"):
        assert word in error


def test_a_cache_that_misses_a_shard_is_not_used(hub, fetch):
    hub.refused["model-2-of-2.safetensors"] = (500, None)
    assert "500" in fetch()["error"]
    assert "does not hold the whole" in fetch(HF_HUB_OFFLINE="1")["error"]


def test_a_cache_without_a_listing_is_held_against_its_index(fetch):
    """As clients leave it that keep no listing of a repository beside its files."""
    snapshot = Path(fetch()["path"])
    shutil.rmtree(snapshot.parent.parent / "trees")
    assert fetch(HF_HUB_OFFLINE="1")["path"] == str(snapshot)
    (snapshot / "LICENSE").unlink()  # as of a client that fetches none
    assert fetch(HF_HUB_OFFLINE="1")["path"] == str(snapshot)
    (snapshot / "model-2-of-2.safetensors").unlink()
    assert "does not hold the whole" in fetch(HF_HUB_OFFLINE="1")["error"]


@pytest.mark.parametrize("index", [None, b"{}", b"[1]", b'{"weight_map": {"a": 1}}'])
def test_a_cache_of_numbered_files_without_their_index_is_not_used(fetch, index):
    """Only the index tells how many of them belong together."""
    snapshot = Path(fetch()["path"])
    shutil.rmtree(snapshot.parent.parent / "trees")
    path = snapshot / "model.safetensors.index.json"
    path.unlink()
    if index is not None:
        path.write_bytes(index)
    (snapshot / "model-2-of-2.safetensors").unlink()
    assert "does not hold the whole" in fetch(HF_HUB_OFFLINE="1")["error"]
    (snapshot / "model-1-of-2.safetensors").rename(snapshot / "model.safetensors")
    path.unlink(missing_ok=True)
    assert fetch(HF_HUB_OFFLINE="1")["path"] == str(snapshot)


@contextlib.contextmanager
def answering(body: bytes) -> Iterator[str]:
    """The address of a server that answers everything with this page."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ANSWERS = (b"<html>Welcome to the hotel</html>", b"\xff\xfe", b"", b"null", b'{"a": 1}')


@pytest.mark.parametrize("body", ANSWERS)
def test_an_answer_that_is_not_of_the_hub(fetch, body):
    """Such as the page where a network asks to log in: the cache is used, or a remedy is told."""
    with answering(body) as page:
        error = fetch(HF_ENDPOINT=page)["error"]
        for word in (f"hf:{REPO}", "is not the Hub", "log in", "--model.source /path/to/folder"):
            assert word in error
        first = fetch()
        again = fetch(HF_ENDPOINT=page)
    assert (again["path"], again["revision"]) == (first["path"], first["revision"])
    assert "using the copy in" in again["stderr"]


def test_a_broken_connection_is_resumed_where_it_broke(hub, fetch):
    """The client writes what it receives in pieces of ten mebibytes: whole pieces are kept."""
    name = "model-2-of-2.safetensors"
    hub.files[name] = bytes(range(251)) * 100_000
    hub.drop[name] = 15_000_000
    result = fetch()
    assert files_in(result["path"]) == WANTED | {name: hub.files[name]}
    assert hub.ranges(name) == [None, f"bytes={10 << 20}-"]


def test_a_second_call_fetches_only_the_files_that_were_not_whole(hub, fetch):
    name = "model-2-of-2.safetensors"
    hub.refused[name] = (500, None)
    error = fetch()["error"]
    assert "500" in error and "--model.source" in error
    asked = set(hub.fetched()) - {name}
    assert "model-1-of-2.safetensors" in asked
    hub.refused.clear()
    before = len(hub.fetched())
    assert files_in(fetch()["path"]) == WANTED
    again = hub.fetched()[before:]
    assert name in again and not set(again) & (asked - {name})


def test_unknown_repository(fetch):
    error = fetch("hf:org/absent")["error"]
    for word in ("no model org/absent", "private", "HF_TOKEN", "--model.source"):
        assert word in error


def test_unknown_revision_even_with_another_in_the_cache(fetch):
    fetch()
    error = fetch(f"hf:{REPO}@v9")["error"]
    for word in ("'v9'", REPO, "/tree/main"):
        assert word in error


@pytest.mark.parametrize("where", ["api", "config.json"])
@pytest.mark.parametrize("status", [401, 403])
def test_gated_repository_says_how_to_be_let_in(hub, fetch, where, status):
    hub.refused[where] = (status, "GatedRepo")
    error = fetch()["error"]
    for word in ("gated", f"{hub.url}/{REPO}", "accept", "HF_TOKEN", "--model.source"):
        assert word in error


def test_a_token_that_may_not_read(hub, fetch):
    hub.refused["api"] = (403, None)
    error = fetch(HF_TOKEN="hf_wrong")["error"]
    assert "403" in error and "HF_TOKEN" in error


def test_no_safetensors_is_refused_before_anything_is_fetched(hub, fetch):
    hub.files = {n: c for n, c in hub.files.items() if not n.startswith("model")}
    error = fetch()["error"]
    for word in (f"hf:{REPO}", "no safetensors", "consolidated", "--model.source"):
        assert word in error
    assert hub.fetched() == []


def test_a_repository_without_a_config_is_refused(hub, fetch):
    del hub.files["config.json"]
    assert "config.json" in fetch()["error"]
    assert hub.fetched() == []


def test_too_little_room_is_told_before_the_download(hub, fetch):
    hub.sizes["model-2-of-2.safetensors"] = 10**18
    error = fetch()["error"]
    for word in ("1000000", "MB are free", "HF_HOME", "--model.source"):
        assert word in error
    assert hub.fetched() == []


def test_a_disk_that_takes_no_more_is_told(fetch):
    """A limit on the size of files stands for a full disk: write() fails in the same place."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    error = fetch(first=limit)["error"]
    for word in ("cannot store", "File too large", "HF_HOME"):
        assert word in error


def test_a_cache_that_cannot_be_written_names_the_remedy(fetch, tmp_path):
    (tmp_path / "file").write_text("a file where the folder should be")
    error = fetch(HF_HOME=str(tmp_path / "file" / "hf"))["error"]
    for word in ("cannot store", str(tmp_path / "file"), "HF_HOME", "--model.source"):
        assert word in error


MALFORMED = ("foo", "a/b/c", "", "a/b@", "a/", "/b", "a b/c", "a/b@../../x", "a/b@v 1", "a/b--c")


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_names(name):
    source = f"hf:{name}"
    with pytest.raises(UserError, match="hf:ORG/NAME@REVISION") as error:
        fetch_model(source)
    assert repr(source) in str(error.value)


def test_plain_lines_in_a_pipe(hub, fetch, tmp_path):
    """One file is held back until the line that tells of the others is there."""
    held = hub.wait["model-1-of-2.safetensors"] = threading.Event()
    log, arrived = tmp_path / "stderr", f"downloaded 1 of 1 MB of hf:{REPO}"

    def watch() -> None:
        while arrived not in log.read_text().splitlines() and not held.wait(0.05):
            pass
        held.set()

    with log.open("w") as stderr:
        watcher = threading.Thread(target=watch)
        watcher.start()
        fetch(stderr=stderr)
        held.set()
        watcher.join()
    lines = log.read_text().splitlines()
    assert any(line.startswith(f"downloading hf:{REPO} (1 MB) to ") for line in lines)
    assert arrived in lines
    assert not any("%|" in line for line in lines)
    assert "download" not in fetch()["stderr"]


def test_bars_on_a_terminal(fetch):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    fetch(stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # a terminal without a writer has ended
        pass
    os.close(ours)
    assert b"100%" in shown and b"downloading hf:" not in shown
