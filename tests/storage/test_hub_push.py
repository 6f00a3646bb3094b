"""Pushing a folder to the Hub: the real client, in a process of its own, to a local server."""

import json
import os
import subprocess
import sys

import pytest
from support.writable_hub import TOKEN, WritableHub

REPO = "org/trained"
FILES = {
    "README.md": b"---\ntags:\n- rlif_jax\n---\n\n# trained\n",
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(range(256)) * 2000,
    "additional_chat_templates/tools.jinja": b"{{ tools }}",
}
PROGRAM = """
import json, sys, time
time.sleep = lambda seconds: None  # the client waits between its tries
from pathlib import Path
from rlif_jax.errors import UserError
from rlif_jax.storage.hub_push import push, pushable
try:
    folder, target, private = sys.argv[1:]
    again = "`hf upload` sends it as well."
    pushed = push(Path(folder), pushable(target), private == "private", "Push", again)
    print(json.dumps({"lines": pushed.lines()}))
except UserError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "trained" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "trained"


@pytest.fixture
def send(folder, tmp_path):
    def run(hub, target=f"hf:{REPO}", private="", **variables) -> dict:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSF"))}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN}
        environment |= {"HF_HUB_DISABLE_XET": "1", **variables}
        program = [sys.executable, "-c", PROGRAM, str(folder), target, private]
        done = subprocess.run(program, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_new_repository_has_the_files_in_one_commit(send):
    with WritableHub(REPO) as hub:
        lines = send(hub)["lines"]
        assert hub.files.pop(".gitattributes")
        assert hub.files == FILES and hub.messages == ["Push"] and not hub.private
        assert lines[0] == f"pushed to {hub.url}/{REPO} at commit {hub.commit}:"
        assert [line.split() for line in lines[1:]] == [
            ["README.md", "36", "bytes"],
            ["additional_chat_templates/tools.jinja", "11", "bytes"],
            ["config.json", "23", "bytes"],
            ["model.safetensors", "0.5", "MB"],
        ]


def test_what_was_there_is_replaced_in_the_same_commit(send):
    before = {".gitattributes": b"lfs", "model-00001-of-00002.safetensors": b"old"}
    with WritableHub(REPO, before | {"README.md": b"old", "config.json": b"old"}) as hub:
        lines = send(hub)["lines"]
        assert hub.files == FILES | {".gitattributes": b"lfs"} and len(hub.messages) == 1
        assert lines[-1] == "removed what was there before: model-00001-of-00002.safetensors"


def test_a_private_one_is_made_but_a_public_one_is_not_written(send):
    with WritableHub(REPO) as hub:
        send(hub, private="private")
        assert hub.private
    with WritableHub(REPO, {"a": b"b"}) as hub:
        error = send(hub, private="private")["error"]
        assert "exists and is public" in error and hub.files == {"a": b"b"}


@pytest.mark.parametrize("cut", ["lfs", "preupload", "commit"])
def test_a_server_that_dies_in_the_middle_leaves_what_was_there(send, cut):
    with WritableHub(REPO, {"README.md": b"old"}) as hub:
        hub.cut.add(cut)
        error = send(hub)["error"]
        assert hub.files == {"README.md": b"old"} and not hub.messages
        assert f"cannot push to hf:{REPO}" in error and error.endswith("sends it as well.")
        hub.cut.clear()
        send(hub)
        assert hub.files == FILES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"HF_TOKEN": "hf_bad"}, ["HTTP status 401", "is not valid: make another on http"]),
        ({"HF_TOKEN": ""}, ["without a token", "hf auth login", "HF_TOKEN"]),
        ({"HF_HUB_OFFLINE": "1"}, ["while HF_HUB_OFFLINE is set"]),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, ["the connection to http://127.0.0.1:9 failed"]),
        ({"target": "hf:other/trained"}, ["HTTP status 403", "the right to write to other/train"]),
        ({"target": "hf:trained"}, ["'hf:trained' is not of the form hf:ORG/NAME"]),
        ({"target": "hf:org/a--b"}, ["'hf:org/a--b' is not of the form hf:ORG/NAME"]),
        ({"target": "org/trained"}, ["--push-to org/trained is not of the form hf:ORG/NAME"]),
        ({"target": f"hf:{REPO}@dev"}, ["it is a repository's main branch"]),
    ],
)
def test_what_cannot_be_pushed_is_refused_with_a_remedy(send, change, words):
    with WritableHub(REPO) as hub:
        error = send(hub, **change)["error"]
        assert [word for word in words if word not in error] == [], error
        assert not hub.exists


def test_a_token_that_may_read_only_leaves_the_repository(send):
    with WritableHub(REPO, {"README.md": b"old"}) as hub:
        hub.may_write = False
        error = send(hub)["error"]
        assert "403 (no right to write)" in error and "nothing was pushed" in error
        assert hub.files == {"README.md": b"old"}
