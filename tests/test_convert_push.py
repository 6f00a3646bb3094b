"""`convert --push-to`: a run's checkpoint on the Hub, by the command that users call."""

import json
import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from huggingface_hub import ModelCard
from support import ROOT
from support.small_runs import config, metrics
from support.writable_hub import TOKEN, WritableHub

from rlif_jax.convert import Arguments, convert, convert_and_push
from rlif_jax.errors import UserError
from rlif_jax.train import main as train
from rlif_jax.weights.source import load_model

REPO = "org/trained"
TOKENS = np.arange(3, 40).reshape(1, -1)
LOAD = """
import sys
import numpy as np
from rlif_jax import load_model
model, _ = load_model(sys.argv[1])
np.save(sys.argv[2], model.logits(np.arange(3, 40).reshape(1, -1)))
"""


@pytest.fixture(scope="module")
def run(flags, tmp_path_factory):
    """The folder of a run of one step that was evaluated."""
    folder = tmp_path_factory.mktemp("trained") / "small"
    arguments = [config("prob_disparity"), *flags, "--steps=1", "--optim.learning-rate=0.01"]
    train([*arguments, f"--run-dir={folder}", "--eval.every=1"])
    return folder


@pytest.fixture
def start(tmp_path):
    """Start a program with a Hub; its temporary folders are in tmp."""
    (tmp_path / "tmp").mkdir()

    def start(hub, *command: str) -> subprocess.Popen:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSF"))}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN}
        environment |= {"HF_HUB_DISABLE_XET": "1", "TMPDIR": str(tmp_path / "tmp")}
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def push(model, *more: str) -> list[str]:
    return ["-m", "rlif_jax.convert", f"--model={model}", f"--push-to=hf:{REPO}", *more]


def test_what_is_pushed_comes_back_and_gives_the_same_logits(run, start, tmp_path):
    with WritableHub(REPO) as hub:
        process = start(hub, *push(run, "--private"))
        printed, errors = process.communicate()
        assert process.returncode == 0, errors
        loaded = start(hub, "-c", LOAD, f"hf:{REPO}", str(tmp_path / "logits.npy"))
        assert loaded.communicate() and loaded.returncode == 0
    folder = convert(Arguments(str(run), str(tmp_path / "out"), push_to=f"hf:{REPO}"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.files.pop(".gitattributes") and hub.files == files and hub.private
    assert hub.messages == ["small, by rlif_jax"]
    lines = printed.splitlines()
    assert f"pushed to {hub.url}/{REPO} at commit {hub.commit}:" in lines
    assert re.search(r"^  model\.safetensors +[\d.]+ MB$", printed, re.MULTILINE)
    assert not list((tmp_path / "tmp").iterdir())
    model, _ = load_model(str(run))
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), model.logits(TOKENS))
    check_card(run, files["README.md"].decode(), str(tmp_path))


def check_card(run, text: str, home: str) -> None:
    """Its scores are those of the run's metrics, and nothing of it names a folder."""
    last = metrics(run)[-1]
    (found,) = [s for s in ModelCard(text).data.eval_results if s.metric_type == "avg@2"]
    assert found.metric_value == round(last["eval/adding/avg@2"], 4)
    assert found.dataset_name == "adding"
    recorded = json.loads((run / "config.json").read_text())
    assert recorded["model"]["source"].startswith("/") and "tiny.gguf after 1 steps" in text
    assert not re.search(r"[\s`\"(]/\w", text.replace(" / ", " ")) and home not in text
    assert 'load_model("hf:org/trained")' in text and 'from_pretrained("org/trained")' in text


@pytest.mark.parametrize("out", [False, True])
def test_a_signal_while_uploading_leaves_the_repository(run, start, tmp_path, out):
    more = [f"--out={tmp_path / 'kept'}"] if out else []
    with WritableHub(REPO, {"README.md": b"old"}) as hub:
        hub.hold = threading.Event()
        process = start(hub, *push(run, *more))
        assert hub.held.wait(240), process.communicate()
        process.send_signal(signal.SIGINT)
        hub.hold.set()
        printed, errors = process.communicate()
        assert hub.files == {"README.md": b"old"}
    assert process.returncode == 130 and "Traceback" not in errors
    assert not list((tmp_path / "tmp").iterdir())
    said = f"`hf upload {REPO} {tmp_path / 'kept'}` sends it" if out else "run the same command"
    assert "stopped; " in printed and said in printed
    assert (tmp_path / "kept" / "README.md").exists() == out


def test_what_cannot_be_asked_for_is_refused_before_anything_is_written(tiny_path, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match="--out DIR, or --push-to"):
        convert(Arguments(str(tiny_path)))
    with pytest.raises(UserError, match="--private is for the repository"):
        convert(Arguments(str(tiny_path), out, private=True))
    pushed = Arguments(str(tiny_path), out, push_to=f"hf:{REPO}")
    for change, said in (("orbax", "cannot be pushed"), ("huggingface", "hf:ORG/NAME")):
        with pytest.raises(UserError, match=said):
            changed = {"format": change, "push_to": pushed.push_to if change == "orbax" else "x"}
            convert_and_push(Arguments(str(tiny_path), out, **changed))
    assert not (tmp_path / "out").exists()


def test_a_card_of_an_earlier_convert_is_kept(run, tmp_path):
    first = convert(Arguments(str(run), str(tmp_path / "first")))
    again = convert(Arguments(str(first), str(tmp_path / "again"), push_to=f"hf:{REPO}"))
    assert (again / "README.md").read_bytes() == (first / "README.md").read_bytes()
    assert "# small\n" in (first / "README.md").read_text()


def test_a_run_that_cannot_be_read_is_converted_all_the_same(run, tmp_path, capsys):
    """Its weights need no config.json."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    (copy / "config.json").unlink()
    out = convert(Arguments(str(copy), str(tmp_path / "out")))
    assert "the model card says nothing of the run: " in capsys.readouterr().out
    text = (out / "README.md").read_text()
    assert "# out\n\nStep 1 of the run `copy`, written by rlif_jax" in text
    assert "## Method" not in text and "not trained" not in text
