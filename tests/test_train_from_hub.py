"""A run whose model comes from the Hub, in processes of its own, against a local server."""

import json
import os
import subprocess
import sys

import pytest
from support import ROOT
from support.servers import HubServer
from support.tiny import write_problems

from rlif_jax.convert import Arguments, convert

REPO = "org/tiny-model"


@pytest.mark.slow
def test_a_run_records_its_commit_and_resumes_from_it(tiny_path, tmp_path):
    """Train from the Hub for a step, then resume: the second start asks for the recorded commit."""
    folder = convert(Arguments(str(tiny_path), str(tmp_path / "model")))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    home = {"HF_HOME": str(tmp_path / "hf"), "RLIF_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "rlif_jax.train", f"--model.source=hf:{REPO}"]
    command += [f"--config={ROOT / 'configs' / 'random.py'}", f"--run-dir={tmp_path / 'run'}"]
    command += [f"--data.name={write_problems(tmp_path / 'adding.jsonl')}", "--eval.every=0"]
    command += ["--data.prompts-per-step=4", "--sampling.samples-per-prompt=2"]
    command += ["--sampling.max-new-tokens=8", "--checkpoint.every=1"]

    def train(steps: int, **variables) -> str:
        environment = os.environ | home | variables
        done = subprocess.run(
            [*command, f"--steps={steps}"], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    with HubServer(REPO, files) as hub:
        assert f"at commit {hub.commit}" in train(1, HF_ENDPOINT=hub.url)
        record = json.loads((tmp_path / "run" / "config.json").read_text())
        assert record["model"] == {"source": f"hf:{REPO}@{hub.commit}", "revision": hub.commit}
        hub.requests.clear()
        train(2, HF_ENDPOINT=hub.url)
        asked = {path for _, path, _ in hub.requests if path.startswith("/api/models")}
        assert asked == {f"/api/models/{REPO}/revision/{hub.commit}"}
    printed = train(3, HF_HUB_OFFLINE="1")
    assert "step 3/3" in printed and "step 1/3" not in printed
